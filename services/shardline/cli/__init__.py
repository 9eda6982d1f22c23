"""`shardline …`: the command line."""


def main() -> None:
    """Entry point of the `shardline` command."""
    # Here, so that importing the package costs nothing.
    from shardline.cli.app import app

    app()

"""`python -m shardline.cli`, where the `shardline` command is not on the PATH."""

from shardline.cli import main

if __name__ == "__main__":
    main()

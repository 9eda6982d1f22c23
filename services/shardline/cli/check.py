"""`shardline check`: does it answer? Also what `helm test` runs. Mounted by `app.py`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from shardline.cli.failure import Failure, one_line


def check(
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="HOST:PORT",
            help="Server to ask; kube:NAMESPACE for a release on Kubernetes. [default: the cluster running on this machine, else "
            "the one of the current kube context]",
            show_default=False,
        ),
    ] = None,
    models: Annotated[
        str, typer.Option(metavar="NAME,NAME", help="Ask these. [default: all that are ready, which may be none]")
    ] = "",
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0.001, help="Of each call.")] = 30.0,
) -> None:
    """Ask a server whether it lives, and each model for an answer to made-up input; fails where one gives none."""
    with one_line():
        from shardline.cli.call import call
        from shardline.cli.render import duration_text
        from shardline.local.samples import answer_to_sample
        from shardline.wire.client import CallFailed, InferenceClient

        named = [name.strip() for name in models.split(",") if name.strip()]

        async def ready(client: InferenceClient) -> list[str]:
            try:
                return sorted({entry.name for entry in await client.repository_index(ready=True)})
            except CallFailed as failure:
                if failure.status == "UNAVAILABLE":  # it lives, and has no replica: nothing is to be served yet
                    return []
                raise

        async def work(client: InferenceClient) -> None:
            if not await client.server_live():
                raise Failure("the server does not live")
            sys.stdout.write("server: lives\n")
            for name in named or await ready(client):
                answer = await answer_to_sample(client, name)
                sys.stdout.write(
                    f"model {name}: version {answer.version} answered in {duration_text(answer.latency_s)}\n"
                )

        call(url, timeout, work)

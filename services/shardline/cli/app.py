"""The commands and their options. What a command does is imported when it runs, so that `--help` is quick."""

from __future__ import annotations

from typing import Annotated

import typer

from shardline.cli.check import check
from shardline.cli.deploy import deploy
from shardline.cli.failure import one_line
from shardline.cli.plan import plan

app = typer.Typer(
    name="shardline",
    help="Serve ONNX models over gRPC: one command from a laptop to a cluster.",
    epilog="Start here: `shardline serve REPOSITORY`, then `shardline infer MODEL` in another terminal.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="HOST:PORT",
        help="Server to call; grpcs://HOST:PORT for TLS, kube:NAMESPACE for a release on Kubernetes. "
        "[default: the cluster running on this machine, else the one of the current kube context]",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables for people.")]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0.001, help="Deadline of the call.")]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)]


@app.command(epilog="Example: shardline serve ./models --replicas 2 --port 9001 --metrics-port 9002")
def serve(
    repository: Annotated[
        str,
        typer.Argument(metavar="REPOSITORY", help="Folder of models: MODEL/VERSION/model.onnx.", show_default=False),
    ],
    replicas: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=256, help="Processes that execute models. [default: 2]")
    ] = None,
    routers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=64, help="Processes that answer callers, on one port. [default: 1]"),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="auto|cpu|cuda|simulated", help="What models run on; auto: cuda, else cpu. [default: auto]"
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for the network. [default: 127.0.0.1]"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="gRPC port; 0: any free one. [default: 8001]"),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=-1,
            max=65535,
            help="Prometheus port of the first router, the next ones follow; 0: any free ones, -1: none. [default: 8002]",
        ),
    ] = None,
    front: Annotated[
        str | None,
        typer.Option(metavar="auto|grpcio|native", help="Server that callers reach; auto: the faster. [default: auto]"),
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Redis to use: redis://, rediss:// or unix://. [default: a private one is started]"
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the cluster, where several share one Redis. [default: default]"),
    ] = None,
    models: Annotated[str, typer.Option(metavar="NAME,NAME", help="Serve only these. [default: all]")] = "",
    stages: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=WHAT",
            help="Split a model over processes: into MODEL=3 stages, as few as fit the memory (MODEL=auto, MODEL=8Gi for one "
            "stage), or by the plan that `shardline plan --out` wrote (MODEL=FOLDER). May be repeated. [default: as its config "
            "says]",
            show_default=False,
        ),
    ] = None,
    stage_replicas: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=N,N",
            help="Replicas of each stage of a split model. May be repeated. [default: as the plan suggests where there are cores, "
            "else 1 each]",
            show_default=False,
        ),
    ] = None,
    plan_estimate: Annotated[
        bool, typer.Option("--plan-estimate", help="Guess a split model's times instead of measuring them.")
    ] = False,
    replica_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory that one replica may map, as 4Gi or 900Mi. [default: unlimited]"),
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Serve the good models where others are broken.")
    ] = False,
    start_timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=1, help="Longest time until every model is ready. [default: 300]"),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors and the table.")] = False,
    json_logs: Annotated[
        bool, typer.Option("--json-logs", help="Every log line of every process, as JSON, on standard error.")
    ] = False,
) -> None:
    """Run a cluster on this machine: Redis, routers and replicas.

    Starts everything, sends one real request to each model, prints a table and serves until Ctrl-C.
    Every option can also be given by the environment, as SHARDLINE_REPLICAS=4; so can all other settings.
    """
    with one_line():
        from shardline.cli.plan import parse_bytes
        from shardline.cli.serve import Output, Selection, serve_cluster

        flags = {
            "repository": repository,
            "replicas": replicas,
            "routers": routers,
            "device": device,
            "host": host,
            "port": port,
            "metrics_port": metrics_port,
            "front": front,
            "redis_url": redis,
            "cluster": cluster,
            "start_s": start_timeout,
            "replica_memory_bytes": None if replica_memory is None else parse_bytes(replica_memory),
        }
        names = tuple(name.strip() for name in models.split(",") if name.strip())
        selection = Selection(names, keep_going, tuple(stages or ()), tuple(stage_replicas or ()), plan_estimate)
        serve_cluster(flags, selection, Output.of(quiet=quiet, json_logs=json_logs))


@app.command(
    epilog="Examples: shardline infer digits · shardline infer digits --input pixels=@digit.npy --json · "
    "echo '{\"x\": [[1, 2]]}' | shardline infer sum --input -"
)
def infer(
    model: ModelArgument,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="NAME=VALUE",
            help="An input: NAME=@file.npy, NAME=@file.json, NAME=JSON, NAME=- (JSON on standard input); or just - for a "
            "JSON object of all inputs. May be repeated. [default: generated from the model's signature]",
            show_default=False,
        ),
    ] = None,
    version: Annotated[str, typer.Option(help="Version to ask for. [default: the latest]", show_default=False)] = "",
    url: Url = None,
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Send one request to a model and print its answer, with where the time went."""
    with one_line():
        from shardline.cli.call import run_infer

        run_infer(url, model, version, tuple(inputs or ()), timeout, as_json=as_json)


@app.command()
def models(url: Url = None, timeout: Timeout = 10.0, as_json: Json = False) -> None:
    """List the models of the repository: versions, state, inputs and outputs."""
    with one_line():
        from shardline.cli.call import run_models

        run_models(url, timeout, as_json=as_json)


@app.command()
def load(model: ModelArgument, url: Url = None, timeout: Timeout = 600.0) -> None:
    """Load a model, or load it anew from changed files; the old version serves until the new one is warm."""
    with one_line():
        from shardline.cli.call import run_load

        run_load(url, model, timeout)


@app.command()
def unload(model: ModelArgument, url: Url = None, timeout: Timeout = 60.0) -> None:
    """Unload a model: requests in flight are answered, new ones are refused."""
    with one_line():
        from shardline.cli.call import run_unload

        run_unload(url, model, timeout)


@app.command()
def status(
    redis: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Redis of the cluster. [default: of the one running here]", show_default=False
        ),
    ] = None,
    url: Url = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the cluster in its Redis. [default: default]", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show who is alive, how long the queues are and how the cluster is, from Redis."""
    with one_line():
        from shardline.cli.status import run_status

        run_status(redis, url, cluster, as_json=as_json)


app.command(epilog="Example: shardline check --url localhost:8001")(check)
app.command(epilog="Example: shardline deploy models/resnet50 --stages 2 --replicas 3")(deploy)
app.command(epilog="Example: shardline plan models/minilm --stages 2 --out stages")(plan)


@app.command()
def version() -> None:
    """Print the version."""
    from shardline import __version__

    typer.echo(f"shardline {__version__}")

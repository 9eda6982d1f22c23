"""`shardline plan`: how a model would be cut into stages, and the stages themselves. Mounted by `app.py`."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path  # noqa: TC003 (typer reads the annotations when it runs)
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from shardline.cli.failure import EXIT_USAGE, Failure, one_line
from shardline.core.errors import ServingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardline.partition.plan import Plan
    from shardline.partition.planning import PlanRequest

_BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_BITS = {"b/s": 1.0, "kb/s": 1e3, "Mb/s": 1e6, "Gb/s": 1e9, "Tb/s": 1e12}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


def plan(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="An .onnx file, or a model's folder.", show_default=False)
    ],
    stages: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="How many stages. [default: as few as fit the memory]")
    ] = None,
    memory_per_pod: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory of one pod, as 8Gi or 900Mi. [default: unlimited]")
    ] = None,
    batch: Annotated[int, typer.Option(metavar="ROWS", min=1, help="Rows per batch to plan for.")] = 1,
    dim: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SIZE", help="Size of another free dimension. May be repeated.")
    ] = None,
    input_file: Annotated[
        Path | None, typer.Option("--input", metavar="FILE.npz", help="Sample input. [default: made up]")
    ] = None,
    hop_bandwidth: Annotated[str, typer.Option(metavar="RATE", help="Between stages, in bits.")] = "10Gb/s",
    hop_latency: Annotated[str, typer.Option(metavar="TIME", help="Between stages.")] = "100us",
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="Threads that a stage will have.")] = 1,
    overhead: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory of a pod that no tensor can have. [default: 160Mi]")
    ] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Guess times from operations and bytes.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the plan, its picture and the stages here, verified.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Plan how a model is cut into stages for several pods, and write the stages.

    Reads the graph without its weights, times its nodes, and finds the stages whose slowest is fastest within the memory.
    """
    with one_line():
        if stages is None and memory_per_pod is None:
            raise Failure("say --stages N, or --memory-per-pod SIZE for as few stages as fit", EXIT_USAGE)
        from shardline.partition.planning import DEFAULT_OVERHEAD_BYTES, PlanRequest

        request = PlanRequest(
            stages=stages,
            memory_per_pod=None if memory_per_pod is None else parse_bytes(memory_per_pod),
            batch=batch,
            dims=dict(map(_parse_dim, dim or ())),
            samples=input_file,
            hop_bandwidth=_parse_unit(hop_bandwidth, _BITS, "10Gb/s") / 8,
            hop_latency_s=_parse_unit(hop_latency, _SECONDS, "100us"),
            estimate=estimate,
            threads=threads,
            overhead_bytes=DEFAULT_OVERHEAD_BYTES if overhead is None else parse_bytes(overhead),
        )
        try:
            _run(model, request, out, as_json=as_json)
        except ServingError as error:
            raise Failure(error.message) from error


def _run(model: Path, request: PlanRequest, out: Path | None, *, as_json: bool) -> None:
    from shardline.local.verified import extract_verified
    from shardline.partition.planning import find_model, make_plan

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True), transient=True
    )
    with bar:
        report = _reporter(bar)
        made = make_plan(model, request, report)
        if out is not None:
            _, verified = extract_verified(made, model, out, report, partial(_draw, made, find_model(model)))
    if as_json:
        typer.echo(made.to_json(), nl=False)
        return
    console = Console()
    show(made, console)
    if out is not None:
        worst = max((output.relative for output in verified.outputs), default=0.0)
        console.print(
            f"Verified: stages answer as the whole model on {verified.inputs_tried} inputs, largest error {worst:.1e}."
        )
        console.print(f"Wrote {out}: plan.json, graph.svg, graph.png, and one folder per stage.")
        console.print(f"Serve it: shardline serve REPOSITORY --stages MODEL={out}", soft_wrap=True)


def _draw(made: Plan, model_file: Path, out: Path) -> None:
    from shardline.partition.graph import read_graph
    from shardline.partition.picture import draw

    draw(made, read_graph(model_file), out)


def _reporter(bar: Progress) -> Callable[[int, int, str], None]:
    task = bar.add_task("reading", total=None)

    def report(done: int, total: int, what: str) -> None:
        bar.update(task, completed=done, total=total, description=what)

    return report


def show(made: Plan, console: Console) -> None:
    """Print a plan as tables."""
    from shardline.partition.picture import size_words

    table = Table(
        title=f"{made.model.file}: {len(made.stages)} stages, batch {made.assumptions.batch}", title_justify="left"
    )
    for heading in (
        "stage",
        "nodes",
        "weights",
        "peak",
        "pod memory",
        "compute ms",
        "busy ms",
        "replicas",
    ):
        table.add_column(heading, justify="right")
    for stage in made.stages:
        sizes = (stage.weight_bytes, stage.peak_activation_bytes, stage.memory_bytes)
        table.add_row(
            str(stage.index),
            f"{len(stage.nodes)}+{stage.copied_nodes}" if stage.copied_nodes else str(len(stage.nodes)),
            *map(size_words, sizes),
            f"{stage.compute_ms:.2f}",
            f"{stage.busy_ms:.2f}",
            str(stage.replicas),
        )
    console.print(table)
    console.print(_cuts(made))
    console.print(
        f"Slowest stage {made.slowest_ms:.2f} ms, lower bound {made.bound_ms:.2f} ms ({made.distance:.1%} above it); "
        f"the whole model takes {made.whole_ms:.2f} ms ({made.assumptions.costs}).\n"
        f"Predicted: {made.rows_per_s:.1f} rows/s with one replica per stage, latency {made.latency_ms:.2f} ms."
    )
    for note in made.notes:
        console.print(f"Note: {note}.")


def _cuts(made: Plan) -> Table:
    from shardline.partition.picture import size_words

    table = Table(title="Tensors over cuts", title_justify="left")
    for heading in ("from", "to", "tensor", "type", "shape", "bytes"):
        table.add_column(heading)
    for stage in made.stages:
        for item in stage.inputs:
            if item.source == "router":
                continue
            tensor = made.tensors[item.name]
            shape = " x ".join(map(str, tensor.shape)) or "scalar"
            table.add_row(
                str(item.source), str(stage.index), item.name, tensor.datatype, shape, size_words(tensor.bytes)
            )
    return table


def parse_bytes(text: str) -> int:
    """Bytes of `8Gi`, `900M` or a plain number, as Kubernetes writes them; a trailing B is allowed."""
    return int(_parse_unit(text.removesuffix("B"), {unit: float(scale) for unit, scale in _BYTES.items()}, "8Gi"))


def _parse_unit(text: str, units: dict[str, float], example: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(\S*)\s*", text)
    if match is None or match[2] not in units or float(match[1]) <= 0:
        raise Failure(f"{text!r} is not understood: write it as {example}", EXIT_USAGE)
    return float(match[1]) * units[match[2]]


def _parse_dim(text: str) -> tuple[str, int]:
    name, _, size = text.partition("=")
    if not name or not size.isdecimal() or int(size) < 1:
        raise Failure(f"{text!r} is not understood: write a dimension as seq=128", EXIT_USAGE)
    return name, int(size)

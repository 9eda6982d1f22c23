"""Serve the example models, ask them real questions, show the answers, stop: `python -m examples.demo`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from rich.console import Console

from examples import demo_view as view
from examples import inputs
from examples.build import DEFAULT_OUT, build
from examples.serving import NotServing, serve

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from examples.inputs import Array, Feed

MODELS = ("digits", "minilm")
ACCURACY = 0.97
"""Least share of the held-out digits that must be named right, through gRPC."""

DEADLINE_S = 60.0
"""Of each request."""


@dataclass(frozen=True, slots=True)
class Load:
    """How requests are sent: rows in each, and how many may be in flight."""

    rows: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class Timed:
    """What a series of requests brought. outputs: name to array over all rows, in order. latencies_s: one a request."""

    load: Load
    outputs: dict[str, Array]
    latencies_s: list[float]
    elapsed_s: float


LOADS = (Load(1, 1), Load(1, 32), Load(32, 4))


async def ask(client: Any, model: str, feeds: Sequence[Feed], load: Load) -> Timed:
    """Send one request per feed, load.in_flight at a time. Raises InferenceServerException as the server says it."""
    permits = asyncio.Semaphore(load.in_flight)
    latencies_s: list[float] = []

    async def one(feed: Feed) -> Any:
        async with permits:
            started = time.perf_counter()
            answer = await client.infer(model, _tensors(feed), client_timeout=DEADLINE_S)
            latencies_s.append(time.perf_counter() - started)
            return answer

    started = time.perf_counter()
    answers = await asyncio.gather(*(one(feed) for feed in feeds))
    elapsed_s = time.perf_counter() - started
    names = [output.name for output in answers[0].get_response().outputs]
    outputs = {name: np.concatenate([answer.as_numpy(name) for answer in answers]) for name in names}
    return Timed(load, outputs, latencies_s, elapsed_s)


def _tensors(feed: Feed) -> list[Any]:
    from tritonclient.grpc.aio import InferInput
    from tritonclient.utils import np_to_triton_dtype

    tensors = []
    for name, array in feed.items():
        tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return tensors


async def classify(client: Any, console: Console) -> list[str]:
    """Name the held-out digits under each load, and return what went wrong."""
    digits = inputs.held_out_digits()
    series = []
    for load in LOADS:
        starts = range(0, len(digits.labels), load.rows)
        feeds = [{"image": digits.images[at : at + load.rows]} for at in starts]
        series.append(await ask(client, "digits", feeds, load))
    accuracies = [float((timed.outputs["label"] == digits.labels).mean()) for timed in series]
    console.print(view.digits_picture(digits, series[-1].outputs["label"], series[-1].outputs["probabilities"]))
    rows = [(timed.load.rows, timed.load.in_flight, timed.elapsed_s, timed.latencies_s) for timed in series]
    console.print(view.digits_table(rows, len(digits.labels), accuracies))
    worst = min(accuracies)
    return [] if worst >= ACCURACY else [f"digits: {worst:.3f} of the held-out digits are right, less than {ACCURACY}"]


async def search(client: Any, console: Console) -> list[str]:
    """Embed the sentences, rank them for each query, and return what went wrong."""
    feeds = inputs.rows("minilm")
    sentences = await ask(client, "minilm", feeds, Load(1, 16))
    queries = await ask(client, "minilm", [inputs.tokenize([query]) for query in inputs.QUERIES], Load(1, 1))
    similarities = queries.outputs["embedding"] @ sentences.outputs["embedding"].T
    problems = []
    for (query, expected), row in zip(inputs.QUERIES.items(), similarities, strict=True):
        console.print(view.ranking(query, row, inputs.SENTENCES))
        nearest = inputs.SENTENCES[int(row.argmax())]
        if nearest != expected:
            problems.append(f"minilm: nearest to {query!r} is {nearest!r}, not {expected!r}")
    console.print(view.embedding_line(len(feeds), sentences.elapsed_s, sentences.latencies_s))
    return problems


async def executions(client: Any) -> dict[str, tuple[int, int]]:
    """Rows and batches that each model has executed, by the server's own count."""
    counted = {}
    for model in MODELS:
        statistics = (await client.get_inference_statistics(model)).model_stats
        counted[model] = (
            sum(entry.inference_count for entry in statistics),
            sum(entry.execution_count for entry in statistics),
        )
    return counted


async def tour(url: str, console: Console) -> list[str]:
    """Everything the demo asks of a server. Returns what went wrong, in words."""
    from tritonclient.grpc.aio import InferenceServerClient

    async with InferenceServerClient(url) as client:
        before = await executions(client)
        problems = [*await classify(client, console), *await search(client, console)]
        after = await executions(client)
        for model in MODELS:
            rows, batches = (now - then for now, then in zip(after[model], before[model], strict=True))
            console.print(view.batching_line(model, rows, batches))
    return problems


@contextlib.contextmanager
def server(options: argparse.Namespace, console: Console) -> Iterator[str]:
    """The server to ask: the one at --url, or one of our own that ends with the block."""
    if options.url:
        yield options.url
        return
    build(options.repository, MODELS)
    with contextlib.ExitStack() as stack:
        started = time.perf_counter()
        with console.status(f"starting {options.replicas} replicas"):
            url = stack.enter_context(serve(options.repository, MODELS, options.replicas, options.patience))
        console.print(
            f"{options.replicas} replicas serve at {url}, ready after {time.perf_counter() - started:.1f} s\n"
        )
        yield url


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, _terminated)
    from tritonclient.utils import InferenceServerException

    try:
        with server(options, console) as url:
            problems = asyncio.run(tour(url, console))
    except (NotServing, InferenceServerException, OSError, ModuleNotFoundError) as error:
        problems = [str(error)]
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    for problem in problems:
        print(f"examples.demo: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _terminated(number: int, _: object) -> NoReturn:
    """End as Ctrl-C does: by an exception, so that the server is stopped on the way out."""
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="Serve the example models, classify handwritten digits and rank sentences through gRPC, and stop.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--url", metavar="HOST:PORT", help="ask this running server instead of starting one")
    parser.add_argument("--repository", type=Path, default=DEFAULT_OUT, metavar="DIR", help="where the models are")
    parser.add_argument("--replicas", type=int, default=2, metavar="N", help="processes that execute models")
    parser.add_argument("--patience", type=float, default=120.0, metavar="SECONDS", help="until the server is ready")
    return parser


if __name__ == "__main__":
    sys.exit(main())

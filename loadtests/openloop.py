"""An open loop: requests are sent when they are due, whether or not earlier ones were answered.

Arrivals form a Poisson process. Latency counts from the time at which a request was *due*, so a server (or a
generator) that falls behind shows it: nothing waits politely, as the callers of a closed loop do.

    python -m loadtests.openloop --url 127.0.0.1:8001 --model digits --rate 500 --seconds 30
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from loadtests import arrivals, openloop_plot
from loadtests.latencies import Latencies, over_time
from loadtests.tensors import infer_request, served_inputs
from shardline.pb.inference import grpc_service_pb2 as pb

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

_SERVICE = "/inference.GRPCInferenceService/"
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]
_CHANNELS = 8
_RATE_PER_PROCESS = 1500.0
_CONNECT_WITHIN_S = 60.0
VARIANTS = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent. messages: serialised requests, sent in turn. in_flight: bound of open calls per process."""

    url: str
    messages: tuple[bytes, ...]
    timeout_s: float
    in_flight: int = 4096


@dataclass(slots=True)
class Seen:
    """What came of it, in the order of completion. All times in seconds; due counts from the start of the run.

    lag: from due to sent, the generator's own delay. statuses: how many calls ended with which gRPC status.
    """

    due: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    lag: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)


async def send(plan: Plan, schedule: NDArray[np.float64], together: Callable[[], object]) -> Seen:
    """Connect, wait for the other processes (`together` blocks until all are there), send each request when it is due."""
    seen, slots = Seen(), asyncio.Semaphore(plan.in_flight)
    channels = [grpc.aio.insecure_channel(plan.url, options=_OPTIONS) for _ in range(_CHANNELS)]
    calls: list[grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = [
        channel.unary_unary(_SERVICE + "ModelInfer") for channel in channels
    ]
    async with asyncio.timeout(_CONNECT_WITHIN_S):
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
    together()
    start = time.monotonic()

    async def one(number: int, due: float) -> None:
        sent = time.monotonic()  # timers are rounded to a millisecond, so this may be a little before it is due
        try:
            await calls[number % _CHANNELS](plan.messages[number % len(plan.messages)], timeout=plan.timeout_s)
            status = "OK"
        except grpc.RpcError as error:
            status = error.code().name
        finally:
            slots.release()
        seen.due.append(due)
        seen.latency.append(time.monotonic() - min(start + due, sent))
        seen.lag.append(max(0.0, sent - start - due))
        seen.statuses[status] += 1

    async with asyncio.TaskGroup() as group:
        for number, due in enumerate(schedule.tolist()):
            await asyncio.sleep(max(0.0, start + due - time.monotonic()))
            await slots.acquire()
            group.create_task(one(number, due))
    for channel in channels:
        await channel.close()
    return seen


def messages_for(url: str, model: str, timeout_s: float = 10.0) -> tuple[bytes, ...]:
    """Seeded requests of one row for a served model, made from its metadata. Raises grpc.RpcError."""
    with grpc.insecure_channel(url, _OPTIONS) as channel:
        ask: grpc.UnaryUnaryMultiCallable[pb.ModelMetadataRequest, pb.ModelMetadataResponse] = channel.unary_unary(
            _SERVICE + "ModelMetadata",
            request_serializer=pb.ModelMetadataRequest.SerializeToString,
            response_deserializer=pb.ModelMetadataResponse.FromString,
        )
        metadata = ask(pb.ModelMetadataRequest(name=model), timeout=timeout_s)
    made = (infer_request(model, served_inputs(metadata, seed=seed)) for seed in range(VARIANTS))
    return tuple(request.SerializeToString() for request in made)


def run(plan: Plan, schedule: NDArray[np.float64], processes: int) -> Seen:
    """Spread the schedule over processes that start together; returns what all of them saw.

    Raises threading.BrokenBarrierError where a process cannot connect.
    """
    context = multiprocessing.get_context("spawn")  # grpc must not be forked
    barrier = context.Barrier(processes + 1)
    with context.Pool(processes, _join, (barrier,)) as pool:
        shares = [(plan, arrivals.share(schedule, part, processes)) for part in range(processes)]
        pending = pool.starmap_async(_child, shares, chunksize=1)
        barrier.wait(_CONNECT_WITHIN_S)
        _wait_with_bar(pending.ready, float(schedule[-1]) + plan.timeout_s)
        parts = pending.get(timeout=60)
    whole = Seen()
    for part in parts:
        whole.due += part.due
        whole.latency += part.latency
        whole.lag += part.lag
        whole.statuses += part.statuses
    return whole


_barriers: list[threading.Barrier] = []
"""The child's one barrier: a pool hands it over only when the process is made."""


def _join(barrier: threading.Barrier) -> None:
    _barriers.append(barrier)


def _child(plan: Plan, schedule: NDArray[np.float64]) -> Seen:
    return uvloop.run(send(plan, schedule, lambda: _barriers[0].wait(_CONNECT_WITHIN_S)))


def _wait_with_bar(done: Callable[[], bool], seconds: float) -> None:
    columns = (TextColumn("sending"), BarColumn(), TimeRemainingColumn())
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=seconds)
        while not done() and (elapsed := time.monotonic() - start) < seconds + 60:
            progress.update(task, completed=elapsed)
            time.sleep(0.2)


def summary(seen: Seen, seconds: float, wanted_rate: float) -> dict[str, object]:
    """The figures of a run, ready for JSON."""
    answered = len(seen.due)
    return {
        "wanted_rate": wanted_rate,
        "sent_rate": answered / seconds,
        "requests": answered,
        "statuses": dict(seen.statuses),
        "latency": asdict(Latencies.of_seconds(seen.latency)),
        "generator_lag": asdict(Latencies.of_seconds(seen.lag)),
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.openloop", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="127.0.0.1:8001", help="host:port of the gRPC endpoint")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--rate", type=float, default=500.0, help="requests per second, on average")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--timeout", type=float, default=5.0, help="deadline of each request, seconds")
    parser.add_argument("--processes", type=int, default=0, help="sending processes; 0: one per 1,500 requests/s")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/load"))
    return parser.parse_args(arguments)


def main() -> int:
    """0 when every request was answered with OK."""
    options, console = parse(), Console()
    try:
        messages = messages_for(options.url, options.model)
    except grpc.RpcError as error:
        console.print(f"{options.url} did not describe {options.model}: {error.code().name} {error.details()}")
        return 2
    schedule = arrivals.poisson(options.rate, options.seconds, options.seed)
    processes = options.processes or min(4, 1 + int(options.rate / _RATE_PER_PROCESS))
    seen = run(Plan(options.url, messages, options.timeout), schedule, processes)
    figures = {"model": options.model, "seed": options.seed, **summary(seen, options.seconds, options.rate)}
    options.out.mkdir(parents=True, exist_ok=True)
    figures["windows"] = [asdict(window) for window in over_time(seen.due, seen.latency, 1.0)]
    target = options.out / "openloop.json"
    target.write_text(json.dumps(figures, indent=1) + "\n")
    picture = options.out / "openloop.png"
    openloop_plot.draw(picture, seen.due, seen.latency, f"{options.model}, {options.rate:g} requests/s, Poisson")
    openloop_plot.show(console, figures)
    console.print(f"wrote {target} and {picture}", highlight=False)
    return 0 if set(seen.statuses) == {"OK"} else 1


if __name__ == "__main__":
    sys.exit(main())

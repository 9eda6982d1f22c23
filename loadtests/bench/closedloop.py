"""A closed loop of callers: by h2load where it is installed, else by our own grpc.aio processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np

from loadtests.bench import h2load
from loadtests.bench.systems import METHOD
from loadtests.latencies import Latencies

if TYPE_CHECKING:
    from loadtests.bench.systems import Endpoint

_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of a generator saw.

    rate: answers per second. answered: calls with an answer, failed: all others. body_bytes: bytes of the answers as the generator counts them,
    None where it checks each status itself. cpu_s: the generator's own CPU time.
    """

    rate: float
    answered: int
    failed: int
    body_bytes: int | None
    cpu_s: float
    latencies: Latencies


class GeneratorFailed(RuntimeError):
    """The load generator itself failed."""


def generator_name() -> str:
    """Which generator `drive` uses, in words for the report."""
    return "h2load (compiled)" if h2load.installed() else "grpc.aio processes (Python; fewer calls than h2load)"


def can_drive(endpoint_grpc: bool) -> bool:
    """Our own generator speaks gRPC only; h2load speaks both."""
    return endpoint_grpc or h2load.installed() is not None


def drive(endpoint: Endpoint, callers: int, seconds: float) -> Load:
    """`callers` callers, each with one request in flight, for `seconds`. Raises GeneratorFailed."""
    binary = h2load.installed()
    if binary is None:
        return _drive_python(endpoint, callers, seconds)
    with tempfile.NamedTemporaryFile(prefix="h2load-", suffix=".tsv") as log:
        command = h2load.command(
            binary,
            endpoint.url,
            endpoint.body,
            callers=callers,
            seconds=seconds,
            grpc=endpoint.system.grpc,
            log=Path(log.name),
        )
        output, cpu_s = _run(command, seconds)
        seen = h2load.parse_log(Path(log.name).read_text())
    outcome = h2load.parse_summary(output)
    if outcome.requests == 0:
        raise GeneratorFailed(f"no call to {endpoint.system.label} ended within {seconds:g} s")
    rate = h2load.rate(outcome.seconds, seen, callers)
    latencies = Latencies.of_seconds(seen.latency_s)
    return Load(rate, outcome.succeeded, outcome.failed, outcome.body_bytes, cpu_s, latencies)


def _run(command: list[str], seconds: float) -> tuple[str, float]:
    """Output and CPU seconds of a child that should take `seconds`."""
    before = os.times()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    except subprocess.TimeoutExpired as error:
        raise GeneratorFailed(f"{command[0]} did not end in time") from error
    if done.returncode != 0:
        raise GeneratorFailed(f"{command[0]} ended with {done.returncode}: {done.stderr[-400:]}")
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return done.stdout, used


def _drive_python(endpoint: Endpoint, callers: int, seconds: float) -> Load:
    """Split the callers over up to two processes of this module."""
    processes = min(2, callers)
    before = os.times()
    children = []
    for part in range(processes):
        own = callers // processes + (part < callers % processes)
        arguments = [str(endpoint.port), str(endpoint.body), str(own), f"{seconds:g}"]
        command = [sys.executable, "-m", "loadtests.bench.closedloop", *arguments]
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    seen = [json.loads(child.communicate(timeout=seconds + 60)[0]) for child in children]
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    latencies = np.concatenate([np.asarray(one["latencies"]) for one in seen])
    answered, failed = int(latencies.size), sum(int(one["failed"]) for one in seen)
    return Load(answered / seconds, answered, failed, None, used, Latencies.of_seconds(latencies))


async def _callers(port: int, message: bytes, callers: int, seconds: float) -> dict[str, object]:
    """The child's work: raw bytes out, raw bytes in, nothing parsed."""
    latencies: list[float] = []
    failed = 0
    until = time.perf_counter() + seconds

    async def one() -> None:
        nonlocal failed
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", _UNLIMITED) as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            while (begin := time.perf_counter()) < until:
                try:
                    await call(message, timeout=30)
                except grpc.RpcError:
                    failed += 1
                else:
                    latencies.append(time.perf_counter() - begin)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(one())
    return {"latencies": latencies, "failed": failed}


def main() -> None:
    """Entry of the generator's child processes: PORT BODY CALLERS SECONDS, prints JSON."""
    port, body, callers, seconds = sys.argv[1:]
    message = Path(body).read_bytes()[5:]
    print(json.dumps(asyncio.run(_callers(int(port), message, int(callers), float(seconds)))))


def as_json(load: Load) -> dict[str, object]:
    """For the report."""
    return asdict(load)


if __name__ == "__main__":
    main()

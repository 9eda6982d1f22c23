"""The main part of the benchmark: every cell, in rounds, interleaved, each answer checked."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtests.bench import closedloop
from loadtests.bench.closedloop import GeneratorFailed
from loadtests.bench.processes import ServerFailed
from loadtests.bench.results import Key, Sample
from loadtests.bench.systems import right_answer, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from loadtests.bench.models import BenchModel
    from loadtests.bench.systems import Endpoint, System

_ANSWER_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the parts take.

    rounds: interleaved repetitions. seconds: measured time per cell and round.
    warm_s: load on each system before the first round, with the largest number of callers.
    """

    rounds: int
    seconds: float
    warm_s: float = 1.0


def order(systems: Sequence[str], round_number: int) -> list[str]:
    """Forwards in even rounds and backwards in odd ones, so that a drift of the machine favours nobody."""
    return list(systems) if round_number % 2 == 0 else list(reversed(systems))


def measure_model(
    model: BenchModel,
    systems: Sequence[System],
    callers: Sequence[int],
    pace: Pace,
    work: Path,
    *,
    skipped: Callable[[str], None],
    step: Callable[[str], None],
) -> Iterator[Sample]:
    """All cells of one model. Every system runs all the time; only the one under load is busy.

    skipped: told about a system that did not start. step: told after each cell, for a progress bar.
    """
    with ExitStack() as stack:
        endpoints: dict[str, Endpoint] = {}
        for system in systems:
            try:
                endpoints[system.key] = stack.enter_context(start(system, model, work))
            except (ServerFailed, OSError) as error:
                skipped(f"{system.label} with {model.name}: {error}")
        for endpoint in endpoints.values():
            _warm(endpoint, max(callers), pace.warm_s, skipped)
        for number in range(pace.rounds):
            for count in callers:
                for key in order(list(endpoints), number):
                    try:
                        yield measure(endpoints[key], count, number, pace.seconds)
                    except (ServerFailed, GeneratorFailed) as error:
                        skipped(f"{model.name}, {count} callers, round {number + 1}: {error}")
                    step(f"{model.name} · {endpoints[key].system.label} · {count} callers")


def _warm(endpoint: Endpoint, callers: int, seconds: float, skipped: Callable[[str], None]) -> None:
    try:
        closedloop.drive(endpoint, callers, seconds)
    except GeneratorFailed as error:
        skipped(f"warming {endpoint.system.label} with {endpoint.model.name}: {error}")


def measure(endpoint: Endpoint, callers: int, number: int, seconds: float) -> Sample:
    """One cell once: a checked request, the load, a checked request. Raises ServerFailed on a wrong answer."""
    answer_bytes = checked_answer_bytes(endpoint)
    cpu = endpoint.tree.cpu_s()
    load = closedloop.drive(endpoint, callers, seconds)
    cpu = endpoint.tree.cpu_s() - cpu
    checked_answer_bytes(endpoint)
    wrong = load.failed + empty_answers(load.answered, load.body_bytes, answer_bytes)
    answered = max(1, load.answered)
    return Sample(
        key=Key(endpoint.model.name, endpoint.system.key, callers),
        round=number,
        answers=load.answered,
        wrong=wrong,
        rate=load.rate,
        p50_ms=load.latencies.p50_ms,
        p99_ms=load.latencies.p99_ms,
        server_cpu_ms=1e3 * cpu / answered,
        generator_cpu_ms=1e3 * load.cpu_s / answered,
        memory_mb=endpoint.tree.memory_bytes() / 1e6,
    )


def empty_answers(answered: int, body_bytes: int | None, answer_bytes: int) -> int:
    """How many of the calls counted as answered had no body: gRPC errors, which h2load takes for successes.

    body_bytes: of all answers together, None where the generator checks each status itself.
    answer_bytes: the body of a right answer.
    """
    return 0 if body_bytes is None else max(0, answered - body_bytes // answer_bytes)


def checked_answer_bytes(endpoint: Endpoint) -> int:
    """Ask one real request and compare its answer; returns its size. Raises ServerFailed on a wrong answer."""
    answer = right_answer(endpoint.system, endpoint.model, endpoint.port, _ANSWER_WITHIN_S)
    if answer is None:
        raise ServerFailed(f"{endpoint.system.label} gave a wrong answer for {endpoint.model.name}")
    return answer.body_bytes

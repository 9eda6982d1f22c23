"""A split model's stages alone in a process, one thread, no network: `python -m loadtests.bench.stagetimes PLAN MODEL STAGE CLOCK SECONDS ROWS…`.

In a process of its own, so that its threads and memory do not stay in the benchmark's process, and so that two stages can be
timed at once, each on its core.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from loadtests.plain_server import load
from loadtests.tensors import sample_inputs
from shardline.core.fusions import SLOWER_ON_CPU

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Values = dict[str, NDArray[np.generic]]

_TIMEOUT_S = 120.0


WHOLE = -1
"""Stands for the whole model where a stage is named."""


def measure(
    plan: Path, model: Path, stages: Sequence[int], rows: Sequence[int], seconds: float
) -> list[dict[int, float]]:
    """For each of `stages`, which run at the same time, median milliseconds by rows of a batch. seconds: for each batch size.

    A stage alone is timed by the processor time of its one thread, so that nothing else on the machine counts; several at once by
    the clock, since what they take from each other does count.
    """
    clock = "processor" if len(stages) == 1 else "wall"
    with _children(plan, model, stages, rows, clock, seconds) as children:
        for child in children:
            _ask(child, "all")
        return [{int(size): float(ms) for size, ms in json.loads(_answer(child)).items()} for child in children]


def measure_in_turn(plan: Path, model: Path, stages: Sequence[int], seconds: float) -> list[float]:
    """Median milliseconds of one row by stage, one stage after the other as a single caller's requests pass them, by the clock.

    Slower than a stage that runs all the time: meanwhile its processor slept, or ran another stage that took its cache.
    """
    with _children(plan, model, stages, [1], "wall", seconds) as children:
        times: list[list[float]] = [[] for _ in stages]
        until = time.perf_counter() + seconds
        while time.perf_counter() < until or len(times[-1]) < 3:
            for child, of_stage in zip(children, times, strict=True):
                _ask(child, "one")
                of_stage.append(float(_answer(child)))
    return [median(of_stage) for of_stage in times]


@contextmanager
def _children(
    plan: Path, model: Path, stages: Sequence[int], rows: Sequence[int], clock: str, seconds: float
) -> Iterator[list[subprocess.Popen[str]]]:
    """A process for each stage, loaded and warm; ended with the block."""
    with ExitStack() as stack:
        children = []
        for stage in stages:
            command = [sys.executable, "-m", "loadtests.bench.stagetimes", str(plan), str(model), str(stage)]
            command += [clock, f"{seconds:g}", *map(str, rows)]
            child = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            children.append(child)
            stack.callback(child.terminate)
        for child in children:
            _answer(child)  # it has loaded and made its inputs
        yield children


def _ask(child: subprocess.Popen[str], what: str) -> None:
    assert child.stdin is not None
    child.stdin.write(what + "\n")
    child.stdin.flush()


def _answer(child: subprocess.Popen[str]) -> str:
    """The child's next line. Raises RuntimeError where it ended, or says nothing for _TIMEOUT_S."""
    assert child.stdout is not None
    line = child.stdout.readline() if select.select([child.stdout], [], [], _TIMEOUT_S)[0] else ""
    if not line:
        raise RuntimeError("a process that times a stage ended, or hangs; its last words are above")
    return line


def _inputs(plan: Path, model: Path, stage: int, rows: Sequence[int]) -> tuple[Any, dict[int, Values]]:
    """The stage's session, and what the stages before make of sample inputs, by rows."""
    whole = load(str(model), 1, without=SLOWER_ON_CPU)
    values = {count: dict(sample_inputs(whole, count)) for count in rows}
    if stage == WHOLE:
        return whole, values
    del whole
    for index in range(stage + 1):
        session = load(str(plan / f"stage-{index}" / "model.onnx"), 1, without=SLOWER_ON_CPU)
        names = [item.name for item in session.get_inputs()]
        if index == stage:
            return session, {count: {name: known[name] for name in names} for count, known in values.items()}
        outputs = [item.name for item in session.get_outputs()]
        for known in values.values():
            made = session.run(outputs, {name: known[name] for name in names})
            known.update(zip(outputs, made, strict=True))
    raise ValueError(f"no stage {stage}")


def _median_ms(session: Any, feeds: Values, seconds: float, clock: Callable[[], float]) -> float:
    session.run(None, feeds)
    times: list[float] = []
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(times) < 3:
        at = clock()
        session.run(None, feeds)
        times.append(clock() - at)
    return 1e3 * median(times)


def main() -> None:
    """Entry of the child process: says `ready`, then answers `all` with medians by rows, and `one` with one run of one row."""
    plan, model, stage, clock, seconds, *rows = sys.argv[1:]
    read = time.thread_time if clock == "processor" else time.perf_counter
    session, feeds = _inputs(Path(plan), Path(model), int(stage), [int(count) for count in rows])
    session.run(None, next(iter(feeds.values())))
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "one":
            at = read()
            session.run(None, feeds[1])
            print(1e3 * (read() - at), flush=True)
        else:
            found = {count: _median_ms(session, known, float(seconds), read) for count, known in feeds.items()}
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()

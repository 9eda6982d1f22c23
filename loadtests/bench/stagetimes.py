"""A split model's stages alone in a process, one thread, no network: `python -m loadtests.bench.stagetimes PLAN MODEL STAGE CLOCK SECONDS ROWS…`.

In a process of its own, so that its threads and memory do not stay in the benchmark's process, and so that two stages can be
timed at once, each on its core.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from loadtests.plain_server import load
from loadtests.tensors import sample_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Values = dict[str, NDArray[np.generic]]

_TIMEOUT_S = 120.0


def measure(
    plan: Path, model: Path, stages: Sequence[int], rows: Sequence[int], seconds: float
) -> dict[int, dict[int, float]]:
    """Median milliseconds by stage and rows of a batch, the given stages at the same time. seconds: for each batch size.

    A stage alone is timed by the processor time of its one thread, so that nothing else on the machine counts; several at once by
    the clock, since what they take from each other does count.
    """
    with ExitStack() as stack:
        children = {}
        for stage in stages:
            command = [sys.executable, "-m", "loadtests.bench.stagetimes", str(plan), str(model), str(stage)]
            command += ["processor" if len(stages) == 1 else "wall", f"{seconds:g}", *map(str, rows)]
            children[stage] = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
        for child in children.values():
            assert child.stdout is not None
            child.stdout.readline()  # it has loaded and made its inputs
        found = {}
        for child in children.values():
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        for stage, child in children.items():
            output, _ = child.communicate(timeout=_TIMEOUT_S + 10 * seconds * len(rows))
            found[stage] = {int(size): float(ms) for size, ms in json.loads(output).items()}
    return found


def _inputs(plan: Path, model: Path, stage: int, rows: Sequence[int]) -> tuple[Any, dict[int, Values]]:
    """The stage's session, and what the stages before make of sample inputs, by rows."""
    whole = load(str(model), 1)
    values = {count: dict(sample_inputs(whole, count)) for count in rows}
    del whole
    for index in range(stage + 1):
        session = load(str(plan / f"stage-{index}" / "model.onnx"), 1)
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
    """Entry of the child process."""
    plan, model, stage, clock, seconds, *rows = sys.argv[1:]
    read = time.thread_time if clock == "processor" else time.perf_counter
    session, feeds = _inputs(Path(plan), Path(model), int(stage), [int(count) for count in rows])
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps({count: _median_ms(session, known, float(seconds), read) for count, known in feeds.items()}))


if __name__ == "__main__":
    main()

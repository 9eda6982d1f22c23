"""Plans, writes and verifies the stages of one model: `python -m shardline.local.cutting`, started by the supervisor.

In a process of its own: the planner and the whole model that stages are compared with need memory and a CPU, and if the
system ends it for that, the supervisor is there to say so. The order comes as JSON on standard input; what happens goes out
as JSON lines: `{"step", "done", "total"}`, `{"note"}`, and at the end `{"cut"}` or `{"error"}`.

Stages are kept in a folder named by the model's digest and by what was asked, so that the next start finds them. What lies there is
complete and was verified (a temporary name until then), and is made anew where a file was changed since.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardline.core.errors import ModelRejected, PlanMismatch, ServingError
from shardline.local.verified import extract_verified, is_verified, record
from shardline.partition.extract import ExtractedStages, load_stages
from shardline.partition.graph import read_graph
from shardline.partition.parts import digest_of, files_of
from shardline.partition.plan import SCHEMA_VERSION
from shardline.partition.planning import PlanRequest, make_plan
from shardline.partition.verify import verify
from shardline.repository import load_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shardline.core.models import ModelSpec

_PROGRESS_S = 0.5
_LOCK_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be cut. stages: how many, 0 for as few as fit `memory_bytes` (of one stage; 0: no bound).

    overhead_bytes: of that memory what a replica needs besides, 0 for the planner's own figure. threads: of each stage.
    plan: folder of a plan made before, "" where one is to be made and kept below `cache`.
    """

    repository: str
    model: str
    version: int
    cache: str
    stages: int = 0
    memory_bytes: int = 0
    overhead_bytes: int = 0
    threads: int = 1
    estimate: bool = False
    plan: str = ""


@dataclass(frozen=True, slots=True)
class Cut:
    """The stages of one model version. folder: "" where one process executes it whole. suggested: replicas of each stage."""

    folder: str
    suggested: tuple[int, ...]


class Teller:
    """Writes what happens, as JSON lines; progress not more often than someone can read."""

    def __init__(self, model: str, write: Callable[[str], object]) -> None:
        self._model = model
        self._write = write
        self._step = ""
        self._told_at = 0.0

    def step(self, name: str) -> None:
        """What is done from now on."""
        self._step = name

    def progress(self, done: int, total: int, _what: str) -> None:
        """A step's progress."""
        now = time.monotonic()
        if done < total and now - self._told_at < _PROGRESS_S:
            return
        self._told_at = now
        self.say({"step": f"{self._step} {self._model}", "done": done, "total": total})

    def note(self, text: str) -> None:
        """Something the user should know."""
        self.say({"note": f"{self._model}: {text}"})

    def say(self, message: dict[str, Any]) -> None:
        """One line."""
        self._write(json.dumps(message) + "\n")


def carry_out(order: Order, teller: Teller) -> Cut:
    """Find or make the stages. Raises ServingError where the model cannot be cut as asked or a given plan does not suit it."""
    loaded = load_spec(Path(order.repository), order.model, order.version)
    model = loaded.model_path
    digest = digest_of(files_of(read_graph(model)))
    if order.plan:
        return _given(Path(order.plan), model, digest, teller)
    request = plan_request(order, loaded.spec)
    if request.stages is None and _fits_whole(model, request):
        return Cut("", (1,))
    target = Path(order.cache) / folder_name(order.model, digest, request)
    with _alone(target, teller):
        _remove_partial(target)
        kept = _kept(target, digest, teller)
        if kept is None:
            teller.step("planning")
            plan = make_plan(model, request, teller.progress)
            for text in plan.notes:
                teller.note(text)
            teller.step("verifying the stages of")
            kept, _ = extract_verified(plan, model, target, teller.progress)
    return _cut(kept)


def plan_request(order: Order, spec: ModelSpec) -> PlanRequest:
    """What the planner is asked. Under a bound on memory it plans for the largest batch, else for one micro-batch."""
    bound = order.memory_bytes or None
    batch = spec.batching.max_rows if bound and not order.stages else spec.execution.micro_batch
    request = PlanRequest(
        stages=order.stages or None,
        memory_per_pod=bound,
        batch=max(1, batch),
        estimate=order.estimate,
        threads=order.threads,
    )
    return replace(request, overhead_bytes=order.overhead_bytes) if order.overhead_bytes else request


def folder_name(model: str, digest: str, request: PlanRequest) -> str:
    """Where the stages of this model are kept when they are made for this request."""
    asked = json.dumps({**asdict(request), "schema": SCHEMA_VERSION}, sort_keys=True, default=str)
    return f"{model}-{digest.removeprefix('sha256:')[:16]}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"


def _fits_whole(model: Path, request: PlanRequest) -> bool:
    """Whether one stage is enough: sizes decide, and these are known without running anything."""
    return len(make_plan(model, replace(request, estimate=True)).stages) == 1


def _kept(target: Path, digest: str, teller: Teller) -> ExtractedStages | None:
    """Stages of an earlier start that are whole; None where they are to be made."""
    if not target.exists():
        return None
    teller.step("checking the stages of")
    teller.progress(0, 1, "")
    try:
        stages = load_stages(target)
        if not is_verified(target, stages.plan):
            raise ModelRejected("nothing says that they were verified")
        if stages.plan.model.digest != digest:
            raise PlanMismatch("they are of another model")
    except ServingError as error:
        teller.note(f"kept stages are made anew: {error.message}")
        return None
    teller.progress(1, 1, "")
    return stages


def _given(folder: Path, model: Path, digest: str, teller: Teller) -> Cut:
    """The stages that the user had made; compared with the whole model unless that was done when they were."""
    teller.step("checking the stages of")
    teller.progress(0, 1, "")
    stages = load_stages(folder)
    if stages.plan.model.digest != digest:
        raise PlanMismatch(
            f"the plan in {folder} is for another model than {model}, or for an earlier state of it: run `shardline plan` again"
        )
    if not is_verified(folder, stages.plan):
        teller.step("verifying the stages of")
        record(folder, stages.plan, verify(stages, model, progress=teller.progress))
    teller.progress(1, 1, "")
    return _cut(stages)


def _cut(stages: ExtractedStages) -> Cut:
    return Cut(str(stages.folder), tuple(stage.replicas for stage in stages.plan.stages))


@contextmanager
def _alone(target: Path, teller: Teller) -> Iterator[None]:
    """Keep other starts that cut the same model out meanwhile; they find it cut. The lock ends with the process."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"{target.name}.lock").open("w") as lock:
        waiting = False
        while not _locked(lock.fileno()):
            if not waiting:
                teller.note("another process cuts it now; waiting for that")
                waiting = True
            time.sleep(_LOCK_POLL_S)
        yield


def _remove_partial(target: Path) -> None:
    """What a planner left that was killed while it wrote; nobody else writes while we hold the lock."""
    for left in target.parent.glob(f".{target.name}-*.partial"):
        shutil.rmtree(left, ignore_errors=True)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def main() -> int:
    """Carry out the order on standard input; returns the exit status."""
    order = Order(**json.loads(sys.stdin.read()))

    def write(line: str) -> None:
        sys.stdout.write(line)
        sys.stdout.flush()

    teller = Teller(order.model, write)
    try:
        cut = carry_out(order, teller)
    except ServingError as error:
        teller.say({"error": error.message})
        return 1
    except MemoryError:
        teller.say(
            {"error": "this machine lacks the memory to plan or verify it; plan it with `shardline plan` elsewhere"}
        )
        return 1
    except OSError as error:
        teller.say({"error": f"{error.filename or order.cache}: {error.strerror or error}"})
        return 1
    teller.say({"cut": asdict(cut)})
    return 0


if __name__ == "__main__":
    sys.exit(main())

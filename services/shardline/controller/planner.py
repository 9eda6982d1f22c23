"""What a planning job runs: `python -m shardline.controller.planner`, told by SHARDLINE_* variables.

Plans the stages, extracts them, compares them with the whole model, and leaves the plan in Redis, from where the controller takes it.
The stages themselves are thrown away: every stage's pod writes its own, and must get the same bytes. How it ended stands in the pod's
termination message: a `Result`, or the reason.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from shardline.controller import contract
from shardline.controller.bundle import STAGES_FILE, Bundle, digest_of
from shardline.controller.cut import Result
from shardline.controller.planjob import DATA_LIMIT
from shardline.controller.settings import PlannerSettings
from shardline.coord.connection import Connection
from shardline.coord.errors import RedisAway
from shardline.coord.facts import ModelFacts
from shardline.core.errors import ModelRejected, ServingError
from shardline.ops import logs
from shardline.ops.settings import SettingsError, load
from shardline.partition.extract import ExtractedStages, extract
from shardline.partition.graph import read_graph
from shardline.partition.planning import PlanRequest, make_plan
from shardline.partition.shell import shell_of
from shardline.partition.verify import verify
from shardline.repository import LoadedModel, LoadOptions, find_model, load_spec
from shardline.repository.layout import config_name, file_inside, model_folder, open_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardline.core.models import ModelSpec
    from shardline.partition.costs import Progress
    from shardline.partition.plan import Plan

log = logs.get(__name__)

REDIS_S = 60.0
"""How long the plan waits for Redis."""


def make_bundle(settings: PlannerSettings) -> Bundle:
    """Plan, extract and verify. Raises ServingError where the model cannot be cut as asked."""
    repository, (model,) = Path(settings.repository), settings.models
    loaded = load_spec(repository, model, _version(settings))
    request = plan_request(settings, loaded.spec)
    whole = Bundle(model, loaded.spec.version)
    if request.stages is None and len(make_plan(loaded.model_path, replace(request, estimate=True)).stages) == 1:
        return whole
    plan = make_plan(loaded.model_path, request, _progress("planning"))
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        stages = extract(
            plan, loaded.model_path, Path(folder) / "plan", _progress("extracting"), accept=_compared(loaded)
        )
        written = (stages.folder / STAGES_FILE).read_text(encoding="utf-8")
    name, config = _config(repository, model)
    return replace(
        whole,
        plan=plan.to_json(),
        written=written,
        shell=shell_of(read_graph(loaded.model_path)),
        config_name=name,
        config=config,
        suggested=tuple(stage.replicas for stage in plan.stages),
        summary=summary_of(plan),
    )


def plan_request(settings: PlannerSettings, spec: ModelSpec) -> PlanRequest:
    """What the planner is asked. Under a bound on memory it plans for the largest batch, else for one micro-batch."""
    bound = settings.stage_memory_bytes or None
    batch = spec.batching.max_rows if bound and not settings.stages else spec.execution.micro_batch
    return PlanRequest(
        stages=settings.stages or None, memory_per_pod=bound, batch=max(1, batch), estimate=settings.estimate
    )


def summary_of(plan: Plan) -> str:
    """The plan in one line, as `kubectl describe` shows it."""
    times = ", ".join(f"{stage.compute_ms:.3g}" for stage in plan.stages)
    weights = ", ".join(f"{stage.weight_bytes / 2**20:.0f}" for stage in plan.stages)
    return (
        f"{len(plan.stages)} stages of {times} ms and {weights} MiB of weights; slowest {plan.slowest_ms:.3g} ms, "
        f"lower bound {plan.bound_ms:.3g} ms, whole {plan.whole_ms:.3g} ms"
    )


def _version(settings: PlannerSettings) -> int:
    found = find_model(Path(settings.repository), settings.models[0], options=LoadOptions(version=settings.version))
    if not found.versions:
        raise ModelRejected(found.reason)
    return max(found.versions)


def _compared(loaded: LoadedModel) -> Callable[[ExtractedStages], None]:
    def accept(stages: ExtractedStages) -> None:
        verify(stages, loaded.model_path, progress=_progress("verifying"))

    return accept


def _config(repository: Path, model: str) -> tuple[str, str]:
    """The model's config file and its text, ("", "") where it has none."""
    root = open_root(repository)
    folder = model_folder(root, model)
    name = config_name(folder)
    if name is None:
        return "", ""
    return name, file_inside(root, folder, name, f"model {model!r}: config file").read_text(encoding="utf-8")


def _progress(step: str) -> Progress:
    def report(done: int, total: int, what: str) -> None:
        log.info("planner.progress", step=step, done=done, total=total, what=what)

    return report


async def hand_over(settings: PlannerSettings, bundle: Bundle, body: bytes) -> None:
    """Leave the plan in Redis; waits for a Redis that is away. Raises RedisAway."""
    async with Connection(settings.redis_url, settings.cluster) as connection:
        async with asyncio.timeout(REDIS_S):
            while True:
                try:
                    await ModelFacts(connection).set_plan(bundle.model, bundle.version, body)
                except RedisAway as error:
                    log.info("planner.waits_for_redis", reason=str(error))
                    await asyncio.sleep(0.5)
                else:
                    return


def main() -> int:
    """Returns the exit status: of a model that cannot be cut EXIT_UNPLANNABLE, so that nobody tries it again."""
    try:
        settings = load(PlannerSettings)
    except SettingsError as error:
        print(f"planner: {error}", file=sys.stderr)
        return 2
    logs.configure(settings, "planner")
    try:
        bundle = make_bundle(settings)
        body = bundle.pack()
        if len(body) * 4 / 3 > DATA_LIMIT:
            raise ModelRejected(f"its plan has {len(body)} bytes, more than a ConfigMap takes")
        asyncio.run(hand_over(settings, bundle, body))
    except ServingError as error:
        log.error("planner.failed", reason=error.message)
        return contract.EXIT_UNPLANNABLE
    except (OSError, MemoryError) as error:
        log.error("planner.failed", reason=str(error) or type(error).__name__)
        return 1
    result = json.dumps(asdict(Result(bundle.version, digest_of(body))))
    Path(contract.ENDED_WITH).write_text(result, encoding="utf-8")
    log.info("planner.done", stages=bundle.stages, summary=bundle.summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())

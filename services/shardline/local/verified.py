"""Stages on disk that were compared with the whole model, and the record of it beside them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from shardline.partition.extract import ExtractedStages, extract
from shardline.partition.verify import Verification, verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shardline.partition.costs import Progress
    from shardline.partition.plan import Plan

VERIFIED_FILE = "verified.json"


def extract_verified(
    plan: Plan, model: Path, out: Path, progress: Progress, also: Callable[[Path], None] | None = None
) -> tuple[ExtractedStages, Verification]:
    """Write the stages into `out`, which appears only when they answer as the whole model does.

    also: writes more into the folder before it appears. Raises as extract and verify do; `out` is then as it was.
    """
    found: list[Verification] = []

    def accept(stages: ExtractedStages) -> None:
        found.append(verify(stages, model, progress=progress))
        record(stages.folder, plan, found[0])
        if also is not None:
            also(stages.folder)

    return extract(plan, model, out, progress, accept), found[0]


def record(folder: Path, plan: Plan, verification: Verification) -> None:
    """Write down what was compared, for which plan."""
    facts = {
        "plan": plan.digest,
        "inputs_tried": verification.inputs_tried,
        "outputs": [asdict(output) for output in verification.outputs],
    }
    part = folder / f"{VERIFIED_FILE}.part"
    part.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / VERIFIED_FILE)


def is_verified(folder: Path, plan: Plan) -> bool:
    """Whether the stages of this very plan were compared with the whole."""
    try:
        facts = json.loads((folder / VERIFIED_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(facts, dict) and facts.get("plan") == plan.digest

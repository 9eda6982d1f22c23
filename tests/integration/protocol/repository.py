"""The models that the protocol tests are served, one folder for each behaviour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardline.core.datatypes import BY_NAME
from tests import onnx_models as models

if TYPE_CHECKING:
    from pathlib import Path

SMALL = "max_batch_size: 4"
PRIORITIES = "max_batch_size: 1 dynamic_batching { priority_levels: 2 default_priority_level: 2 }"
PADDED = """max_batch_size: 8
parameters { key: "shardline.pad.x" value { string_value: "axis=0,value=0,multiple=4" } }"""
TRIMMED = f"""{PADDED}
parameters {{ key: "shardline.trim.y" value {{ string_value: "axis=0" }} }}"""
ALONE = 'max_batch_size: 4 parameters { key: "shardline.batching" value { string_value: "off" } }'
SLOW_ITERATIONS = 2500
"""About a third of a second on one core."""


def build(folder: Path) -> Path:
    """Write all models; returns the repository."""
    for name in BY_NAME:
        models.save(folder, f"identity_{name.lower()}", 1, models.identity(name), SMALL)
    models.save(folder, "add", 1, models.add_one(), "max_batch_size: 8")
    models.save(folder, "pair", 1, models.two_inputs(), SMALL)
    models.save(folder, "two_outputs", 1, models.two_outputs(), SMALL)
    models.save(folder, "fixed", 1, models.no_batch_axis())
    models.save(folder, "mean", 1, models.mean_over_batch(), SMALL)
    models.save(folder, "gather", 1, models.gather(8), "max_batch_size: 8")
    models.save(folder, "alone", 1, models.add_one(), ALONE)
    models.save(folder, "pad", 1, models.pad_sensitive(), PADDED)
    models.save(folder, "trim", 1, models.double_each(), TRIMMED)
    models.save(folder, "slow", 1, models.slow(SLOW_ITERATIONS), "max_batch_size: 1")
    models.save(folder, "ranked", 1, models.slow(300), PRIORITIES)
    models.save(folder, "versioned", 1, models.versioned(1), SMALL)
    return folder


READY = (
    *(f"identity_{name.lower()}" for name in BY_NAME),
    *("add", "pair", "two_outputs", "fixed", "mean", "gather", "alone", "pad", "trim", "slow", "ranked", "versioned"),
)

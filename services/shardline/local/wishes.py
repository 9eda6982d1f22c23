"""Which models a local cluster splits into stages, and how: what the command line and the models' configs ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from shardline.core.models import Stages
from shardline.local.failure import ClusterFailed
from shardline.partition.plan import PLAN_FILE
from shardline.repository.parameters import TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FORMS = "write MODEL=N, MODEL=auto, MODEL=8Gi (memory of one stage), or MODEL=FOLDER of a plan"
_MAX_REPLICAS = 256
_WHOLE = Stages()


@dataclass(frozen=True, slots=True)
class Wish:
    """How one model is to be split.

    plan: folder that `shardline plan --out` wrote, None where a plan is to be made. replicas: of each stage, () unless told.
    """

    stages: Stages = _WHOLE
    plan: Path | None = None
    replicas: tuple[int, ...] = ()

    @property
    def splits(self) -> bool:
        """Whether more than one stage may come of it."""
        return self.plan is not None or self.stages != _WHOLE

    @property
    def least_stages(self) -> int:
        """How many stages to expect before a plan says it."""
        return max(2, self.stages.count) if self.splits else 1


def parse_wishes(stages: Sequence[str], replicas: Sequence[str]) -> dict[str, Wish]:
    """`--stages` and `--stage-replicas`, by model. Raises ClusterFailed, naming the option and its forms."""
    wishes: dict[str, Wish] = {}
    for text in stages:
        model, _, value = text.partition("=")
        if not model or not value:
            raise ClusterFailed(f"--stages {text}: {_FORMS}")
        wishes[model] = _wish(text, value)
    for text in replicas:
        model, _, value = text.partition("=")
        counts = value.split(",")
        if not model or not all(count.isdecimal() and 1 <= int(count) <= _MAX_REPLICAS for count in counts):
            raise ClusterFailed(f"--stage-replicas {text}: write MODEL=2,1, a number for each stage in order")
        wishes[model] = replace(wishes.get(model, Wish()), replicas=tuple(map(int, counts)))
    return wishes


def _wish(text: str, value: str) -> Wish:
    folder = Path(value)
    if "/" in value or (folder / PLAN_FILE).is_file():
        if not (folder / PLAN_FILE).is_file():
            raise ClusterFailed(f"--stages {text}: {folder} holds no {PLAN_FILE}; `shardline plan --out` writes one")
        return Wish(plan=folder.resolve())
    try:
        parsed = TABLE["stages"].parse(value)
    except ValueError as error:
        raise ClusterFailed(f"--stages {text}: {_FORMS}") from error
    assert isinstance(parsed, Stages)
    return Wish(parsed)


def wanted_splits(configured: Mapping[str, Stages], given: Mapping[str, Wish]) -> dict[str, Wish]:
    """The models to split, in the order of `configured`: the command line goes before a model's config.

    configured: of each model that will be served, what its config says. Raises ClusterFailed for a model that is not served,
    and for replicas of stages where nothing is split.
    """
    for model, wish in given.items():
        option = "--stage-replicas" if wish.replicas else "--stages"
        if model not in configured:
            raise ClusterFailed(f"{option} {model}=…: no such model is served; there are {', '.join(configured)}")
    wishes: dict[str, Wish] = {}
    for model, stages in configured.items():
        told = given.get(model)
        wish = Wish(stages) if told is None else told
        if told is not None and told.replicas and not told.splits:
            wish = replace(told, stages=stages)
        if wish.replicas and not wish.splits:
            raise ClusterFailed(f"--stage-replicas {model}=…: the model is not split; --stages {model}=2 splits it")
        if wish.splits:
            wishes[model] = wish
    return wishes

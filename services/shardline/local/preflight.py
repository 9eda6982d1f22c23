"""What is wrong with a model repository, found before anything is started."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from shardline.core.errors import ServingError
from shardline.local.failure import ClusterFailed
from shardline.repository import scan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shardline.core.models import Stages
    from shardline.repository import FoundModel


@dataclass(frozen=True, slots=True)
class CheckedModels:
    """Models that will be served.

    models: their names. limit_to: what replicas are told to serve, () for all of the repository (then models that are
    added later may be loaded, too). left_out: what is broken and left out, a line each. stages: into how many each model's
    config asks to cut it; versions: of each that are served.
    """

    models: tuple[str, ...]
    limit_to: tuple[str, ...]
    left_out: tuple[str, ...]
    stages: Mapping[str, Stages] = field(default_factory=dict)
    versions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def check_models(repository: str, wanted: Sequence[str], *, keep_going: bool) -> CheckedModels:
    """Scan a repository (a folder). Raises ClusterFailed where a wanted model is missing or broken, or none is there.

    wanted: names, all if empty. keep_going: leave broken models and versions out instead, as long as one is good.
    """
    try:
        found = scan(Path(repository))
    except ServingError as error:
        raise ClusterFailed(error.message) from error
    return choose(repository, found, wanted, keep_going=keep_going)


def choose(repository: str, found: Sequence[FoundModel], wanted: Sequence[str], *, keep_going: bool) -> CheckedModels:
    """The pure part of check_models."""
    known = {model.name: model for model in found}
    missing = [name for name in wanted if name not in known]
    if missing:
        raise ClusterFailed(f"no model {', '.join(missing)} in {repository}; it holds {', '.join(known)}")
    names = tuple(dict.fromkeys(wanted or known))
    problems = {name: problem for name in names if (problem := problem_of(known[name]))}
    if problems and not keep_going:
        raise ClusterFailed(f"{'; '.join(problems.values())}; --keep-going serves the others")
    good = tuple(name for name in names if known[name].ok)
    if not good:
        raise ClusterFailed(f"no model in {repository} can be served: {'; '.join(problems.values())}")
    return CheckedModels(
        good,
        good if wanted or len(good) < len(names) else (),
        tuple(problems.values()),
        {name: known[name].stages for name in good},
        {name: known[name].versions for name in good},
    )


def problem_of(model: FoundModel) -> str:
    """Why a model, or one of its versions that should be served, is broken; "" where nothing is."""
    if model.reason:
        return f"model {model.name}: {model.reason}"
    return "; ".join(f"model {model.name} version {version}: {reason}" for version, reason in model.broken.items())

"""Further parts of the benchmark, one module each: `measure(setting) -> list[Table]`, or Skipped with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from loadtests.bench.matrix import Pace
    from loadtests.bench.models import BenchModel


class Skipped(RuntimeError):
    """This part cannot be measured here; the message says why."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a section may use. models: those of this run by name. say: shows one line while it works."""

    models: Mapping[str, BenchModel]
    pace: Pace
    work: Path
    say: Callable[[str], None]

    def model(self, name: str) -> BenchModel:
        """A model that this section needs. Raises Skipped where the run does not have it."""
        if name not in self.models:
            raise Skipped(f"needs the model {name}")
        return self.models[name]

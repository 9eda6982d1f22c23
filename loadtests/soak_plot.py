"""The picture of a soak: resident memory of each process over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from loadtests.bench.plot import QUIET, STYLE
from loadtests.flatness import WARM_UP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_LINES = ("#1f6feb", "#2da44e", "#d08a2e", "#a855f7", "#0b3d91", "#c2410c", "#116329", "#5b6170")
_NEAR = 0.05
"""Labels closer than this share of the axis are moved apart."""


def draw(path: Path, at_s: Sequence[float], resident: Mapping[str, Sequence[float]], title: str) -> None:
    """One line per process, named at its end; the warm-up that the verdict leaves out is shaded."""
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(11, 5))
        top = 1.15 * max((max(series) for series in resident.values() if series), default=1.0) / 1e6
        taken = -1.0
        for at, (name, series) in enumerate(sorted(resident.items(), key=lambda item: item[1][-1])):
            colour, megabytes = _LINES[at % len(_LINES)], [value / 1e6 for value in series]
            times = at_s[len(at_s) - len(series) :]
            axes.plot(times, megabytes, color=colour, lw=1.8)
            taken = max(megabytes[-1] / top, taken + _NEAR)
            place = {"xycoords": "axes fraction", "va": "center", "color": colour, "fontsize": 8.5}
            axes.annotate(f"{name}  {megabytes[-1]:.0f} MB", (1.01, taken), **place)  # type: ignore[arg-type]
        if at_s:
            axes.axvspan(0, WARM_UP * at_s[-1], color="#f2f3f6", lw=0, zorder=0)
            axes.text(WARM_UP * at_s[-1] / 2, top * 0.97, "warm-up", ha="center", va="top", color=QUIET, fontsize=8.5)
            axes.set_xlim(0, at_s[-1])
        axes.set_ylim(0, top)
        axes.set(xlabel="seconds", ylabel="resident memory, MB")
        axes.set_title(title, loc="left", fontweight="bold")
        figure.tight_layout()
        figure.savefig(path, dpi=130, bbox_inches="tight")
        plt.close(figure)

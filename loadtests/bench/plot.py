"""The picture of a run: per model, throughput, the ratio to the plain server, latency, and CPU per request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from loadtests.bench.results import Key
from loadtests.bench.tables import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from loadtests.bench.limit import Point
    from loadtests.bench.results import Cell

INK, QUIET, PAPER = "#1f2430", "#8a8f9c", "#ffffff"
COLOURS = {
    "plain": "#8a8f9c",
    "plain-malloc": "#5b6170",
    "mosec": "#d08a2e",
    "native-1": "#1f6feb",
    "native-2": "#0b3d91",
    "grpcio-1": "#2da44e",
    "grpcio-2": "#116329",
}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": "#c9ccd3",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e8eaee",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": QUIET,
    "figure.facecolor": PAPER,
}


def draw(
    path: Path,
    measured: Mapping[Key, Cell],
    ratio_to_plain: Mapping[Key, float],
    limits: Mapping[str, Point],
    labels: Mapping[str, str],
    subtitle: str,
) -> None:
    """Write a PNG with one row of panels per model."""
    models = list(dict.fromkeys(key.model for key in measured))
    systems = [system for system in labels if any(key.system == system for key in measured)]
    with mpl.rc_context(STYLE):
        figure, grid = plt.subplots(len(models), 4, figsize=(16, 0.9 + 3.1 * len(models)), squeeze=False)
        for row, model in zip(grid, models, strict=True):
            _row(row, model, systems, measured, ratio_to_plain, limits.get(model))
        for axes, title in zip(grid[0], _TITLES, strict=True):
            axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", pad=12)
        figure.align_ylabels(grid[:, 0])
        top = 1 - 0.75 / figure.get_figheight()
        handles = [Line2D([], [], color=_colour(s), marker="o", lw=2, label=labels[s]) for s in systems]
        handles.append(Line2D([], [], color=INK, ls=(0, (4, 3)), lw=1.2, label="ONNX Runtime in process, best batch"))
        figure.legend(handles=handles, loc="upper left", ncols=len(handles), frameon=False, bbox_to_anchor=(0.003, 1.0))
        figure.text(0.008, 1 - 0.5 / figure.get_figheight(), subtitle, color=QUIET, va="center", fontsize=9)
        figure.tight_layout(rect=(0, 0, 1, top), w_pad=2.0, h_pad=1.6)
        figure.savefig(path, dpi=130)
        plt.close(figure)


_TITLES = (
    "requests per second",
    "ratio to the plain server",
    "latency, ms: p50, and p99 dotted",
    "server CPU per request, ms",
)
_ABOUT = {
    "digits": "tiny",
    "identity_image": "602 kB in and out",
    "image_mean": "602 kB in, one number out",
    "minilm": "sentences of 32 tokens",
    "resnet50": "compute-bound",
}


def _colour(system: str) -> str:
    return COLOURS.get(system, "#a855f7")


def _row(
    row: Sequence[Axes],
    model: str,
    systems: Sequence[str],
    measured: Mapping[Key, Cell],
    ratio: Mapping[Key, float],
    limit: Point | None,
) -> None:
    callers = sorted({key.callers for key in measured if key.model == model})
    throughput, ratios, latency, cpu = row
    for at, system in enumerate(systems):
        cells = {n: measured[key] for n in callers if (key := Key(model, system, n)) in measured}
        xs, colour = [callers.index(n) for n in cells], _colour(system)
        line: dict[str, Any] = {"color": colour, "marker": "o", "ms": 4, "lw": 1.8}
        throughput.plot(xs, [cell.rate for cell in cells.values()], **line)
        low, high = [cell.rate_low for cell in cells.values()], [cell.rate_high for cell in cells.values()]
        throughput.fill_between(xs, low, high, color=colour, alpha=0.12, lw=0)
        latency.plot(xs, [cell.p50_ms for cell in cells.values()], **line)
        latency.plot(xs, [cell.p99_ms for cell in cells.values()], color=colour, lw=1, ls=":", marker="_", ms=6)
        cpu.plot(xs, [cell.server_cpu_ms for cell in cells.values()], **line)
        width = 0.8 / len(systems)
        values = [ratio.get(Key(model, system, n), 0.0) for n in cells]
        places = [x - 0.4 + width * (at + 0.5) for x in xs]
        ratios.bar(places, values, width * 0.92, color=colour)
    ratios.axhline(1.0, color=INK, lw=0.8)
    _limit_line(throughput, limit, max((cell.rate for key, cell in measured.items() if key.model == model), default=0))
    about = _ABOUT.get(model, "")
    throughput.set_ylabel(f"{model}\n{about}", fontsize=10, labelpad=10)
    for axes in row:
        axes.set_xticks(range(len(callers)), [f"{n} caller" + "s" * (n > 1) for n in callers])
        axes.set_xlim(-0.5, len(callers) - 0.5)
        axes.tick_params(length=0)
    for axes in (throughput, latency):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:,.3g}" if value < 1000 else f"{value:,.0f}")
        )
    cpu.set_ylim(bottom=0)
    ratios.set_ylim(bottom=0)
    ratios.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))


def _limit_line(axes: Axes, limit: Point | None, highest: float) -> None:
    """The limit as a line where it is near, in words where it would squeeze all curves into the corner."""
    if limit is None:
        return
    if limit.rate < 4 * highest:
        axes.axhline(limit.rate, color=INK, ls=(0, (4, 3)), lw=1.2)
    else:
        text = f"↑ in process {number(limit.rate)}"
        axes.text(0.99, 1.0, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=8, color=QUIET)

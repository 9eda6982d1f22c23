# ruff: noqa: INP001  a script beside the picture that it draws
"""Draw `architecture.svg` and `architecture.png`: `python docs/images/architecture.py`.

On a ground of its own, so that it reads the same on a light and on a dark page.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT = 116.0, 60.0
GROUND, INK, QUIET = "#f7f9fb", "#1f2d3d", "#5b6b7b"
CLIENT, ROUTER, REPLICA, REDIS, CONTROL = "#8794a3", "#2f6f9f", "#3c8a5f", "#b5493f", "#7a5aa6"


def _box(axes: Axes, x: float, y: float, width: float, height: float, colour: str, *, filled: bool = False) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=1.1",
            facecolor=colour if filled else "#ffffff",
            edgecolor=colour,
            linewidth=1.5,
        )
    )


def _step(axes: Axes, x: float, y: float, width: float, text: str, colour: str) -> None:
    _box(axes, x, y, width, 3.6, colour, filled=True)
    axes.text(x + width / 2, y + 1.72, text, ha="center", va="center", color="#ffffff", fontsize=8.6)


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, *, dashed: bool = False
) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="<|-|>" if not dashed else "-|>",
            mutation_scale=12,
            color=colour,
            linewidth=1.3 if dashed else 1.9,
            linestyle=(0, (4, 3)) if dashed else "solid",
            shrinkA=0,
            shrinkB=0,
        )
    )


def _label(
    axes: Axes, x: float, y: float, text: str, *, bold: bool = False, colour: str = INK, size: float = 9.2
) -> None:
    axes.text(x, y, text, ha="center", va="center", color=colour, fontsize=size, weight="bold" if bold else "normal")


def _clients(axes: Axes) -> None:
    _box(axes, 2, 33, 19, 20, CLIENT)
    _label(axes, 11.5, 50, "clients", bold=True)
    for at, name in enumerate(("tritonclient", "KServe", "perf_analyzer", "your stubs", "Locust")):
        _label(axes, 11.5, 46.4 - 2.7 * at, name, colour=QUIET, size=8.6)
    _arrow(axes, (21.6, 43), (33.4, 43), CLIENT)
    _label(axes, 27.5, 46.4, "gRPC", bold=True, size=8.8)
    _label(axes, 27.5, 39.6, "Open Inference\nProtocol", colour=QUIET, size=7.8)


def _router(axes: Axes) -> None:
    _box(axes, 35.4, 28.4, 25, 28.4, ROUTER)
    _box(axes, 34, 27, 25, 28.4, ROUTER)
    _label(axes, 46.5, 52.6, "router × R", bold=True)
    steps = (
        "front: native or grpcio",
        "validate, deadline",
        "admit, or refuse at once",
        "choose a replica",
        "send · retry · cancel",
    )
    for at, text in enumerate(steps):
        _step(axes, 36, 46.3 - 4.5 * at, 21, text, ROUTER)
    _arrow(axes, (61.2, 46), (75.6, 49.5), ROUTER)
    _label(axes, 67.6, 51.6, "ZeroMQ link", bold=True, size=8.8)
    _label(axes, 68.8, 43.2, "rows, answers,\ncancellations, load", colour=QUIET, size=7.8)


def _flow(axes: Axes, start: tuple[float, float], end: tuple[float, float], *, bend: float = 0.0) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=11,
            color=REPLICA,
            linewidth=1.9,
            shrinkA=0,
            shrinkB=0,
        )
    )


def _replicas(axes: Axes) -> None:
    _box(axes, 78.4, 44.6, 35.6, 12.2, REPLICA)
    _box(axes, 77, 43.2, 35.6, 12.2, REPLICA)
    _label(axes, 94.8, 53.1, "replica × N: one process, one device", bold=True)
    _step(axes, 78.6, 47.2, 14.8, "batching queue", REPLICA)
    _step(axes, 96.2, 47.2, 14.8, "ONNX Runtime", REPLICA)
    _flow(axes, (93.5, 49), (96.1, 49))
    _label(axes, 86, 45.1, "by shape and priority", colour=QUIET, size=7.8)
    _label(axes, 103.6, 45.1, "CPU, CUDA, simulated", colour=QUIET, size=7.8)


def _stages(axes: Axes) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (75, 24.6),
            39.6,
            15.4,
            boxstyle="round,pad=0,rounding_size=1.1",
            facecolor="none",
            edgecolor=QUIET,
            linewidth=1.0,
            linestyle=(0, (1.5, 2.5)),
        )
    )
    _label(axes, 94.8, 37.8, "a model split into stages", bold=True)
    for x, name in ((77, "stage 0"), (100.2, "stage 1")):
        _box(axes, x, 28.6, 12.4, 7.2, REPLICA)
        _label(axes, x + 6.2, 33.4, name, bold=True, size=8.8)
        _label(axes, x + 6.2, 30.8, "queue → run", colour=QUIET, size=7.8)
    _flow(axes, (89.5, 32.2), (100.1, 32.2))
    _label(axes, 94.8, 34.1, "activations", colour=QUIET, size=7.8)
    _flow(axes, (60.9, 37.6), (76.9, 33.4))
    _flow(axes, (106.4, 28.5), (60.9, 31.4), bend=-0.2)
    _label(axes, 67.2, 26.4, "answers", colour=QUIET, size=7.8)
    _label(axes, 66.2, 34.4, "rows", colour=QUIET, size=7.8)


def _coordination(axes: Axes) -> None:
    _box(axes, 34, 5, 25, 10.6, REDIS)
    _label(axes, 46.5, 12.6, "Redis", bold=True)
    _label(axes, 46.5, 8.4, "leases · load reports\nmodels wanted · statistics", colour=QUIET, size=8)
    _arrow(axes, (46.5, 26.6), (46.5, 16.2), REDIS, dashed=True)
    _arrow(axes, (82, 24), (60, 13.4), REDIS, dashed=True)
    _label(axes, 28.6, 21.4, "small facts only:\nlosing it costs balance,\nnot answers", colour=QUIET, size=7.8)
    _box(axes, 77, 5, 36.5, 10.6, CONTROL)
    _label(axes, 95.2, 12.6, "controller (Kubernetes)", bold=True)
    _label(axes, 95.2, 8.4, "Model objects → Deployments,\nrollouts that warm before they drain", colour=QUIET, size=8)
    _arrow(axes, (100, 16.2), (100, 24), CONTROL, dashed=True)
    _arrow(axes, (76.4, 8.6), (60, 8.6), CONTROL, dashed=True)


def draw() -> Figure:
    """The picture."""
    mpl.rcParams.update({"svg.hashsalt": "shardline", "svg.fonttype": "path", "font.family": "DejaVu Sans"})
    figure = Figure(figsize=(WIDTH / 11.6, HEIGHT / 11.6), facecolor=GROUND)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(2.0, HEIGHT + 2.0)
    axes.axis("off")
    _label(
        axes,
        WIDTH / 2,
        59.5,
        "one request: solid   ·   what everybody knows of everybody: dashed",
        colour=QUIET,
        size=8,
    )
    _clients(axes)
    _router(axes)
    _replicas(axes)
    _stages(axes)
    _coordination(axes)
    return figure


def save(figure: Figure, folder: Path) -> None:
    """Write both files; the same drawing gives the same bytes of SVG."""
    figure.savefig(folder / "architecture.svg", metadata={"Date": None})
    figure.savefig(folder / "architecture.png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    save(draw(), HERE)
    sys.stdout.write("architecture.svg and architecture.png written\n")

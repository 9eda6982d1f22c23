"""The graph coloured by stage, as SVG and PNG, for people.

Stages stand below what they depend on, side by side where neither depends on the other. In a stage, nodes are grouped by the
start of their names until a person can read them; arrows between stages carry the tensors and bytes that cross the cut.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from shardline.partition.graph import Graph
    from shardline.partition.plan import Plan, Stage

_COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#edc948", "#76b7b2", "#e15759", "#9c755f")
_COLUMNS = 4
_MOST_BLOCKS = 16
_BOX_W, _BOX_H, _GAP_X, _GAP_Y = 2.5, 0.62, 0.35, 0.34
_HEAD_H, _PAD, _LANE_GAP, _SIDE_GAP = 0.95, 0.3, 1.25, 0.9
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class _Block:
    """Nodes of one stage drawn as one box."""

    label: str
    nodes: int
    reads: frozenset[str]
    writes: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Panel:
    """One stage with its place; x, y: the top left corner."""

    stage: Stage
    blocks: tuple[_Block, ...]
    x: float
    y: float
    width: float
    height: float


def draw(plan: Plan, graph: Graph, folder: Path) -> tuple[Path, Path]:
    """Write `graph.svg` and `graph.png` into `folder`; returns both paths."""
    panels = _arrange(plan, graph)
    width = max(panel.x + panel.width for panel in panels) + 2 * _PAD + 2.6 * (len(panels) > 2)
    bottom = min(panel.y - panel.height for panel in panels) - 0.3
    figure = Figure(figsize=(max(7.0, width * 0.82), (1.6 - bottom) * 0.82), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(-_PAD, max(width, 8.5) - _PAD)
    axes.set_ylim(bottom, 1.6)
    _draw_title(axes, plan)
    for panel in panels:
        _draw_panel(axes, panel)
    _draw_cuts(axes, plan, panels)
    svg, png = folder / "graph.svg", folder / "graph.png"
    FigureCanvasAgg(figure)
    figure.savefig(str(svg))
    figure.savefig(str(png), dpi=110)
    return svg, png


def _arrange(plan: Plan, graph: Graph) -> list[_Panel]:
    depths: list[int] = []
    for stage in plan.stages:
        depths.append(
            1 + max((depths[item.source] for item in stage.inputs if isinstance(item.source, int)), default=-1)
        )
    panels: list[_Panel] = []
    top = 0.0
    for depth in range(max(depths) + 1):
        x = 0.0
        lowest = top
        for stage in plan.stages:
            if depths[stage.index] != depth:
                continue
            blocks = blocks_of(stage, graph)
            columns = min(_COLUMNS, max(2, len(blocks)))
            rows = -(-len(blocks) // columns)
            width = columns * (_BOX_W + _GAP_X) - _GAP_X + 2 * _PAD
            height = _HEAD_H + rows * (_BOX_H + _GAP_Y) - _GAP_Y + _PAD
            panels.append(_Panel(stage, blocks, x, top, width, height))
            x += width + _SIDE_GAP
            lowest = min(lowest, top - height)
        top = lowest - _LANE_GAP
    return panels


def blocks_of(stage: Stage, graph: Graph) -> tuple[_Block, ...]:
    """A stage's nodes in at most about `_MOST_BLOCKS` groups of a common name, in the order of their first node."""
    nodes = {node.id: node for node in graph.nodes}
    groups = _grouped(stage.nodes)
    blocks = []
    for label, members in groups:
        reads = frozenset(name for member in members for name in nodes[member].reads)
        writes = frozenset(name for member in members for name in nodes[member].writes)
        blocks.append(_Block(label, len(members), reads, writes))
    return tuple(blocks)


def _grouped(names: list[str]) -> list[tuple[str, list[str]]]:
    if len(names) <= _MOST_BLOCKS:
        return [(name.removesuffix(".node"), [name]) for name in names]
    for depth in (4, 3, 2, 1):
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(_prefix(name, depth), []).append(name)
        if len(groups) <= _MOST_BLOCKS:
            return list(groups.items())
    size = -(-len(names) // (_MOST_BLOCKS // 2))
    return [
        (f"{part[0].removesuffix('.node')} …", part)
        for part in (names[at : at + size] for at in range(0, len(names), size))
    ]


def _prefix(name: str, depth: int) -> str:
    """The first parts of a name: `encoder.layer.3` of `encoder.layer.3.attention.query`, at depth 3; numbers at an end go."""
    parts = [part for part in re.split(r"[./]", name) if part]
    head = ".".join(parts[:depth])
    return re.sub(r"_\d+$", "", head) if len(parts) <= depth else head


def _draw_title(axes: Axes, plan: Plan) -> None:
    where = f"batch {plan.assumptions.batch}, times {plan.assumptions.costs}"
    axes.text(0, 1.1, f"{plan.model.file}: {len(plan.stages)} stages, {where}", fontsize=12, weight="bold", va="center")
    words = (
        f"slowest stage {plan.slowest_ms:.2f} ms ({plan.distance:.0%} above the bound {plan.bound_ms:.2f}), "
        f"whole model {plan.whole_ms:.2f} ms, {plan.rows_per_s:.0f} rows/s, latency {plan.latency_ms:.2f} ms"
    )
    axes.text(0, 0.55, words, fontsize=8.5, va="center", color="#333333")


def _draw_panel(axes: Axes, panel: _Panel) -> None:
    stage = panel.stage
    colour = _COLOURS[stage.index % len(_COLOURS)]
    axes.add_patch(
        FancyBboxPatch(
            (panel.x, panel.y - panel.height),
            panel.width,
            panel.height,
            boxstyle="round,pad=0,rounding_size=0.15",
            facecolor=colour + "30",
            edgecolor=colour,
            linewidth=1.6,
        )
    )
    head = f"stage {stage.index}: {stage.busy_ms:.2f} ms"
    axes.text(panel.x + _PAD, panel.y - 0.32, head, fontsize=10, weight="bold", va="center")
    words = f"{len(stage.nodes)} nodes, weights {size_words(stage.weight_bytes)}, peak {size_words(stage.peak_activation_bytes)}"
    axes.text(panel.x + _PAD, panel.y - 0.68, words, fontsize=7.5, va="center", color="#333333")
    places = _places(panel)
    for block, (x, y) in zip(panel.blocks, places, strict=True):
        _draw_block(axes, block, x, y, colour)
    _draw_inner_edges(axes, panel, places)


def _places(panel: _Panel) -> list[tuple[float, float]]:
    """Lower left corners of the boxes, row by row."""
    columns = min(_COLUMNS, max(2, len(panel.blocks)))
    return [
        (
            panel.x + _PAD + (at % columns) * (_BOX_W + _GAP_X),
            panel.y - _HEAD_H - _BOX_H - (at // columns) * (_BOX_H + _GAP_Y),
        )
        for at in range(len(panel.blocks))
    ]


def _draw_block(axes: Axes, block: _Block, x: float, y: float, colour: str) -> None:
    style = "round,pad=0,rounding_size=0.08"
    axes.add_patch(
        FancyBboxPatch(
            (x, y), _BOX_W, _BOX_H, boxstyle=style, facecolor="white", edgecolor=colour, linewidth=1, zorder=3
        )
    )
    label = block.label if len(block.label) <= 30 else f"…{block.label[-29:]}"
    more = f"\n{block.nodes} nodes" if block.nodes > 1 else ""
    axes.text(x + _BOX_W / 2, y + _BOX_H / 2, label + more, fontsize=6.5, ha="center", va="center", zorder=4)


def _draw_inner_edges(axes: Axes, panel: _Panel, places: list[tuple[float, float]]) -> None:
    for at, block in enumerate(panel.blocks):
        for to, other in enumerate(panel.blocks):
            if at >= to or not block.writes & other.reads:
                continue
            (x, y), (other_x, other_y) = places[at], places[to]
            if to == at + 1 and y == other_y:
                start, end, bend = (x + _BOX_W, y + _BOX_H / 2), (other_x, other_y + _BOX_H / 2), 0.0
            elif y == other_y:
                start, end, bend = (x + _BOX_W * 0.7, y + _BOX_H), (other_x + _BOX_W * 0.3, other_y + _BOX_H), -0.18
            else:
                start, end, bend = (x + _BOX_W / 2, y), (other_x + _BOX_W / 2, other_y + _BOX_H), 0.0
            _arrow(axes, start, end, bend=bend, colour="#888888", width=0.7)


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], *, bend: float, colour: str, width: float
) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=6 + 4 * width,
            connectionstyle=f"arc3,rad={bend}",
            color=colour,
            linewidth=width,
            zorder=2,
        )
    )


def _draw_cuts(axes: Axes, plan: Plan, panels: list[_Panel]) -> None:
    place = {panel.stage.index: panel for panel in panels}
    side = max(panel.x + panel.width for panel in panels) + _SIDE_GAP / 2
    for panel in panels:
        sources = [(item.source, item.name) for item in panel.stage.inputs if isinstance(item.source, int)]
        origins = sorted({source for source, _ in sources})
        for at, origin in enumerate(origins):
            label = _cut_label(plan, [name for source, name in sources if source == origin])
            if place[origin].y - place[origin].height - panel.y > _LANE_GAP * 1.5:
                _draw_bypass(axes, place[origin], panel, side, label)
                side += _SIDE_GAP
            else:
                _draw_cut(axes, place[origin], panel, (at + 1) / (len(origins) + 1), label)


def _draw_cut(axes: Axes, origin: _Panel, panel: _Panel, share: float, label: str) -> None:
    start = (origin.x + origin.width / 2, origin.y - origin.height)
    end = (panel.x + panel.width * (0.3 + 0.4 * share), panel.y)
    _arrow(axes, start, end, bend=0.0, colour="#222222", width=1.8)
    middle = ((start[0] + end[0]) / 2 + 0.15, (start[1] + end[1]) / 2)
    axes.text(*middle, label, fontsize=7, va="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})


def _draw_bypass(axes: Axes, origin: _Panel, panel: _Panel, side: float, label: str) -> None:
    """A tensor that passes stages by runs beside them."""
    high, low = origin.y - origin.height * 0.7, panel.y - panel.height * 0.3
    axes.plot([origin.x + origin.width, side, side], [high, high, low], color="#222222", linewidth=1.8)
    _arrow(axes, (side, low), (panel.x + panel.width, low), bend=0.0, colour="#222222", width=1.8)
    axes.text(side + 0.12, (high + low) / 2, label, fontsize=7, va="center")


def _cut_label(plan: Plan, names: list[str]) -> str:
    shown = names if len(names) <= _MOST_NAMED else names[: _MOST_NAMED - 1]
    lines = [f"{name}  {size_words(plan.tensors[name].bytes)}" for name in shown]
    if len(shown) < len(names):
        rest = sum(plan.tensors[name].bytes for name in names[len(shown) :])
        lines.append(f"{len(names) - len(shown)} more  {size_words(rest)}")
    return "\n".join(lines)


def size_words(size: int) -> str:
    """Bytes for people, in binary units."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"

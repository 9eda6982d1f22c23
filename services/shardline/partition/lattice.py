"""Down-sets: sets of items closed under "what comes before". A plan with S stages is a chain of S of them, each stage the
difference of two neighbours; so every way to cut a DAG into stages without cycles, side by side or in series, is such a chain
(Tarnawski et al., NeurIPS 2020). For a chain of n items there are n + 1 down-sets, for n items side by side 2^n. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardline.partition.problem import Mask, Problem, bits
from shardline.partition.units import Units, coarsened

if TYPE_CHECKING:
    from collections.abc import Sequence

SMALL_UNITS = 12
"""Graphs of up to this many units are always searched in full: at most 2^12 down-sets."""
MAX_DOWN_SETS = 1500
"""Beyond it a larger graph is coarsened, and beyond that only prefixes of topological orders are searched."""

_STEPS = (0.002, 0.01, 0.03, 0.08, 0.2)
"""How cheap a unit must be to be joined with a neighbour, as shares of an even stage; tried in turn."""


def down_sets(units: Units, limit: int) -> list[Mask] | None:
    """All down-sets as masks of units, or None where there are more than `limit`."""
    found = {0}
    border = [0]
    while border:
        grown: set[Mask] = set()
        for inside in border:
            for unit, before in enumerate(units.before):
                larger = inside | 1 << unit
                if larger != inside and before & ~inside == 0 and larger not in grown:
                    grown.add(larger)
                    if len(found) + len(grown) > limit:
                        return None
        found |= grown
        border = list(grown)
    return list(found)


def family(problem: Problem, units: Units, stages: int) -> tuple[list[Mask], str]:
    """Down-sets to search, as masks of items, and in words what was left out ("" for nothing).

    All of them where there are few; else all of a coarsened graph; else none (the caller adds prefixes anyway).
    """
    even = problem.total_ms / stages
    for step in (0.0, *_STEPS):
        coarse = coarsened(problem, units, step * even, max(0.25, step) * even) if step else units
        masks = down_sets(coarse, 2**SMALL_UNITS if len(coarse.members) <= SMALL_UNITS else MAX_DOWN_SETS)
        if masks is None:
            continue
        words = f"cheap neighbours were joined: {len(units.members)} cuttable units became {len(coarse.members)}"
        return [coarse.items(mask) for mask in masks], words if step else ""
    return [], (
        f"the graph is too wide to search every cut ({len(units.members)} units): "
        "stages were sought along topological orders, then improved by moving units"
    )


def prefixes(units: Units) -> list[Mask]:
    """Down-sets along several topological orders: the model's own, and one that finishes each branch before the next."""
    found = {0}
    for order in (range(len(units.members)), _branch_by_branch(units), _branch_by_branch(units, last_first=True)):
        inside = 0
        for unit in order:
            inside |= units.members[unit]
            found.add(inside)
    return list(found)


def _branch_by_branch(units: Units, *, last_first: bool = False) -> Sequence[int]:
    """Depth-first from the outputs: a branch's units stand next to each other."""
    order: list[int] = []
    seen: set[int] = set()
    for end in range(len(units.members)):
        if units.after[end]:
            continue
        stack = [(end, False)]
        while stack:
            unit, ready = stack.pop()
            if ready:
                order.append(unit)
            elif unit not in seen:
                seen.add(unit)
                stack.append((unit, True))
                before = [other for other in bits(units.before[unit]) if other not in seen]
                stack.extend((other, False) for other in (before if last_first else reversed(before)))
    return order

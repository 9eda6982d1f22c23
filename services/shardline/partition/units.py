"""Units: sets of items that stay together, and the order between them. Pure.

Items are joined where a value between them cannot cross a cut; for large graphs, also cheap neighbours in series and cheap
siblings, until the lattice of down-sets is small enough to search (Tarnawski et al., NeurIPS 2020, contract the same way).
A chain, a block with one entry and one exit, or a skip connection reduces to one unit by these two steps alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from shardline.partition.problem import Mask, Problem, bits

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Units:
    """Disjoint sets of items in topological order, and who must come before whom.

    members[u]: items of unit u. before[u], after[u]: units directly before and after it, as masks of units.
    """

    members: tuple[Mask, ...]
    before: tuple[Mask, ...]
    after: tuple[Mask, ...]

    def items(self, units: Mask) -> Mask:
        """The items of several units."""
        mask = 0
        for unit in bits(units):
            mask |= self.members[unit]
        return mask


def cuttable_units(problem: Problem) -> Units:
    """The smallest units: single items, joined where a value of `problem.bound` runs between them."""
    count = len(problem.items)
    root = list(range(count))
    producer = {name: at for at, item in enumerate(problem.items) for name in item.writes}
    for at, item in enumerate(problem.items):
        for name in item.reads:
            if name in problem.bound and name in producer:
                _join(root, at, producer[name])
    return _arrange(problem, [_find(root, at) for at in range(count)])


def _find(root: list[int], at: int) -> int:
    while root[at] != at:
        root[at] = root[root[at]]
        at = root[at]
    return at


def _join(root: list[int], a: int, b: int) -> None:
    root[_find(root, a)] = _find(root, b)


def _arrange(problem: Problem, group: Sequence[int]) -> Units:
    """Units out of a grouping of items; groups that depend on each other both ways become one."""
    producer = {name: at for at, item in enumerate(problem.items) for name in item.writes}
    after: dict[int, set[int]] = {label: set() for label in group}
    for at, item in enumerate(problem.items):
        for name in item.reads:
            if name in producer and group[producer[name]] != group[at]:
                after[group[producer[name]]].add(group[at])
    component = _components(after)
    position: dict[int, int] = {}
    members: list[Mask] = []
    for at, label in enumerate(group):
        unit = component[label]
        if unit not in position:
            position[unit] = len(members)
            members.append(0)
        members[position[unit]] |= 1 << at
    edges = {
        (position[component[a]], position[component[b]])
        for a in after
        for b in after[a]
        if component[a] != component[b]
    }
    return _sorted_units(members, edges)


def _components(after: dict[int, set[int]]) -> dict[int, int]:
    """Strongly connected components by Kosaraju's two passes: label -> representative."""
    order: list[int] = []
    seen: set[int] = set()
    for start, others in after.items():
        stack = [(start, iter(others))] if start not in seen else []
        seen.add(start)
        while stack:
            label, rest = stack[-1]
            step = next((other for other in rest if other not in seen), None)
            if step is None:
                order.append(label)
                stack.pop()
            else:
                seen.add(step)
                stack.append((step, iter(after[step])))
    before: dict[int, list[int]] = {label: [] for label in after}
    for label, targets in after.items():
        for other in targets:
            before[other].append(label)
    component: dict[int, int] = {}
    for start in reversed(order):
        pending = [start]
        while pending:
            label = pending.pop()
            if label not in component:
                component[label] = start
                pending.extend(before[label])
    return component


def _sorted_units(members: list[Mask], edges: set[tuple[int, int]]) -> Units:
    """Units in a topological order that follows the first item of each."""
    before: list[set[int]] = [set() for _ in members]
    after: list[set[int]] = [set() for _ in members]
    for a, b in edges:
        after[a].add(b)
        before[b].add(a)
    waiting = [len(some) for some in before]
    ready = [(members[unit] & -members[unit], unit) for unit, left in enumerate(waiting) if not left]
    heapify(ready)
    order = []
    while ready:
        _, unit = heappop(ready)
        order.append(unit)
        for other in after[unit]:
            waiting[other] -= 1
            if not waiting[other]:
                heappush(ready, (members[other] & -members[other], other))
    place = {unit: at for at, unit in enumerate(order)}
    return Units(
        tuple(members[unit] for unit in order),
        tuple(_mask(place[other] for other in before[unit]) for unit in order),
        tuple(_mask(place[other] for other in after[unit]) for unit in order),
    )


def _mask(positions: object) -> Mask:
    mask = 0
    for at in positions:  # type: ignore[attr-defined]
        mask |= 1 << at
    return mask


def coarsened(problem: Problem, units: Units, cheap_ms: float, cap_ms: float) -> Units:
    """Join neighbours in series, and siblings, where one of the two takes at most `cheap_ms` and both together at most `cap_ms`.

    Each join keeps the order acyclic: in series, the first has no other successor or the second no other predecessor; siblings
    have the same neighbours on both sides.
    """
    while True:
        joined = _one_pass(problem, units, cheap_ms, cap_ms)
        if len(joined.members) == len(units.members):
            return joined
        units = joined


def _one_pass(problem: Problem, units: Units, cheap_ms: float, cap_ms: float) -> Units:
    ms = [sum(problem.items[at].ms for at in bits(members)) for members in units.members]
    root = list(range(len(ms)))
    taken: set[int] = set()
    siblings: dict[tuple[Mask, Mask], int] = {}
    for unit in range(len(ms)):
        if unit in taken:
            continue
        partner = _partner(units, unit, siblings)
        if partner is None or partner in taken:
            continue
        if min(ms[unit], ms[partner]) <= cheap_ms and ms[unit] + ms[partner] <= cap_ms:
            taken |= {unit, partner}
            _join(root, unit, partner)
    group = [0] * len(problem.items)
    for unit, members in enumerate(units.members):
        for at in bits(members):
            group[at] = _find(root, unit)
    return _arrange(problem, group)


def _partner(units: Units, unit: int, siblings: dict[tuple[Mask, Mask], int]) -> int | None:
    """A unit that may be joined with this one without closing a cycle, if there is one."""
    after, before = units.after[unit], units.before[unit]
    if after and after & (after - 1) == 0:
        return after.bit_length() - 1
    for other in bits(after):
        if units.before[other] == 1 << unit:
            return other
    sibling = siblings.pop((before, after), None)
    if sibling is None:
        siblings[before, after] = unit
    return sibling

"""Searches over a family of down-sets: smallest slowest stage, smallest latency, fewest stages; and moves. Pure."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardline.partition.problem import Costing, Mask, bits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardline.partition.units import Units

MAX_EVALUATIONS = 300_000
"""Candidate stages that one search may cost: about half a minute on graphs of a thousand nodes."""
_KEPT = 4
"""Partial plans remembered per down-set while latency is minimised."""
_MAX_PAIRS = 2_000_000
"""Pairs of down-sets that one stage of the latency search looks at; beyond, the throughput-optimal plan is taken as it is."""
_SLACK = 1 + 1e-9
_MAX_MOVES = 200


@dataclass(frozen=True, slots=True)
class Chain:
    """Stages in order. exhausted: the search ran out of evaluations, so a better one may exist."""

    stages: tuple[Mask, ...]
    slowest_ms: float
    exhausted: bool = False


@dataclass(frozen=True, slots=True)
class _Step:
    slowest_ms: float
    previous: Mask


def fewest_busy(costing: Costing, masks: Sequence[Mask], stages: int, bound_ms: float) -> Chain | None:
    """The chain of `stages` + 1 down-sets whose slowest stage is smallest and at most `bound_ms`; None where none fits."""
    ordered = _by_time(costing, masks)
    total = ordered[-1][0]
    layers: list[dict[Mask, _Step]] = [{0: _Step(0.0, 0)}]
    cap = bound_ms * _SLACK
    exhausted = False
    for stage in range(1, stages + 1):
        low, high = total - (stages - stage) * cap, stage * cap
        window = [(ms, mask) for ms, mask in ordered if low - 1e-9 <= ms <= high + 1e-9]
        if stage == stages:
            window = [ordered[-1]]
        layer, stopped = _layer(costing, layers[-1], window, cap)
        exhausted |= stopped
        layers.append(layer)
    full = ordered[-1][1]
    if full not in layers[-1]:
        return None
    return Chain(_walk_back(layers, full), layers[-1][full].slowest_ms, exhausted)


def _layer(
    costing: Costing, reached: dict[Mask, _Step], window: list[tuple[float, Mask]], cap: float
) -> tuple[dict[Mask, _Step], bool]:
    """One stage more: for each down-set of the window the best predecessor."""
    layer: dict[Mask, _Step] = {}
    starts = sorted((step.slowest_ms, costing.compute_ms(mask), mask) for mask, step in reached.items())
    for ms, mask in window:
        best, origin = cap, None
        for slowest, before_ms, before in starts:
            if slowest > best:
                break
            if before & ~mask or before == mask or ms - before_ms > best * _SLACK:
                continue
            stage = mask & ~before
            if costing.busy_ms(stage) > best or not costing.fits(stage):
                continue
            value = max(slowest, costing.busy_ms(stage))
            if origin is None or value < best:
                best, origin = value, before
            if costing.evaluations > MAX_EVALUATIONS:
                break
        if origin is not None:
            layer[mask] = _Step(best, origin)
    return layer, costing.evaluations > MAX_EVALUATIONS


def _by_time(costing: Costing, masks: Sequence[Mask]) -> list[tuple[float, Mask]]:
    """Down-sets with their compute time, so that every set comes after its subsets."""
    ordered = sorted((mask.bit_count(), mask) for mask in masks)
    return [(costing.compute_ms(mask), mask) for _, mask in ordered]


def _walk_back(layers: list[dict[Mask, _Step]], full: Mask) -> tuple[Mask, ...]:
    stages = []
    at = full
    for layer in reversed(layers[1:]):
        previous = layer[at].previous
        stages.append(at & ~previous)
        at = previous
    return tuple(reversed(stages))


def packed(costing: Costing, along: Sequence[Mask], stages: int) -> float:
    """A slowest stage that can be reached along nested down-sets, by bisection of a greedy fill; infinity where none was found.

    It only bounds the exact search, so it need not be good.
    """
    order = _nested(along)
    times = [costing.compute_ms(mask) for mask in order]
    low, high = costing.compute_ms(costing.everything) / stages, costing.busy_ms(costing.everything)
    if not _fills(costing, order, times, stages, high):
        return float("inf")
    for _ in range(12):
        middle = (low + high) / 2
        if _fills(costing, order, times, stages, middle):
            high = middle
        else:
            low = middle
    return high


def _nested(along: Sequence[Mask]) -> list[Mask]:
    """A longest run of down-sets each inside the next, greedily by size."""
    order: list[Mask] = []
    for mask in sorted(along, key=lambda mask: (mask.bit_count(), mask)):
        if not order or order[-1] & ~mask == 0:
            order.append(mask)
    return order


def _fills(costing: Costing, order: list[Mask], times: list[float], stages: int, cap: float) -> bool:
    """Whether a greedy fill makes exactly `stages` stages, none above the cap: each takes all it can and leaves one for each other."""
    start = 0
    for stage in range(1, stages + 1):
        furthest = min(bisect_right(times, times[start] + cap), len(order) - (stages - stage)) - 1
        fitting = (at for at in range(furthest, start, -1) if _allowed(costing, order[at] & ~order[start], cap))
        end = next(fitting, None)
        if end is None:
            return False
        start = end
    return start == len(order) - 1


def fewest_stages(costing: Costing, masks: Sequence[Mask], most: int) -> int | None:
    """The smallest number of stages, up to `most`, into which the items fit the memory; None where there is none."""
    ordered = _by_time(costing, masks)
    full = ordered[-1][1]
    seen = {0}
    border = [0]
    for stages in range(1, most + 1):
        fresh: list[Mask] = []
        for _, mask in reversed(ordered):
            if mask in seen:
                continue
            if any(before & ~mask == 0 and costing.fits(mask & ~before) for before in border):
                fresh.append(mask)
                seen.add(mask)
            if costing.evaluations > MAX_EVALUATIONS:
                return None
        if full in seen:
            return stages
        if not fresh:
            return None
        border = fresh
    return None


@dataclass(frozen=True, slots=True)
class _Partial:
    """A partial plan: when its last stage ends, bytes sent so far, its stages with their ends."""

    latency_ms: float
    sent_bytes: int
    stages: tuple[Mask, ...]
    ends_ms: tuple[float, ...]


def least_latency(costing: Costing, masks: Sequence[Mask], stages: int, slowest_ms: float) -> tuple[Mask, ...] | None:
    """Among chains whose slowest stage is at most `slowest_ms`, one of small latency, then of few bytes over the cuts.

    Latency does not split over down-sets (what runs side by side depends on the whole plan), so the few best partial plans
    per down-set are kept: the result is good, not proved best. None where evaluations ran out.
    """
    ordered = _by_time(costing, masks)
    total, full = ordered[-1]
    cap = slowest_ms * _SLACK
    layer: dict[Mask, list[_Partial]] = {0: [_Partial(0.0, 0, (), ())]}
    for stage in range(1, stages + 1):
        low, high = total - (stages - stage) * cap, stage * cap
        window = [(ms, mask) for ms, mask in ordered if low - 1e-9 <= ms <= high + 1e-9]
        starts = [(costing.compute_ms(mask), mask, partials) for mask, partials in layer.items()]
        layer = {}
        if len(starts) * len(window) > _MAX_PAIRS:
            return None
        for ms, mask in [ordered[-1]] if stage == stages else window:
            found: list[_Partial] = []
            for before_ms, before, partials in starts:
                if (
                    before & ~mask
                    or before == mask
                    or ms - before_ms > cap
                    or not _allowed(costing, mask & ~before, cap)
                ):
                    continue
                found += [_extended(costing, partial, mask & ~before) for partial in partials]
            if found:
                layer[mask] = sorted(found, key=lambda some: (some.latency_ms, some.sent_bytes, some.stages))[:_KEPT]
            if costing.evaluations > MAX_EVALUATIONS:
                return None
    best = layer.get(full)
    return best[0].stages if best else None


def _allowed(costing: Costing, stage: Mask, cap: float) -> bool:
    return costing.busy_ms(stage) <= cap and costing.fits(stage)


def _extended(costing: Costing, partial: _Partial, stage: Mask) -> _Partial:
    end = _end_ms(costing, partial.stages, partial.ends_ms, stage)
    crossing = costing.bytes_of(costing.received(stage) & ~costing.from_router)
    return _Partial(
        max(partial.latency_ms, end), partial.sent_bytes + crossing, (*partial.stages, stage), (*partial.ends_ms, end)
    )


def _end_ms(costing: Costing, stages: Sequence[Mask], ends_ms: Sequence[float], stage: Mask) -> float:
    """When a stage ends that starts as soon as its last input is there; each hop between stages takes its latency."""
    needed = costing.received(stage) & ~costing.from_router
    start = 0.0
    for other, end in zip(stages, ends_ms, strict=True):
        if needed & costing.sent(other):
            start = max(start, end + costing.problem.hop_ms)
    return start + costing.busy_ms(stage)


def latency_ms(costing: Costing, stages: Sequence[Mask]) -> float:
    """Time of one batch through idle stages: the longest way, hops included; the router's own hops are not."""
    ends: list[float] = []
    for at, stage in enumerate(stages):
        ends.append(_end_ms(costing, stages[:at], ends, stage))
    return max(ends)


def improved(costing: Costing, units: Units, stages: Sequence[Mask]) -> tuple[Mask, ...]:
    """Move single units from the slowest stage to another as long as that helps: for graphs too wide to search."""
    current = list(stages)
    for _ in range(_MAX_MOVES):
        slowest = max(range(len(current)), key=lambda at: costing.busy_ms(current[at]))
        better = _best_move(costing, units, current, slowest)
        if better is None:
            break
        current = better
    return tuple(current)


def _best_move(costing: Costing, units: Units, stages: list[Mask], slowest: int) -> list[Mask] | None:
    place = {}
    for unit, members in enumerate(units.members):
        place[unit] = next(at for at, stage in enumerate(stages) if stage & members)
    best, found = costing.busy_ms(stages[slowest]), None
    for unit, members in enumerate(units.members):
        if place[unit] != slowest or members == stages[slowest]:
            continue
        earliest = max((place[other] for other in bits(units.before[unit])), default=0)
        latest = min((place[other] for other in bits(units.after[unit])), default=len(stages) - 1)
        for target in range(earliest, latest + 1):
            if target == slowest:
                continue
            grown, shrunk = stages[target] | members, stages[slowest] & ~members
            value = max(costing.busy_ms(grown), costing.busy_ms(shrunk))
            if value < best * (1 - 1e-6) and costing.fits(grown) and costing.fits(shrunk):
                best = value
                found = [
                    grown if at == target else shrunk if at == slowest else stage for at, stage in enumerate(stages)
                ]
    return found

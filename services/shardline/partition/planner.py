r"""Which items form which stage: the smallest slowest stage, then the smallest latency. Pure.

For down-sets I' ⊂ I and s stages, f(I, s) = min over I' of max(f(I', s-1), busy(I \\ I')), where busy is compute plus receiving
(FIELD.md 3; Tarnawski et al. 2020). On a chain this is the classic recurrence over positions. A known solution bounds
how much compute the first s stages must and may hold, which leaves few down-sets per s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardline.core.errors import ModelRejected
from shardline.partition import lattice, search
from shardline.partition.problem import Costing, Mask, Problem, StageCost, bits
from shardline.partition.units import Units, cuttable_units

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Split:
    """Stages in topological order. bound_ms: no split into as many stages has a slowest stage below it. notes: what was left out."""

    stages: tuple[Mask, ...]
    costs: tuple[StageCost, ...]
    slowest_ms: float
    bound_ms: float
    latency_ms: float
    notes: tuple[str, ...] = field(default=())


def split(problem: Problem, stages: int | None = None) -> Split:
    """The best split found into `stages` stages; None: the smallest number that fits the memory.

    Raises ModelRejected where there is none, naming the node, weight or number that stands in the way.
    """
    costing = Costing(problem)
    units = cuttable_units(problem)
    _refuse_giants(costing, units)
    if stages is not None:
        _refuse_count(stages, units, problem)
        return _split_into(costing, units, stages)
    count = _fewest(costing, units)
    return _split_into(costing, units, count)


def _split_into(costing: Costing, units: Units, stages: int) -> Split:
    problem = costing.problem
    if stages == 1:
        if not costing.fits(costing.everything):
            raise ModelRejected(_too_small(costing, 1))
        return settle(costing, (costing.everything,), ())
    along = lattice.prefixes(units)
    first = search.fewest_busy(costing, along, stages, search.packed(costing, along, stages))
    masks, words = lattice.family(problem, units, stages)
    bound = first.slowest_ms if first else float("inf")
    chain = search.fewest_busy(costing, list({*along, *masks}), stages, bound) or first
    if chain is None:
        raise ModelRejected(_too_small(costing, stages))
    notes = [words] if words else []
    cut = chain.stages
    if not masks:
        cut = search.improved(costing, units, cut)
    else:
        cut = search.least_latency(costing, list({*along, *masks}), stages, chain.slowest_ms) or cut
    if chain.exhausted:
        notes.append(f"the search stopped after {costing.evaluations} candidate stages")
    return settle(costing, cut, tuple(notes))


def settle(costing: Costing, stages: Sequence[Mask], notes: tuple[str, ...]) -> Split:
    """These stages, with what they cost."""
    costs = tuple(costing.cost(stage) for stage in stages)
    return Split(
        stages=tuple(stages),
        costs=costs,
        slowest_ms=max(cost.busy_ms for cost in costs),
        bound_ms=lower_bound_ms(costing.problem, len(stages)),
        latency_ms=search.latency_ms(costing, stages),
        notes=notes,
    )


def lower_bound_ms(problem: Problem, stages: int) -> float:
    """No split into `stages` is faster: an even share of the compute, or the largest node."""
    return max(problem.total_ms / stages, *(item.ms for item in problem.items))


def _fewest(costing: Costing, units: Units) -> int:
    """The smallest number of stages that fit, as far as the search sees."""
    if costing.fits(costing.everything):
        return 1
    found = search.fewest_stages(costing, lattice.prefixes(units), len(units.members))
    if found is None:
        raise ModelRejected(_too_small(costing, len(units.members)))
    masks, _ = lattice.family(costing.problem, units, found)
    better = search.fewest_stages(costing, list({*lattice.prefixes(units), *masks}), found)
    return better or found


def _refuse_count(stages: int, units: Units, problem: Problem) -> None:
    most = len(units.members)
    if stages < 1:
        raise ModelRejected(f"a model is split into 1 stage or more, not {stages}")
    if stages > most:
        largest = max(problem.items, key=lambda item: item.ms)
        why = (
            f"its node {largest.id!r} cannot be divided"
            if most == 1
            else f"it has {most - 1} places where it can be cut"
        )
        raise ModelRejected(f"the model cannot be cut into {stages} stages: {why}. Ask for at most {most}")


def _refuse_giants(costing: Costing, units: Units) -> None:
    """A unit that fits no pod alone fits none with others."""
    for members in units.members:
        if not costing.fits(members):
            raise ModelRejected(_giant(costing, members))


def _giant(costing: Costing, members: Mask) -> str:
    problem = costing.problem
    cost = costing.cost(members)
    items = [problem.items[at] for at in bits(members)]
    weights = {name for item in items for name in item.weights}
    heaviest = max(weights, key=lambda name: problem.weight_bytes.get(name, 0), default=None)
    node = max(items, key=lambda item: sum(problem.weight_bytes.get(name, 0) for name in item.weights)).id
    carries = f"; its weight {heaviest!r} has {mib(problem.weight_bytes.get(heaviest, 0))}" if heaviest else ""
    return (
        f"node {node!r} needs {mib(cost.memory_bytes)} alone ({mib(cost.weight_bytes)} weights, {mib(cost.peak_bytes)} activations, "
        f"{mib(problem.overhead_bytes)} overhead) and memory per pod is {mib(problem.memory_bytes or 0)}{carries}. "
        "A node cannot be cut: give pods more memory, or a smaller batch"
    )


def _too_small(costing: Costing, stages: int) -> str:
    problem = costing.problem
    whole = costing.cost(costing.everything)
    return (
        f"no split into {stages} stage{'s' if stages > 1 else ''} fits {mib(problem.memory_bytes or 0)} per pod: the whole needs "
        f"{mib(whole.memory_bytes)}, of which {mib(whole.weight_bytes)} are weights. Ask for more stages or give pods more memory"
    )


def mib(size: int) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def replicas_for(busy_ms: Sequence[float], pods: int | None = None) -> tuple[int, ...]:
    """How many replicas each stage should have.

    pods: how many there are to give; None: the number, up to twice the stages, with the best throughput per pod.
    Each further pod goes to the stage that is slowest per replica.
    """
    counts = [1] * len(busy_ms)
    best = tuple(counts)
    best_rate = _rate(busy_ms, counts)
    for _ in range((pods or 2 * len(busy_ms)) - len(busy_ms)):
        slowest = max(range(len(counts)), key=lambda at: busy_ms[at] / counts[at])
        counts[slowest] += 1
        rate = _rate(busy_ms, counts)
        if pods or rate > best_rate * 1.1:
            best, best_rate = tuple(counts), rate
    return best


def _rate(busy_ms: Sequence[float], counts: Sequence[int]) -> float:
    slowest = max(ms / count for ms, count in zip(busy_ms, counts, strict=True))
    return 1.0 / (slowest * sum(counts)) if slowest > 0 else 0.0

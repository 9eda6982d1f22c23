"""What the planner plans over, in values: items, tensors, weights, hops; and what one stage of them costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Mask = int
"""A set of items or values: bit i stands for the i-th."""

ARENA_ALLOWANCE = 0.25
"""Share of the peak activations that the runtime's arena holds beyond them (its blocks grow in steps and are not given back)."""


@dataclass(frozen=True, slots=True)
class Item:
    """The smallest thing that a cut moves: one node. Names refer to the maps of Problem. ms: its own time on one batch."""

    id: str
    ms: float
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    weights: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Problem:
    """Items in topological order, and what a stage may cost.

    value_bytes, weight_bytes: sizes at the planned batch. copy_ms: time of nodes that each stage which needs them repeats.
    extra_ms: what exactly these sets of items take beyond their items' times as one stage, 0 or more.
    inputs: values that the router gives; results: values that it takes. bound: values that must not cross a cut.
    bytes_per_ms: bandwidth of a hop, hop_ms: its latency. memory_bytes: per pod, None where unlimited; overhead_bytes: what a
    pod needs besides weights and activations.
    """

    items: tuple[Item, ...]
    value_bytes: Mapping[str, int] = field(default_factory=dict)
    weight_bytes: Mapping[str, int] = field(default_factory=dict)
    copy_ms: Mapping[str, float] = field(default_factory=dict)
    extra_ms: Mapping[Mask, float] = field(default_factory=dict)
    inputs: frozenset[str] = frozenset()
    results: frozenset[str] = frozenset()
    bound: frozenset[str] = frozenset()
    bytes_per_ms: float = float("inf")
    hop_ms: float = 0.0
    memory_bytes: int | None = None
    overhead_bytes: int = 0

    @property
    def total_ms(self) -> float:
        """Time of all items on one batch, without hops."""
        return sum(item.ms for item in self.items)


@dataclass(frozen=True, slots=True)
class StageCost:
    """What one stage costs: compute and receiving in ms; received bytes (from other stages); weights and peak activations."""

    compute_ms: float
    busy_ms: float
    received_bytes: int
    weight_bytes: int
    peak_bytes: int
    memory_bytes: int


class Costing:
    """Costs of any set of items of one problem. Sets are masks; results are remembered."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._values = {name: at for at, name in enumerate(_names(problem))}
        self.value_bytes = [problem.value_bytes.get(name, 0) for name in self._values]
        self.reads = [self.mask_of(item.reads) for item in problem.items]
        self.writes = [self.mask_of(item.writes) for item in problem.items]
        self.from_router = self.mask_of(problem.inputs)
        self.results = self.mask_of(problem.results)
        self._busy: dict[Mask, float] = {}
        self._fits: dict[Mask, bool] = {}
        self.evaluations = 0

    def mask_of(self, names: object) -> Mask:
        """Values by their names, as a mask."""
        mask = 0
        for name in names:  # type: ignore[attr-defined]
            mask |= 1 << self._values[name]
        return mask

    def names_of(self, values: Mask) -> list[str]:
        """Names of the values in a mask, in the problem's order."""
        names = self._ordered_names
        return [names[at] for at in bits(values)]

    @cached_property
    def _ordered_names(self) -> list[str]:
        return list(self._values)

    def bytes_of(self, values: Mask) -> int:
        """Summed size of the values in a mask."""
        return sum(self.value_bytes[at] for at in bits(values))

    def received(self, stage: Mask) -> Mask:
        """Values that the stage needs and does not make, those of the router included."""
        reads = writes = 0
        for at in bits(stage):
            reads |= self.reads[at]
            writes |= self.writes[at]
        return reads & ~writes

    def sent(self, stage: Mask) -> Mask:
        """Values that the stage makes and somebody else, or the router, needs."""
        writes = 0
        for at in bits(stage):
            writes |= self.writes[at]
        wanted = self.results
        for at in bits(self.everything & ~stage):
            wanted |= self.reads[at]
        return writes & wanted

    @property
    def everything(self) -> Mask:
        """All items."""
        return (1 << len(self.problem.items)) - 1

    def compute_ms(self, stage: Mask) -> float:
        """Time of the items alone: a lower bound of busy_ms."""
        return sum(self.problem.items[at].ms for at in bits(stage))

    def busy_ms(self, stage: Mask) -> float:
        """Time for which one batch occupies the stage: its items, what it repeats, and receiving from other stages."""
        known = self._busy.get(stage)
        if known is None:
            self.evaluations += 1
            copies = {name for at in bits(stage) for name in self.problem.items[at].copies}
            repeated = sum(self.problem.copy_ms.get(name, 0.0) for name in copies)
            crossing = self.bytes_of(self.received(stage) & ~self.from_router)
            extra = self.problem.extra_ms.get(stage, 0.0)
            known = self.compute_ms(stage) + repeated + extra + crossing / self.problem.bytes_per_ms
            self._busy[stage] = known
        return known

    def weight_bytes(self, stage: Mask) -> int:
        """Bytes of the stage's weights, each counted once."""
        names = {name for at in bits(stage) for name in self.problem.items[at].weights}
        return sum(self.problem.weight_bytes.get(name, 0) for name in names)

    def peak_bytes(self, stage: Mask) -> int:
        """Largest sum of tensors alive at once when the items run in order: inputs until their last reader, what is sent to the end."""
        members = list(bits(stage))
        last: dict[int, int] = {}
        for step, at in enumerate(members):
            for value in bits(self.reads[at] | self.writes[at]):
                last[value] = step
        for value in bits(self.sent(stage)):
            last[value] = len(members)
        alive = self.bytes_of(self.received(stage))
        peak = alive
        ending: dict[int, int] = {}
        for value, step in last.items():
            ending[step] = ending.get(step, 0) + self.value_bytes[value]
        for step, at in enumerate(members):
            alive += self.bytes_of(self.writes[at])
            peak = max(peak, alive)
            alive -= ending.get(step, 0)
        return peak

    def memory_bytes(self, stage: Mask) -> int:
        """What a pod needs for the stage: weights, peak activations with the arena's allowance, overhead."""
        peak = self.peak_bytes(stage)
        return self.weight_bytes(stage) + int(peak * (1 + ARENA_ALLOWANCE)) + self.problem.overhead_bytes

    def fits(self, stage: Mask) -> bool:
        """Whether the stage fits a pod."""
        limit = self.problem.memory_bytes
        if limit is None:
            return True
        known = self._fits.get(stage)
        if known is None:
            self.evaluations += 1
            light = self.weight_bytes(stage) + self.problem.overhead_bytes <= limit
            known = self._fits[stage] = light and self.memory_bytes(stage) <= limit
        return known

    def cost(self, stage: Mask) -> StageCost:
        """All about one stage."""
        busy = self.busy_ms(stage)
        crossing = self.bytes_of(self.received(stage) & ~self.from_router)
        return StageCost(
            compute_ms=busy - crossing / self.problem.bytes_per_ms,
            busy_ms=busy,
            received_bytes=crossing,
            weight_bytes=self.weight_bytes(stage),
            peak_bytes=self.peak_bytes(stage),
            memory_bytes=self.memory_bytes(stage),
        )


def _names(problem: Problem) -> Iterator[str]:
    seen: dict[str, None] = dict.fromkeys(sorted(problem.inputs))
    for item in problem.items:
        seen.update(dict.fromkeys(item.reads))
        seen.update(dict.fromkeys(item.writes))
    seen.update(dict.fromkeys(sorted(problem.results)))
    yield from seen


def bits(mask: Mask) -> Iterator[int]:
    """Positions of the set bits, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low

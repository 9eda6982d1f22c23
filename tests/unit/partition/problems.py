"""Planning problems for tables: chains, blocks, random DAGs; and the slow, sure answer to compare with."""

from __future__ import annotations

import random

from shardline.partition.problem import Costing, Item, Problem


def chain(*ms: float, **settings: object) -> Problem:
    """Nodes n0, n1 … in a row, each with a weight of its own."""
    items = tuple(Item(f"n{at}", value, (f"v{at}",), (f"v{at + 1}",), (f"w{at}",)) for at, value in enumerate(ms))
    return problem(items, {"v0"}, {f"v{len(ms)}"}, **settings)


def inception(branches: int = 4, depth: int = 2, ms: float = 1.0, **settings: object) -> Problem:
    """A stem, branches of `depth` nodes each, and a join."""
    items = [Item("stem", 0.1, ("image",), ("s",))]
    for branch in range(branches):
        for level in range(depth):
            before = f"b{branch}.{level - 1}" if level else "s"
            items.append(Item(f"b{branch}.{level}", ms, (before,), (f"b{branch}.{level}",)))
    ends = tuple(f"b{branch}.{depth - 1}" for branch in range(branches))
    items.append(Item("join", 0.1, ends, ("out",)))
    return problem(tuple(items), {"image"}, {"out"}, **settings)


def problem(items: tuple[Item, ...], inputs: set[str], results: set[str], **settings: object) -> Problem:
    return Problem(items=items, inputs=frozenset(inputs), results=frozenset(results), **settings)  # type: ignore[arg-type]


def random_problem(seed: int, nodes: int, *, limited: bool) -> Problem:
    """A random DAG with tensors, weights and hops of random size."""
    dice = random.Random(seed)
    items: list[Item] = []
    values = ["in"]
    for at in range(nodes):
        recent = values[-dice.choice([2, 5, 20]) :]
        reads = tuple(sorted({dice.choice(recent) for _ in range(dice.choice([1, 1, 2, 3]))}))
        writes = (f"v{at}",) if dice.random() < 0.8 else (f"v{at}", f"u{at}")
        items.append(Item(f"n{at}", dice.choice([0, 0.1, 1, 2, 5]) * dice.random(), reads, writes, (f"w{at}",)))
        values += writes
    read = {name for item in items for name in item.reads}
    return problem(
        tuple(items),
        {"in"},
        {name for name in values[1:] if name not in read},
        value_bytes={name: dice.randrange(1000) for name in values},
        weight_bytes={f"w{at}": dice.randrange(1000) for at in range(nodes)},
        bytes_per_ms=dice.choice([float("inf"), 500.0, 5000.0]),
        hop_ms=0.1,
        memory_bytes=dice.choice([3000, 5000]) if limited else None,
    )


def exhaustive_ms(given: Problem, stages: int) -> float:
    """The smallest slowest stage over every assignment of nodes to stages; infinity where none fits."""
    costing = Costing(given)
    producer = {name: at for at, item in enumerate(given.items) for name in item.writes}
    before = [{producer[name] for name in item.reads if name in producer} for item in given.items]
    best = float("inf")
    pending: list[tuple[int, ...]] = [()]
    while pending:
        chosen = pending.pop()
        if len(chosen) < len(given.items):
            least = max((chosen[other] for other in before[len(chosen)]), default=0)
            pending.extend((*chosen, stage) for stage in range(least, stages))
            continue
        masks = [sum(1 << at for at, stage in enumerate(chosen) if stage == wanted) for wanted in range(stages)]
        if all(masks) and all(costing.fits(mask) for mask in masks):
            best = min(best, max(costing.busy_ms(mask) for mask in masks))
    return best

"""Split models: which replica runs each stage for a part, what goes to it, and how its outputs come together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardline.batching.policy import micro_batch_rows
from shardline.pb.shardline.v1 import replica_pb2 as pb
from shardline.router.calls import Gathered, Leg
from shardline.router.policy import power_of_two
from shardline.router.replies import OutputHead, PartAnswer, ResultHead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shardline.router.calls import Part, Prepared
    from shardline.router.members import Member
    from shardline.router.table import Serving

_CACHED = 1024
"""Row heads and result heads kept; beyond that they are made anew."""


def choose_route(
    serving: Serving, tried: Sequence[Member], now: float, pick: Callable[[int], int]
) -> tuple[Member, ...] | None:
    """A replica for every stage, the less loaded of two drawn for each; None while a stage has none."""
    route = []
    for pool in serving.stages:
        members = [member for member in pool.ready if member not in tried] or pool.ready
        if not members:
            return None
        candidates = [member.candidate(pool.pool_text, now) for member in members]
        route.append(members[power_of_two(candidates, pick)])
    return tuple(route) or None


def part_rows(serving: Serving, rows: int, largest: int) -> int:
    """Rows of a micro-batch: as the model's config says, else what fills the pipeline fastest by the slowest stage's fit."""
    asked = serving.description.micro_batch_rows
    if asked:
        return min(asked, largest)
    fits = [member.fit(pool.pool_text) for pool in serving.stages for member in pool.ready]
    alpha_s, beta_s = max(fits, key=lambda fit: fit[0] + fit[1] * largest, default=(0.0, 0.0))
    buckets = serving.spec.batching.buckets or (largest,)
    return min(largest, micro_batch_rows(rows, len(serving.stages), alpha_s, beta_s, buckets))


class Itineraries:
    """Prepared row heads by template and route. identity: of this router's links, to which stages answer."""

    def __init__(self, identity: bytes) -> None:
        self._identity = identity
        self._heads: dict[tuple[int, tuple[Member, ...], int], tuple[Prepared, tuple[bytes, ...]]] = {}
        self._results: dict[tuple[OutputHead, ...], ResultHead] = {}

    def clear(self) -> None:
        """The table changed: routes and plans may have, too."""
        self._heads.clear()

    def launch(self, part: Part, route: tuple[Member, ...]) -> None:
        """Put the part on its way along `route`: a leg at every stage's replica."""
        prepared = part.request.prepared
        stages = prepared.serving.stages
        names = [tensor.name for tensor in prepared.template.tensors]
        legs = []
        micro_rows = part.request.parts[0].rows if len(part.request.parts) > 1 else 0
        for pool, member, head in zip(stages, route, self._of(prepared, route, micro_rows), strict=True):
            takes = [names.index(name) for name in pool.link.request_inputs if name in names]
            leg = Leg(
                part,
                pool.link.stage,
                head,
                [part.tensors[index] for index in takes],
                answers=bool(pool.link.answer_outputs),
            )
            legs.append(leg)
            if takes:
                member.put(leg)
            else:
                member.expect(leg)
        part.legs = tuple(legs)
        part.gathered = Gathered(sum(leg.answers for leg in legs))

    def _of(self, prepared: Prepared, route: tuple[Member, ...], micro_rows: int) -> tuple[bytes, ...]:
        key = (id(prepared), route, micro_rows)
        found = self._heads.get(key)
        if found is not None and found[0] is prepared:
            return found[1]
        if len(self._heads) >= _CACHED:
            self._heads.clear()
        heads = self._make(prepared, route, micro_rows)
        self._heads[key] = (prepared, heads)
        return heads

    def _make(self, prepared: Prepared, route: tuple[Member, ...], micro_rows: int) -> tuple[bytes, ...]:
        serving = prepared.serving
        itinerary = pb.Itinerary(plan=serving.description.plan, reply_to=self._identity, micro_rows=micro_rows)
        for pool, member in zip(serving.stages, route, strict=True):
            itinerary.hops.add(stage=pool.link.stage, replica=member.info.id, link=member.info.link)
        heads = []
        for pool in serving.stages:
            message = pb.RowHead(
                model=serving.pool.model, version=serving.pool.version, stage=pool.link.stage, itinerary=itinerary
            )
            by_name = {tensor.name: tensor for tensor in prepared.template.tensors}
            for name in pool.link.request_inputs:
                if name in by_name:
                    tensor = by_name[name]
                    message.inputs.add(name=name, datatype=tensor.datatype.name, dims=tensor.dims)
            heads.append(message.SerializeToString())
        return tuple(heads)

    def gather(self, leg: Leg, answer: PartAnswer) -> PartAnswer | None:
        """Take a stage's outputs; the part's answer when all are there, else None."""
        part = leg.whole
        gathered = part.gathered
        if gathered is None or leg not in part.legs:
            return None
        if leg.answers:  # not what a stage says a second time
            leg.answers = False
            for output, tensor in zip(answer.head.outputs, answer.tensors, strict=True):
                gathered.outputs[output.name] = (output, tensor)
            gathered.receipts.update(dict.fromkeys(answer.receipt.split("|")))
            gathered.left -= 1
        if gathered.left > 0:
            # It may still pass rows on: its loss would matter until the whole part is answered.
            if leg.member is not None:
                leg.member.expect(leg)
            return None
        template, spec = part.request.prepared.template, part.request.prepared.serving.spec
        wanted = template.outputs or tuple(output.name for output in spec.outputs)
        chosen = [gathered.outputs[name] for name in wanted]
        heads = tuple(head for head, _ in chosen if isinstance(head, OutputHead))
        receipts = sorted(gathered.receipts, key=_stage_of)
        return PartAnswer(self._result(answer.head, heads), [tensor for _, tensor in chosen], "|".join(receipts))

    def _result(self, like: ResultHead, outputs: tuple[OutputHead, ...]) -> ResultHead:
        found = self._results.get(outputs)
        if found is None or found.model != like.model or found.version != like.version:
            if len(self._results) >= _CACHED:
                self._results.clear()
            fixed = all(output.datatype != "BYTES" for output in outputs)
            found = self._results[outputs] = ResultHead(like.model, like.version, outputs, fixed)
        return found


def _stage_of(receipt: str) -> int:
    number = receipt.partition(";")[0].removeprefix("stage=")
    return int(number) if number.isdigit() else 0

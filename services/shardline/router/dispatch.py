"""From a client's message to its answer: prepare, admit, choose, send; retry elsewhere; put together; answer once."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardline.batching.policy import row_ranges
from shardline.core.errors import (
    DeadlineExceeded,
    Exhausted,
    MessageTooLarge,
    ModelFailed,
    NextStageGone,
    ServingError,
    Unavailable,
    VersionGone,
    by_reason,
)
from shardline.ops import logs
from shardline.router.calls import Leg, Part, Prepared, Reply, Request
from shardline.router.pipeline import Itineraries, choose_route, part_rows
from shardline.router.policy import RetryBudget, power_of_two
from shardline.router.prepare import Preparer
from shardline.router.replies import PartAnswer, ResultHead, decode_result_head, join_parts, receipt_text, respond

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from shardline.pb.shardline.v1 import replica_pb2 as pb
    from shardline.router.accounts import Accounts
    from shardline.router.members import Member
    from shardline.router.table import Table
    from shardline.wire.codec import Buffer

log = logs.get(__name__)

_ERRORS = by_reason()
_SWEEP_S = 0.02
_MAX_ATTEMPTS = 8
_AGAIN_S = 0.05
_LONGEST_S = 30 * 86400.0
"""Deadlines later than this are this one: links count milliseconds in 32 bits."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What this process takes at most. rows_in_flight: per model; bytes_in_flight: of all requests.

    default_timeout_s: deadline of a request that brings none, where its model sets none.
    """

    rows_in_flight: int
    bytes_in_flight: int
    max_message_bytes: int
    retry_ratio: float
    default_timeout_s: float = 60.0


class Dispatcher:
    """All requests in flight in this router. Not thread-safe: the event loop owns it."""

    def __init__(
        self,
        table: Table,
        bounds: Bounds,
        accounts: Accounts,
        schedule: Callable[[Callable[[], None]], object],
        delay: Callable[[float, Callable[[], None]], object] = lambda _seconds, call: call(),
        identity: bytes = b"",
    ) -> None:
        """schedule: runs a callback at the end of this turn of the event loop (loop.call_soon); delay: after so many
        seconds (loop.call_later). identity: of this router's links.
        """
        self._delay = delay
        self._table = table
        self._bounds = bounds
        self._accounts = accounts
        self._schedule = schedule
        self._preparer = Preparer(table)
        self._itineraries = Itineraries(identity)
        self._budget = RetryBudget(bounds.retry_ratio)
        self._heads: dict[bytes, ResultHead] = {}
        self._requests: dict[int, Request] = {}
        self._dirty: dict[int, Member] = {}
        self._flushing = False
        self._next_id = random.getrandbits(40) << 20
        self._next_deadline = float("inf")
        self.bytes_in_flight = 0

    @property
    def requests_in_flight(self) -> int:
        """Requests without an answer yet."""
        return len(self._requests)

    def forget_templates(self) -> None:
        """The table changed: what was prepared against it is void."""
        self._preparer.clear()
        self._itineraries.clear()

    def submit(self, message: bytes, reply: Reply, timeout_s: float | None) -> Request | None:
        """Take a serialised ModelInferRequest; the reply is called once, now or later. None where it was refused now.

        timeout_s: left until the caller's gRPC deadline, None where there is none.
        """
        now = time.monotonic()
        try:
            request = self._admit(message, reply, timeout_s, now)
        except ServingError as error:
            self._accounts.refused(error, len(message), time.monotonic() - now)
            reply.fail(error)
            return None
        self._launch(request, now)
        return None if request.done else request

    def _admit(self, message: bytes, reply: Reply, timeout_s: float | None, now: float) -> Request:
        size = len(message)
        bounds = self._bounds
        if size > bounds.max_message_bytes:
            raise MessageTooLarge(
                f"request has {size} bytes, the limit is {bounds.max_message_bytes}; "
                "raise it by SHARDLINE_MAX_MESSAGE_BYTES"
            )
        prepared, tensors, request_id = self._preparer.prepare(message)
        template, serving = prepared.template, prepared.serving
        model = self._table.models[serving.pool.model]
        rows = template.rows
        if rows > bounds.rows_in_flight:
            raise MessageTooLarge(
                f"request has {rows} rows, the limit is {bounds.rows_in_flight}; send fewer rows a request, or "
                "raise it by SHARDLINE_ROWS_IN_FLIGHT"
            )
        limit = min(bounds.rows_in_flight, serving.limit_rows)
        if model.rows_in_flight + rows > limit:
            raise Exhausted(
                f"model '{model.name}': {model.rows_in_flight} of {limit} rows are in flight, "
                f"{rows} more were refused; retry in 0.1 s",
                retry_after_s=0.1,
            )
        if self.bytes_in_flight + size > bounds.bytes_in_flight:
            raise Exhausted(
                f"{self.bytes_in_flight} of {bounds.bytes_in_flight} bytes are in flight, {size} more were refused; "
                "retry in 0.1 s",
                retry_after_s=0.1,
            )
        deadline = now + _timeout(timeout_s, prepared, bounds.default_timeout_s)
        if deadline <= now:
            raise DeadlineExceeded("deadline had passed when the request arrived")
        model.rows_in_flight += rows
        self.bytes_in_flight += size
        self._budget.earn()
        return Request(prepared, tensors, request_id, reply, now, deadline, size)

    def _launch(self, request: Request, now: float, tried: tuple[Member, ...] = ()) -> None:
        """Cut the request into parts and send them, to replicas that were not tried where there are others."""
        self._requests[id(request)] = request
        self._next_deadline = min(self._next_deadline, request.deadline)
        template = request.prepared.template
        largest = request.prepared.serving.largest
        if request.prepared.serving.stages and largest and template.rows > 1:
            largest = part_rows(request.prepared.serving, template.rows, largest)
        if template.rows <= largest or not largest:
            request.parts = [Part(request, 0, template.rows, request.tensors)]
        else:
            request.parts = [
                Part(request, start, end - start, _cut_rows(request, start, end))
                for start, end in row_ranges(template.rows, largest)
            ]
        request.left = len(request.parts)
        parts = request.parts
        for part in parts:
            part.tried = tried
            self._send(part, now)
            if request.done or request.parts is not parts:  # failed, or begun anew with another version
                return

    def _send(self, part: Part, now: float) -> None:
        serving = part.request.prepared.serving
        if serving.stages:
            self._send_staged(part, now)
            return
        members = serving.ready
        if part.tried:
            members = [member for member in members if member not in part.tried] or members
        if not members:
            self._again(
                part.request,
                VersionGone(
                    f"model '{serving.pool.model}' version {serving.pool.version} has no replica that is ready; "
                    "retry in 1 s",
                    retry_after_s=1.0,
                ),
                now,
            )
            return
        if len(members) == 1:
            member = members[0]
        else:
            candidates = [member.candidate(serving.pool_text, now) for member in members]
            member = members[power_of_two(candidates, _draw)]
        self._next_id += 1
        part.wire_id = self._next_id
        part.attempts += 1
        member.put(part)
        self.touch(member)

    def _send_staged(self, part: Part, now: float) -> None:
        """Choose a replica for every stage and put the part on its way."""
        self._release(part)
        serving = part.request.prepared.serving
        route = choose_route(serving, part.tried, now, _draw)
        if route is None or not serving.ready:
            pool = serving.pool
            text = (
                f"model '{pool.model}' version {pool.version} has a stage without a replica that is ready; retry in 1 s"
            )
            self._again(part.request, VersionGone(text, retry_after_s=1.0), now)
            return
        self._next_id += 1
        part.wire_id = self._next_id
        part.attempts += 1
        self._itineraries.launch(part, route)
        for member in route:
            self.touch(member)

    def _release(self, part: Part) -> None:
        """No stage needs to go on with the part."""
        legs, part.legs, part.gathered = part.legs, (), None
        for leg in legs:
            if leg.member is not None and leg.wire_id in leg.member.in_flight:
                leg.member.cancel(leg)
                self.touch(leg.member)

    def touch(self, member: Member) -> None:
        """The member has something to send: flush it at the end of this turn."""
        self._dirty[id(member)] = member
        if not self._flushing:
            self._flushing = True
            self._schedule(self.flush)

    def flush(self) -> None:
        """Send all that was put since the last flush, one message per replica."""
        self._flushing = False
        dirty, self._dirty = self._dirty, {}
        now = time.monotonic()
        for member in dirty.values():
            if member.pending:
                member.flush(now)

    def receive(self, member: Member, message: pb.FromReplica, frames: list[Buffer]) -> None:
        """Results and refusals of one replica."""
        now = time.monotonic()
        at = 0
        for group in message.results:
            at = self._results(member, group, frames, at, now)
        for refusal in message.refusals:
            self._refusal(member, refusal, now)

    def _results(self, member: Member, group: pb.ResultGroup, frames: Sequence[Buffer], at: int, now: float) -> int:
        head = self._heads.get(group.head)
        if head is None:
            if len(self._heads) >= 4096:
                self._heads.clear()
            head = self._heads[group.head] = decode_result_head(group.head)
        receipt = receipt_text(group.receipt)
        width = len(head.outputs)
        if group.columns:
            columns: Sequence[Buffer] = group.columns
        elif group.joined:
            columns = frames[at : at + width]
            at += width
        else:
            return self._loose_results(member, group, head, frames[at:], receipt, now) + at
        sizes = [output.row_bytes for output in head.outputs]
        row = 0
        single = width == 1
        for wire_id, rows in zip(group.calls, group.rows, strict=True):
            part = member.take(wire_id)
            end = row + rows
            if part is not None:
                if single:
                    tensors = [columns[0][row * sizes[0] : end * sizes[0]]]
                else:
                    tensors = [column[row * size : end * size] for column, size in zip(columns, sizes, strict=True)]
                self._answer(part, PartAnswer(head, tensors, receipt), now)
            else:
                self._accounts.late(head.model)
            row = end
        return at

    def _loose_results(
        self,
        member: Member,
        group: pb.ResultGroup,
        head: ResultHead,
        frames: Sequence[Buffer],
        receipt: str,
        now: float,
    ) -> int:
        """Results with frames of their own for each call; returns how many frames they took."""
        width = len(head.outputs)
        for index, wire_id in enumerate(group.calls):
            part = member.take(wire_id)
            if part is not None:
                tensors = frames[index * width : (index + 1) * width]
                self._answer(part, PartAnswer(head, tensors, receipt), now)
            else:
                self._accounts.late(head.model)
        return len(group.calls) * width

    def _answer(self, part: Part, answer: PartAnswer, now: float) -> None:
        request = part.request
        if request.done:
            return
        if isinstance(part, Leg):
            whole = self._itineraries.gather(part, answer)
            if whole is None:
                return
            part = part.whole
            self._arrived(part)
            answer = whole
        batched = request.prepared.serving.spec.batched
        if len(request.parts) == 1:
            body = respond(answer.head, part.rows if batched else -1, answer.tensors, request.request_id)
            self._succeed(request, body, answer.receipt, now)
            return
        request.answers[part.start] = answer
        request.left -= 1
        if request.left:
            return
        answers = [request.answers[item.start] for item in request.parts]
        try:
            tensors = join_parts(answers)  # type: ignore[arg-type]
        except ValueError as error:
            self._fail(request, ModelFailed(f"model failed: its outputs cannot be joined: {error}"))
            return
        rows = request.prepared.template.rows
        receipt = "|".join(dict.fromkeys(item.receipt for item in answers))  # type: ignore[attr-defined]
        self._succeed(request, respond(answer.head, rows, tensors, request.request_id), receipt, now)

    def _arrived(self, part: Part) -> None:
        """All stages are done with the part: nothing is in flight for it any more."""
        for leg in part.legs:
            if leg.member is not None:
                leg.member.take(leg.wire_id)
        part.legs, part.gathered = (), None

    def _succeed(self, request: Request, body: bytes, receipt: str, now: float) -> None:
        if len(body) > self._bounds.max_message_bytes:
            self._fail(
                request,
                MessageTooLarge(
                    f"answer has {len(body)} bytes, the limit is {self._bounds.max_message_bytes}; "
                    "raise it by SHARDLINE_MAX_MESSAGE_BYTES"
                ),
            )
            return
        self._forget(request)
        request.reply.ok(body, receipt)
        self._accounts.answered(request, len(body), receipt, now)

    def _refusal(self, member: Member, refusal: pb.Refusal, now: float) -> None:
        retry_s = refusal.retry_after_ms / 1e3 if refusal.retry_after_ms else None
        kind = _ERRORS.get(refusal.reason, ServingError)
        for wire_id in refusal.calls:
            part = member.take(wire_id)
            if part is None or part.request.done:
                continue
            error = kind(refusal.message, retry_after_s=retry_s)
            if isinstance(part, Leg) and part not in part.whole.legs:
                continue
            if isinstance(error, NextStageGone) and isinstance(part, Leg):
                self._later(part.whole, error)
            elif isinstance(error, VersionGone):
                whole = part.whole if isinstance(part, Leg) else part
                self._again(part.request, error, now, (*whole.tried, member))
            elif kind.retryable and self._may_retry(part, member):
                self._accounts.retried(part, error.reason)
                whole = part.whole if isinstance(part, Leg) else part
                whole.tried = (*whole.tried, member)
                self._send(whole, now)
            else:
                self._fail(part.request, error)

    def _may_retry(self, part: Part, member: Member) -> bool:
        serving = part.request.prepared.serving
        ready = serving.stages[part.index].ready if isinstance(part, Leg) and serving.stages else serving.ready
        whole = part.whole if isinstance(part, Leg) else part
        others = [other for other in ready if other not in (*whole.tried, member)]
        return bool(others) and whole.attempts < _MAX_ATTEMPTS and self._budget.spend()

    def _later(self, part: Part, error: NextStageGone) -> None:
        """A stage could not reach the next: our own links will say which replica is gone; then another way is tried."""
        self._release(part)
        if part.attempts >= _MAX_ATTEMPTS:
            self._fail(part.request, error)
            return
        self._accounts.retried(part, error.reason)
        self._delay(_AGAIN_S * part.attempts, lambda: self._if_wanted(part))

    def _if_wanted(self, part: Part) -> None:
        request = part.request
        if not request.done and part in request.parts and not part.legs:
            self._send(part, time.monotonic())

    def _again(self, request: Request, error: VersionGone, now: float, tried: tuple[Member, ...] = ()) -> None:
        """The version was unloaded on the way: begin anew with the version that serves now, all parts of it.

        tried: replicas that do not have it although the table still says so; being idle, they would be chosen again.
        """
        request.attempts += 1
        if request.attempts > _MAX_ATTEMPTS:
            self._fail(request, error)
            return
        self._take_back(request)
        try:
            request.prepared = self._preparer.rebind(request.prepared)
        except ServingError as gone:
            self._fail(request, gone)
            return
        self._accounts.retried(request.parts[0], error.reason)
        request.answers.clear()
        self._launch(request, now, tried)

    def lost(self, member: Member, parts: Iterable[Part]) -> None:
        """A link broke: its parts run again elsewhere, while the deadline allows.

        Not charged to the retry budget: each loss costs a part one retry, and a cluster has few replicas to lose.
        """
        now = time.monotonic()
        for lost in parts:
            part = lost.whole if isinstance(lost, Leg) else lost
            if part.request.done or part not in part.request.parts:  # answered, or begun anew by an earlier part
                continue
            if isinstance(lost, Leg) and lost not in part.legs:  # on another way already
                continue
            part.tried = (*part.tried, member)
            if part.attempts >= _MAX_ATTEMPTS:
                self._fail(part.request, Unavailable("replicas were lost again and again", retry_after_s=1.0))
                continue
            self._accounts.retried(part, "lost")
            self._send(part, now)

    def cancel(self, request: Request) -> None:
        """The caller went away: it is not answered, and its rows are not executed if that can be helped."""
        if not request.done:
            self._accounts.cancelled(request)
            self._take_back(request)
            self._forget(request)

    def _take_back(self, request: Request) -> None:
        for part in request.parts:
            self._release(part)
            if part.member is not None and part.wire_id in part.member.in_flight:
                part.member.cancel(part)
                self.touch(part.member)

    def _fail(self, request: Request, error: ServingError) -> None:
        if request.done:
            return
        self._take_back(request)
        self._forget(request)
        self._accounts.failed(request, error, time.monotonic())
        request.reply.fail(error)

    def _forget(self, request: Request) -> None:
        request.done = True
        self._requests.pop(id(request), None)
        prepared = request.prepared
        model = self._table.models.get(prepared.serving.pool.model)
        if model is not None:
            model.rows_in_flight -= prepared.template.rows
        self.bytes_in_flight -= request.size_bytes

    def sweep(self, now: float) -> None:
        """Fail what is past its deadline. Cheap while no deadline is near."""
        if now < self._next_deadline:
            return
        self._next_deadline = float("inf")
        for request in list(self._requests.values()):
            if request.deadline <= now:
                self._fail(request, _late(request, now))
            elif request.deadline < self._next_deadline:
                self._next_deadline = request.deadline


def _draw(count: int) -> int:
    return int(random.random() * count)  # noqa: S311  balance, not secrecy


def _timeout(left_s: float | None, prepared: Prepared, default_s: float) -> float:
    """Seconds that the request may take: its gRPC deadline, its parameter, the model's default, the router's."""
    if left_s is None:
        left_s = prepared.template.timeout_s or prepared.serving.spec.batching.default_timeout_s or default_s
    return min(left_s, _LONGEST_S)


def _cut_rows(request: Request, start: int, end: int) -> list[Buffer]:
    """The rows [start, end) of every input, as views."""
    rows = request.prepared.template.rows
    parts: list[Buffer] = []
    for tensor, data in zip(request.prepared.template.tensors, request.tensors, strict=True):
        if tensor.size_bytes < 0:
            parts.append(_cut_elements(data, rows, start, end))
        else:
            row_bytes = tensor.size_bytes // rows
            parts.append(memoryview(data)[start * row_bytes : end * row_bytes])
    return parts


def _cut_elements(data: Buffer, rows: int, start: int, end: int) -> Buffer:
    from shardline.wire.codec import bytes_elements

    ends = [0, *(stop for _, stop in bytes_elements(data))]
    per_row = (len(ends) - 1) // rows
    return memoryview(data)[ends[start * per_row] : ends[end * per_row]]


def _late(request: Request, now: float) -> DeadlineExceeded:
    legs = [leg for part in request.parts for leg in (part.legs or (part,))]
    waiting = {leg.member.info.id for leg in legs if leg.member and leg.wire_id in leg.member.in_flight}
    where = ", ".join(sorted(waiting)) or "no replica"
    return DeadlineExceeded(
        f"deadline passed after {(now - request.arrived) * 1e3:.0f} ms; "
        f"{request.left} of {len(request.parts)} parts were still at {where}"
    )

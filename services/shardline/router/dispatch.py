"""From a client's message to its answer: prepare, admit, choose, send; retry elsewhere; put together; answer once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from shardline.batching.policy import row_ranges
from shardline.core.errors import (
    DeadlineExceeded,
    ModelFailed,
    NextStageGone,
    ServingError,
    Unavailable,
    VersionGone,
    by_reason,
)
from shardline.ops import logs
from shardline.router.admission import Admission, Bounds
from shardline.router.calls import Leg, Part, Request
from shardline.router.cut import cut_rows
from shardline.router.pipeline import part_rows
from shardline.router.policy import RetryBudget
from shardline.router.prepare import Preparer
from shardline.router.replies import PartAnswer, join_parts, join_receipts, receipt_text, respond
from shardline.router.results import ResultReader
from shardline.router.sender import Sender
from shardline.wire.statuses import unexpected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from shardline.pb.shardline.v1 import replica_pb2 as pb
    from shardline.router.accounts import Accounts
    from shardline.router.calls import Reply
    from shardline.router.members import Member
    from shardline.router.table import Table
    from shardline.wire.codec import Buffer

log = logs.get(__name__)

_ERRORS = by_reason()
_MAX_ATTEMPTS = 8
"""Times that one part is sent at most, and that one request is begun anew."""
_AGAIN_S = 0.05
"""Wait before the first other way around a stage that could not reach the next; it grows with each attempt."""


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
        self._admission = Admission(bounds, table)
        self._accounts = accounts
        self._sender = Sender(schedule, identity)
        self._preparer = Preparer(table)
        self._budget = RetryBudget(bounds.retry_ratio)
        self._reader = ResultReader()
        self._requests: dict[int, Request] = {}
        self._next_deadline = float("inf")

    @property
    def bytes_in_flight(self) -> int:
        """Bytes of requests without an answer yet."""
        return self._admission.bytes_in_flight

    @property
    def requests_in_flight(self) -> int:
        """Requests without an answer yet."""
        return len(self._requests)

    def forget_templates(self) -> None:
        """The table changed: what was prepared against it is void."""
        self._preparer.clear()
        self._sender.forget_routes()

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
        except Exception as error:  # noqa: BLE001  whatever it is, its caller gets a status and the others go on
            reply.fail(unexpected(error))
            return None
        self._launch(request, now)
        return None if request.done else request

    def _admit(self, message: bytes, reply: Reply, timeout_s: float | None, now: float) -> Request:
        size = len(message)
        self._admission.check_size("request", size)
        prepared, tensors, request_id = self._preparer.prepare(message)
        deadline = self._admission.deadline(prepared, timeout_s, now)
        model = self._admission.admit(prepared, size)
        self._budget.earn()
        return Request(prepared, model, tensors, request_id, reply, now, deadline, size)

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
                Part(request, start, end - start, cut_rows(template, request.tensors, start, end))
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
        gone = self._sender.send(part, now)
        if gone is not None:
            self._again(part.request, gone, now)

    def touch(self, member: Member) -> None:
        """The member has something to send: flush it at the end of this turn."""
        self._sender.touch(member)

    def flush(self) -> None:
        """Send all that was put since the last flush, one message per replica."""
        self._sender.flush()

    def receive(self, member: Member, message: pb.FromReplica, frames: list[Buffer]) -> None:
        """Results and refusals of one replica."""
        now = time.monotonic()
        at = 0
        for index, group in enumerate(message.results):
            try:
                at = self._results(member, group, frames, at, now)
            except Exception as error:  # noqa: BLE001  frames cannot be told apart any more; later messages can
                self._unreadable(member, message.results[index:], error)
                break
        for refusal in message.refusals:
            self._refusal(member, refusal, now)

    def _results(self, member: Member, group: pb.ResultGroup, frames: Sequence[Buffer], at: int, now: float) -> int:
        """Take a group whose frames begin at `at`; returns where the next group's begin."""
        head = self._reader.head(group.head)
        receipt = receipt_text(group.receipt)
        end = at + self._reader.frames_of(group, head)
        for wire_id, tensors in self._reader.calls(group, head, frames[at:end]):
            part = member.take(wire_id)
            if part is None:
                self._accounts.late(head.model)
                continue
            try:
                self._answer(part, PartAnswer(head, tensors, receipt), now)
            except Exception as error:  # noqa: BLE001  one caller's answer, as above
                self._fail(part.request, unexpected(error))
        return end

    def _unreadable(self, member: Member, groups: Iterable[pb.ResultGroup], error: Exception) -> None:
        """What a replica said makes no sense: its calls have no answer, and no other replica would say it better."""
        failure = unexpected(error)
        for wire_id in (call for group in groups for call in group.calls):
            part = member.take(wire_id)
            if part is not None:
                self._fail(part.request, failure)

    def _answer(self, part: Part, answer: PartAnswer, now: float) -> None:
        request = part.request
        if request.done:
            return
        if isinstance(part, Leg):
            whole = self._sender.gather(part, answer)
            if whole is None:
                return
            part, answer = part.whole, whole
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
        receipt = join_receipts(item.receipt for item in answers)  # type: ignore[attr-defined]
        self._succeed(request, respond(answer.head, rows, tensors, request.request_id), receipt, now)

    def _succeed(self, request: Request, body: bytes, receipt: str, now: float) -> None:
        try:
            self._admission.check_size("answer", len(body))
        except ServingError as error:
            self._fail(request, error)
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
        self._sender.release(part)
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
        self._sender.take_back(request)
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
            self._sender.take_back(request)
            self._forget(request)

    def _fail(self, request: Request, error: ServingError) -> None:
        if request.done:
            return
        self._sender.take_back(request)
        self._forget(request)
        self._accounts.failed(request, error, time.monotonic())
        request.reply.fail(error)

    def _forget(self, request: Request) -> None:
        request.done = True
        # Each part knows its request: else both, and the tensors, would wait for the cyclic collector.
        request.parts = []
        self._requests.pop(id(request), None)
        self._admission.release(request.model, request.prepared.template.rows, request.size_bytes)

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


def _late(request: Request, now: float) -> DeadlineExceeded:
    legs = [leg for part in request.parts for leg in (part.legs or (part,))]
    waiting = {leg.member.info.id for leg in legs if leg.member and leg.wire_id in leg.member.in_flight}
    where = ", ".join(sorted(waiting)) or "no replica"
    return DeadlineExceeded(
        f"deadline passed after {(now - request.arrived) * 1e3:.0f} ms; "
        f"{request.left} of {len(request.parts)} parts were still at {where}"
    )

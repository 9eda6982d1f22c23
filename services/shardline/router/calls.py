"""A request in flight and its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardline.core.errors import ServingError
    from shardline.router.members import Member
    from shardline.router.table import Model, Serving
    from shardline.router.validation import Template
    from shardline.wire.codec import Buffer


class Reply(Protocol):
    """The caller, who is answered once."""

    def ok(self, body: bytes, receipt: str) -> None:
        """A serialised ModelInferResponse, and the receipt for the trailing metadata."""

    def fail(self, error: ServingError) -> None:
        """The status that says why not."""


class Prepared:
    """A template bound to the model version that serves it now.

    head: serialised RowHead. joined: small rows, which travel joined with those of other calls.
    spans: where each input lies in a message like the one it was made from; () where that varies.
    checks: positions of BYTES inputs, whose elements are counted in every request.
    """

    __slots__ = ("checks", "head", "joined", "serving", "spans", "template")

    def __init__(
        self,
        template: Template,
        serving: Serving,
        head: bytes,
        *,
        joined: bool,
        spans: tuple[tuple[int, int], ...],
        checks: tuple[int, ...],
    ) -> None:
        self.template = template
        self.serving = serving
        self.head = head
        self.joined = joined
        self.spans = spans
        self.checks = checks


class Request:
    """One call of a client. deadline, arrived: monotonic seconds. left: parts without an answer yet.

    model: whose rows in flight it counts among, also when the table has another object of that name by the end.
    """

    __slots__ = (
        "answers", "arrived", "attempts", "deadline", "done", "left", "model", "parts", "prepared", "reply", "request_id",
        "size_bytes", "tensors",
    )  # fmt: skip

    def __init__(
        self,
        prepared: Prepared,
        model: Model,
        tensors: Sequence[Buffer],
        request_id: str,
        reply: Reply,
        arrived: float,
        deadline: float,
        size_bytes: int,
    ) -> None:
        self.prepared = prepared
        self.model = model
        self.tensors = tensors
        self.request_id = request_id
        self.reply = reply
        self.arrived = arrived
        self.deadline = deadline
        self.size_bytes = size_bytes
        self.parts: list[Part] = []
        self.left = 0
        self.answers: dict[int, object] = {}
        self.attempts = 0
        self.done = False


class Burst:
    """Parts that went out as one message. left: those without an answer yet."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


class Part:
    """A row range of a request, on its way to one replica. wire_id: new for each attempt, so a late answer is known."""

    __slots__ = (
        "attempts", "burst", "gathered", "legs", "member", "request", "rows", "start", "tensors", "tried", "wire_id",
    )  # fmt: skip

    def __init__(self, request: Request, start: int, rows: int, tensors: Sequence[Buffer]) -> None:
        self.request = request
        self.start = start
        self.rows = rows
        self.tensors = tensors
        self.member: Member | None = None
        self.burst: Burst | None = None
        self.gathered: Gathered | None = None
        self.wire_id = 0
        self.attempts = 0
        self.tried: tuple[Member, ...] = ()
        self.legs: tuple[Leg, ...] = ()

    @property
    def head(self) -> bytes:
        """The serialised RowHead that the part goes out under."""
        return self.request.prepared.head


class Leg(Part):
    """What one stage of a split model has to do with a part: it takes tensors, gives outputs, or only passes them on.

    whole: the part. index: of the stage. head, tensors: what the router sends there, b"" and nothing to a stage that
    is fed by others. answers: whether the router still awaits outputs from it.
    """

    __slots__ = ("answers", "index", "own_head", "whole")

    def __init__(self, whole: Part, index: int, head: bytes, tensors: Sequence[Buffer], *, answers: bool) -> None:
        super().__init__(whole.request, whole.start, whole.rows, tensors)
        self.whole = whole
        self.index = index
        self.own_head = head
        self.answers = answers
        self.wire_id = whole.wire_id

    @property
    def head(self) -> bytes:
        """The serialised RowHead with the itinerary."""
        return self.own_head


class Gathered:
    """The outputs of a part that came so far, from the stages that give some. left: stages that are awaited."""

    __slots__ = ("left", "outputs", "receipts")

    def __init__(self, left: int) -> None:
        self.left = left
        self.outputs: dict[str, tuple[object, Buffer]] = {}
        self.receipts: dict[str, None] = {}

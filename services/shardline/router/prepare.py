"""From a message to a validated request: looked up where its head was seen before, parsed and checked where not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardline.core.datatypes import BYTES
from shardline.core.errors import InvalidRequest
from shardline.pb.shardline.v1 import replica_pb2 as pb
from shardline.router.calls import Prepared
from shardline.router.validation import Template, asked_version, check_elements, check_raw, typed_contents, validate
from shardline.wire.codec import Buffer, HeadCache, SplitRequest, cut, parse_head, split_request

if TYPE_CHECKING:
    from shardline.router.table import Serving, Table

_JOIN_BELOW = 16384
"""Requests with fewer tensor bytes travel joined with others: a copy is cheaper than a frame."""
_MAX_CACHED = 1024
"""Request heads remembered; a client that sends more than that is answered all the same, only slower."""


class Preparer:
    """Keeps what was learned of heads until `clear`."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._messages: HeadCache[Prepared] = HeadCache(_MAX_CACHED)
        self._heads: dict[bytes, Prepared] = {}

    def clear(self) -> None:
        """The table changed."""
        self._messages.clear()
        self._heads.clear()

    def prepare(self, message: bytes) -> tuple[Prepared, list[Buffer], str]:
        """(template and serving version, tensors in the model's order, request id). Raises ServingError."""
        prepared = self._messages.get(message)
        if prepared is not None:
            tensors = [cut(message, start, end) for start, end in prepared.spans]
            self._check(prepared, tensors)
            return prepared, tensors, ""
        return self._parse(message)

    def _parse(self, message: bytes) -> tuple[Prepared, list[Buffer], str]:
        split = split_request(message)
        prepared = self._heads.get(split.head)
        if prepared is None:
            head = parse_head(split.head)
            prepared = self._bind(head)
            typed = [tensor.name for tensor in head.inputs if tensor.HasField("contents")]
            if typed and split.spans:
                raise InvalidRequest(
                    f"input '{typed[0]}': contents are given although raw_input_contents are; send one of them"
                )
            if not split.spans:
                return prepared, list(typed_contents(head, prepared.template)), split.request_id
            if len(split.head) < 2048:
                if len(self._heads) >= _MAX_CACHED:
                    self._heads.clear()
                self._heads[split.head] = prepared
        elif not split.spans:
            return prepared, list(typed_contents(parse_head(split.head), prepared.template)), split.request_id
        return self._raw(message, split, prepared)

    def _raw(self, message: bytes, split: SplitRequest, prepared: Prepared) -> tuple[Prepared, list[Buffer], str]:
        template = prepared.template
        check_raw(template, [end - start for start, end in split.spans])
        spans = tuple(split.spans[position] for position in template.order)
        tensors = [cut(message, start, end) for start, end in spans]
        self._check(prepared, tensors)
        if split.head_size:
            # Bound to this layout: another message with this head may have tensors of other sizes (BYTES).
            entry = _prepared(template, prepared.serving, prepared.head, spans)
            self._messages.put(message, split, entry)
        return prepared, tensors, split.request_id

    def _check(self, prepared: Prepared, tensors: list[Buffer]) -> None:
        for index in prepared.checks:
            check_elements(prepared.template, prepared.template.tensors[index], tensors[index])

    def _bind(self, head: Any) -> Prepared:
        if not head.model_name:
            raise InvalidRequest("model_name is empty, expected the name of a model")
        serving = self._table.resolve(head.model_name, asked_version(head.model_version))
        template = validate(head, serving.spec)
        return _prepared(template, serving, row_head(template, serving), ())

    def rebind(self, prepared: Prepared) -> Prepared:
        """The same request for the version that serves now. Raises NotFound, Unavailable or InvalidRequest."""
        template = prepared.template
        serving = self._table.resolve(template.model, template.version)
        if serving.spec.inputs != prepared.serving.spec.inputs or not _has_outputs(template, serving):
            raise InvalidRequest(
                f"model '{template.model}' changed its signature while the request was on its way; send it anew"
            )
        return _prepared(template, serving, row_head(template, serving), prepared.spans)


def _has_outputs(template: Template, serving: Serving) -> bool:
    return set(template.outputs) <= {output.name for output in serving.spec.outputs}


def _prepared(template: Template, serving: Serving, head: bytes, spans: tuple[tuple[int, int], ...]) -> Prepared:
    sizes = [tensor.size_bytes for tensor in template.tensors]
    largest = serving.largest
    return Prepared(
        template,
        serving,
        head,
        joined=min(sizes, default=0) >= 0
        and sum(sizes) < _JOIN_BELOW
        and serving.spec.batched
        and (not largest or template.rows <= largest),
        spans=spans,
        checks=tuple(index for index, tensor in enumerate(template.tensors) if tensor.datatype is BYTES),
    )


def row_head(template: Template, serving: Serving) -> bytes:
    """The serialised RowHead of a request for a model version."""
    message = pb.RowHead(model=serving.pool.model, version=serving.pool.version, stage=serving.pool.stage)
    for tensor in template.tensors:
        message.inputs.add(name=tensor.name, datatype=tensor.datatype.name, dims=tensor.dims)
    message.outputs.extend(template.outputs)
    return message.SerializeToString()

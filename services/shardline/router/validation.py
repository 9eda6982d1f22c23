"""A request against a model's signature. Pure: head, sizes and spec in; a Template or an error out.

Every error names the field and holds what came and what was expected.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

from shardline.core.datatypes import BY_NAME, BYTES, DataType
from shardline.core.errors import InvalidRequest, ShapeMismatch, Unsupported
from shardline.wire.codec import Buffer, bytes_elements, encode_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shardline.core.models import ModelSpec, TensorSpec

MAX_RANK = 32
MAX_ELEMENTS = 1 << 40
"""Beyond this a shape is a mistake, whatever the message limit says."""
_TOLD_AT_MOST = 200
"""Characters of a caller's text that an error repeats."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input as validated: dims leave out the batch axis; size_bytes is what its raw content must have (BYTES: -1)."""

    name: str
    datatype: DataType
    dims: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Template:
    """All that can be known of a request from its head; requests with equal heads share one.

    model, version: as asked; version 0 leaves the choice to the router. rows: of the batch axis, 1 where there is none.
    tensors: in the model's order; order: position of each in the request. outputs: wanted, in order; empty for all.
    timeout_s: of the `timeout` parameter, None where there is none. priority: 0 for the model's default.
    """

    model: str
    version: int
    rows: int
    tensors: tuple[Tensor, ...]
    order: tuple[int, ...]
    outputs: tuple[str, ...]
    timeout_s: float | None
    priority: int


def asked_version(text: str) -> int:
    """The version a request names, 0 for none. Raises InvalidRequest."""
    if not text:
        return 0
    if not _is_whole_number(text) or int(text) == 0:
        raise InvalidRequest(f"model_version: '{text[:40]}' is not a positive whole number")
    return int(text)


def _is_whole_number(text: str) -> bool:
    """Whether `text` is digits of ASCII, few enough to be a number of 64 bits."""
    return text.isascii() and text.isdigit() and len(text) <= 18


def _told(text: str) -> str:
    """A caller's text for an error message: errors travel in headers, which must stay small."""
    return text if len(text) <= _TOLD_AT_MOST else f"{text[:_TOLD_AT_MOST]}…"


def validate(request: Any, spec: ModelSpec) -> Template:
    """Check a parsed head (ModelInferRequest without tensors) against `spec`, but for the sizes of raw contents."""
    _refuse_unsupported(request)
    given = _by_name(request.inputs, spec)
    tensors: list[Tensor] = []
    order: list[int] = []
    bound: dict[str, tuple[str, int]] = {}
    rows: tuple[str, int] | None = None
    for tensor in spec.inputs:
        position = given.get(tensor.name)
        if position is None:
            if tensor.optional:
                continue
            raise InvalidRequest(
                f"input '{tensor.name}' of model '{spec.name}' is missing; expected inputs: {_names(spec.inputs)}"
            )
        item, dims, count = _check_input(request.inputs[position], tensor, spec, bound)
        rows = _same_rows(rows, tensor.name, count)
        tensors.append(Tensor(tensor.name, item, dims, _size(item, dims, count)))
        order.append(position)
    return Template(
        model=spec.name,
        version=asked_version(request.model_version),
        rows=rows[1] if rows else 1,
        tensors=tuple(tensors),
        order=tuple(order),
        outputs=_outputs(request, spec),
        timeout_s=_timeout(request.parameters),
        priority=_priority(request.parameters, spec),
    )


def check_raw(template: Template, sizes: Sequence[int]) -> None:
    """Check the sizes of raw_input_contents, in the request's order."""
    if len(sizes) != len(template.order):
        raise InvalidRequest(
            f"raw_input_contents: {len(sizes)} contents for {len(template.order)} inputs; "
            "raw contents are given for all inputs or for none"
        )
    for tensor, position in zip(template.tensors, template.order, strict=True):
        if tensor.size_bytes >= 0 and sizes[position] != tensor.size_bytes:
            raise InvalidRequest(
                f"input '{tensor.name}': raw content has {sizes[position]} bytes, expected {tensor.size_bytes} "
                f"for shape {_shape(template, tensor)} of {tensor.datatype.name}"
            )


def check_elements(template: Template, tensor: Tensor, data: Buffer) -> None:
    """Check that a BYTES tensor holds as many whole elements of UTF-8 text as its shape says.

    Text, since ONNX's strings are UTF-8: ONNX Runtime's Python interface cannot carry other bytes unchanged.
    """
    expected = template.rows
    for dim in tensor.dims:
        expected *= dim
    found = 0
    try:
        for start, end in bytes_elements(data):
            found += 1
            bytes(data[start:end]).decode()
            if found > expected:
                break
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"input '{tensor.name}': BYTES element {found - 1} is not UTF-8 text, as ONNX strings must be ({error})"
        ) from None
    except ValueError as error:
        raise InvalidRequest(f"input '{tensor.name}': BYTES content is cut off: {error}") from None
    if found != expected:
        more = "more than " if found > expected else ""
        raise InvalidRequest(
            f"input '{tensor.name}': {more}{min(found, expected)} BYTES elements, expected {expected} "
            f"for shape {_shape(template, tensor)}"
        )


def typed_contents(request: Any, template: Template) -> list[bytes]:
    """Typed contents (InferTensorContents) as raw ones, in the model's order."""
    out = []
    for tensor, position in zip(template.tensors, template.order, strict=True):
        out.append(_typed(request.inputs[position], tensor, template))
    return out


def _typed(message: Any, tensor: Tensor, template: Template) -> bytes:
    field = tensor.datatype.contents
    filled = [descriptor.name for descriptor, _ in message.contents.ListFields()]
    if field is None:
        raise InvalidRequest(
            f"input '{tensor.name}': {tensor.datatype.name} has no typed contents; send raw_input_contents"
        )
    wrong = [name for name in filled if name != field]
    if wrong:
        raise InvalidRequest(
            f"input '{tensor.name}': contents.{wrong[0]} is filled, {tensor.datatype.name} belongs into {field}"
        )
    values = getattr(message.contents, field)
    expected = template.rows
    for dim in tensor.dims:
        expected *= dim
    if len(values) != expected:
        raise InvalidRequest(f"input '{tensor.name}': contents.{field} has {len(values)} elements, expected {expected}")
    if tensor.datatype is BYTES:
        raw = encode_bytes(values)
        check_elements(template, tensor, raw)
        return raw
    return _narrow(values, tensor)


def _narrow(values: Sequence[int | float | bool], tensor: Tensor) -> bytes:
    kind = tensor.datatype.numpy
    if kind.kind in "iu" and kind.itemsize < 4 and len(values):
        limits = np.iinfo(kind)  # type: ignore[type-var]  # an integer by the line above
        wide = np.asarray(values, dtype=np.int64)
        low, high = int(wide.min()), int(wide.max())
        if low < limits.min or high > limits.max:
            bad = low if low < limits.min else high
            raise InvalidRequest(
                f"input '{tensor.name}': {bad} is outside {tensor.datatype.name} ({limits.min} to {limits.max})"
            )
    return np.asarray(values, dtype=kind).tobytes()


def _refuse_unsupported(request: Any) -> None:
    for tensor in (*request.inputs, *request.outputs):
        for name in tensor.parameters:
            if name.startswith("shared_memory"):
                raise Unsupported(
                    f"'{_told(tensor.name)}': parameter '{_told(name)}': shared memory is not offered; "
                    "send the tensor's bytes"
                )
            if name == "classification":
                raise Unsupported(
                    f"output '{_told(tensor.name)}': parameter 'classification' is not offered; "
                    "request the scores and sort them in the client"
                )
    for name in ("sequence_id", "sequence_start", "sequence_end"):
        value = request.parameters.get(name) if name in request.parameters else None
        if value is not None and _number_or_text(value):
            raise Unsupported(f"parameter '{name}': stateful sequences are not offered")


def _number_or_text(value: Any) -> Any:
    choice = value.WhichOneof("parameter_choice")
    return getattr(value, choice) if choice else None


def _by_name(inputs: Sequence[Any], spec: ModelSpec) -> dict[str, int]:
    known = {tensor.name for tensor in spec.inputs}
    given: dict[str, int] = {}
    for position, tensor in enumerate(inputs):
        if tensor.name not in known:
            raise InvalidRequest(
                f"input '{_told(tensor.name)}': model '{spec.name}' has no such input, "
                f"expected {_names(spec.inputs)}{_hint(tensor.name, known)}"
            )
        if tensor.name in given:
            raise InvalidRequest(f"input '{tensor.name}' is given twice, expected once")
        given[tensor.name] = position
    return given


def _hint(name: str, known: Iterable[str]) -> str:
    """A known name that was probably meant. Long names are not compared: the cost grows with their length."""
    near = get_close_matches(name, known, 1) if len(name) <= _TOLD_AT_MOST else ()
    return f"; did you mean '{near[0]}'?" if near else ""


def _names(tensors: Sequence[TensorSpec]) -> str:
    return ", ".join(f"'{tensor.name}'" for tensor in tensors)


def _check_input(
    message: Any, tensor: TensorSpec, spec: ModelSpec, bound: dict[str, tuple[str, int]]
) -> tuple[DataType, tuple[int, ...], int]:
    """(data type, dims without batch axis, rows) of an input that fits its spec."""
    if message.datatype != tensor.datatype.name:
        known = "" if message.datatype in BY_NAME else " (not a data type of the protocol)"
        raise InvalidRequest(
            f"input '{tensor.name}': datatype '{message.datatype[:40]}'{known}, expected {tensor.datatype.name}"
        )
    shape = tuple(message.shape)
    expected = [-1, *tensor.wire_dims] if spec.batched else list(tensor.wire_dims)
    if len(shape) != len(expected):
        raise ShapeMismatch(
            f"input '{tensor.name}': shape {list(shape[:MAX_RANK])} has {len(shape)} dimensions, "
            f"expected {len(expected)}: {expected}"
        )
    elements = 1
    for axis, (size, wanted) in enumerate(zip(shape, expected, strict=True)):
        if size < 0 or (wanted >= 0 and size != wanted):
            raise ShapeMismatch(
                f"input '{tensor.name}': shape {list(shape)} has {size} at dimension {axis}, expected {expected}"
            )
        elements *= size
    if elements > MAX_ELEMENTS:
        raise ShapeMismatch(
            f"input '{tensor.name}': shape {list(shape)} has {elements} elements, more than can be sent"
        )
    dims = shape[1:] if spec.batched else shape
    _bind_symbols(tensor, dims, bound)
    if spec.batched and shape[0] < 1:
        raise ShapeMismatch(f"input '{tensor.name}': shape {list(shape)} has {shape[0]} rows, expected at least 1")
    return tensor.datatype, dims, shape[0] if spec.batched else 1


def _bind_symbols(tensor: TensorSpec, dims: tuple[int, ...], bound: dict[str, tuple[str, int]]) -> None:
    for dim, size in zip(tensor.dims, dims, strict=True):
        if isinstance(dim, str):
            where, before = bound.setdefault(dim, (tensor.name, size))
            if before != size:
                raise ShapeMismatch(
                    f"input '{tensor.name}': dimension '{dim}' is {size}, but {before} in input '{where}'; "
                    "they must be equal"
                )


def _same_rows(rows: tuple[str, int] | None, name: str, count: int) -> tuple[str, int]:
    if rows is not None and rows[1] != count:
        raise ShapeMismatch(f"input '{name}' has {count} rows, input '{rows[0]}' has {rows[1]}; they must be equal")
    return rows or (name, count)


def _size(datatype: DataType, dims: tuple[int, ...], rows: int) -> int:
    if datatype is BYTES:
        return -1
    size = datatype.item_bytes * rows
    for dim in dims:
        size *= dim
    return size


def _outputs(request: Any, spec: ModelSpec) -> tuple[str, ...]:
    known = {tensor.name for tensor in spec.outputs}
    names: list[str] = []
    for output in request.outputs:
        if output.name not in known:
            raise InvalidRequest(
                f"output '{_told(output.name)}': model '{spec.name}' has no such output, "
                f"expected {_names(spec.outputs)}{_hint(output.name, known)}"
            )
        if output.name in names:
            raise InvalidRequest(f"output '{output.name}' is requested twice, expected once")
        names.append(output.name)
    return tuple(names)


def _timeout(parameters: Mapping[str, Any]) -> float | None:
    """Seconds of the `timeout` parameter, which is in microseconds as in Triton."""
    if "timeout" not in parameters:
        return None
    value = _number_or_text(parameters["timeout"])
    if isinstance(value, str) and _is_whole_number(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidRequest(f"parameter 'timeout': {_told(repr(value))}, expected a whole number of microseconds >= 0")
    return value / 1e6 if value else None


def _priority(parameters: Mapping[str, Any], spec: ModelSpec) -> int:
    if "priority" not in parameters:
        return 0
    value = _number_or_text(parameters["priority"])
    levels = spec.batching.priority_levels
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidRequest(f"parameter 'priority': {_told(repr(value))}, expected a whole number from 0 to {levels}")
    if levels and value > levels:
        raise InvalidRequest(f"parameter 'priority': {value}, expected 0 (the default) to {levels}")
    return value if levels else 0


def _shape(template: Template, tensor: Tensor) -> list[int]:
    return [template.rows, *tensor.dims]

"""Shardline's own settings in a model's config: `parameters` whose names begin with `shardline.`.

One table names them all; what is not in it is refused, with the nearest name that is.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from shardline.core.errors import ModelRejected
from shardline.core.models import BatchingMode, Padding, Stages
from shardline.repository.config_mapping import nearest
from shardline.repository.layout import one_line, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PREFIX = "shardline."
MAX_ROWS = 65536
"""The largest batch that a config may ask for."""
_MAX_BUCKETS = 64
_MULTIPLE = Padding(axis=0, value=0.0).multiple
_MAX_MS = 24 * 3600 * 1000
_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True, slots=True)
class Settings:
    """Every `shardline.` parameter of one config, parsed; None where the config is silent.

    pad: per input name, trim: per output name. micro_batch, threads: 0 means auto.
    """

    buckets: tuple[int, ...] | None = None
    default_timeout_ms: float | None = None
    queue_rows: int | None = None
    stages: Stages | None = None
    batching: BatchingMode | None = None
    threads: int | None = None
    micro_batch: int | None = None
    device: str | None = None
    pad: Mapping[str, Padding] = field(default_factory=dict)
    trim: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One row of the table. name: without the prefix; with `tensor`, a tensor's name follows after a dot.

    parse: from the text to the value of Settings' field of the same name; raises ValueError saying what is expected.
    """

    name: str
    example: str
    meaning: str
    parse: Callable[[str], object]
    tensor: str = ""


def parse_parameters(parameters: Mapping[str, str]) -> Settings:
    """The settings among a config's parameters; names without the prefix are not looked at.

    Raises ModelRejected, naming the parameter, its text and what is expected, or the nearest name that exists.
    """
    values: dict[str, Any] = {}
    for key in sorted(parameters):
        if key.startswith(PREFIX):
            name, tensor, value = _parse_one(key, parameters[key])
            if tensor:
                values.setdefault(name, {})[tensor] = value
            else:
                values[name] = value
    return Settings(**values)


def suspicious(key: str) -> bool:
    """Whether a name without the prefix looks as if it should have it (`shradline.buckets`, `Shardline.buckets`)."""
    head, dot, tail = key.partition(".")
    return (
        bool(dot)
        and not key.startswith(PREFIX)
        and tail.partition(".")[0] in TABLE
        and bool(nearest(head.lower(), ["shardline"]))
    )


def _parse_one(key: str, text: str) -> tuple[str, str, object]:
    name, dot, tensor = key.removeprefix(PREFIX).partition(".")
    row = TABLE.get(name)
    if row is None or bool(dot) != bool(row.tensor) or (row.tensor and not tensor):
        known = [PREFIX + _shape(row) for row in TABLE.values()]
        near = nearest(PREFIX + name, (PREFIX + known_name for known_name in TABLE)) if row is None else ""
        raise ModelRejected(f"parameters: unknown parameter {shown(key)}{near}; there are {', '.join(known)}")
    try:
        return name, tensor, row.parse(text.strip())
    except ValueError as error:
        raise ModelRejected(
            f"parameters: {one_line(key)} is {shown(text)}, but {error}; an example is {row.example!r}"
        ) from error


def _shape(row: Parameter) -> str:
    return f"{row.name}.<{row.tensor}>" if row.tensor else row.name


def _whole(text: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII) or not least <= int(text) <= most:
        raise ValueError(f"a whole number from {least} to {most} is expected")
    return int(text)


def _auto_or_whole(most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if text == "auto":
            return 0
        try:
            return _whole(text, 1, most)
        except ValueError as error:
            raise ValueError(f"auto or {error}") from error

    return parse


def _buckets(text: str) -> tuple[int, ...]:
    sizes = tuple(_whole(part.strip(), 1, MAX_ROWS) for part in text.split(","))
    if len(sizes) > _MAX_BUCKETS or any(a >= b for a, b in pairwise(sizes)):
        raise ValueError(f"at most {_MAX_BUCKETS} ascending batch sizes, separated by commas, are expected")
    return sizes


def _milliseconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text, re.ASCII) or not 0 < float(text) <= _MAX_MS:
        raise ValueError(f"milliseconds above 0 and up to {_MAX_MS} are expected")
    return float(text)


def _stages(text: str) -> Stages:
    if text == "auto":
        return Stages(count=0)
    if re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        return Stages(count=_whole(text, 1, 1024))
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(Ki|Mi|Gi|Ti|k|M|G|T)B?", text, re.ASCII)
    size = int(float(found.group(1)) * _UNITS[found.group(2)]) if found else 0
    if size <= 0:
        raise ValueError("auto, a number of stages, or the memory of one stage (8Gi, 500Mi) is expected")
    return Stages(count=0, memory_bytes=size)


def _batching(text: str) -> BatchingMode:
    if text not in set(BatchingMode):
        raise ValueError(f"one of {', '.join(BatchingMode)} is expected")
    return BatchingMode(text)


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda|cuda:[0-9]{1,2}|simulated", text, re.ASCII):
        raise ValueError("auto, cpu, cuda, cuda:N or simulated is expected")
    return text


def _pad(text: str) -> Padding:
    found = _pairs(text, ("axis", "value", "multiple"))
    multiple = _whole(found.get("multiple", str(_MULTIPLE)), 1, MAX_ROWS)
    return Padding(_whole(found["axis"], 0, 31), _number(found.get("value", "0")), multiple)


def _trim(text: str) -> int:
    return _whole(_pairs(text, ("axis",))["axis"], 0, 31)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise ValueError("the value must be a number")
    return value


def _pairs(text: str, names: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(","):
        name, sign, value = (piece.strip() for piece in part.partition("="))
        if not sign or name not in names or name in found:
            raise ValueError(
                f"{' and '.join(f'{known}=…' for known in names)}, separated by commas, each at most once, is expected"
            )
        found[name] = value
    if "axis" not in found:
        raise ValueError("axis=… is expected")
    return found


TABLE: dict[str, Parameter] = {
    row.name: row
    for row in (
        Parameter(
            "buckets",
            "1,2,4,8",
            "Batch sizes that are warmed, ascending; a batch is filled up to the next one. The last is the largest batch.",
            _buckets,
        ),
        Parameter(
            "pad",
            "axis=0,value=0,multiple=8",
            "Rows of different lengths may share a batch: this axis of the input (the batch axis not counted) is filled "
            "up with value to the longest row's length, rounded up to multiple.",
            _pad,
            tensor="input",
        ),
        Parameter(
            "trim",
            "axis=0",
            "The axis of the output that is cut back to the row's own length, where inputs are padded.",
            _trim,
            tensor="output",
        ),
        Parameter(
            "default_timeout_ms",
            "500",
            "Deadline of requests that bring none. The same as dynamic_batching's default_timeout_microseconds.",
            _milliseconds,
        ),
        Parameter(
            "queue_rows",
            "4096",
            "The most rows that wait in a replica's queue; beyond them requests are refused. The same as max_queue_size.",
            lambda text: _whole(text, 1, 1 << 24),
        ),
        Parameter(
            "stages",
            "auto",
            "Into how many stages the model is cut: a number, auto, or the memory that one stage may take (8Gi).",
            _stages,
        ),
        Parameter(
            "batching",
            "auto",
            "auto: rows of different requests share a batch where the batch-safety probe allows it; off: never; always: without "
            "the probe.",
            _batching,
        ),
        Parameter("threads", "4", "Threads of ONNX Runtime within one operator, or auto.", _auto_or_whole(1024)),
        Parameter(
            "micro_batch",
            "8",
            "Rows that travel together through the stages of a split model, or auto.",
            _auto_or_whole(MAX_ROWS),
        ),
        Parameter("device", "cuda:0", "auto, cpu, cuda, cuda:N or simulated.", _device),
    )
}
"""Every parameter, by its name without the prefix."""

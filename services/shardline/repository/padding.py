"""Whether the padding and trimming that a config asks for fit the inputs and outputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from shardline.core.datatypes import BF16, BYTES
from shardline.core.errors import ModelRejected
from shardline.repository.config_mapping import nearest
from shardline.repository.layout import shown
from shardline.repository.parameters import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shardline.core.datatypes import DataType
    from shardline.core.models import Padding, TensorSpec


def check_padding(pad: Mapping[str, Padding], inputs: Sequence[TensorSpec], *, batched: bool) -> None:
    """Raises ModelRejected for an unknown input, an axis that is not there or fixed, a value its type cannot hold."""
    for name, padding in pad.items():
        key = f"{PREFIX}pad.{name}"
        spec = _find(key, "input", name, inputs, batched=batched)
        _check_axis(key, spec, padding.axis)
        if not holds(spec.datatype, padding.value):
            raise ModelRejected(f"{key}: value is {padding.value:g}, but {shown(name)} is {spec.datatype.name}")


def check_trimming(trim: Mapping[str, int], outputs: Sequence[TensorSpec], *, batched: bool) -> None:
    """Raises ModelRejected for an unknown output, or an axis that is not there or fixed."""
    for name, axis in trim.items():
        key = f"{PREFIX}trim.{name}"
        _check_axis(key, _find(key, "output", name, outputs, batched=batched), axis)


def holds(datatype: DataType, value: float) -> bool:
    """Whether the data type can hold the number; BYTES holds none."""
    if datatype is BYTES:
        return False
    if datatype is BF16:
        return math.isinf(value) or abs(value) < 2.0**128
    kind, bits = datatype.numpy.kind, 8 * datatype.item_bytes
    if kind == "f":
        return math.isinf(value) or abs(value) <= float(np.finfo(f"f{datatype.item_bytes}").max)
    if kind == "b":
        return value in (0, 1)
    least, most = (0, 2**bits - 1) if kind == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return value.is_integer() and least <= value <= most


def _find(key: str, kind: str, name: str, specs: Sequence[TensorSpec], *, batched: bool) -> TensorSpec:
    if not batched:
        raise ModelRejected(f"{key}: rows share no batch, since max_batch_size is 0")
    for spec in specs:
        if spec.name == name:
            return spec
    names = [spec.name for spec in specs]
    listed = ", ".join(map(shown, names[:20]))
    raise ModelRejected(f"{key}: the model has no {kind} {shown(name)}{nearest(name, names)}; its {kind}s are {listed}")


def _check_axis(key: str, spec: TensorSpec, axis: int) -> None:
    if axis >= len(spec.dims):
        raise ModelRejected(f"{key}: axis is {axis}, but a row of {shown(spec.name)} has {len(spec.dims)} axes")
    dim = spec.dims[axis]
    if isinstance(dim, int) and dim >= 0:
        raise ModelRejected(
            f"{key}: axis {axis} of {shown(spec.name)} is fixed to {dim}; only a variable axis can differ"
        )

"""Before a model reports ready: every bucket is run, the latency is fitted, and batching is proved to be safe.

Batch safety (docs/architecture.md): a probe row alone, in every bucket, beside random rows and beside NaN rows. If its answer
changes beyond tolerance (dynamic quantisation, reductions over the batch axis, hard-coded reshapes), rows of different
callers never share a batch, and the reason is reported. Source: ort#10111, triton#5640.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shardline.core.datatypes import BF16, BYTES, DataType
from shardline.core.errors import ModelFailed
from shardline.core.models import BatchingMode, ModelSpec
from shardline.core.openaxes import SIZES_TO_TRY

if TYPE_CHECKING:
    from shardline.batching.latency import LatencyFit

Execute = Callable[[Mapping[str, np.ndarray], Sequence[str]], list[np.ndarray]]

_BF16_ONE = 0x3F80
_TOLERANCE = {2: 3e-2, 4: 1e-3, 8: 1e-5}
"""Largest change of a probe row's answer, relative to its scale, by bytes per element."""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What warming found. unbatched_because is "" where rows may share batches; skipped says why warming was not possible."""

    unbatched_because: str = ""
    skipped: str = ""


def warm_up(spec: ModelSpec, execute: Execute, buckets: Sequence[int], fit: LatencyFit) -> WarmUp:
    """Run every bucket twice: the first run warms it, the second is timed and added to `fit`; both probe batch safety."""
    names = [output.name for output in spec.outputs]
    rng = np.random.default_rng(0)
    size, failure = _size_that_runs(spec, execute, names, rng)
    if size is None:
        return WarmUp(skipped=f"no generated input was accepted: {failure}")
    row = sample(spec, 1, size, rng)
    alone = execute(row, names)
    largest = 2 if _runs(execute, _filled(row, 2), names) else 1
    because = ""
    for bucket in buckets if spec.batched else (1,):
        because = because or _run_bucket(spec, execute, bucket, size, fit, Probe(row, alone, names, largest))
    return WarmUp(unbatched_because=because)


@dataclass(frozen=True, slots=True)
class Probe:
    """A row and its answer when it ran alone. largest: the largest whole number that its neighbours may hold."""

    row: Mapping[str, np.ndarray]
    alone: Sequence[np.ndarray]
    names: Sequence[str]
    largest: int = 1

    def changed(self, together: Sequence[np.ndarray], bucket: int, kind: str) -> str:
        """Which output of the row is another one beside `kind` rows in a batch of `bucket`, "" where none is."""
        for name, expected, found in zip(self.names, self.alone, together, strict=True):
            if found.ndim == 0 or found.shape[0] != bucket:
                return f"output '{name}' has shape {list(found.shape)} for a batch of {bucket} rows"
            change = _change(expected[0], found[bucket // 2])
            if change:
                return f"a row's output '{name}' changes by {change} in a batch of {bucket} beside {kind} rows"
        return ""


def _run_bucket(spec: ModelSpec, execute: Execute, bucket: int, size: int, fit: LatencyFit, probe: Probe) -> str:
    """Run the bucket beside random and beside NaN rows; returns why rows must not share it, "" where they may."""
    for kind in ("random", "NaN"):
        rng = np.random.default_rng(bucket)
        feeds = sample(spec, bucket, size, rng)
        if spec.batched:
            feeds = _among(probe, feeds, kind if bucket > 1 else "random", rng)
        started = time.monotonic()
        try:
            outputs = execute(feeds, probe.names)
        except ModelFailed as error:
            return f"a batch of {bucket} with {kind} rows fails: {error.message}"
        if kind == "NaN":
            fit.observe(bucket, time.monotonic() - started)
        if spec.batched and (bucket == 1 or spec.batching.mode is BatchingMode.AUTO):
            because = probe.changed(outputs, bucket, kind)
            if because:
                return because
    return ""


def _size_that_runs(
    spec: ModelSpec, execute: Execute, names: Sequence[str], rng: np.random.Generator
) -> tuple[int | None, str]:
    failure = ""
    for size in SIZES_TO_TRY:
        try:
            execute(sample(spec, 1, size, rng), names)
        except ModelFailed as error:
            failure = failure or error.message
        else:
            return size, ""
    return None, failure


def sample(spec: ModelSpec, rows: int, size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Generated inputs [rows, *dims]; variable axes have `size` items, optional inputs are left out."""
    feeds = {}
    for tensor in spec.inputs:
        if tensor.optional:
            continue
        dims = tuple(size if dim < 0 else dim for dim in tensor.wire_dims)
        shape = (rows, *dims) if spec.batched else dims
        feeds[tensor.name] = _values(tensor.datatype, shape, rng)
    return feeds


def _values(datatype: DataType, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if datatype is BYTES:
        strings = np.empty(shape, dtype=object)
        strings[...] = "0"
        return strings
    if datatype is BF16:
        return np.full(shape, _BF16_ONE, dtype=datatype.numpy)
    if datatype.numpy.kind == "f":
        return rng.standard_normal(shape).astype(datatype.numpy)
    # Small indices are valid for most gathers, and a mask of ones for most attention.
    return np.ones(shape, dtype=datatype.numpy)


def _among(
    probe: Probe, neighbours: dict[str, np.ndarray], kind: str, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The probe's row among rows that differ from it, also in whole numbers: a model of token ids has no others."""
    for name, array in neighbours.items():
        if array.dtype.kind == "f":
            if kind == "NaN":
                array[...] = np.nan
        elif array.dtype.kind in "iu" and not _is_bfloat16(array, probe.row[name]):
            array[...] = rng.integers(1, probe.largest + 1, array.shape) if kind == "random" else probe.largest
        array[len(array) // 2] = probe.row[name][0]
    return neighbours


def _is_bfloat16(array: np.ndarray, row: np.ndarray) -> bool:
    """Bit patterns of BF16 come as uint16, all of them 1.0: whole numbers in them would be denormal."""
    return bool(array.dtype == np.uint16 and row.size and row.flat[0] == _BF16_ONE)


def _filled(row: Mapping[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
    """The row with `number` in place of its whole numbers."""
    return {
        name: np.full_like(array, number) if array.dtype.kind in "iu" and not _is_bfloat16(array, array) else array
        for name, array in row.items()
    }


def _runs(execute: Execute, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> bool:
    try:
        execute(feeds, names)
    except ModelFailed:
        return False
    return True


def _change(expected: np.ndarray, found: np.ndarray) -> str:
    """How far `found` is from `expected`, "" where it is within tolerance."""
    if expected.shape != found.shape:
        return f"shape {list(expected.shape)} to {list(found.shape)}"
    if expected.dtype.kind != "f":
        return "" if np.array_equal(expected, found) else "other values"
    scale = float(np.max(np.abs(expected), initial=0.0)) or 1.0
    with np.errstate(invalid="ignore"):
        worst = float(np.max(np.abs(expected.astype("f8") - found.astype("f8")), initial=0.0))
    if np.isnan(expected).any():
        return ""
    if not worst <= _TOLERANCE[expected.dtype.itemsize] * scale:
        return f"{worst / scale:.2g} of its scale"
    return ""

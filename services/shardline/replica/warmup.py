"""Before a model reports ready: every bucket is run, the latency is fitted, and batching is proved to be safe.

Batch safety (docs/architecture.md): a probe row alone, in every bucket, beside random rows and beside NaN rows. If its answer
changes beyond tolerance (dynamic quantisation, reductions over the batch axis, hard-coded reshapes), rows of different
callers never share a batch, and the reason is reported. Source: ort#10111, triton#5640.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shardline.batching.latency import LatencyFit
from shardline.core.datatypes import BF16, BYTES, DataType
from shardline.core.errors import ModelFailed
from shardline.core.models import BatchingMode, ModelSpec

Execute = Callable[[Mapping[str, np.ndarray], Sequence[str]], list[np.ndarray]]

_SIZES_TO_TRY = (8, 32, 224, 1)
"""Sizes given to variable axes, until the model accepts one: a sequence, a small image, an image, a scalar."""
_TOLERANCE = {2: 3e-2, 4: 1e-3, 8: 1e-5}
"""Largest change of a probe row's answer, relative to its scale, by bytes per element."""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What warming found. unbatched_because is "" where rows may share batches; skipped says why warming was not possible."""

    unbatched_because: str = ""
    skipped: str = ""


def warm_up(spec: ModelSpec, execute: Execute, buckets: Sequence[int], fit: LatencyFit) -> WarmUp:
    """Run every bucket twice and prove batch safety. Adds the second, warm time of each bucket to `fit`.

    Raises ModelFailed only where a model without variable axes fails on generated input.
    """
    names = [output.name for output in spec.outputs]
    rng = np.random.default_rng(0)
    size, failure = _size_that_runs(spec, execute, names, rng)
    if size is None:
        return WarmUp(skipped=f"no generated input was accepted: {failure}")
    for bucket in buckets if spec.batched else (1,):
        feeds = sample(spec, bucket, size, rng)
        try:
            seconds, outputs = _second_run(execute, feeds, names)
        except ModelFailed as error:
            return WarmUp(unbatched_because=f"a batch of {bucket} rows fails: {error.message}")
        fit.observe(bucket, seconds)
        wrong = _wrong_rows(spec, names, outputs, bucket)
        if wrong:
            return WarmUp(unbatched_because=wrong)
    if spec.batched and len(buckets) > 1 and spec.batching.mode is BatchingMode.AUTO:
        return WarmUp(unbatched_because=probe(spec, execute, buckets, size))
    return WarmUp()


def _second_run(
    execute: Execute, feeds: Mapping[str, np.ndarray], names: Sequence[str]
) -> tuple[float, list[np.ndarray]]:
    execute(feeds, names)
    started = time.monotonic()
    outputs = execute(feeds, names)
    return time.monotonic() - started, outputs


def _size_that_runs(
    spec: ModelSpec, execute: Execute, names: Sequence[str], rng: np.random.Generator
) -> tuple[int | None, str]:
    failure = ""
    for size in _SIZES_TO_TRY:
        try:
            execute(sample(spec, 1, size, rng), names)
        except ModelFailed as error:
            failure = failure or error.message
        else:
            return size, ""
    return None, failure


def _wrong_rows(spec: ModelSpec, names: Sequence[str], outputs: Sequence[np.ndarray], rows: int) -> str:
    if not spec.batched:
        return ""
    for name, array in zip(names, outputs, strict=True):
        if array.ndim == 0 or array.shape[0] != rows:
            return f"output '{name}' has shape {list(array.shape)} for a batch of {rows} rows"
    return ""


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
        return np.full(shape, 0x3F80, dtype=datatype.numpy)  # 1.0
    if datatype.numpy.kind == "f":
        return rng.standard_normal(shape).astype(datatype.numpy)
    # Small indices are valid for most gathers, and a mask of ones for most attention.
    return np.ones(shape, dtype=datatype.numpy)


def probe(spec: ModelSpec, execute: Execute, buckets: Sequence[int], size: int) -> str:
    """Why rows must not share a batch, "" where they may. Two probe rows, beside random and beside NaN rows."""
    names = [output.name for output in spec.outputs]
    rng = np.random.default_rng(1)
    row = sample(spec, 1, size, rng)
    alone = execute(row, names)
    for bucket in buckets:
        if bucket == 1:
            continue
        for kind in ("random", "NaN"):
            feeds = _among(row, sample(spec, bucket, size, rng), kind)
            try:
                together = execute(feeds, names)
            except ModelFailed as error:
                return f"a batch of {bucket} with {kind} rows fails: {error.message}"
            for name, expected, found in zip(names, alone, together, strict=True):
                changed = _change(expected[0], found[bucket // 2])
                if changed:
                    return f"a row's output '{name}' changes by {changed} in a batch of {bucket} beside {kind} rows"
    return ""


def _among(row: Mapping[str, np.ndarray], neighbours: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    for name, array in neighbours.items():
        if kind == "NaN" and array.dtype.kind == "f":
            array[...] = np.nan
        array[len(array) // 2] = row[name][0]
    return neighbours


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

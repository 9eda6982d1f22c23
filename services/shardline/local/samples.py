"""Inputs that a model of a given signature accepts, for the first request after start and for `shardline infer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shardline.core.datatypes import BF16, BY_NAME, BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shardline.wire.client import TensorMetadata

BATCH_ROWS = 1
OPEN_DIM = 8
"""Size given to an axis that the signature leaves open: enough for convolutions, cheap for everything else."""

_BF16_HALF = 0x3F00
_SAMPLE_TEXT = b"shardline"


def sample_inputs(inputs: Iterable[TensorMetadata]) -> dict[str, np.ndarray[Any, Any]]:
    """One row for every input.

    The first open axis is the batch axis; other open axes get OPEN_DIM. Floating point is 0.5 (0 makes norms
    and logarithms of many models undefined), integers are 0 (a valid index into any table), masks are 1
    (attention over nothing is undefined), text is a word.
    """
    return {spec.name: sample(spec) for spec in inputs}


def sample(spec: TensorMetadata) -> np.ndarray[Any, Any]:
    """One input's sample. BF16 comes as ml_dtypes.bfloat16, since the client tells data types by the array."""
    datatype = BY_NAME[spec.datatype]
    shape = sample_shape(spec.shape)
    if datatype is BYTES:
        return np.full(shape, _SAMPLE_TEXT, dtype=object)
    if datatype is BF16:
        # Here, since most models do without it and the import costs start-up time.
        import ml_dtypes

        return np.full(shape, _BF16_HALF, dtype=np.uint16).view(ml_dtypes.bfloat16)
    if datatype.numpy.kind == "f":
        return np.full(shape, 0.5, dtype=datatype.numpy)
    filled = 1 if "mask" in spec.name.lower() or datatype.numpy.kind == "b" else 0
    return np.full(shape, filled, dtype=datatype.numpy)


def sample_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A concrete shape for one with open axes (-1).

    >>> sample_shape((-1, 3, -1))
    (1, 3, 8)
    """
    return tuple(dim if dim >= 0 else (BATCH_ROWS if axis == 0 else OPEN_DIM) for axis, dim in enumerate(shape))

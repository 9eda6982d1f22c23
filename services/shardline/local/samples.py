"""Inputs that a model of a given signature accepts, for the first request after start and for `shardline infer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shardline.core.datatypes import BF16, BY_NAME, BYTES
from shardline.core.openaxes import SIZES_TO_TRY
from shardline.wire.client import CallFailed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shardline.wire.client import Answer, InferenceClient, TensorMetadata

BATCH_ROWS = 1
OPEN_DIM = SIZES_TO_TRY[0]

REFUSED = frozenset({"INVALID_ARGUMENT", "INTERNAL"})
"""Statuses of a model that does not take its input, as the router or as ONNX Runtime says it."""

_BF16_HALF = 0x3F00
_SAMPLE_TEXT = b"shardline"


async def answer_to_sample(
    client: InferenceClient, model: str, version: str = "", timeout_s: float | None = None
) -> Answer:
    """The model's answer to made-up input, with the first size of its open axes that it takes.

    Raises CallFailed, of the first size where it takes none.
    """
    metadata = await client.model_metadata(model, version)
    is_open = any(dim < 0 for spec in metadata.inputs for dim in spec.shape[1:])
    first: CallFailed | None = None
    for size in SIZES_TO_TRY if is_open else SIZES_TO_TRY[:1]:
        try:
            return await client.infer(model, sample_inputs(metadata.inputs, size), version=version, timeout_s=timeout_s)
        except CallFailed as failure:
            if failure.status not in REFUSED:
                raise
            first = first or failure
    assert first is not None
    raise first


def sample_inputs(inputs: Iterable[TensorMetadata], open_dim: int = OPEN_DIM) -> dict[str, np.ndarray[Any, Any]]:
    """One row for every input.

    The first open axis is the batch axis; other open axes get `open_dim`. Floating point is 0.5 (0 makes norms
    and logarithms of many models undefined), integers are 0 (a valid index into any table), masks are 1
    (attention over nothing is undefined), text is a word.
    """
    return {spec.name: sample(spec, open_dim) for spec in inputs}


def sample(spec: TensorMetadata, open_dim: int = OPEN_DIM) -> np.ndarray[Any, Any]:
    """One input's sample. BF16 comes as ml_dtypes.bfloat16, since the client tells data types by the array."""
    datatype = BY_NAME[spec.datatype]
    shape = sample_shape(spec.shape, open_dim)
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


def sample_shape(shape: tuple[int, ...], open_dim: int = OPEN_DIM) -> tuple[int, ...]:
    """A concrete shape for one with open axes (-1).

    >>> sample_shape((-1, 3, -1))
    (1, 3, 8)
    """
    return tuple(dim if dim >= 0 else (BATCH_ROWS if axis == 0 else open_dim) for axis, dim in enumerate(shape))

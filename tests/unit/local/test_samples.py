"""Inputs made from a signature."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from shardline.core.datatypes import BY_NAME
from shardline.local.samples import OPEN_DIM, sample, sample_inputs, sample_shape
from shardline.wire import arrays
from shardline.wire.client import TensorMetadata


@pytest.mark.parametrize(
    ("shape", "concrete"),
    [
        ((-1, 3, 224, 224), (1, 3, 224, 224)),
        ((-1, -1), (1, OPEN_DIM)),
        ((4,), (4,)),
        ((), ()),
        ((2, -1), (2, OPEN_DIM)),
    ],
)
def test_open_axes_get_a_size_and_the_batch_axis_one_row(shape: tuple[int, ...], concrete: tuple[int, ...]) -> None:
    assert sample_shape(shape) == concrete


@pytest.mark.parametrize("datatype", sorted(BY_NAME))
def test_a_sample_has_the_data_type_that_the_signature_asks_for(datatype: str) -> None:
    made = sample(TensorMetadata("x", datatype, (-1, 2)))
    assert arrays.datatype_of(made).name == datatype
    assert made.shape == (1, 2)


def test_masks_are_one_and_ids_are_zero_so_that_attention_is_defined() -> None:
    made = sample_inputs(
        [TensorMetadata("input_ids", "INT64", (-1, -1)), TensorMetadata("attention_mask", "INT64", (-1, -1))]
    )
    assert (made["input_ids"] == 0).all()
    assert (made["attention_mask"] == 1).all()


def test_a_bfloat16_sample_is_one_half() -> None:
    made = sample(TensorMetadata("x", "BF16", (2,)))
    assert made.dtype == ml_dtypes.bfloat16
    assert made.astype(np.float32).tolist() == [0.5, 0.5]

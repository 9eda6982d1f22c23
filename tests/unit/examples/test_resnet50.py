"""The topology of ResNet-50."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from examples import inputs
from examples.models import resnet50 as builder

if TYPE_CHECKING:
    import onnx
    import onnxruntime

PUBLISHED_PARAMETERS = 25_557_032
NORMALISED_CHANNELS = 26_560
"""Channels of all 53 batch normalisations: each has a scale and a shift, of which folding leaves one bias."""


def test_parameters_are_the_published_ones_less_one_vector_per_normalisation(resnet50_model: onnx.ModelProto) -> None:
    count = sum(int(np.prod(tensor.dims)) for tensor in resnet50_model.graph.initializer)
    assert count == PUBLISHED_PARAMETERS - NORMALISED_CHANNELS


def test_it_has_53_convolutions_16_sums_and_the_strides_of_version_1_5(resnet50_model: onnx.ModelProto) -> None:
    nodes = resnet50_model.graph.node
    operators = Counter(node.op_type for node in nodes)
    assert (operators["Conv"], operators["Add"], operators["Relu"]) == (53, 16, 49)
    strided = [node.output[0] for node in nodes if node.op_type == "Conv" and list(node.attribute[2].ints) == [2, 2]]
    blocks = [f"layer{stage}.0.{part}" for stage in (2, 3, 4) for part in ("conv2", "downsample")]
    assert strided == ["conv1", *blocks]


def test_an_image_gets_1000_finite_logits_of_order_one(resnet50: onnxruntime.InferenceSession) -> None:
    (logits,) = resnet50.run(["logits"], {"image": inputs.images(1)})
    assert logits.shape == (1, builder.CLASSES)
    assert np.isfinite(logits).all()
    assert 0.1 < logits.std() < 10


def test_an_images_answer_does_not_depend_on_its_batch(resnet50: onnxruntime.InferenceSession) -> None:
    images = inputs.images(3)
    (together,) = resnet50.run(["logits"], {"image": images})
    (alone,) = resnet50.run(["logits"], {"image": images[1:2]})
    np.testing.assert_allclose(together[1:2], alone, atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 1e-3, "different images, different answers"

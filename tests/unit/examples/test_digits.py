"""The digit classifier, in process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from examples.digits_data import split
from examples.models import digits as builder

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def test_at_least_97_of_100_held_out_digits_are_named_right(digits: InferenceSession) -> None:
    _, held_out = split()
    (labels,) = digits.run(["label"], {"image": held_out.images})
    assert (labels == held_out.labels).mean() >= 0.97


def test_the_held_out_part_shares_no_image_with_the_training_part() -> None:
    training, held_out = split()
    assert (len(training.labels), len(held_out.labels)) == (1348, 449)
    assert not {image.tobytes() for image in training.images} & {image.tobytes() for image in held_out.images}
    assert set(held_out.labels) == set(range(10))


def test_probabilities_sum_to_one_and_the_label_has_the_largest(digits: InferenceSession) -> None:
    _, held_out = split()
    labels, probabilities = digits.run(["label", "probabilities"], {"image": held_out.images})
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), labels)


def test_the_graph_scores_as_the_support_vector_machines_do(digits: InferenceSession) -> None:
    training, held_out = split()
    machines = builder.train(training)
    images = held_out.images.astype(np.float64) / builder.GREY_MAX
    distances = ((images[:, None, :] - machines.support[None, :, :]) ** 2).sum(axis=2)
    scores = builder.SHARPNESS * (np.exp(-machines.gamma * distances) @ machines.weights + machines.bias)
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    (probabilities,) = digits.run(["probabilities"], {"image": held_out.images})
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)

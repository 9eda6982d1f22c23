"""Ask a freshly built model something whose answer is known, before it goes into the repository."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from examples import inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from examples.inputs import Array

DIGITS_ACCURACY = 0.97
"""Least share of the held-out digits that must be named right."""


class CheckFailed(ValueError):
    """A built model answers wrongly. The message says what was asked."""


def check(name: str, model: bytes) -> None:
    """Run a serialised model on its own inputs. Does nothing where ONNX Runtime is not installed.

    Raises CheckFailed.
    """
    if find_spec("onnxruntime") is None:
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    feed = inputs.batch(name)
    answer = dict(zip([out.name for out in session.get_outputs()], session.run(None, feed), strict=True))
    for output, array in answer.items():
        if not np.isfinite(array).all():
            raise CheckFailed(f"{name}: {output} is not finite")
    _CHECKS[name](feed, answer)


def _digits(_: Mapping[str, Array], answer: Mapping[str, Array]) -> None:
    accuracy = float((answer["label"] == inputs.held_out_digits().labels).mean())
    if accuracy < DIGITS_ACCURACY:
        raise CheckFailed(f"digits: {accuracy:.3f} of the held-out digits are right, less than {DIGITS_ACCURACY}")


def _minilm(_: Mapping[str, Array], answer: Mapping[str, Array]) -> None:
    lengths = np.linalg.norm(answer["embedding"], axis=1)
    if np.abs(lengths - 1).max() > 1e-5:
        raise CheckFailed(f"minilm: embeddings of length {lengths.min()} to {lengths.max()}, not 1")


def _resnet50(_: Mapping[str, Array], answer: Mapping[str, Array]) -> None:
    spread = float(answer["logits"].std())
    if not 0.01 < spread < 100:
        raise CheckFailed(f"resnet50: the logits' standard deviation is {spread}")


def _identity_image(feed: Mapping[str, Array], answer: Mapping[str, Array]) -> None:
    if not np.array_equal(answer["same"], feed["image"]):
        raise CheckFailed("identity_image: another image came back")


def _image_mean(feed: Mapping[str, Array], answer: Mapping[str, Array]) -> None:
    if not np.allclose(answer["mean"][:, 0], feed["image"].mean(axis=(1, 2, 3)), atol=1e-4):
        raise CheckFailed("image_mean: not the mean")


_CHECKS: dict[str, Callable[[Mapping[str, Array], Mapping[str, Array]], None]] = {
    "digits": _digits,
    "minilm": _minilm,
    "resnet50": _resnet50,
    "identity_image": _identity_image,
    "image_mean": _image_mean,
}

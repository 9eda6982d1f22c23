"""scikit-learn's bundled handwritten digits (1,797 images of 8 x 8), cut in the same two parts everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PIXELS = 64
CLASSES = 10
HELD_OUT_EVERY = 4
"""Every fourth image is held out: writers and digits follow each other in the file, so both parts have all of them."""


@dataclass(frozen=True, slots=True)
class Digits:
    """images FP32 [n, 64], grey values 0 (white) to 16 (black) row by row; labels INT64 [n]."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


@cache
def split() -> tuple[Digits, Digits]:
    """The 1,348 images to train on and the 449 that are held out."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    held_out = np.arange(len(labels)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return _part(images, labels, ~held_out), _part(images, labels, held_out)


def _part(images: NDArray[np.float64], labels: NDArray[np.int64], chosen: NDArray[np.bool_]) -> Digits:
    return Digits(images[chosen].astype(np.float32), labels[chosen].astype(np.int64))

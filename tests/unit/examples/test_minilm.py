"""The sentence encoder against vectors of the original (how they were made: make_minilm_golden.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from examples import inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession

GOLDEN = json.loads(Path(__file__).with_name("minilm_golden.json").read_text())
TEXTS: list[str] = [row["text"] for row in GOLDEN]
VECTORS = np.array([row["embedding"] for row in GOLDEN], np.float32)
TOLERANCE = 1e-4


def embed(minilm: InferenceSession, feed: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    (embedding,) = minilm.run(["embedding"], feed)
    return np.asarray(embedding)


@pytest.mark.parametrize("index", range(len(TEXTS)), ids=lambda index: f"{TEXTS[index][:20]!r}")
def test_a_sentence_alone_gets_the_original_encoders_vector(minilm: InferenceSession, index: int) -> None:
    vector = embed(minilm, inputs.tokenize([TEXTS[index]]))[0]
    assert np.abs(vector - VECTORS[index]).max() <= TOLERANCE


def test_sentences_padded_in_a_batch_with_longer_ones_get_the_same_vectors(minilm: InferenceSession) -> None:
    feed = inputs.tokenize(TEXTS)
    assert feed["attention_mask"].sum(axis=1).tolist()[0] < feed["input_ids"].shape[1] == inputs.LONGEST_TOKENS
    assert np.abs(embed(minilm, feed) - VECTORS).max() <= TOLERANCE


def test_padding_by_the_configs_values_changes_nothing(minilm: InferenceSession) -> None:
    feed = inputs.tokenize(["Boats cross the strait twice a day in winter."])
    padded = {name: np.pad(array, ((0, 0), (0, 27))) for name, array in feed.items()}
    np.testing.assert_allclose(embed(minilm, padded), embed(minilm, feed), atol=1e-6)


def test_what_stands_under_the_mask_does_not_matter(minilm: InferenceSession) -> None:
    feed = inputs.tokenize(TEXTS[:4])
    hidden = feed["attention_mask"] == 0
    other = {**feed, "input_ids": np.where(hidden, 2023, feed["input_ids"])}
    np.testing.assert_array_equal(embed(minilm, other), embed(minilm, feed))


def test_a_row_without_tokens_gives_zeros_and_leaves_its_neighbour_alone(minilm: InferenceSession) -> None:
    feed = inputs.tokenize(["Hello", "Hello"])
    feed["attention_mask"][1] = 0
    vectors = embed(minilm, feed)
    assert not vectors[1].any()
    assert np.abs(vectors[0] - VECTORS[0]).max() <= TOLERANCE


def test_vectors_have_length_one(minilm: InferenceSession) -> None:
    vectors = embed(minilm, inputs.tokenize(inputs.SENTENCES))
    assert vectors.shape == (len(inputs.SENTENCES), 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_each_query_of_the_demo_finds_its_sentence(minilm: InferenceSession) -> None:
    sentences = embed(minilm, inputs.tokenize(inputs.SENTENCES))
    queries = embed(minilm, inputs.tokenize(tuple(inputs.QUERIES)))
    nearest = [inputs.SENTENCES[index] for index in (queries @ sentences.T).argmax(axis=1)]
    assert nearest == list(inputs.QUERIES.values())

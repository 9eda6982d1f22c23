"""Real inputs for the example models, as arrays: for the demo, the load tests and the checks.

`rows(name)` gives single rows, `batch(name)` all of them together; both are made anew from the same source each time.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from examples.digits_data import Digits, split
from examples.minilm_package import model_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

Array = NDArray[Any]
Feed = dict[str, Array]

LONGEST_TOKENS = 256
"""Where the original encoder cuts a text."""

IMAGES = 4
IMAGE_SHAPE = (3, 224, 224)

SENTENCES: tuple[str, ...] = (
    "The ferry to the island leaves at seven in the morning.",
    "Boats cross the strait twice a day in winter.",
    "She missed the last train and walked home along the river.",
    "Public transport in the city is free on Sundays.",
    "A cyclist was overtaken by a tram at the crossing.",
    "The recipe asks for two eggs, a cup of flour and a pinch of salt.",
    "Let the dough rest overnight in the refrigerator.",
    "This soup tastes better on the second day.",
    "He burned the onions because the phone rang.",
    "Which wine goes with grilled trout?",
    "The violinist tuned her instrument before the concert.",
    "An orchestra without a conductor rehearsed in the old barn.",
    "Children were singing in the street.",
    "The record sold a million copies in its first week.",
    "Rain is expected in the north, with gusts along the coast.",
    "The hottest summer since measurements began is over.",
    "Snow closed the mountain pass for three days.",
    "After the storm the sky turned a pale green.",
    "The telescope saw a galaxy older than the models allow.",
    "Two probes are on their way to the moons of Jupiter.",
    "Astronomers found water vapour around a distant planet.",
    "The experiment was repeated with a larger sample, and the effect disappeared.",
    "Antibiotics do not help against a virus.",
    "The nurse checked the patient's temperature every hour.",
    "Sleep is when the brain puts its memories in order.",
    "A broken wrist takes about six weeks to heal.",
    "The bank raised its interest rate by half a percent.",
    "Shares of the company fell sharply after the report.",
    "Inflation eats the savings of those who have little.",
    "The tenants refused to pay for the broken heating.",
    "The goalkeeper saved a penalty in the last minute.",
    "Our team lost the final, but nobody went home early.",
    "She ran the marathon in under three hours.",
    "The server answers slowly when too many requests arrive at once.",
    "Several requests that run together cost less than each of them alone.",
    "A machine in the cluster failed, and another took over its work.",
    "The bug appears only when two threads write at the same time.",
    "Please restart the program after you have changed the settings.",
    (
        "My grandmother kept bees behind the orchard, and every autumn the whole family came to help her with the "
        "honey, which she sold at the market in jars with handwritten labels until she was well past eighty."
    ),
    "No.",
)
"""Varied on purpose: a dozen subjects, questions and statements, one word to half a hundred."""

QUERIES: dict[str, str] = {
    "What will the weather be like?": "Rain is expected in the north, with gusts along the coast.",
    "A computer broke down and a second one did its job.": (
        "A machine in the cluster failed, and another took over its work."
    ),
    "How long until the bone is whole again?": "A broken wrist takes about six weeks to heal.",
}
"""Questions, and which of SENTENCES means most nearly the same. They share few words: it takes the meaning."""


def held_out_digits() -> Digits:
    """The 449 images and labels that the classifier has not seen."""
    return split()[1]


@cache
def tokenizer() -> Tokenizer:
    """The encoder's own tokenizer. It cuts at LONGEST_TOKENS and pads to the longest text of a call."""
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    loaded.enable_truncation(LONGEST_TOKENS)
    loaded.enable_padding()
    return loaded


def tokenize(texts: Sequence[str]) -> Feed:
    """input_ids, attention_mask and token_type_ids INT64 [k, tokens of the longest text] of k texts."""
    encodings = tokenizer().encode_batch(list(texts))
    return {
        "input_ids": np.array([encoding.ids for encoding in encodings], np.int64),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings], np.int64),
        "token_type_ids": np.array([encoding.type_ids for encoding in encodings], np.int64),
    }


def tokens_of_length(seq: int) -> Feed:
    """The feed of a text that fills exactly seq tokens, [1, seq]: for measurements at one sequence length."""
    whole = tokenizer().encode(" ".join(SENTENCES))
    if not 3 <= seq <= len(whole.ids):
        raise ValueError(f"3 to {len(whole.ids)} tokens, not {seq}")
    ids = np.array([*whole.ids[: seq - 1], whole.ids[-1]], np.int64)[None]
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def images(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Seeded images FP32 [count, 3, 224, 224], normalised as photographs are: mean 0, standard deviation 1."""
    return np.random.default_rng(seed).standard_normal((count, *IMAGE_SHAPE), np.float32)


def rows(name: str) -> list[Feed]:
    """Single rows for a model of the catalogue, each array with a batch axis of 1; texts keep their own lengths."""
    if name == "minilm":
        return [tokenize([sentence]) for sentence in SENTENCES]
    whole = batch(name)
    count = len(next(iter(whole.values())))
    return [{key: array[i : i + 1] for key, array in whole.items()} for i in range(count)]


def batch(name: str) -> Feed:
    """All rows for a model of the catalogue together; texts are padded to the longest."""
    match name:
        case "digits":
            return {"image": held_out_digits().images}
        case "minilm":
            return tokenize(SENTENCES)
        case "resnet50" | "identity_image" | "image_mean":
            return {"image": images(IMAGES)}
        case _:
            raise KeyError(name)

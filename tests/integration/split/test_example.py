"""The example of a model that does not fit one process, as its reader runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(900)
def test_a_model_that_one_process_cannot_hold_is_refused_whole_and_served_in_stages(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.too_large", "--out", str(tmp_path / "models")],
        capture_output=True,
        text=True,
        check=False,
        timeout=850,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "whole: shardline: model too_large does not fit into --replica-memory" in done.stdout
    assert "--stages too_large=auto splits it so that it does" in done.stdout
    memory = [int(size) for size in re.findall(r"stage \d maps (\d+) MiB", done.stdout)]
    assert len(memory) == 2
    assert max(memory) < 512

"""The command that a newcomer is told to type is one that works where they stand."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from shardline.cli.serve import own_command

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("on_path", "called", "expected"),
    [(True, True, "shardline"), (False, True, ".venv/bin/shardline"), (False, False, "shardline")],
)
def test_the_command_is_named_as_it_can_be_typed_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_path: bool, called: bool, expected: str
) -> None:
    script = tmp_path / ".venv" / "bin" / "shardline"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(script.parent) if on_path else str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(script) if called else "/somewhere/shardline/cli/__main__.py"])
    assert own_command() == expected

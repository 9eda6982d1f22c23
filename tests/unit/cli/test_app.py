"""What the command line understands."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from shardline import __version__
from shardline.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = ("serve", "infer", "models", "load", "unload", "status", "plan", "version")
HEAVY = ("grpc", "numpy", "redis", "pydantic", "onnx", "onnxruntime")


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(autouse=True)
def _no_cluster_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_help_lists_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert all(f"\n  {command} " in result.output for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_explains_each_option(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    group: Any = typer.main.get_command(app)
    assert [parameter.name for parameter in group.commands[command].params if not parameter.help] == []


def test_help_does_not_wait_for_libraries_that_only_a_running_command_needs() -> None:
    script = f"import sys, shardline.cli.app; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_version_is_the_packages() -> None:
    assert run("version").output.strip() == f"shardline {__version__}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve",),
        ("serve", "r", "--replicas", "0"),
        ("serve", "r", "--port", "70000"),
        ("serve", "r", "--quiet", "--json-logs"),
        ("infer", "m", "--input", "no-equals-sign"),
        ("infer", "m", "--timeout", "0"),
        ("sevre",),
    ],
)
def test_a_wrong_command_line_ends_with_status_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("serve", "/nowhere/at/all"), "/nowhere/at/all"),
        (("status",), "no cluster of yours runs on this machine; name its Redis with --redis URL"),
        (("status", "--url", "far:1"), "no cluster of yours runs at far:1"),
        (("models", "--url", "127.0.0.1:1"), "no server at 127.0.0.1:1; start one with `shardline serve REPOSITORY`"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line_with_status_1(arguments: tuple[str, ...], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shardline.cli", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("shardline: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr

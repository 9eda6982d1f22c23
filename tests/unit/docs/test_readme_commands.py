"""Every command that the README shows can be typed: its targets, subcommands and options exist."""

from __future__ import annotations

import re
import shlex

import click
import pytest
import typer

from shardline.cli.app import app
from tests.unit.docs.pages import PAGES, ROOT, blocks

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = frozenset(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))


def commands(language: str = "sh") -> list[str]:
    """Lines of the README's shell blocks, comments cut off."""
    lines = [line for text in blocks(ROOT / "README.md", language) for line in text.splitlines()]
    return [line.partition("#")[0].strip() for line in lines if line.strip()]


def test_the_readme_shows_commands() -> None:
    assert {"make up", "make test"} <= set(commands())
    assert len(commands()) > 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_that_a_page_names_exists(page: object) -> None:
    named = re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8"))  # type: ignore[attr-defined]
    assert not set(named) - TARGETS


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("make ")])
def test_make_knows_its_target(line: str) -> None:
    words = shlex.split(line)[1:]
    assert {word for word in words if "=" not in word} <= TARGETS


@pytest.mark.parametrize(
    "line", [line for line in commands() if "shardline " in line.split("/")[-1] and ".venv" in line]
)
def test_the_command_line_takes_it(line: str) -> None:
    words = shlex.split(line)
    assert words[0] == ".venv/bin/shardline"
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group) or hasattr(group, "commands")
    command = group.commands[words[1]]
    command.make_context(words[1], list(words[2:]))


@pytest.mark.parametrize("line", [line for line in commands() if re.match(r"helm|docker", line)])
def test_the_files_that_a_command_names_exist(line: str) -> None:
    named = [word for word in shlex.split(line) if word.startswith(("deploy/", "charts/"))]
    assert all((ROOT / name).exists() for name in named)

"""docs/operations.md says what the code does: metrics, events, messages, fields; and every table's entry is used."""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import TYPE_CHECKING

import pytest

from shardline.controller.settings import ControllerSettings
from shardline.ops import settings
from shardline.ops.metrics import BY_NAME
from tests.unit.docs.pages import ROOT, section, table

if TYPE_CHECKING:
    from pathlib import Path

OPERATIONS = ROOT / "docs" / "operations.md"
PACKAGE = ROOT / "services" / "shardline"
SOURCES: dict[Path, str] = {
    file: file.read_text(encoding="utf-8")
    for file in PACKAGE.rglob("*.py")
    if "_pb2" not in file.name and file != PACKAGE / "ops" / "metrics.py"
}
KINDS = (
    settings.ProcessSettings,
    settings.RouterSettings,
    settings.ReplicaSettings,
    settings.ClusterSettings,
    ControllerSettings,
)
HOLDERS = frozenset({"settings", "_settings", "given"})
"""Names under which the processes hold their settings."""


@cache
def texts() -> str:
    """Everything that the code says to people: its string literals, joined where they stand beside each other."""
    found = []
    for source in SOURCES.values():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value for part in node.values if isinstance(part, ast.Constant)]
                found += [str(part) for part in parts]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


@cache
def attributes_read() -> frozenset[str]:
    """Attributes that are read from a holder of settings, anywhere but where settings are defined."""
    found = set()
    for file, source in SOURCES.items():
        if file.name == "settings.py":
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute):
                holder = node.value
                name = holder.attr if isinstance(holder, ast.Attribute) else getattr(holder, "id", "")
                if name in HOLDERS:
                    found.add(node.attr)
    return frozenset(found)


def test_the_table_of_metrics_is_that_of_the_code() -> None:
    rows = table(section(OPERATIONS, "Metrics"))
    assert rows == [[f"`{m.name}`", m.kind, ", ".join(m.labels) or "–", m.help] for m in BY_NAME.values()]


def test_every_metric_has_a_value_somewhere() -> None:
    everything = "\n".join(SOURCES.values())
    assert not [name for name in BY_NAME if f'"{name}"' not in everything]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_setting_is_used(kind: type) -> None:
    fields = set(kind.model_fields)  # type: ignore[attr-defined]
    assert not fields - attributes_read()


def test_every_event_that_is_worth_knowing_is_logged() -> None:
    named = re.findall(r"`([a-z]+\.[a-z_]+)`", section(OPERATIONS, "Logs"))
    assert len(named) > 8
    everything = texts()
    assert not [event for event in named if event not in everything]


def test_the_messages_that_symptoms_quote_are_the_codes() -> None:
    everything = texts()
    quoted = []
    for row in table(section(OPERATIONS, "Troubleshooting")):
        quoted += re.findall(r"`([^`]+ [^`]+)`", row[0])
    assert len(quoted) > 8
    for quote in quoted:
        for piece in filter(None, map(str.strip, re.split(r"…|\(|\)|\d", quote))):
            assert piece in everything, f"'{quote}': nothing says '{piece}'"


def test_every_variable_that_a_page_names_is_a_setting() -> None:
    known = {settings.PREFIX + name.upper() for kind in KINDS for name in kind.model_fields}
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        named = set(re.findall(rf"{settings.PREFIX}[A-Z_]*[A-Z]", page.read_text(encoding="utf-8")))
        assert not named - known, page.name


def test_the_exit_codes_are_those_of_the_commands() -> None:
    from shardline.cli.failure import EXIT_FAILED, EXIT_USAGE

    codes = {row[0] for row in table(section(OPERATIONS, "Exit codes"))}
    assert {"0", str(EXIT_FAILED), str(EXIT_USAGE)} <= codes

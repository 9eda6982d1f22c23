"""One table of keys: every entry is used, every use is an entry, and every script says what it touches."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import shardline.coord
from shardline.coord.connection import Script
from shardline.coord.keys import TABLE, Keys, entry_of

PACKAGE = Path(shardline.coord.__file__).parent
SOURCES = sorted(path for path in PACKAGE.glob("*.py") if path.name != "keys.py")
PARTS = {"kind": "replica", "pool": "digits:1/0", "model": "digits", "version": 1, "stage": 0, "tenant": "acme"}


def used_names() -> set[str]:
    """First arguments of every call of `keys.of`; a name that is computed fails the test that reads them."""
    names = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "of":
                owner = ast.unparse(node.func.value)
                if owner == "keys" or owner.endswith(".keys"):
                    name = node.args[0]
                    assert isinstance(name, ast.Constant), f"{path.name}: {ast.unparse(node)}"
                    names.add(str(name.value))
    return names


def scripts() -> list[tuple[str, Script]]:
    """Every Lua script of the package, by its name."""
    return [
        (f"{path.stem}.{name}", value)
        for path in SOURCES
        for name, value in vars(importlib.import_module(f"shardline.coord.{path.stem}")).items()
        if isinstance(value, Script) and not name.startswith("_")
    ]


def test_every_entry_is_used_and_every_use_is_an_entry() -> None:
    assert used_names() == {key.name for key in TABLE}


def test_no_other_module_spells_a_key() -> None:
    for path in SOURCES:
        assert "shardline:" not in path.read_text(), path


def test_every_key_finds_its_entry_again() -> None:
    keys = Keys("prod")
    for row in TABLE:
        assert entry_of(keys.of(row.name, **PARTS)) == row
    assert entry_of("shardline:prod:something") is None


def test_keys_of_one_model_share_a_hash_tag_and_no_name_can_break_out_of_it() -> None:
    keys = Keys("prod")
    evil = "a}:{b:c/d*"
    tags = {
        re.findall(r"\{(.*?)\}", keys.of(row.name, **{**PARTS, "model": evil}))[0]
        for row in TABLE
        if "<model>" in row.pattern
    }
    assert len(tags) == 1
    assert keys.of("plan", model=evil, version=1).count("{") == 1


def test_two_clusters_share_no_key() -> None:
    for row in TABLE:
        assert Keys("a").of(row.name, **PARTS) != Keys("a.b").of(row.name, **PARTS)


@pytest.mark.parametrize("name", ["", "a:b", "{a}", "a b", "-a", "a" * 64, "ä"])
def test_a_cluster_name_that_could_leave_its_prefix_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a cluster is named by"):
        Keys(name)


@pytest.mark.parametrize(("name", "script"), scripts(), ids=[name for name, _ in scripts()])
def test_every_script_begins_with_the_table_of_its_keys(name: str, script: Script) -> None:
    lines = script.text.strip().splitlines()
    assert lines[0].startswith("-- KEYS 1"), name
    header = "\n".join(line for line in lines if line.startswith("--"))
    body = "\n".join(line for line in lines if not line.startswith("--"))
    for number in re.findall(r"KEYS\[(\d+)\]", body):
        assert re.search(rf"KEYS {number}\b", header), f"{name}: KEYS[{number}]"
    assert len(body.splitlines()) <= 50, f"{name} is too long to hold up a server"


def test_there_are_scripts() -> None:
    assert len(scripts()) >= 8

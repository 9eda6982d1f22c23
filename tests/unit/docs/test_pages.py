"""What the pages point at is there: links, headings, tests, modules, numbers of decisions, the picture."""

from __future__ import annotations

import ast
import importlib.util
import re
from typing import TYPE_CHECKING

import pytest

from tests.unit.docs.pages import PAGES, ROOT, anchors, links, section, table

if TYPE_CHECKING:
    from pathlib import Path

ARCHITECTURE = ROOT / "docs" / "architecture.md"
GLOSSARY = ROOT / "docs" / "glossary.md"
PACKAGE = ROOT / "services" / "shardline"
PICTURE = ROOT / "docs" / "images" / "architecture.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in links(page):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{page.name}: {target}; headings: {sorted(anchors(file))}"


def test_every_page_is_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    pending = [ROOT / "README.md"]
    while pending:
        page = pending.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in links(page):
            file = (page.parent / target.partition("#")[0]).resolve()
            found = file.glob("*.md") if file.is_dir() else [file]
            pending += [other for other in found if other.suffix == ".md"]
    assert not {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - seen


def names_of_tests() -> set[str]:
    """Names of all test functions, read and not imported."""
    found = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return found


def test_each_promise_names_tests_that_exist() -> None:
    rows = table(section(ARCHITECTURE, "Promises, and the tests that hold them"))
    assert [row[0] for row in rows] == [f"P{number}" for number in range(1, 9)]
    existing = names_of_tests()
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row[2])
        assert named, row[0]
        assert not set(named) - existing, row[0]


def test_the_modules_that_the_architecture_names_exist() -> None:
    named = re.findall(r"`([a-z_]+/[a-z_]+\.py)\b", ARCHITECTURE.read_text(encoding="utf-8"))
    assert len(set(named)) > 15
    assert not [name for name in named if not (PACKAGE / name).is_file() and not (ROOT / name).is_file()]


def test_the_functions_that_the_architecture_names_stand_in_their_modules() -> None:
    named = re.findall(r"`([a-z_]+/[a-z_]+\.py): (\w+)`", ARCHITECTURE.read_text(encoding="utf-8"))
    assert named
    for name, function in named:
        assert f"def {function}(" in (PACKAGE / name).read_text(encoding="utf-8"), name


def test_the_glossary_is_in_order_and_points_into_the_code() -> None:
    rows = table(GLOSSARY.read_text(encoding="utf-8"))
    words = [re.sub(r"[*]", "", row[0]) for row in rows]
    assert words == sorted(words, key=str.casefold)
    assert len(set(words)) == len(words)
    for word, (_, meaning, where) in zip(words, rows, strict=True):
        assert meaning, word
        for name in re.findall(r"`([a-z_./]+(?:\.py|\.proto|/))`", where):
            places = [PACKAGE / name, ROOT / "proto" / "shardline" / "v1" / name]
            assert any(place.exists() for place in places), f"{word}: {name}"


def test_decisions_have_numbers_of_their_own_and_say_them() -> None:
    files = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = [int(file.name[:4]) for file in files]
    assert len(set(numbers)) == len(numbers)
    for number, file in zip(numbers, files, strict=True):
        assert re.match(rf"# (ADR )?0*{number}\b", file.read_text(encoding="utf-8")), file.name


def test_the_picture_is_what_its_script_draws(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("architecture_picture", PICTURE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.save(module.draw(), tmp_path)
    drawn = (tmp_path / "architecture.svg").read_text(encoding="utf-8")
    assert drawn == PICTURE.with_suffix(".svg").read_text(encoding="utf-8"), f"run {PICTURE.relative_to(ROOT)}"
    assert (tmp_path / "architecture.png").stat().st_size > 10_000

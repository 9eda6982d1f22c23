"""The pages that people read, as values."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = tuple(
    sorted(
        [
            *ROOT.glob("*.md"),
            *(ROOT / "docs").rglob("*.md"),
            *ROOT.glob("charts/*/README.md"),
            ROOT / "examples/README.md",
        ]
    )
)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """Texts of a page's fenced blocks in one language."""
    return [text for name, text in _FENCE.findall(page.read_text(encoding="utf-8")) if name == language]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Targets of a page's links and pictures that lie in this repository."""
    return [target for target in _LINK.findall(prose(page)) if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """What a link to a heading of this page may end with, as GitHub makes it."""
    found = set()
    for heading in _HEADING.findall(prose(page)):
        words = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return found


def section(page: Path, heading: str) -> str:
    """A page's text from a heading of the second or third level to the next one of its level or above."""
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"^(##+) {re.escape(heading)}$", text, re.MULTILINE)
    assert found, f"{page.name} has no heading '{heading}'"
    rest = text[found.end() :]
    following = re.search(rf"^#{{2,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def table(text: str) -> list[list[str]]:
    """Rows of the Markdown tables in a text, heads and rules left out; an escaped bar is a bar."""
    rows = []
    lines = text.splitlines()
    for above, line in zip(["", *lines], lines, strict=False):
        if not line.startswith("|") or not above.startswith("|") or set(line) <= set("|-: "):
            continue
        rows.append([cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows

#!/usr/bin/env python3
"""Writes what would otherwise drift: the values table in the chart's README, and docs/crd.md.

reference.py [--check]    write both files, or end with an error when they are not what would be written
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts/shardline"
BEGIN, END = "<!-- values: written by deploy/reference.py -->", "<!-- end of values -->"


def values_table(text: str) -> str:
    """A row for each value: its path, its default, and the comment above it. Raises ValueError where there is none."""
    rows = ["| value | default | what |", "| --- | --- | --- |"]
    defaults = yaml.safe_load(text)
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        body = line.strip()
        depth = (len(line) - len(line.lstrip())) // 2
        if body.startswith("#"):
            comment.append(body.lstrip("# "))
        elif not body:
            comment = []
        elif ":" in body and not body.startswith("- "):
            path = [*path[:depth], body.split(":", 1)[0]]
            if comment:
                rows.append(f"| `{'.'.join(path)}` | {_shown(_at(defaults, path))} | {' '.join(comment)} |")
                comment = []
            elif body.split(":", 1)[1].strip() and not _inside(rows, path):
                raise ValueError(f"{'.'.join(path)} has no comment")
    return "\n".join(rows)


def _at(values: Any, path: list[str]) -> Any:
    for key in path:
        values = values[key]
    return values


def _inside(rows: list[str], path: list[str]) -> bool:
    return any(row.startswith(f"| `{'.'.join(path[:length])}` |") for row in rows for length in range(1, len(path)))


def _shown(value: Any) -> str:
    if isinstance(value, dict) and value:
        return f"`{yaml.safe_dump(value, default_flow_style=True, width=1000).strip()}`"
    return f"`{value}`" if not isinstance(value, str) else f'`"{value}"`'


def with_table(readme: str, table: str) -> str:
    """The README with its table replaced."""
    head, rest = readme.split(BEGIN)
    return f"{head}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"


def crd_page(crd: dict[str, Any]) -> str:
    """docs/crd.md: every field of a Model, and every rule."""
    version = crd["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    lines = [
        "# Model",
        "",
        "Written by `deploy/reference.py` from `charts/shardline/crds/models.shardline.dev.yaml`.",
        "",
        f"`apiVersion: {crd['spec']['group']}/{version['name']}`, `kind: {crd['spec']['names']['kind']}`. "
        + schema["description"],
    ]
    for part in ("spec", "status"):
        lines += ["", f"## {part}", "", "| field | type | default | what |", "| --- | --- | --- | --- |"]
        lines += _fields(schema["properties"][part], part)
    rules = list(_rules(schema, ""))
    lines += ["", "## Rules", "", *(f"* `{where or 'object'}`: {message}" for where, message in rules)]
    return "\n".join(lines) + "\n"


def _fields(schema: dict[str, Any], path: str) -> list[str]:
    rows = []
    for name, field in schema.get("properties", {}).items():
        kind = field.get("type", "integer or string")
        allowed = f" ({', '.join(map(str, field['enum']))})" if "enum" in field else ""
        default = f"`{field['default']}`" if field.get("default") not in (None, {}) else ""
        needed = " **required**" if name in schema.get("required", []) else ""
        text = field.get("description", "").replace("|", "\\|")
        rows.append(f"| `{path}.{name}` | {kind}{allowed} | {default} | {text}{needed} |")
        inner = field.get("items", field)
        rows += _fields(inner, f"{path}.{name}[]" if inner is not field else f"{path}.{name}")
    return rows


def _rules(schema: dict[str, Any], path: str) -> Any:
    for rule in schema.get("x-kubernetes-validations", []):
        yield path, rule["message"]
    for name, field in schema.get("properties", {}).items():
        yield from _rules(field, f"{path}.{name}" if path else name)


def main() -> None:
    """The command line."""
    crd = yaml.safe_load((CHART / "crds/models.shardline.dev.yaml").read_text())
    readme = CHART / "README.md"
    made = {
        readme: with_table(readme.read_text(), values_table((CHART / "values.yaml").read_text())),
        ROOT / "docs/crd.md": crd_page(crd),
    }
    for path, text in made.items():
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            sys.exit(f"{path.relative_to(ROOT)} is not up to date: run deploy/reference.py")


if __name__ == "__main__":
    main()

"""Write `docs/configuration.md` from the settings classes.

python tools/generate_configuration.py
"""

from __future__ import annotations

import sys
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from shardline.controller.settings import ControllerSettings
from shardline.ops import settings

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

HEAD = """# Configuration

Generated from `services/shardline/ops/settings.py` by `make docs`; do not edit.

Each process reads its settings from environment variables when it starts; a command-line flag goes before its
variable. A bad value ends the process at once, with one line that names the variable. Durations are in seconds (`_S`), sizes in
bytes (`_BYTES`), unless a line says otherwise. What belongs to a model (batch sizes, queue bounds, versions, instance
groups) stands in that model's `config.pbtxt`, not here.
"""

TITLES = {
    settings.ProcessSettings: ("Every process", "Read by routers, replicas and the local supervisor."),
    settings.RouterSettings: ("Router", "Besides those of every process."),
    settings.ReplicaSettings: ("Replica", "Besides those of every process."),
    ControllerSettings: ("Controller (Kubernetes)", "Besides those of every process."),
    settings.ClusterSettings: (
        "Local cluster (`shardline serve`)",
        "Besides those of every process. What routers and replicas read is handed on to them.",
    ),
}


def render() -> str:
    """The page's text."""
    parts = [HEAD]
    shared = settings.ProcessSettings.model_fields
    for kind, (title, note) in TITLES.items():
        own = {
            name: field
            for name, field in kind.model_fields.items()
            if kind is settings.ProcessSettings or name not in shared or repr(field) != repr(shared[name])
        }
        parts.append(f"## {title}\n\n{note}\n\n| variable | values | default | meaning |\n|---|---|---|---|\n")
        parts[-1] += "".join(f"{_row(name, field)}\n" for name, field in own.items())
    return "\n".join(parts)


def _row(name: str, field: FieldInfo) -> str:
    cells = [f"`{settings.PREFIX}{name.upper()}`", _values(field), _default(name, field), field.description or ""]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _values(field: FieldInfo) -> str:
    annotation: Any = field.annotation
    if typing.get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(annotation))
    if annotation is bool:
        return "`true`, `false`"
    if isinstance(annotation, types.GenericAlias):
        return "names"
    words = {int: "integer", float: "number", str: "text", Path: "path"}
    return (words[annotation] + " " + _bounds(field)).strip()


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {getattr(item, name):g}" if getattr(item, name) < 1 << 20 else f"{sign} {getattr(item, name)}"
        for item in field.metadata
        for name, sign in signs.items()
        if getattr(item, name, None) is not None
    ]
    return ", ".join(found)


def _default(name: str, field: FieldInfo) -> str:
    if name == "run_dir":
        return "`shardline-UID` in the temporary folder"
    if field.is_required():
        return "required"
    if field.default in {"", ()}:
        return "empty"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    if isinstance(field.default, float):
        return f"`{field.default:g}`"
    return f"`{field.default}`"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.name} written\n")

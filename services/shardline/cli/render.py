"""Tables for people and JSON for programs."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Array = np.ndarray[Any, Any]

_SHOWN_VALUES = 8
_MACHINE_WIDTH = 200


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """A table on standard output; without a terminal lines are wide, so that nothing is cut for grep."""
    # Here, since rich costs start-up time that `--json` and `--help` need not pay.
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else _MACHINE_WIDTH)
    table = Table(*columns, title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(cell.replace("[", "\\[") for cell in row))
    console.print(table)


def shape_text(shape: Sequence[int]) -> str:
    """A shape as the protocol shows it.

    >>> shape_text((-1, 3))
    '[-1, 3]'
    """
    return f"[{', '.join(map(str, shape))}]"


def values_text(array: Array) -> str:
    """The first values of an array.

    >>> values_text(np.array([1.0, 2.5]))
    '1 2.5'
    """
    shown = " ".join(_value_text(value) for value in array.flat[:_SHOWN_VALUES].tolist())
    return f"{shown} … ({array.size} values)" if array.size > _SHOWN_VALUES else shown


def json_values(array: Array) -> Any:
    """Nested lists that JSON can hold: bytes as text, what is not finite as text (JSON has no NaN)."""
    if array.dtype.kind == "O":
        return np.vectorize(_text, otypes=[object])(array).tolist() if array.size else array.tolist()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return np.vectorize(lambda value: value if math.isfinite(value) else str(value), otypes=[object])(
            array
        ).tolist()
    return array.tolist()


def duration_text(seconds: float) -> str:
    """A duration in the unit that reads best.

    >>> duration_text(0.0123)
    '12.3 ms'
    """
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"


def receipt_lines(receipt: Sequence[Mapping[str, str]]) -> list[str]:
    """The server's account of a call, a line per stage.

    >>> receipt_lines([{"stage": "0", "replica": "r-1", "queue_us": "166", "compute_us": "96"}])
    ['stage 0 on r-1: queue 166 µs, compute 96 µs']
    """
    return [f"and {entry['left_out']} more batches" if "left_out" in entry else _stage_line(entry) for entry in receipt]


def _stage_line(stage: Mapping[str, str]) -> str:
    facts = []
    for key, value in stage.items():
        if key.endswith("_us") and value.isdigit():
            facts.append(f"{key.removesuffix('_us')} {duration_text(int(value) / 1e6)}")
        elif key not in ("stage", "replica"):
            facts.append(f"{key.replace('_', ' ')} {value}")
    return f"stage {stage.get('stage', '0')} on {stage.get('replica', 'a replica')}: {', '.join(facts)}"


def _value_text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return _text(value) if isinstance(value, bytes) else str(value)


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

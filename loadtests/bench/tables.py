"""A table once, shown three ways: on the terminal, in Markdown, in HTML."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table as RichTable

from loadtests.bench.results import Key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtests.bench.limit import Point
    from loadtests.bench.results import Cell, Verdict


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a title. note: one line below the table. breaks: indices of rows that end a group."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    breaks: frozenset[int] = frozenset()

    def rich(self) -> RichTable:
        """For the terminal; the first column is text, the others are numbers."""
        table = RichTable(
            title=self.title, title_justify="left", title_style="bold", caption=self.note or None, box=box.SIMPLE_HEAD
        )
        for at, column in enumerate(self.columns):
            table.add_column(column, justify="left" if at == 0 else "right", no_wrap=at == 0)
        for at, row in enumerate(self.rows):
            table.add_row(*row, end_section=at in self.breaks)
        return table

    def markdown(self) -> str:
        """For README and docs."""
        align = "|".join("---" if at == 0 else "---:" for at in range(len(self.columns)))
        lines = [f"### {self.title}", "", f"| {' | '.join(self.columns)} |", f"|{align}|"]
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        return "\n".join([*lines, "", *([self.note, ""] if self.note else [])])

    def html(self) -> str:
        """For the report that is opened in a browser."""
        head = "".join(f"<th>{escape(column)}</th>" for column in self.columns)
        body = "".join(
            f"<tr{' class=end' if at in self.breaks else ''}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
            for at, row in enumerate(self.rows)
        )
        note = f"<p class=note>{escape(self.note)}</p>" if self.note else ""
        return f"<h2>{escape(self.title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def number(value: float) -> str:
    """Three significant digits, thousands with a comma."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.3f}"


def times(ratio: float | None) -> str:
    """A ratio, or a dash where its baseline was not measured."""
    return "–" if ratio is None else f"{ratio:.2f}×"


def matrix(
    model: str,
    measured: Mapping[Key, Cell],
    ratios: Mapping[str, Mapping[Key, float]],
    labels: Mapping[str, str],
    limit: Point | None,
) -> Table:
    """All cells of one model, grouped by the number of callers."""
    own = [key for key in measured if key.model == model]
    callers = sorted({key.callers for key in own})
    systems = [key for key in labels if any(cell.system == key for cell in own)]
    rows: list[tuple[str, ...]] = []
    breaks = set()
    for count in callers:
        found = [key for system in systems if (key := Key(model, system, count)) in measured]
        rows += [_row(measured[key], labels[key.system], ratios) for key in found]
        breaks.add(len(rows) - 1)
    note = ""
    if limit is not None:
        note = f"Limit, ONNX Runtime in process: {number(limit.rate)} rows/s, best at batches of {limit.rows}."
    return Table(model, _COLUMNS, tuple(rows), note, frozenset(breaks))


_COLUMNS = (
    "system",
    "callers",
    "requests/s",
    "low – high",
    "p50 ms",
    "p99 ms",
    "CPU ms/request",
    "generator",
    "MB",
    "× plain",
    "× mosec",
    "× limit",
    "errors",
)


def _row(cell: Cell, label: str, ratios: Mapping[str, Mapping[Key, float]]) -> tuple[str, ...]:
    return (
        label,
        str(cell.key.callers),
        number(cell.rate),
        f"{number(cell.rate_low)} – {number(cell.rate_high)}",
        number(cell.p50_ms),
        number(cell.p99_ms),
        number(cell.server_cpu_ms),
        number(cell.generator_cpu_ms),
        number(cell.memory_mb),
        *(times(ratios.get(baseline, {}).get(cell.key)) for baseline in ("plain", "mosec", "limit")),
        str(cell.wrong),
    )


def goals(judged: Sequence[Verdict], labels: Mapping[str, str]) -> Table:
    """Each goal, what was reached, and by which configuration."""
    rows = tuple(
        (
            verdict.goal.model,
            str(verdict.goal.callers),
            verdict.goal.baseline,
            f"≥ {verdict.goal.ratio:g}×",
            f"{verdict.ratio:.2f}×",
            "yes" if verdict.reached else "NO",
            labels[verdict.system],
        )
        for verdict in judged
    )
    columns = ("model", "callers", "against", "goal", "measured", "reached", "by")
    return Table(f"Goals: {sum(v.reached for v in judged)} of {len(judged)} reached", columns, rows)


def limits(points: Mapping[str, Sequence[Point]]) -> Table:
    """ONNX Runtime in process over batch sizes, in rows per second."""
    sizes = sorted({point.rows for row in points.values() for point in row})
    rows = []
    for model, row in points.items():
        rate = {point.rows: point for point in row}
        cells = [number(rate[size].rate) if size in rate else "–" for size in sizes]
        rows.append((model, *cells, number(rate[1].run_ms)))
    columns = ("model", *(f"b={size}" for size in sizes), "one row, ms")
    return Table("The limit: ONNX Runtime in process, rows/s by batch size", columns, tuple(rows))


def overhead(measured: Mapping[Key, Cell], points: Mapping[str, Sequence[Point]], labels: Mapping[str, str]) -> Table:
    """What each system adds to the model's own time when there is one caller, at the median."""
    rows = []
    for model, row in points.items():
        own = next(point.run_ms for point in row if point.rows == 1)
        for system, label in labels.items():
            cell = measured.get(Key(model, system, 1))
            if cell is not None:
                rows.append((model, label, number(own), number(cell.p50_ms), f"{cell.p50_ms - own:+.2f}"))
    columns = ("model", "system", "model alone ms", "p50 at one caller ms", "added ms")
    return Table("Latency added to the model's own time, one caller", columns, tuple(rows))

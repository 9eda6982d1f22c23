"""What the demo prints: pure functions from numbers to rich's tables and texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from examples.digits_data import Digits
    from examples.inputs import Array

SIDE = 8
SHOWN_DIGITS = 4
SHOWN_SENTENCES = 3
BAR = 16
SHADES = " ░▒▓█"


def shaded(image: NDArray[np.float32]) -> str:
    """An image FP32 [64], 0 to 16, as eight lines of two characters a pixel.

    >>> shaded(np.full(64, 16, np.float32)).splitlines()[0]
    '████████████████'
    """
    levels = np.clip(image / 16.0 * len(SHADES), 0, len(SHADES) - 1).astype(int).reshape(SIDE, SIDE)
    return "\n".join("".join(SHADES[level] * 2 for level in line) for line in levels)


def bar(share: float, width: int = BAR) -> str:
    """A horizontal bar, full at 1, empty at 0 and below.

    >>> bar(0.5, 4)
    '██  '
    """
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + " ▏▎▍▌▋▊▉"[rest : rest + 1] * (rest > 0)).ljust(width)


def percentile_ms(latencies_s: Sequence[float], percent: float) -> float:
    """A percentile of durations in seconds, in milliseconds."""
    return float(np.percentile(latencies_s, percent)) * 1e3


def digits_picture(digits: Digits, labels: Array, probabilities: Array) -> Table:
    """The first few digits as pictures with their answers; wrong ones come first and are red."""
    wrong = np.flatnonzero(labels != digits.labels)
    right = np.flatnonzero(labels == digits.labels)
    shown = [*wrong[:2], *right][:SHOWN_DIGITS]
    grid = Table(box=None, show_header=False, padding=(0, 1))
    for _ in shown:
        grid.add_column(no_wrap=True)
    grid.add_row(*(shaded(digits.images[index]) for index in shown))
    answers = []
    for index in shown:
        is_right = labels[index] == digits.labels[index]
        truth = "" if is_right else f", is {digits.labels[index]}"
        text = f"{labels[index]} ({probabilities[index].max():.0%}){truth}"
        answers.append(Text(text, style="green" if is_right else "red"))
    grid.add_row(*answers)
    return grid


def digits_table(
    series: Sequence[tuple[int, int, float, Sequence[float]]], images: int, accuracies: Sequence[float]
) -> Table:
    """One line per load: rows a request, requests in flight, elapsed seconds, latencies in seconds."""
    table = Table(title=f"digits: {images} held-out images", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("a request", "in flight", "requests", "images/s", "p50 ms", "p99 ms", "accuracy"):
        table.add_column(heading, justify="right")
    for (rows, in_flight, elapsed_s, latencies_s), accuracy in zip(series, accuracies, strict=True):
        table.add_row(
            str(rows),
            str(in_flight),
            str(len(latencies_s)),
            f"{images / elapsed_s:,.0f}",
            f"{percentile_ms(latencies_s, 50):.2f}",
            f"{percentile_ms(latencies_s, 99):.2f}",
            f"{accuracy:.2%}",
        )
    return table


def ranking(query: str, similarities: Array, sentences: Sequence[str]) -> Table:
    """The sentences nearest to a query with their cosine similarities."""
    table = Table(title=f"minilm: {query}", title_justify="left", box=box.SIMPLE_HEAD, show_header=False)
    table.add_column(justify="right")
    table.add_column(style="cyan", no_wrap=True, min_width=BAR)
    table.add_column(overflow="fold")
    for index in np.argsort(-similarities)[:SHOWN_SENTENCES]:
        table.add_row(f"{similarities[index]:.2f}", bar(float(similarities[index])), sentences[index])
    return table


def embedding_line(count: int, elapsed_s: float, latencies_s: Sequence[float]) -> str:
    """How fast the sentences were embedded."""
    return (
        f"minilm: {count} sentences of different lengths in {elapsed_s * 1e3:.0f} ms, "
        f"p50 {percentile_ms(latencies_s, 50):.1f} ms, p99 {percentile_ms(latencies_s, 99):.1f} ms"
    )


def batching_line(model: str, rows: int, batches: int) -> str:
    """How many batches the rows were executed in, by the server's count.

    >>> batching_line("digits", 100, 10)
    'digits: 100 rows ran in 10 batches, 10.0 rows each'
    """
    average = f", {rows / batches:.1f} rows each" if batches else ""
    return f"{model}: {rows} rows ran in {batches} batches{average}"

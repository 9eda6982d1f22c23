"""Shows an open-loop run: a table of percentiles, and a picture of latency over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from rich import box
from rich.table import Table

from loadtests.bench.plot import COLOURS, INK, QUIET, STYLE
from loadtests.latencies import over_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

_DOTS = 20_000
_PERCENTILES = ("mean_ms", "p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms")


def show(console: Console, figures: Mapping[str, Any]) -> None:
    """Percentiles of latency and of the generator's own lag, statuses below."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{figures['model']}: {figures['sent_rate']:.0f} of {figures['wanted_rate']:.0f} requests/s",
    )
    table.add_column("ms")
    for name in _PERCENTILES:
        table.add_column(name.removesuffix("_ms"), justify="right")
    for label, key in (("latency", "latency"), ("generator lag", "generator_lag")):
        table.add_row(label, *(f"{figures[key][name]:.2f}" for name in _PERCENTILES))
    console.print(table)
    console.print(", ".join(f"{name}: {count:,}" for name, count in sorted(figures["statuses"].items())))


def draw(path: Path, due_s: Sequence[float], latency_s: Sequence[float], title: str) -> None:
    """Every request as a dot at its due time, percentiles per second as lines, and the distribution beside it."""
    due, latency = np.asarray(due_s), np.asarray(latency_s) * 1e3
    windows = over_time(due_s, latency_s, 1.0)
    with mpl.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.6), width_ratios=(3, 1), sharey=True)
        keep = np.random.default_rng(0).permutation(due.size)[:_DOTS]
        left.scatter(due[keep], latency[keep], s=3, color=COLOURS["native-1"], alpha=0.12, lw=0, rasterized=True)
        middle = [window.start_s + 0.5 for window in windows]
        p50, p99 = ([getattr(window.latencies, name) for window in windows] for name in ("p50_ms", "p99_ms"))
        left.plot(middle, p50, color=COLOURS["native-2"], lw=2)
        left.plot(middle, p99, color=COLOURS["mosec"], lw=2)
        left.text(middle[-1] + 0.6, p50[-1], "p50", color=COLOURS["native-2"], va="center", fontweight="bold")
        left.text(middle[-1] + 0.6, p99[-1], "p99", color=COLOURS["mosec"], va="center", fontweight="bold")
        left.set(xlabel="due time, s", ylabel="latency from due time, ms")
        left.set_yscale("log")
        left.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        left.yaxis.set_minor_locator(NullLocator())
        left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.3g}"))
        left.set_title(title, loc="left", fontweight="bold")
        share = 100 * (np.arange(latency.size) + 1) / latency.size
        right.plot(share, np.sort(latency), color=COLOURS["native-1"], lw=2)
        for percent in (50, 90, 99):
            value = float(np.percentile(latency, percent))
            right.plot([percent], [value], "o", color=INK, ms=4)
            text = f"p{percent} {value:.3g}"
            right.annotate(text, (percent, value), (-6, 5), textcoords="offset points", ha="right", fontsize=8)
        right.set(xlabel="share of requests, %")
        right.set_title("distribution", loc="left", color=QUIET)
        figure.tight_layout()
        figure.savefig(path, dpi=130)
        plt.close(figure)

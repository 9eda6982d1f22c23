"""`python -m loadtests.run`: a headless Locust run with an HTML report under build/load/.

Without --url a local cluster is started for it. Ends with 1 when a request failed or nothing was sent.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from loadtests.bench.processes import ServerFailed, end_on_sigterm
from loadtests.cluster import local_cluster
from loadtests.scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Sequence

MODELS = ("digits", "minilm", "resnet50")
_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_ROOT = Path(__file__).parents[1]
_COLUMNS = {
    "Request Count": "requests",
    "Failure Count": "failures",
    "Requests/s": "requests/s",
    "50%": "p50 ms",
    "95%": "p95 ms",
    "99%": "p99 ms",
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.run", description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", choices=SCENARIOS, default="steady")
    parser.add_argument("--users", type=int, default=20, help="users at the highest point")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--url", help="host:port of a running server; without it a local cluster is started")
    parser.add_argument("--repository", type=Path, default=Path("build/models"))
    parser.add_argument("--models", default=",".join(MODELS), help="comma-separated, which kinds of users there are")
    parser.add_argument("--out", type=Path, default=Path("build/load"))
    return parser.parse_args(arguments)


def locust_command(options: argparse.Namespace, url: str) -> list[str]:
    """Locust without its web page, errors as exit code 1, report and figures into files."""
    target = options.out / options.scenario
    return [
        *(sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless", "--only-summary"),
        *("--exit-code-on-error", "1", "--html", f"{target}.html", "--csv", str(target)),
        *("--url", url, "--scenario", options.scenario, "--peak-users", str(options.users)),
        *("--seconds", f"{options.seconds:g}", *(f"{model.capitalize()}User" for model in options.models.split(","))),
    ]


def figures(stats: Path) -> list[dict[str, str]]:
    """Locust's statistics: one row per model, the sum last. Empty where it wrote none."""
    if not stats.exists():
        return []
    with stats.open(newline="") as lines:
        return list(csv.DictReader(lines))


def failed(rows: Sequence[dict[str, str]]) -> bool:
    """Whether any request failed, or none was sent at all."""
    return not rows or int(rows[-1]["Request Count"]) == 0 or int(rows[-1]["Failure Count"]) > 0


def show(console: Console, title: str, rows: Sequence[dict[str, str]]) -> None:
    """The figures as a table."""
    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column("model")
    for name in _COLUMNS.values():
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(row["Name"], *(_short(row[column]) for column in _COLUMNS))
    console.print(table)


def _short(text: str) -> str:
    """Locust writes N/A where it has no percentile."""
    return text if text == "N/A" else f"{float(text):,.0f}" if float(text) >= 1000 else f"{float(text):.4g}"


def main() -> int:
    """0 when every request succeeded with a right answer."""
    end_on_sigterm()
    options, console = parse(), Console()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        url = options.url
        if url is None:
            with console.status("starting a local cluster"):
                try:
                    serve = ["--models", options.models]
                    cluster = local_cluster(options.repository, options.out / "cluster.log", serve)
                    url = stack.enter_context(cluster).url
                except (ServerFailed, OSError) as error:
                    console.print(f"the local cluster did not start: {error}", highlight=False)
                    return 2
        with console.status(f"{options.scenario}: {options.users} users for {options.seconds:g} s against {url}"):
            log = options.out / f"{options.scenario}.log"
            with log.open("w") as sink:
                command = locust_command(options, url)
                done = subprocess.run(
                    command,
                    cwd=_ROOT,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    timeout=options.seconds + 120,
                    check=False,
                )
    rows = figures(options.out / f"{options.scenario}_stats.csv")
    show(console, f"{options.scenario}, {options.users} users, {options.seconds:g} s", rows)
    console.print(f"wrote {options.out / options.scenario}.html, log in {log}", highlight=False)
    return 1 if done.returncode != 0 or failed(rows) else 0


if __name__ == "__main__":
    sys.exit(main())

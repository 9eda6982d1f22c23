"""The report's files: report.json (everything), report.md, report.html with the picture inside."""

from __future__ import annotations

import base64
import json
import os
import platform
import shutil
import subprocess
import time
from dataclasses import asdict
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from loadtests.bench.closedloop import generator_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.bench.results import Sample
    from loadtests.bench.tables import Table

_BEGIN, _END = "<!-- bench:begin -->", "<!-- bench:end -->"
_CSS = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2430;max-width:1200px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.1rem;margin-top:2.2rem}img{width:100%}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13px}
th,td{padding:.25rem .7rem;text-align:right;white-space:nowrap}th:first-child,td:first-child{text-align:left}
th{border-bottom:2px solid #c9ccd3}tr.end td{border-bottom:1px solid #e1e3e8}.note,.facts{color:#5b6170}
"""


def facts(arguments: dict[str, Any]) -> dict[str, Any]:
    """Where and with what the run was made, so that a figure can be repeated."""
    packages = ("grpcio", "pygrpc-native", "pyzmq", "onnxruntime", "protobuf", "uvloop", "numpy")
    return {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": _commit(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_average_at_start": [round(value, 2) for value in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "generator": generator_name(),
        "arguments": arguments,
    }


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    with Path("/proc/cpuinfo").open() as lines:
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def sentence(about: dict[str, Any]) -> str:
    """The facts that a reader needs first."""
    return (
        f"{about['cores']} cores ({about['processor']}), load generator included: {about['generator']} · "
        f"{about['when']} · commit {about['commit']}"
    )


def write(
    folder: Path,
    about: dict[str, Any],
    samples: Sequence[Sample],
    tables: Sequence[Table],
    skipped: Sequence[str],
    picture: Path | None,
) -> list[Path]:
    """Write the three files; returns their paths."""
    data = {
        "facts": about,
        "samples": [asdict(sample) for sample in samples],
        "tables": [{"title": t.title, "columns": t.columns, "rows": t.rows, "note": t.note} for t in tables],
        "skipped": list(skipped),
    }
    paths = [folder / f"report.{kind}" for kind in ("json", "md", "html")]
    paths[0].write_text(json.dumps(data, indent=1) + "\n")
    paths[1].write_text(_markdown(about, tables, skipped, picture))
    paths[2].write_text(_html(about, tables, skipped, picture))
    return paths


def _markdown(about: dict[str, Any], tables: Sequence[Table], skipped: Sequence[str], picture: Path | None) -> str:
    parts = ["# Benchmark", "", sentence(about), ""]
    if picture is not None:
        parts += [f"![throughput, ratios, latency and CPU per request]({picture.name})", ""]
    parts += [table.markdown() for table in tables]
    if skipped:
        parts += ["### Not measured", "", *(f"* {reason}" for reason in skipped), ""]
    return "\n".join(parts)


def _html(about: dict[str, Any], tables: Sequence[Table], skipped: Sequence[str], picture: Path | None) -> str:
    image = ""
    if picture is not None:
        encoded = base64.b64encode(picture.read_bytes()).decode()
        image = f'<img alt="throughput, ratios, latency and CPU" src="data:image/png;base64,{encoded}">'
    body = "".join(table.html() for table in tables)
    if skipped:
        body += "<h2>Not measured</h2><ul>" + "".join(f"<li>{escape(reason)}</li>" for reason in skipped) + "</ul>"
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Shardline benchmark</title>"
        f"<style>{_CSS}</style><h1>Shardline against its peers</h1><p class=facts>{escape(sentence(about))}</p>"
        f"{image}{body}</html>\n"
    )


def publish(page: Path, about: dict[str, Any], tables: Sequence[Table], picture: Path | None) -> None:
    """Put tables and picture between the marks of a page of the docs. Raises ValueError where it has no marks."""
    text = page.read_text()
    parts = [f"{sentence(about)}.", ""]
    if picture is not None:
        kept = page.parent / "images" / "bench.png"
        kept.parent.mkdir(exist_ok=True)
        shutil.copyfile(picture, kept)
        parts += [f"![throughput, ratios, latency and CPU per request](images/{kept.name})", ""]
    parts += [table.markdown() for table in tables]
    page.write_text(between(text, "\n".join(parts)))


def between(text: str, new: str) -> str:
    """`text` with everything between its two marks replaced. Raises ValueError where they are missing."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the page has no {_BEGIN} … {_END}")
    return f"{before}{begin}\n{new.strip()}\n{end}{after}"

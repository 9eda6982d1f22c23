"""Triton's own load generator, unmodified, against Shardline: it asks for the config and for growing statistics.

The binary comes with the wheel of tritonclient 2.46.0; it needs libb64 (Debian: libb64-0d) and the CUDA runtime
library (a wheel), all of it put under `build/`.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from loadtests.bench.peers import NotInstallable, environment
from loadtests.bench.processes import ServerFailed
from loadtests.bench.sections import Skipped
from loadtests.bench.systems import SYSTEMS, start
from loadtests.bench.tables import Table, number

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from loadtests.bench.models import BenchModel
    from loadtests.bench.sections import Setting

_CONCURRENCY = (1, 8, 32)
_WINDOW_MS = 1500
_RUN_WITHIN_S = 120


def measure(setting: Setting) -> list[Table]:
    """Throughput and latency as perf_analyzer itself reports them, with what it read from ModelStatistics."""
    binary, libraries = install(setting.work.parent)
    rows: list[tuple[str, ...]] = []
    refused: list[str] = []
    for model in setting.models.values():
        try:
            with start(SYSTEMS["native-1"], model, setting.work) as endpoint:
                for concurrency in _CONCURRENCY:
                    setting.say(f"perf_analyzer: {model.name}, {concurrency} callers")
                    report = setting.work / f"perf-{model.name}-{concurrency}.csv"
                    _run(binary, libraries, model, endpoint.port, concurrency, report)
                    rows += _rows(model.name, report.read_text().splitlines())
        except (ServerFailed, Skipped, subprocess.TimeoutExpired) as error:
            refused.append(f"{model.name}: {error}")
    if not rows:
        raise Skipped("; ".join(refused))
    columns = ("model", "callers", "inferences/s", "p50 ms", "p99 ms", "server queue ms", "server compute ms")
    note = "perf_analyzer of tritonclient 2.46.0, gRPC; queue and compute are what ModelStatistics told it."
    note = " Not measured: ".join([note, *refused])
    return [Table("perf_analyzer against Shardline native ×1", columns, tuple(rows), note)]


def install(build: Path) -> tuple[Path, list[Path]]:
    """The binary and the folders of its libraries. Raises Skipped where they cannot be had."""
    try:
        folder = environment("perf-analyzer", build).resolve()
    except NotInstallable as error:
        raise Skipped(f"perf_analyzer cannot be installed: {error}") from error
    binary = folder / "bin" / "perf_analyzer"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    libraries = [folder / "lib" / version / "site-packages" / "nvidia" / "cuda_runtime" / "lib", folder / "deb"]
    if "not found" in _linked(binary, libraries):
        _fetch_libb64(folder / "deb")
    missing = [line.split()[0] for line in _linked(binary, libraries).splitlines() if "not found" in line]
    if missing:
        raise Skipped(f"perf_analyzer needs {', '.join(missing)} (Debian: libb64-0d)")
    return binary, libraries


def _linked(binary: Path, libraries: Iterable[Path]) -> str:
    done = subprocess.run(
        ["ldd", str(binary)], capture_output=True, text=True, env=_environment(libraries), check=False
    )
    return done.stdout


def _environment(libraries: Iterable[Path]) -> dict[str, str]:
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries))}


def _fetch_libb64(folder: Path) -> None:
    """Unpack Debian's package into our own folder, so that nothing of the system changes."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Skipped("perf_analyzer needs libb64.so.0d, which comes as a Debian package")
    folder.mkdir(parents=True, exist_ok=True)
    got = subprocess.run(["apt-get", "download", "libb64-0d"], cwd=folder, capture_output=True, text=True, check=False)
    packages = list(folder.glob("*.deb"))
    if got.returncode != 0 or not packages:
        raise Skipped(f"libb64-0d cannot be fetched: {got.stderr.strip().splitlines()[-1:]}")
    subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(folder)], check=True)
    for library in folder.glob("usr/lib/*/libb64.so*"):
        shutil.copy2(library, folder / library.name)


def _run(binary: Path, libraries: Iterable[Path], model: BenchModel, port: int, concurrency: int, report: Path) -> None:
    """One concurrency, up to ten windows until two agree within 25 %. Raises Skipped with its last line."""
    command = [str(binary), "-m", model.name, "-i", "grpc", "-u", f"127.0.0.1:{port}", "-b", "1"]
    command += [
        "--concurrency-range",
        str(concurrency),
        "-p",
        str(_WINDOW_MS),
        "-s",
        "25",
        "-r",
        "10",
        "-f",
        str(report),
    ]
    if any(array.dtype.kind == "i" for array in model.inputs.values()):
        command += ["--input-data", str(_token_data(model, report.with_suffix(".json")))]
    environment_ = _environment(libraries)
    done = subprocess.run(command, capture_output=True, text=True, timeout=_RUN_WITHIN_S, env=environment_, check=False)
    if done.returncode != 0 or not report.exists():
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise Skipped(f"perf_analyzer failed with {model.name}: {' | '.join(lines[-3:])}")


def _token_data(model: BenchModel, path: Path) -> Path:
    """Its own random integers are no token numbers: a model that looks them up refuses them. So it gets ours."""
    row = {
        name: {"content": array[0].ravel().tolist(), "shape": array.shape[1:]} for name, array in model.inputs.items()
    }
    path.write_text(json.dumps({"data": [row]}))
    return path


def _rows(model: str, report: Iterable[str]) -> list[tuple[str, ...]]:
    """Its CSV: durations in microseconds."""
    rows = []
    for line in csv.DictReader(report):
        compute = sum(float(line.get(f"Server Compute {part}", 0) or 0) for part in ("Input", "Infer", "Output"))
        queue = float(line.get("Server Queue", 0) or 0)
        milliseconds = (float(line["p50 latency"]), float(line["p99 latency"]), queue, compute)
        texts = (number(value / 1e3) for value in milliseconds)
        rows.append((model, line["Concurrency"], number(float(line["Inferences/Second"])), *texts))
    return rows

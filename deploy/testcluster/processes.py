"""Processes of the cluster: find them by their mark, start them inside a node, end them for good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from layout import MARK, Layout

START = r"""
pid=/run/$0.pid
if [ -s $pid ] && kill -0 "$(cat $pid)" 2>/dev/null; then exit; fi
echo $$ > $pid
exec "$@" >> "$LOG" 2>&1
"""


def run(*command: str, quiet: bool = False, cwd: Path | None = None) -> None:
    """Run a command to its end. Raises CalledProcessError."""
    out = subprocess.DEVNULL if quiet else None
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd)


def wait(what: str, ok: Callable[[], bool], seconds: float = 120, step: float = 0.2) -> None:
    """Return when ok() holds; end the program with `what` when it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not ok():
        if time.monotonic() > end:
            sys.exit(f"not within {seconds:.0f} s: {what}; the daemons' logs are in the cluster's folder log/")
        time.sleep(step)


def environment(layout: Layout) -> dict[str, str]:
    """What a daemon of the cluster sees: little of ours, and the mark."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    path = f"{layout.work}/bin:{kept.get('PATH', '')}:/usr/sbin:/sbin"
    return {**kept, "PATH": path, MARK: str(layout.work)}


def ours(layout: Layout) -> list[int]:
    """Process ids (of this machine) of all processes that carry the mark."""
    mark, found = f"{MARK}={layout.work}".encode(), []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                found.append(int(name))
        except OSError:  # gone, or not ours to look at
            continue
    return found


def first_processes(layout: Layout) -> dict[str, int]:
    """{name: process id} of the first process of every node, and of `lan`, which holds the network between them."""
    found = {}
    for pid in ours(layout):
        try:
            name = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        own_number = status.split("NSpid:")[1].split("\n")[0].split()[-1]
        if name.startswith(layout.tag + "-") and own_number == "1":
            found[name.removeprefix(layout.tag + "-")] = pid
    return found


def inside(layout: Layout, node: int | str, *command: str) -> list[str]:
    """The command line that runs `command` inside a node, in the folder where we are."""
    pid = first_processes(layout).get(f"node{node}")
    if pid is None:
        sys.exit(f"node {node} is not running (see `cluster.py up`)")
    return ["nsenter", "-t", str(pid), "-n", "-m", "-u", "-i", "-p", f"--wdns={os.getcwd()}", "--", *command]


def kubectl(layout: Layout, *arguments: str) -> subprocess.CompletedProcess[str]:
    """kubectl as cluster-admin inside node 1, its output captured."""
    command = inside(layout, 1, *layout.kubectl, *arguments)
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def start(layout: Layout, node: int, name: str, command: Sequence[str]) -> None:
    """Start a daemon inside a node unless it runs there already; its process id stands in /run/NAME.pid."""
    subprocess.Popen(
        inside(layout, node, "sh", "-c", START, name, *command),
        env={**environment(layout), "LOG": f"{layout.logs}/{name}-{node}.log"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def stop(layout: Layout, node: int, name: str) -> None:
    """End a daemon inside a node and wait until it is gone. One that takes its time (an API server lets clients end first) is killed."""
    script = (
        f"p=$(cat /run/{name}.pid); kill $p; n=0; "
        "while kill -0 $p; do n=$((n + 1)); [ $n = 50 ] && kill -9 $p; sleep 0.1; done; "
        f"rm /run/{name}.pid"
    )
    subprocess.run(inside(layout, node, "sh", "-c", script), stderr=subprocess.DEVNULL, check=False)


def kill(pids: Iterable[int], seconds: float = 30) -> None:
    """End processes for good. Of a node its first process is enough: the kernel ends all that is in it."""
    end, left = time.monotonic() + seconds, [pid for pid in pids if _there(pid)]
    while left:
        if time.monotonic() > end:
            sys.exit(f"cannot end the processes {left}")
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)
        left = [pid for pid in left if _there(pid)]


def _there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False

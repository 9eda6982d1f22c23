"""Nodes: each is one process tree in namespaces of its own, on a cable that leads nowhere else.

Killing a node's first process ends everything in it: containers, shims, mounts, iptables rules, interfaces. A node that
is started again has its disk (images, kubelet's files, etcd) as after a power cut, and an empty /run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from components import worker, write
from layout import HERE, Layout
from processes import environment, first_processes, inside, kubectl, run, start, wait

CGROUPS = Path("/sys/fs/cgroup")


def lan(layout: Layout) -> str:
    """The process id that holds the network between the nodes: one bridge; no packet leaves it."""
    if "lan" not in first_processes(layout):
        script = "ip link add lan type bridge; ip link set lan up; exec -a $TAG-lan $BIN/pause"
        _unshare(layout, ["--net", "--pid"], script, "lan", {})
        wait("network between the nodes", lambda: "lan" in first_processes(layout), 10, 0.05)
    return str(first_processes(layout)["lan"])


def _unshare(layout: Layout, kinds: list[str], script: str, log: str, extra: dict[str, str]) -> int:
    """Run a script as the first process of new namespaces; returns the process id of unshare, its parent."""
    variables = {"W": str(layout.work), "BIN": str(layout.binaries), "TAG": layout.tag, **extra}
    with (layout.logs / f"{log}.log").open("w") as errors:
        child = subprocess.Popen(
            ["unshare", *kinds, "--kill-child=KILL", "bash", "-c", script],
            env={**environment(layout), **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
    return child.pid


def power_on(layout: Layout, number: int) -> None:
    """Make the node's namespaces, file system and cable, unless it runs."""
    name, network = f"node{number}", lan(layout)
    if name in first_processes(layout):
        return
    remove_cgroups(f"{layout.tag}-{name}")
    _make_cgroup(f"{layout.tag}-{name}")
    in_lan = ("nsenter", "-t", network, "-n", "ip", "link")
    subprocess.run([*in_lan, "del", name], stderr=subprocess.DEVNULL, check=False)  # of the node's former life
    kinds = ["--net", "--mount", "--uts", "--ipc", "--pid"]
    parent = _unshare(layout, kinds, (HERE / "node-init.sh").read_text(), f"init-{number}", {"NODE": str(number)})
    children = Path(f"/proc/{parent}/task/{parent}/children")
    wait(f"{name}'s first process", lambda: bool(children.read_text().strip()), 10, 0.02)
    child = children.read_text().split()[0]
    run(*in_lan, "add", name, "type", "veth", "peer", "name", "eth0", "netns", child)
    run(*in_lan, "set", name, "master", "lan", "up")
    wait(f"{name}'s namespaces", lambda: name in first_processes(layout), 20, 0.05)


def start_worker(layout: Layout, number: int) -> None:
    """Power a node on and start containerd, kubelet, kube-proxy and the enforcement of NetworkPolicy."""
    power_on(layout, number)
    commands = worker(layout, number)
    start(layout, number, "containerd", commands["containerd"])
    load_images(layout, number)
    for name in ("kubelet", "kube-proxy", "netpol"):
        start(layout, number, name, commands[name])


def load_images(layout: Layout, number: int) -> None:
    """Import every archive of the images folder that the node does not have yet."""

    def answers() -> bool:
        asked = subprocess.run(inside(layout, number, "ctr", "version"), capture_output=True, check=False)
        return asked.returncode == 0

    wait(f"containerd on node {number}", answers, 30)
    for archive in sorted(layout.images.glob("*.tar")):
        stamp = layout.work / f"node{number}" / f"imported-{archive.name}"
        age = str(archive.stat().st_mtime_ns)
        if not stamp.exists() or stamp.read_text() != age:
            run(*inside(layout, number, "ctr", "-n", "k8s.io", "images", "import", str(archive)), quiet=True)
            write(stamp, age)


def is_ready(layout: Layout, number: int) -> bool:
    """Whether Kubernetes calls the node Ready."""
    path = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
    return kubectl(layout, "get", "node", f"node{number}", "-o", path).stdout == "True"


def _hierarchies() -> list[Path]:
    """The cgroup trees: one with version 2, one for each controller with version 1."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def _make_cgroup(name: str) -> None:
    for tree in _hierarchies():
        (tree / name).mkdir(exist_ok=True)
        if tree.name == "cpuset":  # version 1: an empty cpuset takes no process
            for knob in ("cpuset.cpus", "cpuset.mems"):
                (tree / name / knob).write_text((tree / knob).read_text())


def remove_cgroups(prefix: str) -> None:
    """Remove all cgroups whose name begins so; says what could not be removed."""
    for tree in _hierarchies():
        for top in [path for path in tree.iterdir() if path.name.startswith(prefix)]:
            for folder, _, _ in os.walk(top, topdown=False):
                _remove_cgroup(folder)


def _remove_cgroup(folder: str) -> None:
    for _ in range(100):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            return
        except OSError:  # the kernel is still taking leave of the last process
            time.sleep(0.05)
        else:
            return
    print(f"left behind: {folder}", file=sys.stderr)

#!/usr/bin/env python3
"""A real Kubernetes cluster on this machine: kind's where Docker and kind are, else one without Docker, systemd or a registry.

Linux, root, Python 3.11.

cluster.py up [N]                     N nodes (default 2, at most 9), cluster DNS included; does nothing that is done already
cluster.py down                       ends every process, mount, namespace and cgroup of the cluster, also of a half-made one
cluster.py exec NODE COMMAND...       run a command inside a node (1, 2, ...); node 1 also has the control plane
cluster.py kubectl|helm ARGUMENTS...  as cluster-admin, inside node 1
cluster.py load IMAGE.tar...          import images into every running node; a node that starts later gets them too
cluster.py start-node|kill-node NODE  power on / pull the plug of a node (2, 3, ...)
cluster.py cut|join NODE              unplug / plug in a node's network cable
cluster.py restart NODE NAME          end and start one process: etcd kube-apiserver kube-controller-manager
                                      kube-scheduler containerd kubelet kube-proxy netpol
cluster.py status                     processes and their memory
cluster.py where NAME                 print a path (work, binaries, kubeconfig), or a node's name (node1, node2)

TESTCLUSTER_DIR  work folder (state, logs, keys); default: build/testcluster in the project
TESTCLUSTER_BIN  folder of the binaries; default: in the user's cache, built when missing
TESTCLUSTER_KIND no: kind is not used, also where it could be
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import kind
from certificates import make_certificates
from components import control_plane, worker
from layout import DNS_IMAGE, HERE, MOST_NODES, PAUSE_IMAGE, Layout, read_layout
from nodes import is_ready, lan, load_images, power_on, remove_cgroups, start_worker
from processes import first_processes, inside, kill, kubectl, ours, run, start, stop, wait
from requirements import prepare

KUBERNETES = (
    "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
)  # fmt: skip


def up(layout: Layout, nodes: int) -> None:
    """Start what does not run, and wait until every node and the DNS are ready."""
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)

    if not 1 <= nodes <= MOST_NODES:
        sys.exit(f"between 1 and {MOST_NODES} nodes, not {nodes}")
    prepare(layout)
    make_files(layout)
    say("programs, keys and images are there")
    power_on(layout, 1)
    commands = control_plane(layout)
    for name in ("etcd", "kube-apiserver"):
        start(layout, 1, name, commands[name])
    wait("API server ready", lambda: kubectl(layout, "get", "--raw=/readyz").returncode == 0)
    say("API server ready")
    for name in ("kube-controller-manager", "kube-scheduler"):  # earlier they exit for good: RBAC must be there
        start(layout, 1, name, commands[name])
    for number in range(1, nodes + 1):
        start_worker(layout, number)
    run(*inside(layout, 1, *layout.kubectl, "apply", "--server-side", "-f", f"{HERE}/coredns.yaml"), quiet=True)
    for number in range(1, nodes + 1):
        wait(f"node {number} Ready", lambda number=number: is_ready(layout, number))
        say(f"node {number} Ready")
    rollout = ("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")
    run(*inside(layout, 1, *layout.kubectl, *rollout), quiet=True)
    say("DNS ready: cluster.py kubectl get nodes")


def make_files(layout: Layout) -> None:
    """Keys, the links by which kube0 is every component, and the two images that the cluster itself needs."""
    for folder in (layout.logs, layout.images, layout.work / "bin"):
        folder.mkdir(parents=True, exist_ok=True)
    make_certificates(layout)
    for name in KUBERNETES:
        link = layout.work / "bin" / name
        link.unlink(missing_ok=True)
        link.symlink_to(layout.binaries / "kube0")
    for program, image in (("pause", PAUSE_IMAGE), ("coredns", DNS_IMAGE)):
        archive, binary = layout.images / f"{program}.tar", layout.binaries / program
        if not archive.exists() or archive.stat().st_mtime < binary.stat().st_mtime:
            pack_program(layout, binary, archive, image)


def pack_program(layout: Layout, binary: Path, archive: Path, image: str) -> None:
    """An image that holds one static program."""
    root = layout.work / f"image-{binary.name}"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    shutil.copy(binary, root / binary.name)
    mkimage = [sys.executable, str(HERE.parent / "images/mkimage.py")]
    unfinished = archive.with_suffix(".new")
    run(*mkimage, str(unfinished), image, "--layer", str(root), "--entrypoint", f'["/{binary.name}"]', quiet=True)
    unfinished.rename(archive)
    shutil.rmtree(root)


def down(layout: Layout) -> None:
    """End and remove everything but keys, images and logs."""
    kill(first_processes(layout).values())
    while left := ours(layout):
        kill(left)
    remove_cgroups(layout.tag + "-")
    for folder in layout.work.iterdir() if layout.work.is_dir() else []:
        if folder.name.startswith("node") or folder.name == "etc":
            shutil.rmtree(folder)


def load(layout: Layout, archives: list[str]) -> None:
    """Copy archives to the images folder and import them into every running node."""
    layout.images.mkdir(parents=True, exist_ok=True)
    for archive in map(Path, archives):
        unfinished = layout.images / ".new"
        shutil.copy(archive, unfinished)
        unfinished.rename(layout.images / archive.name)
    for name in sorted(first_processes(layout)):
        if name.startswith("node"):
            load_images(layout, int(name.removeprefix("node")))


def cable(layout: Layout, number: int, state: str) -> None:
    """Plug a node's cable in (up) or out (down); its pods go on."""
    run("nsenter", "-t", lan(layout), "-n", "ip", "link", "set", f"node{number}", state)


def restart(layout: Layout, number: int, name: str) -> None:
    """End one daemon and start it again."""
    stop(layout, number, name)
    start(layout, number, name, {**control_plane(layout), **worker(layout, number)}[name])


def status(layout: Layout) -> None:
    """Print the cluster's processes and their memory."""
    for pid in sorted(ours(layout)):
        shown = subprocess.run(
            ["ps", "-o", "pid=,rss=,args=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        print(shown.stdout.rstrip()[:140])


def enter(layout: Layout, command: list[str]) -> None:
    """Become a command inside node 1, with the admin's kubeconfig."""
    os.environ["KUBECONFIG"] = str(layout.pki / "admin.kubeconfig")
    os.execvp("nsenter", inside(layout, 1, *command))


def main(arguments: list[str]) -> None:
    """Carry out one command."""
    layout = read_layout()
    if kind.usable():
        kind.main(layout, arguments)
        return
    match arguments:
        case ["up", *number]:
            up(layout, int(number[0]) if number else 2)
        case ["down"]:
            down(layout)
        case ["exec", node, *command] if command:
            os.execvp("nsenter", inside(layout, node, *command))
        case ["kubectl", *rest]:
            enter(layout, [*layout.kubectl, *rest])
        case ["helm", *rest]:
            enter(layout, [str(layout.binaries / "helm"), *rest])
        case ["load", *archives]:
            load(layout, archives)
        case ["start-node", node]:
            start_worker(layout, int(node))
        case ["kill-node", node]:
            kill(pid for name, pid in first_processes(layout).items() if name == f"node{node}")
        case ["cut", node]:
            cable(layout, int(node), "down")
        case ["join", node]:
            cable(layout, int(node), "up")
        case ["restart", node, name]:
            restart(layout, int(node), name)
        case ["status"]:
            status(layout)
        case ["where", name] if name.startswith("node"):
            print(name)
        case ["where", name]:
            places = {"work": layout.work, "binaries": layout.binaries, "kubeconfig": layout.pki / "admin.kubeconfig"}
            print(places[name])
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])

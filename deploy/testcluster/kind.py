"""The same commands on a kind cluster, for machines where Docker runs. Needs kind, kubectl, helm, and root for `exec`.

Each node is a container. `exec` enters a node's network only, as the tests need the pods' addresses and this machine's files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from layout import HERE, MOST_NODES, Layout

PROGRAMS = ("kind", "kubectl", "helm")
IMAGE = "kindest/node:v1.34.0"
"""Its own network enforces NetworkPolicy since kind 0.24."""
CUT = ("INPUT", "OUTPUT", "FORWARD")

CONFIG = """\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
kubeadmConfigPatches:
  - |
    kind: ClusterConfiguration
    apiServer:
      extraArgs:
        default-not-ready-toleration-seconds: "10"
        default-unreachable-toleration-seconds: "10"
    controllerManager:
      extraArgs:
        node-monitor-grace-period: 20s
nodes:
"""
NODE = """\
  - role: {role}
    image: {image}
    labels:
      topology.kubernetes.io/zone: zone{number}
    extraMounts:
      - {{hostPath: {root}, containerPath: {root}, readOnly: true}}
      - {{hostPath: {temporary}, containerPath: {temporary}, readOnly: true}}
"""


def usable() -> bool:
    """Whether Docker answers and kind is there; TESTCLUSTER_KIND=no says that neither is wanted."""
    if os.environ.get("TESTCLUSTER_KIND") == "no" or not (shutil.which("docker") and shutil.which("kind")):
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def node_name(layout: Layout, number: int) -> str:
    """The name of a node, which is its container's, too."""
    roles = {1: "control-plane", 2: "worker"}
    return f"{layout.tag}-{roles.get(number, f'worker{number - 1}')}"


def config(nodes: int) -> str:
    """kind's configuration. The repository and the temporary files are where this machine has them, for hostPath volumes."""
    places = {"root": HERE.parent.parent, "temporary": tempfile.gettempdir(), "image": IMAGE}
    parts = [
        NODE.format(role="control-plane" if number == 1 else "worker", number=number, **places)
        for number in range(1, nodes + 1)
    ]
    return CONFIG + "".join(parts)


def up(layout: Layout, nodes: int) -> None:
    """Make the cluster unless it is there, and wait until it is ready."""
    if not 1 <= nodes <= MOST_NODES:
        sys.exit(f"between 1 and {MOST_NODES} nodes, not {nodes}")
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        sys.exit(f"missing beside Docker: {', '.join(missing)} (or set TESTCLUSTER_KIND=no)")
    layout.work.mkdir(parents=True, exist_ok=True)
    if layout.tag not in _said("kind", "get", "clusters").split():
        file = layout.work / "kind.yaml"
        file.write_text(config(nodes))
        _run("kind", "create", "cluster", "--name", layout.tag, "--config", str(file), "--wait", "180s")
    layout.pki.mkdir(exist_ok=True)
    # Seen from inside node 1, where all commands run.
    text = _said("kind", "get", "kubeconfig", "--name", layout.tag)
    lines = ["    server: https://127.0.0.1:6443" if "server: " in line else line for line in text.splitlines()]
    kubeconfig(layout).write_text("\n".join(lines) + "\n")
    kubeconfig(layout).chmod(0o600)
    taint = ["taint", "nodes", "--all", "node-role.kubernetes.io/control-plane-"]
    subprocess.run(inside(layout, 1, *kubectl(layout), *taint), capture_output=True, check=False)
    _run(*inside(layout, 1, *kubectl(layout), "wait", "nodes", "--all", "--for=condition=Ready", "--timeout=180s"))


def kubeconfig(layout: Layout) -> Path:
    """The administrator's."""
    return layout.pki / "admin.kubeconfig"


def kubectl(layout: Layout) -> list[str]:
    """kubectl as cluster-admin."""
    return [shutil.which("kubectl") or "kubectl", "--kubeconfig", str(kubeconfig(layout))]


def inside(layout: Layout, number: int, *command: str) -> list[str]:
    """The command line that runs `command` in a node's network."""
    state = "{{.State.Pid}}"
    pid = _said("docker", "inspect", "--format", state, node_name(layout, number)).strip()
    if not pid or pid == "0":
        sys.exit(f"node {number} is not running (see `cluster.py up`)")
    return ["nsenter", "-t", pid, "-n", "--", *command]


def cable(layout: Layout, number: int, *, plugged: bool) -> None:
    """Let a node's packets through, or none."""
    change = "-D" if plugged else "-I"
    for chain in CUT:
        side = [] if chain == "FORWARD" else ["-i" if chain == "INPUT" else "-o", "eth0"]
        _run("docker", "exec", node_name(layout, number), "iptables", change, chain, *side, "-j", "DROP")


def restart(layout: Layout, number: int, name: str) -> None:
    """Restart a daemon: kubelet and containerd by systemd, the others are containers that kubelet starts again."""
    if name in ("kubelet", "containerd"):
        _run("docker", "exec", node_name(layout, number), "systemctl", "restart", name)
        return
    script = f"crictl stop $(crictl ps --name {name} -q)"
    _run("docker", "exec", node_name(layout, number), "sh", "-c", script)


def main(layout: Layout, arguments: list[str]) -> None:
    """The commands of cluster.py."""
    os.environ["KUBECONFIG"] = str(kubeconfig(layout))
    match arguments:
        case ["up", *number]:
            up(layout, int(number[0]) if number else 2)
        case ["down"]:
            _run("kind", "delete", "cluster", "--name", layout.tag)
        case ["exec", node, *command] if command:
            os.execvp("nsenter", inside(layout, int(node), *command))
        case ["kubectl", *rest]:
            os.execvp("nsenter", inside(layout, 1, *kubectl(layout), *rest))
        case ["helm", *rest]:
            os.execvp("nsenter", inside(layout, 1, "helm", *rest))
        case ["load", *archives]:
            for archive in archives:
                _run("kind", "load", "image-archive", archive, "--name", layout.tag)
        case ["start-node", node]:
            _run("docker", "start", node_name(layout, int(node)))
        case ["kill-node", node]:
            _run("docker", "kill", node_name(layout, int(node)))
        case ["cut" | "join" as verb, node]:
            cable(layout, int(node), plugged=verb == "join")
        case ["restart", node, name]:
            restart(layout, int(node), name)
        case ["status"]:
            _run("docker", "ps", "--filter", f"name={layout.tag}")
        case ["where", name]:
            print(where(layout, name))
        case _:
            sys.exit("kind: no such command; see `cluster.py`")


def where(layout: Layout, name: str) -> str:
    """A path, or the name of a node (node1, node2)."""
    if name.startswith("node"):
        return node_name(layout, int(name.removeprefix("node")))
    places = {
        "work": layout.work,
        "binaries": Path(shutil.which("helm") or "/usr/local/bin/helm").parent,
        "kubeconfig": kubeconfig(layout),
    }
    return str(places[name])


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.stdout

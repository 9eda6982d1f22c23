"""Where Docker and kind are, the test cluster is kind's: what is run then, seen by programs that only write it down."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
CLUSTER = ROOT / "deploy/testcluster/cluster.py"
PROGRAM = """#!/bin/sh
echo "$(basename "$0") $*" >> {log}
case "$(basename "$0") $1" in
  "docker info") exit {docker} ;;
  "docker inspect") echo 4711 ;;
  "kind get") [ "$2" = kubeconfig ] && printf 'clusters:\\n- cluster:\\n    server: https://127.0.0.1:39999\\n' ;;
esac
exit 0
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine on which Docker runs."""
    prepare(tmp_path, docker=0)
    return tmp_path


def prepare(folder: Path, docker: int) -> None:
    for name in ("docker", "kind", "kubectl", "helm", "nsenter"):
        program = folder / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(PROGRAM.format(log=folder / "log", docker=docker))
        program.chmod(0o755)


def run(machine: Path, *arguments: str, check: bool = True) -> list[str]:
    """A command of cluster.py; what was run for it."""
    log = machine / "log"
    log.unlink(missing_ok=True)
    own = {"PATH": f"{machine}/bin:{os.environ['PATH']}", "TESTCLUSTER_DIR": str(machine / "work")}
    done = subprocess.run(
        [sys.executable, str(CLUSTER), *arguments],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return [line for line in (log.read_text() if log.exists() else "").splitlines() if line != "docker info"]


def test_a_cluster_of_two_nodes_is_made_with_kind(machine: Path) -> None:
    ran = run(machine, "up", "2")
    made = next(line for line in ran if line.startswith("kind create cluster"))
    name = made.split("--name ")[1].split()[0]
    config = yaml.safe_load((machine / "work/kind.yaml").read_text())
    assert [node["role"] for node in config["nodes"]] == ["control-plane", "worker"]
    mounts = [mount["hostPath"] for mount in config["nodes"][1]["extraMounts"]]
    assert str(ROOT) in mounts
    kubeconfig = yaml.safe_load((machine / "work/pki/admin.kubeconfig").read_text())
    assert kubeconfig["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    assert any(line.startswith("docker inspect") and line.endswith(f"{name}-control-plane") for line in ran)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("down",), "kind delete cluster --name"),
        (("load", "a.tar"), "kind load image-archive a.tar"),
        (("kill-node", "2"), "docker kill"),
        (("start-node", "2"), "docker start"),
        (("cut", "2"), "iptables -I INPUT -i eth0 -j DROP"),
        (("join", "2"), "iptables -D FORWARD -j DROP"),
        (("restart", "1", "kubelet"), "systemctl restart kubelet"),
        (("restart", "1", "kube-apiserver"), "crictl stop $(crictl ps --name kube-apiserver -q)"),
        (("exec", "1", "echo", "hello"), "nsenter -t 4711 -n -- echo hello"),
        (("kubectl", "get", "nodes"), "get nodes"),
        (("helm", "list"), "nsenter -t 4711 -n -- helm list"),
    ],
)
def test_each_command_has_its_counterpart(machine: Path, arguments: tuple[str, ...], expected: str) -> None:
    assert any(expected in line for line in run(machine, *arguments))


def test_without_a_docker_that_answers_kind_is_left_alone(tmp_path: Path) -> None:
    prepare(tmp_path, docker=1)
    assert run(tmp_path, "where", "kubeconfig") == []
    assert not [line for line in run(tmp_path, "status") if line.startswith("kind")]

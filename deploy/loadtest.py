#!/usr/bin/env python3
"""Locust's scenarios against a release on the test cluster: `make loadtest-cluster`.

loadtest.py [--scenarios steady,ramp,spike] [--models digits] [--users 20] [--seconds 60] [--replicas 2] [--keep]

Brings the cluster up, loads the images, installs the release `load`, serves the example models from build/models, runs each scenario
from inside the cluster's network, and removes the release. Reports stand in build/load/cluster. Ends with 1 when a request failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = [sys.executable, str(ROOT / "deploy/testcluster/cluster.py")]
CHART = ROOT / "charts/shardline"
IMAGES = ROOT / "build/images"
RELEASE = "load"


def cluster(*arguments: str, text: str | None = None) -> str:
    """A command of cluster.py; its standard output. Raises CalledProcessError."""
    done = subprocess.run([*CLUSTER, *arguments], cwd=ROOT, input=text, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def install(models: list[str], replicas: int) -> str:
    """A release that serves the models; the address of its service."""
    subprocess.run([*CLUSTER, "up", "2"], check=True)
    subprocess.run([sys.executable, str(ROOT / "deploy/images/build.py")], check=True)
    cluster("load", str(IMAGES / "shardline-cpu.tar"), str(IMAGES / "shardline-redis.tar"))
    values = str(CHART / "ci/testcluster-values.yaml")
    options = ("-n", RELEASE, "--create-namespace", "-f", values, "--wait", "--timeout", "300s")
    cluster("helm", "upgrade", "--install", RELEASE, str(CHART), *options)
    for name in models:
        spec = {"repository": {"hostPath": {"path": str(ROOT / "build/models")}}, "replicas": replicas}
        model = {"apiVersion": "shardline.dev/v1alpha1", "kind": "Model", "metadata": {"name": name}, "spec": spec}
        cluster("kubectl", "apply", "-n", RELEASE, "-f", "-", text=json.dumps(model))
    for name in models:
        cluster("kubectl", "wait", "-n", RELEASE, f"model/{name}", "--for=condition=Ready", "--timeout=600s")
    service = json.loads(cluster("kubectl", "get", "service", RELEASE, "-n", RELEASE, "-o", "json"))
    return f"{service['spec']['clusterIP']}:8001"


def run(scenario: str, address: str, given: argparse.Namespace) -> int:
    """One scenario; Locust's exit status."""
    inside = [sys.executable, "-m", "loadtests.run", "--scenario", scenario, "--url", address]
    inside += ["--users", str(given.users), "--seconds", str(given.seconds), "--models", given.models]
    inside += ["--out", str(ROOT / "build/load/cluster")]
    return subprocess.run([*CLUSTER, "exec", "1", *inside], cwd=ROOT, check=False).returncode


def remove() -> None:
    """The release and its namespace."""
    cluster("helm", "uninstall", RELEASE, "-n", RELEASE, "--wait", "--timeout", "300s")
    cluster("kubectl", "delete", "namespace", RELEASE)


def main() -> int:
    """0 when every request of every scenario succeeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", default="steady,ramp,spike")
    parser.add_argument("--models", default="digits")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="leave the release there")
    given = parser.parse_args()
    address = install(given.models.split(","), given.replicas)
    try:
        failed = [scenario for scenario in given.scenarios.split(",") if run(scenario, address, given)]
    finally:
        if not given.keep:
            remove()
    if failed:
        print(f"requests failed in: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""One release on the test cluster, driven by kubectl and helm as a user does."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = [sys.executable, str(ROOT / "deploy/testcluster/cluster.py")]
CHART = ROOT / "charts/shardline"
VALUES = CHART / "ci/testcluster-values.yaml"
LOAD = Path(__file__).parent / "load.py"
CLI = [sys.executable, "-m", "shardline.cli"]
CLAIM = "models"
MADE_HERE = "shardline.dev/made-by-tests"

Json = dict[str, Any]


def cluster(*arguments: str, text: str | None = None, check: bool = True) -> str:
    """A command of cluster.py; its standard output."""
    done = subprocess.run([*CLUSTER, *arguments], cwd=ROOT, input=text, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(arguments)}: {done.stderr or done.stdout}")
    return done.stdout


def until(what: str, ok: Callable[[], Any], seconds: float = 180.0) -> Any:
    """Wait for a condition; fail with `what` when it does not come. The deadline is for machines that do much else."""
    end = time.monotonic() + seconds
    while not (value := ok()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)
    return value


def clear_cluster() -> None:
    """Remove the namespaces and volumes of all releases that tests made."""
    selector = ("-l", f"{MADE_HERE}=true", "--timeout=300s")
    cluster("kubectl", "delete", "namespaces", *selector)
    cluster("kubectl", "delete", "persistentvolumes", *selector)


@functools.cache
def node(number: int) -> str:
    """The name of a node as Kubernetes knows it."""
    return cluster("where", f"node{number}").strip()


def infer(model: str, address: str, *options: str, check: bool = True) -> str:
    """What `shardline infer` prints, called from inside the cluster's network."""
    return cluster("exec", "1", *CLI, "infer", model, "--url", address, *options, check=check)


def is_ready(pod: Json) -> bool:
    """Whether kubelet calls a pod ready, and it stays."""
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


@dataclass
class Load:
    """Callers at work; `errors` and `answered` when they have stopped."""

    stop_file: Path
    process: subprocess.Popen[str]
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def answered(self) -> int:
        return self.counts.get("ok", 0)

    @property
    def errors(self) -> dict[str, int]:
        return {name: count for name, count in self.counts.items() if name != "ok"}


@dataclass
class Release:
    """A release and its namespace, where Kubernetes itself refuses pods with more rights than they need."""

    name: str
    namespace: str
    models: Path

    def install(self, *values: str) -> None:
        cluster("kubectl", "apply", "-f", "-", text=json.dumps(self.surroundings()))
        self.helm("install", *values)

    def surroundings(self) -> Json:
        """The namespace and the claim that holds the model repository, as a cluster's owner makes them."""
        made = {MADE_HERE: "true"}
        restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
        space = {"name": self.namespace, "labels": restricted | made}
        items = [{"apiVersion": "v1", "kind": "Namespace", "metadata": space}, *self.claim(CLAIM, self.models)]
        return {"apiVersion": "v1", "kind": "List", "items": items}

    def claim(self, name: str, folder: Path, mode: str = "ReadOnlyMany") -> list[Json]:
        """A claim in the namespace and the volume of this machine that it is bound to."""
        size = {"storage": "1Gi"}
        volume_name = f"{name}-{self.namespace}"
        common: Json = {"accessModes": [mode], "storageClassName": ""}
        volume = {
            **common,
            "capacity": size,
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(folder)},
            "claimRef": {"namespace": self.namespace, "name": name},
        }
        wish = {**common, "resources": {"requests": size}, "volumeName": volume_name}
        marked = {"name": volume_name, "labels": {MADE_HERE: "true", f"{MADE_HERE}.namespace": self.namespace}}
        return [
            {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": marked, "spec": volume},
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": wish,
            },
        ]

    def remove(self) -> None:
        """The namespace with all that is in it, and its volumes."""
        cluster("kubectl", "delete", "namespace", self.namespace, "--ignore-not-found", "--timeout=180s")
        cluster("kubectl", "delete", "pv", "-l", f"{MADE_HERE}.namespace={self.namespace}", "--timeout=60s")

    def helm(self, action: str, *values: str) -> None:
        where = ("-n", self.namespace, "--wait", "--timeout", "300s")
        cluster("helm", action, self.name, str(CHART), "-f", str(VALUES), *where, *values)

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        return cluster("kubectl", "-n", self.namespace, *arguments, text=text, check=check)

    def get(self, kind: str, selector: str = "") -> list[Json]:
        items: list[Json] = json.loads(self.kubectl("get", kind, "-l", selector, "-o", "json"))["items"]
        return items

    def serve(self, name: str, /, **spec: Any) -> None:
        """Apply a Model object."""
        manifest = {
            "apiVersion": "shardline.dev/v1alpha1",
            "kind": "Model",
            "metadata": {"name": name},
            "spec": {"repository": {"persistentVolumeClaim": {"claimName": CLAIM}}, **spec},
        }
        self.kubectl("apply", "-f", "-", text=json.dumps(manifest))

    def model(self, name: str) -> Json:
        value: Json = json.loads(self.kubectl("get", "model", name, "-o", "json"))
        return value

    def condition(self, name: str, kind: str) -> Json:
        conditions = self.model(name).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {})

    def settled(self, name: str) -> bool:
        """Whether the controller has seen the newest spec and all of its pods are there, and no others."""
        item = self.model(name)
        status = item.get("status", {})
        done = self.condition(name, "Progressing").get("reason") == "Complete"
        return done and status.get("observedGeneration") == item["metadata"]["generation"]

    def address(self) -> str:
        service = json.loads(self.kubectl("get", "service", self.name, "-o", "json"))
        return f"{service['spec']['clusterIP']}:8001"

    def router_on(self, number: int) -> str:
        """The address of a ready router on a node."""
        routers = [pod for pod in self.get("pods", "app.kubernetes.io/component=router") if is_ready(pod)]
        found = [pod["status"]["podIP"] for pod in routers if pod["spec"].get("nodeName") == node(number)]
        assert found, f"no router on node {number}"
        return f"{found[0]}:8001"

    def infer(self, model: str, *options: str) -> str:
        return infer(model, self.address(), *options)

    @contextmanager
    def load(self, model: str, callers: int = 16, address: str = "", connections: int = 1) -> Iterator[Load]:
        """Calls from inside the cluster's network while the block runs; both ends see real work."""
        with tempfile.TemporaryDirectory() as folder:
            stop = Path(folder) / "stop"
            goal = address or self.address()
            work = [sys.executable, str(LOAD), goal, model, str(callers), str(connections), str(stop)]
            running = Load(
                stop, subprocess.Popen([*CLUSTER, "exec", "1", *work], cwd=ROOT, stdout=subprocess.PIPE, text=True)
            )
            try:
                time.sleep(2)  # load before, so that the fault meets calls in flight
                yield running
                time.sleep(2)  # and after
            finally:
                stop.touch()
                out, _ = running.process.communicate(timeout=60)
                running.counts = json.loads(out or "{}")

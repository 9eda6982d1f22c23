"""One release on the test cluster, driven by kubectl and helm as a user does."""

from __future__ import annotations

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
VALUES = ROOT / "charts/shardline/ci/testcluster-values.yaml"
LOAD = Path(__file__).parent / "load.py"
CLI = [sys.executable, "-m", "shardline.cli"]


def cluster(*arguments: str, text: str | None = None, check: bool = True) -> str:
    """A command of cluster.py; its standard output."""
    done = subprocess.run([*CLUSTER, *arguments], cwd=ROOT, input=text, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(arguments)}: {done.stderr or done.stdout}")
    return done.stdout


def until(what: str, ok: Callable[[], Any], seconds: float = 90.0) -> Any:
    """Wait for a condition; fail with `what` when it does not come."""
    end = time.monotonic() + seconds
    while not (value := ok()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)
    return value


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
    """A release and its namespace."""

    name: str
    namespace: str
    models: Path

    def install(self, *values: str) -> None:
        self.helm("install", *values, "--create-namespace")

    def helm(self, action: str, *values: str) -> None:
        chart = str(ROOT / "charts/shardline")
        where = ("-n", self.namespace, "--wait", "--timeout", "180s")
        cluster("helm", action, self.name, chart, "-f", str(VALUES), *where, *values)

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        return cluster("kubectl", "-n", self.namespace, *arguments, text=text, check=check)

    def get(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, "-l", selector, "-o", "json"))["items"]
        return items

    def serve(self, name: str, /, **spec: Any) -> None:
        manifest = {
            "apiVersion": "shardline.dev/v1alpha1",
            "kind": "Model",
            "metadata": {"name": name},
            "spec": {"repository": {"hostPath": {"path": str(self.models)}}, **spec},
        }
        self.kubectl("apply", "-f", "-", text=json.dumps(manifest))

    def model(self, name: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.kubectl("get", "model", name, "-o", "json"))
        return value

    def condition(self, name: str, kind: str) -> dict[str, Any]:
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

    def infer(self, model: str) -> str:
        return cluster("exec", "1", *CLI, "infer", model, "--url", self.address())

    @contextmanager
    def load(self, model: str, callers: int = 16, address: str = "") -> Iterator[Load]:
        """Calls from inside the cluster's network while the block runs; both ends see real work."""
        with tempfile.TemporaryDirectory() as folder:
            stop = Path(folder) / "stop"
            command = [
                *CLUSTER,
                "exec",
                "1",
                sys.executable,
                str(LOAD),
                address or self.address(),
                model,
                str(callers),
                str(stop),
            ]
            running = Load(stop, subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
            try:
                time.sleep(2)  # load before, so that the fault meets calls in flight
                yield running
                time.sleep(2)  # and after
            finally:
                stop.touch()
                out, _ = running.process.communicate(timeout=60)
                running.counts = json.loads(out or "{}")

"""A real cluster of processes for tests: Redis, routers on one port, replicas, and a repository of tiny models.

Everything binds to loopback and free ports and lives in temporary folders; `stop` sends SIGTERM and kills after a deadline.
What the processes wrote is in `logs()`, which assertions and failed starts show.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

START_S = 90.0
STOP_S = 20.0
WAIT_S = 20.0


def eventually(holds: Callable[[], bool], what: str | Callable[[], str], timeout_s: float = WAIT_S) -> None:
    """Wait until it holds; AssertionError after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what() if callable(what) else what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Page:
    """A Prometheus page."""

    text: str

    def value(self, name: str) -> float:
        """The first sample whose name and labels begin with `name`, 0 where there is none."""
        for line in self.text.splitlines():
            if line.startswith(name):
                return float(line.rpartition(" ")[2])
        return 0.0


@dataclass
class Member:
    """One process. role: router or replica."""

    role: str
    process: subprocess.Popen[bytes]
    log: Path
    metrics_port: int

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def metrics(self) -> str:
        """Its Prometheus page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as page:
            return str(page.read().decode())

    def value(self, name: str) -> float:
        """The first sample of the page whose name and labels begin with `name`, 0 where there is none."""
        return Page(self.metrics()).value(name)

    def resident_bytes(self) -> int:
        """Memory in use."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class ClusterProcess:
    """A cluster of its own. A context manager: left, it is stopped.

    repository: served by all replicas. name: of the cluster in Redis. models: wait until these are ready.
    router, replica: further settings (names of the settings in lower case). start_s: the longest time until it is ready.
    """

    redis_url: str
    repository: Path
    front: str = "grpcio"
    routers: int = 1
    replicas: int = 1
    name: str = "test"
    models: tuple[str, ...] = ()
    router: Mapping[str, str] = field(default_factory=dict)
    replica: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    start_s: float = START_S
    members: list[Member] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Not below pytest's folder: its names are too long for the sockets in it.
        self.folder = Path(tempfile.mkdtemp(prefix="slc-"))

    def __enter__(self) -> Self:
        try:
            for _ in range(self.replicas):
                self.start("replica")
            for _ in range(self.routers):
                self.start("router")
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where clients call it."""
        return f"127.0.0.1:{self.port}"

    def role(self, role: str) -> list[Member]:
        """Its processes of one role that live."""
        return [member for member in self.members if member.role == role and member.process.poll() is None]

    def start(self, role: str, **others: str) -> Member:
        """Start one more router or replica; does not wait. others: settings of this one alone."""
        metrics_port = free_port()
        settings = {
            "cluster": self.name,
            "redis_url": self.redis_url,
            "run_dir": str(self.folder),
            "parent_pid": str(os.getpid()),
            "metrics_host": "127.0.0.1",
            "metrics_port": str(metrics_port),
            "log_format": "json",
            "log_level": "warning",
            "drain_s": "10",
        }
        if role == "router":
            settings |= {"host": "127.0.0.1", "port": str(self.port), "front": self.front, **self.router}
        else:
            settings |= {"repository": str(self.repository), "device": "cpu", "threads": "1", **self.replica}
        settings |= others
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SHARDLINE_")}
        environment = inherited | {f"SHARDLINE_{name.upper()}": value for name, value in settings.items()}
        log = self.folder / f"{role}-{len(self.members)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", f"shardline.{role}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        member = Member(role, process, log, metrics_port)
        self.members.append(member)
        return member

    def wait_ready(self) -> None:
        """Wait until the routers are linked to all replicas, and every model of `models` is ready on all of them."""

        def ready() -> bool:
            ended = [member for member in self.members if member.process.poll() is not None]
            assert not ended, f"{ended[0].role} ended: {self.logs()}"
            try:
                return all(self._sees_all(router) for router in self.role("router"))
            except OSError:  # it does not listen yet
                return False

        eventually(ready, self.logs, self.start_s)

    def wanted(self, _model: str) -> int:
        """How many replicas of a model a router must see: those of its weakest stage, where it is split."""
        return len(self.role("replica"))

    def _sees_all(self, router: Member) -> bool:
        page = Page(router.metrics())
        if page.value('shardline_links{state="up"}') != len(self.role("replica")):
            return False
        if any(page.value(f'shardline_ready_replicas{{model="{name}"}}') < self.wanted(name) for name in self.models):
            return False
        with grpc.insecure_channel(self.url, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            try:
                return all(
                    stub.ModelReady(service_pb2.ModelReadyRequest(name=name), timeout=5).ready for name in self.models
                )
            except grpc.RpcError:
                return False

    def logs(self, roles: Iterable[str] = ("router", "replica")) -> str:
        """The end of what each process wrote."""
        return "\n".join(
            f"--- {member.role} {member.pid}\n{member.log.read_text(errors='replace')[-6000:]}"
            for member in self.members
            if member.role in roles and member.log.exists()
        )

    def stop(self) -> None:
        """SIGTERM to all, routers first; kill what does not end in time."""
        for role in ("router", "replica"):
            for member in self.role(role):
                member.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for member in self.members:
            try:
                member.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait(STOP_S)
        shutil.rmtree(self.folder, ignore_errors=True)

"""Where everything of the test cluster lives: folders, addresses, names.

Node N has the address 10.77.0.(10+N) and the pods 10.244.N.0/24; services have 10.96.0.0/16, the DNS 10.96.0.10.
These addresses exist only inside the cluster's own network: no packet leaves it.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
API_ADDRESS = "10.77.0.11"
SERVICE_NET = "10.96.0.0/16"
DNS_ADDRESS = "10.96.0.10"
POD_NET = "10.244.0.0/16"
MOST_NODES = 9
PAUSE_IMAGE, DNS_IMAGE = "pause:test", "coredns:test"
MARK = "_TESTCLUSTER_OF"
"""In the environment of every process of the cluster: how `down` finds them, also after an `up` that was killed."""
HIDDEN = ("/run", "/var/run", "/var/lib", "/var/log", "/proc", "/sys")
"""Each node has its own of these, so nothing that nodes share may lie there."""


def node_address(number: int) -> str:
    """The address of node `number` (1 to 9)."""
    return f"10.77.0.{10 + number}"


def sources_digest() -> str:
    """Of all that goes into the binaries: other sources, other folder, so nothing stale is ever started."""
    digest = hashlib.sha256()
    for path in sorted([*HERE.glob("kube0/**/*"), HERE / "build.sh", HERE / "pause.c"]):
        if path.is_file():
            digest.update(path.relative_to(HERE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Layout:
    """The folders of one cluster. work: state, logs, keys. binaries: kube0, coredns, helm and pause."""

    work: Path
    binaries: Path

    @property
    def tag(self) -> str:
        """Begins the names of this cluster's cgroups and first processes; two clusters never share one."""
        return "tc-" + hashlib.sha256(str(self.work).encode()).hexdigest()[:8]

    @property
    def pki(self) -> Path:
        """Keys, certificates and kubeconfigs."""
        return self.work / "pki"

    @property
    def logs(self) -> Path:
        """One file for each daemon and node."""
        return self.work / "log"

    @property
    def images(self) -> Path:
        """Archives that every node imports when it starts."""
        return self.work / "images"

    @property
    def kubectl(self) -> list[str]:
        """kubectl as cluster-admin."""
        return [str(self.work / "bin/kubectl"), "--kubeconfig", str(self.pki / "admin.kubeconfig")]


def read_layout() -> Layout:
    """The layout that TESTCLUSTER_DIR and TESTCLUSTER_BIN name; defaults: build/testcluster here, the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    work = Path(os.environ.get("TESTCLUSTER_DIR") or HERE.parent.parent / "build/testcluster").resolve()
    binaries = Path(os.environ.get("TESTCLUSTER_BIN") or cache / "shardline/testcluster" / sources_digest()).resolve()
    for folder in (work, binaries, HERE):
        for hidden in HIDDEN:
            if folder.is_relative_to(hidden):
                sys.exit(
                    f"{folder} cannot be used: {hidden} is hidden inside the nodes; set TESTCLUSTER_DIR / TESTCLUSTER_BIN"
                )
    return Layout(work, binaries)

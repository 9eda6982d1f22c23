"""What a machine needs to run the test cluster: says plainly what is missing, installs what Debian has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable

from layout import HERE, Layout

PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "socat": "socat",
    "ebtables": "ebtables",
    "ethtool": "ethtool",
    "modprobe": "kmod",
    "openssl": "openssl",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/bin/busybox": "busybox-static",
}
BUILD_PROGRAMS = {"cc": "gcc", "strip": "binutils", "go": "golang-go"}
GO, GO_FETCHES = (1, 26), (1, 21)
"""What go.mod asks for, and the first Go that fetches a newer one by itself."""
PROGRESS_S = 10.0
BINARIES = ("kube0", "coredns", "helm", "pause")


def missing_programs(wanted: dict[str, str]) -> dict[str, str]:
    """{program: Debian package} of what is not there."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return {program: package for program, package in wanted.items() if not shutil.which(program, path=path)}


def prepare(layout: Layout) -> None:
    """Make the machine able to run the cluster, or end the program saying what it lacks."""
    if sys.platform != "linux" or os.geteuid() != 0:
        sys.exit("the test cluster needs Linux and root: it makes namespaces, mounts and cgroups")
    _check_namespaces()
    _install(PROGRAMS)
    _build(layout)


def _install(wanted: dict[str, str]) -> None:
    """Programs that are missing, from Debian's packages. Ends the program where some cannot be had."""
    missing = missing_programs(wanted)
    if missing and shutil.which("apt-get"):
        packages = sorted(set(missing.values()))
        print(f"installing {' '.join(packages)}", flush=True)
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=False, env=quiet)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        subprocess.run(command, check=False, env=quiet, stdout=subprocess.DEVNULL)
        missing = missing_programs(wanted)
    if missing:
        sys.exit("missing: " + ", ".join(f"{program} (Debian: {package})" for program, package in missing.items()))


def _check_namespaces() -> None:
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        sys.exit(f"this machine does not let us make namespaces: {tried.stderr.strip()}")


def _build(layout: Layout) -> None:
    if all((layout.binaries / name).exists() for name in BINARIES):
        return
    _install(BUILD_PROGRAMS)
    said = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()
    version = tuple(int(number) for number in re.findall(r"\d+", said)[:2])
    if version < GO_FETCHES:
        sys.exit(f"Go is {said}: 1.26 or newer is needed to build Kubernetes (1.21 or newer fetches it)")
    toolchain = {} if version >= GO else {"GOTOOLCHAIN": "auto"}
    print("building Kubernetes, CoreDNS and Helm: about 4 minutes on two cores the first time", flush=True)
    flags = f"{os.environ.get('GOFLAGS', '')} -v".strip()
    variables = {**os.environ, **toolchain, "GOFLAGS": flags, "TESTCLUSTER_BIN": str(layout.binaries)}
    command = ["nice", "-n", "15", "bash", str(HERE / "build.sh")]
    with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True) as building:
        assert building.stderr is not None
        _show_progress(building.stderr)
    if building.returncode:
        sys.exit("Kubernetes could not be built; what was compiled is kept for the next try")


def _show_progress(lines: Iterable[str]) -> None:
    """A line every ten seconds instead of one for each module and package; anything else as it is."""
    began = shown = time.monotonic()
    modules = packages = 0
    for line in lines:
        if line.startswith("go: downloading"):
            modules += 1
        elif " " not in line.strip():
            packages += 1
        else:
            print(line, end="", flush=True)
        if time.monotonic() - shown > PROGRESS_S:
            shown = time.monotonic()
            print(f"{shown - began:6.0f} s  {modules} modules fetched, {packages} packages compiled", flush=True)

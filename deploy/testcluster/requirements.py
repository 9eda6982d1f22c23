"""What a machine needs to run the test cluster: says plainly what is missing, installs what Debian has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

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
BUILD_PROGRAMS = {"cc": "gcc", "go": "golang (1.26 or newer)"}
BINARIES = ("kube0", "coredns", "helm", "pause")


def missing_programs() -> dict[str, str]:
    """{program: Debian package} of what is not there."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return {program: package for program, package in PROGRAMS.items() if not shutil.which(program, path=path)}


def prepare(layout: Layout) -> None:
    """Make the machine able to run the cluster, or end the program saying what it lacks."""
    if sys.platform != "linux" or os.geteuid() != 0:
        sys.exit("the test cluster needs Linux and root: it makes namespaces, mounts and cgroups")
    _check_namespaces()
    missing = missing_programs()
    if missing and shutil.which("apt-get"):
        packages = sorted(set(missing.values()))
        print(f"installing {' '.join(packages)}", flush=True)
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=quiet)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        subprocess.run(command, check=True, env=quiet, stdout=subprocess.DEVNULL)
        missing = missing_programs()
    if missing:
        sys.exit("missing: " + ", ".join(f"{program} (Debian: {package})" for program, package in missing.items()))
    _build(layout)


def _check_namespaces() -> None:
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        sys.exit(f"this machine does not let us make namespaces: {tried.stderr.strip()}")


def _build(layout: Layout) -> None:
    if all((layout.binaries / name).exists() for name in BINARIES):
        return
    missing = [
        f"{program} (Debian: {package})" for program, package in BUILD_PROGRAMS.items() if not shutil.which(program)
    ]
    if missing:
        sys.exit("missing, to build Kubernetes: " + ", ".join(missing))
    print("building Kubernetes, CoreDNS and Helm: about 4 minutes on two cores the first time", flush=True)
    command = ["nice", "-n", "15", "bash", str(HERE / "build.sh")]
    subprocess.run(command, check=True, env={**os.environ, "TESTCLUSTER_BIN": str(layout.binaries)})

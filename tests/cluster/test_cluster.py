"""The test cluster itself: started twice it is the same one, and nothing of one that was killed stays on the machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cluster.release import CLUSTER, cluster, node

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


def marked(work: Path) -> list[str]:
    """Processes that carry the mark of the cluster in this folder."""
    mark, found = f"_TESTCLUSTER_OF={work}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text())
        except OSError:  # gone meanwhile
            continue
    return found


def folders_of_cgroups() -> set[str]:
    found = {str(path.parent) for path in Path("/sys/fs/cgroup").glob("*/tc-*/cgroup.procs")}
    return found | {str(path.parent) for path in Path("/sys/fs/cgroup").glob("tc-*/cgroup.procs")}


def test_starting_a_cluster_that_runs_changes_nothing(nodes: None) -> None:
    what = ("kubectl", "get", "pods", "-A", "-o", "jsonpath={range .items[*]}{.metadata.uid} {end}")
    before = cluster(*what)
    cluster("up", "2")
    assert cluster(*what) == before


@pytest.mark.parametrize("reached", ["API server ready", "node 1 Ready"])
def test_nothing_is_left_of_a_cluster_whose_start_was_killed(nodes: None, tmp_path: Path, reached: str) -> None:
    if node(1) != "node1":
        pytest.skip("kind's cluster is Docker's to clean up")
    work, before = tmp_path / "cluster", folders_of_cgroups()
    variables = {**os.environ, "TESTCLUSTER_DIR": str(work), "TESTCLUSTER_KIND": "no"}
    with subprocess.Popen([*CLUSTER, "up", "1"], env=variables, stdout=subprocess.PIPE, text=True) as starting:
        assert starting.stdout is not None
        assert any(reached in line for line in starting.stdout), "it ended before it came so far"
        starting.kill()
    assert marked(work), "it was killed before there was anything to clean up"
    for _ in range(2):  # the second time there is nothing to do
        subprocess.run([*CLUSTER, "down"], env=variables, check=True)
        assert marked(work) == []
        assert folders_of_cgroups() == before
        assert str(work) not in Path("/proc/self/mounts").read_text()

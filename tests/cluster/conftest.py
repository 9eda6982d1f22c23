"""A real Kubernetes of two nodes, our images in it, and one release that the tests share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cluster.release import ROOT, Release, clear_cluster, cluster, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGES = ROOT / "build/images"
MODELS = ROOT / "build/models"


def missing(reason: str) -> None:
    """Skip by name, but in CI nothing may be missing."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


@pytest.fixture(scope="session")
def nodes() -> Iterator[None]:
    """The cluster, up, with freshly built images and nothing of a run that was killed. One that was not there is taken down again."""
    if os.geteuid() != 0 or sys.platform != "linux":
        missing("the test cluster needs root on Linux: it makes namespaces, mounts and cgroups")
    there = "Ready" in cluster("kubectl", "get", "nodes", check=False)
    if not there:
        cluster("down")  # what is left of it
    subprocess.run([sys.executable, str(ROOT / "deploy/testcluster/cluster.py"), "up", "2"], check=True)
    try:
        if not os.environ.get("TESTCLUSTER_LOADED"):  # a developer who knows that the nodes have the images
            subprocess.run([sys.executable, str(ROOT / "deploy/images/build.py")], check=True)
            cluster("load", str(IMAGES / "shardline-cpu.tar"), str(IMAGES / "shardline-redis.tar"))
        clear_cluster()
        yield
    finally:
        if not there:
            cluster("down", check=False)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that both nodes see: `digits`, the same to be split, one with two versions, and a broken one."""
    if not (MODELS / "digits").is_dir():
        missing("the example models are missing: make models")
    folder = tmp_path_factory.mktemp("models")
    for path in (folder, *list(folder.parents)[:2]):
        path.chmod(0o755)  # pods run as another user
    for name in ("digits", "split", "versions"):
        shutil.copytree(MODELS / "digits", folder / name)
        config = folder / name / "config.pbtxt"
        config.write_text(config.read_text().replace('name: "digits"', f'name: "{name}"'))
    shutil.copytree(folder / "versions/1", folder / "versions/2")
    (folder / "corrupt/1").mkdir(parents=True)
    (folder / "corrupt/1/model.onnx").write_bytes(b"this is no ONNX file")
    return folder


@pytest.fixture(scope="session")
def release(nodes: None, models: Path) -> Iterator[Release]:
    """A release that serves `digits` with two replicas."""
    made = Release("first", "first", models)
    made.remove()
    made.install()
    made.serve("digits", replicas=2, drainSeconds=10)
    until("digits is served", lambda: made.settled("digits"))
    yield made
    cluster("helm", "uninstall", "first", "-n", "first", "--wait", check=False)
    made.remove()


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest) -> None:
    """Every test begins with a release that is whole."""
    if "release" in request.fixturenames:
        made: Release = request.getfixturevalue("release")
        until("digits is whole again", lambda: made.settled("digits"))

"""A real Kubernetes of two nodes, our images in it, and one release that the tests share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cluster.release import ROOT, Release, cluster, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGES = ROOT / "build/images"
MODELS = ROOT / "build/models"


@pytest.fixture(scope="session")
def nodes() -> None:
    """The cluster, up, with freshly built images."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("the test cluster needs root on Linux")
    subprocess.run([sys.executable, str(ROOT / "deploy/testcluster/cluster.py"), "up", "2"], check=True)
    if not os.environ.get("TESTCLUSTER_LOADED"):  # a developer who knows that the nodes have the images
        subprocess.run([sys.executable, str(ROOT / "deploy/images/build.py")], check=True)
        cluster("load", str(IMAGES / "shardline-cpu.tar"), str(IMAGES / "shardline-redis.tar"))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that both nodes see, with a good model and a broken one."""
    if not (MODELS / "digits").is_dir():
        pytest.skip("the example models are missing: make models")
    folder = tmp_path_factory.mktemp("models")
    for path in (folder, *list(folder.parents)[:2]):
        path.chmod(0o755)  # pods run as another user
    shutil.copytree(MODELS / "digits", folder / "digits")
    (folder / "corrupt/1").mkdir(parents=True)
    (folder / "corrupt/1/model.onnx").write_bytes(b"this is no ONNX file")
    return folder


@pytest.fixture(scope="session")
def release(nodes: None, models: Path) -> Iterator[Release]:
    """A release that serves `digits` with two replicas."""
    cluster("kubectl", "delete", "namespace", "first", "--ignore-not-found")
    made = Release("first", "first", models)
    made.install()
    made.serve("digits", replicas=2, drainSeconds=10)
    until("digits is served", lambda: made.settled("digits"))
    yield made
    cluster("helm", "uninstall", "first", "-n", "first", "--wait", check=False)
    cluster("kubectl", "delete", "namespace", "first")


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest) -> None:
    """Every test begins with a release that is whole."""
    if "release" in request.fixturenames:
        made: Release = request.getfixturevalue("release")
        until("digits is whole again", lambda: made.settled("digits"), 120)

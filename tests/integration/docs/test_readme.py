"""What the README tells a newcomer to type, typed as it stands against a cluster that serves the real `digits`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from examples.build import build
from tests.integration.local.local_cluster import LocalCluster, until
from tests.unit.docs.pages import ROOT, blocks, section, table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)

README = ROOT / "README.md"
OPERATIONS = ROOT / "docs" / "operations.md"
TYPED_S = 60.0
JSON_LINE = frozenset({"event", "level", "timestamp", "process", "pid", "cluster", "source"})


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    build(folder, ["digits"])
    return folder


@pytest.fixture(scope="module")
def serving(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(repository, tmp_path_factory.mktemp("serving")) as cluster:
        yield cluster.start_ready()


def typed(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=TYPED_S, env=environment, check=False)


def test_the_client_in_ten_lines_gets_an_answer(serving: LocalCluster) -> None:
    (snippet,) = blocks(README, "python")
    assert len(snippet.splitlines()) <= 10
    assert snippet.count("localhost:8001") == 1
    ran = typed([sys.executable, "-c", snippet.replace("localhost:8001", serving.url)], serving.environment)
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"\[\d\] \[\[[\d.e\-+\s]+\]\]\n", ran.stdout)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("infer digits", ["label", "probabilities", "stage 0"]),
        ("models", ["digits", "READY", "image FP32 [-1, 64]"]),
        ("status", ["healthy", "native", "digits:1/0"]),
    ],
)
def test_the_commands_say_what_the_readme_promises(serving: LocalCluster, line: str, words: list[str]) -> None:
    shown = [text.partition("#")[0].strip() for block in blocks(README, "sh") for text in block.splitlines()]
    assert f".venv/bin/shardline {line}" in shown
    ran = serving.command(*line.split())
    assert ran.returncode == 0, ran.stderr
    assert not [word for word in words if word not in ran.stdout + ran.stderr]


def test_the_table_has_the_columns_that_the_readme_shows(serving: LocalCluster) -> None:
    (shown,) = [text for text in blocks(README, "") if "identity_image" in text]
    head = shown.splitlines()[0].split()
    assert head in [line.split() for line in serving.out.splitlines()]
    assert "serving until Ctrl-C. Try: " in shown
    assert re.search(r"Ready after [\d.]+ \w+; serving until Ctrl-C. Try: \S*shardline infer digits", serving.err)


def test_access_lines_have_the_fields_that_operations_describe(repository: Path, tmp_path: Path) -> None:
    described = {name for row in table(section(OPERATIONS, "Logs")) for name in re.findall(r"`(\w+)`", row[0])}
    with LocalCluster(repository, tmp_path / "logs", "--replicas", "1", "--json-logs") as cluster:
        cluster.start()
        until(
            lambda: '"event": "request"' in cluster.err or cluster.ended,
            90.0,
            f"a first request: {cluster.err[-2000:]}",
        )
        with grpc.insecure_channel(cluster.url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            with pytest.raises(grpc.RpcError):
                stub.ModelInfer(service_pb2.ModelInferRequest(model_name="nobody"), timeout=10, wait_for_ready=True)
        until(lambda: "NOT_FOUND" in cluster.err, 20.0, "the refusal's line")
        lines = [json.loads(line) for line in cluster.err.splitlines() if '"event": "request"' in line]
    assert {line["status"] for line in lines} == {"OK", "NOT_FOUND"}
    for line in lines:
        assert line.keys() >= JSON_LINE
        assert not line.keys() - JSON_LINE - described


def test_a_make_target_is_what_the_readme_says(tmp_path: Path) -> None:
    """`make help` lists the two commands and those that the README mentions; it needs nothing but make."""
    bare = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ} | {"HOME": str(tmp_path)}
    ran = typed(["make", "-C", str(ROOT), "help"], bare)
    assert ran.returncode == 0, ran.stderr
    for target in ("up", "test", "demo", "help"):
        assert re.search(rf"^  make {target}\s+\S", ran.stdout, re.MULTILINE), target

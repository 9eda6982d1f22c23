"""The commands of docs/kubernetes.md, the README's among them, typed one after the other by somebody who has a cluster, a registry and a claim."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.release import CLUSTER, ROOT, Release, cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
PAGE = ROOT / "docs/kubernetes.md"
README = ROOT / "README.md"
FIRST_ANSWER = "shardline infer"


def section(page: Path, title: str) -> str:
    """The text of a page's section."""
    return page.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


def commands(text: str) -> list[str]:
    """A page's shell commands in order, one with a here-document as one."""
    found: list[str] = []
    open_until = ""
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if open_until:
                found[-1] += f"\n{line}"
                open_until = "" if line == open_until else open_until
            elif line.strip():
                found.append(line)
                here = re.search(r"<<(\w+)", line)
                open_until = here[1] if here else ""
    return found


@pytest.fixture
def surroundings(nodes: None, models: Path) -> Iterator[Release]:
    """A namespace with a claim that holds a model repository, and nothing of ours."""
    made = Release("shardline", "shardline", models)
    made.remove()
    cluster("kubectl", "apply", "-f", "-", text=json.dumps(made.surroundings()))
    yield made
    made.remove()


def typed(command: str) -> str:
    """Run a command as a user with a kubeconfig does; its output."""
    binaries, work = (cluster("where", name).strip() for name in ("binaries", "work"))
    path = f"{Path(sys.executable).parent}:{work}/bin:{binaries}:{os.environ['PATH']}"
    variables = {
        "PATH": path,
        "KUBECONFIG": cluster("where", "kubeconfig").strip(),
        "IMAGE": "shardline",
        "XDG_RUNTIME_DIR": "/nowhere",
        "HOME": "/tmp",
    }
    line = [*CLUSTER, "exec", "1", "env", *(f"{name}={value}" for name, value in variables.items())]
    done = subprocess.run([*line, "bash", "-euc", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_readmes_commands_are_among_those_of_the_page() -> None:
    short = commands(section(README, "On Kubernetes"))
    assert short[0].startswith("helm install")
    assert set(short) <= set(commands(PAGE.read_text(encoding="utf-8")))


def test_the_commands_of_the_page_work_as_they_are_written(surroundings: Release) -> None:
    found = commands(PAGE.read_text(encoding="utf-8"))
    assert len(found) > 10
    began = time.monotonic()
    answered: float | None = None
    for command in found:
        at = time.monotonic()
        output = typed(command)
        now = time.monotonic()
        print(f"{now - began:6.1f} s  {now - at:5.1f} s  {command.splitlines()[0]}")
        if command.startswith("helm install"):  # NOTES.txt: the user's next commands are the page's
            told = {line.strip() for line in output.splitlines()}
            assert {
                "helm test shardline -n shardline",
                "shardline deploy models/digits -n shardline --replicas 2",
            } <= told
        if command.startswith(FIRST_ANSWER):
            assert "digits version 1" in output
            answered = answered or now - began
    assert answered is not None
    print(f"from nothing to an answer: {answered:.1f} s")
    assert surroundings.get("pods", "app.kubernetes.io/component=replica") == []

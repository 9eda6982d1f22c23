"""`shardline deploy`: the object that it makes, and which cluster commands mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.testing import CliRunner

from shardline.cli.app import app
from shardline.cli.kube import condition_of, model_row, stages_of
from shardline.cli.target import DEFAULT_URL, find_target

if TYPE_CHECKING:
    from pathlib import Path

CLAIM = {"persistentVolumeClaim": {"claimName": "models"}}


def made(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["deploy", *arguments, "--dry-run"])
    assert result.exit_code == 0, result.output
    value: dict[str, Any] = yaml.safe_load(result.stdout)
    return value


@pytest.mark.parametrize(
    ("source", "repository"),
    [
        ("models/digits", CLAIM),
        ("models/vision/v2/digits", {**CLAIM, "subPath": "vision/v2"}),
        ("/srv/models/digits", {"hostPath": {"path": "/srv/models"}}),
    ],
)
def test_a_source_says_where_the_model_lies(source: str, repository: dict[str, Any]) -> None:
    manifest = made(source)
    assert manifest["metadata"]["name"] == "digits"
    assert manifest["spec"] == {"repository": repository}


def test_what_is_said_stands_in_the_object_and_nothing_else_does() -> None:
    manifest = made(
        "models/Res_Net", "--stages", "2", "--stage-replicas", "1, 3", "--version", "4", "--memory", "2Gi", "--device", "cuda"
    )  # fmt: skip
    assert manifest["metadata"]["name"] == "res-net"
    assert manifest["spec"] == {
        "repository": CLAIM,
        "model": "Res_Net",
        "stages": 2,
        "stageReplicas": [1, 3],
        "version": 4,
        "device": "cuda",
        "resources": {"limits": {"memory": "2Gi"}},
    }
    assert made("models/digits", "--stages", "auto")["spec"]["stages"] == "auto"


@pytest.mark.parametrize(
    "wrong", [("digits",), ("/digits",), ("models/",), ("m/d", "--stages", "many"), ("m/d", "--stage-replicas", "1,x")]
)
def test_nonsense_is_refused_with_one_line(wrong: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["deploy", *wrong, "--dry-run"])
    assert result.exit_code == 2
    assert result.output.count("\n") == 1


def test_a_kubeconfig_is_asked_only_where_nothing_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    assert (find_target(None).kube, find_target(None).url) == (None, DEFAULT_URL)
    (tmp_path / "config").touch()
    assert find_target(None).kube == ""
    assert find_target("somewhere:1").kube is None
    assert find_target("kube:vision").kube == "vision"
    assert find_target("kube:").kube == ""


def test_the_table_of_models_says_what_the_controller_says() -> None:
    status = {
        "conditions": [{"type": "Ready", "status": "False", "message": "no room"}],
        "summary": "1/1 0/2",
        "version": "1,3",
        "stages": [{}, {}],
    }
    model = {"metadata": {"name": "a"}, "spec": {"model": "b"}, "status": status}
    assert model_row(model) == ("a", "False", "1/1 0/2", "1,3", "-", "-", "no room")
    assert stages_of([model]) == {"b:3": 2}
    assert (condition_of({}, "Ready"), stages_of([{"metadata": {"name": "new"}, "spec": {}}])) == ({}, {})

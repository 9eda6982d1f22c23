"""`shardline plan` as a user types it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from shardline.cli.app import app
from shardline.cli.failure import Failure
from shardline.cli.plan import parse_bytes
from tests.unit.partition import models

if TYPE_CHECKING:
    from pathlib import Path


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["plan", *words])
    return result.exit_code, result.output


def test_a_plan_is_printed_and_its_stages_and_pictures_are_written(tmp_path: Path) -> None:
    path = models.save(models.products(4), tmp_path)
    code, output = run(str(path), "--stages", "2", "--estimate", "--out", str(tmp_path / "out"))
    assert code == 0, output
    assert "lower bound" in output
    assert "Tensors over cuts" in output
    assert "Verified" in output
    assert f"--stages MODEL={tmp_path / 'out'}" in output
    names = {item.name for item in (tmp_path / "out").iterdir()}
    assert names == {"plan.json", "stages.json", "verified.json", "graph.svg", "graph.png", "stage-0", "stage-1"}


def test_a_plan_for_programs_is_json(tmp_path: Path) -> None:
    path = models.save(models.products(4), tmp_path)
    code, output = run(str(path), "--memory-per-pod", "200Mi", "--estimate", "--json")
    assert code == 0, output
    assert len(json.loads(output)["stages"]) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "say --stages N"),
        (("--stages", "9"), "at most 4"),
        (("--memory-per-pod", "8 pounds"), "write it as 8Gi"),
        (("--stages", "2", "--hop-latency", "soon"), "write it as 100us"),
        (("--stages", "2", "--dim", "seq"), "write a dimension as seq=128"),
        (("--memory-per-pod", "1Ki"), "memory per pod is"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    path = models.save(models.products(4), tmp_path)
    code, output = run(str(path), "--estimate", *words)
    assert code != 0
    assert says in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("text", "wanted"), [("8Gi", 8 * 2**30), ("900M", 900 * 10**6), ("1.5GiB", 3 * 2**29), ("7", 7)]
)
def test_sizes_are_read_as_kubernetes_writes_them(text: str, wanted: int) -> None:
    assert parse_bytes(text) == wanted


@pytest.mark.parametrize("text", ["", "Gi", "-1Gi", "0", "8Xi"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(Failure):
        parse_bytes(text)

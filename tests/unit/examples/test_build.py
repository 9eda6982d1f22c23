"""Building into a repository: cached, atomic, and clear about what is wrong. The small models stand for all."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import onnx
import pytest

from examples import build as builder
from examples import catalog, check, inputs
from examples.catalog import EXAMPLES, Example

SMALL = ("identity_image", "image_mean")


def files(out: Path) -> dict[str, tuple[int, int]]:
    """Every file with its inode and time of change: both differ where it was written again."""
    return {
        str(path.relative_to(out)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in out.rglob("*")
        if path.is_file()
    }


def test_a_repository_gets_a_model_file_and_a_config_for_each_model_and_nothing_else(tmp_path: Path) -> None:
    assert builder.build(tmp_path, SMALL) == list(SMALL)
    assert sorted(files(tmp_path)) == sorted(
        f"{name}/{file}" for name in SMALL for file in ("1/model.onnx", "config.pbtxt")
    )
    onnx.checker.check_model(str(tmp_path / "image_mean/1/model.onnx"))


def test_a_second_run_rebuilds_nothing(tmp_path: Path) -> None:
    builder.build(tmp_path, SMALL)
    before = files(tmp_path)
    assert builder.build(tmp_path, SMALL) == []
    assert files(tmp_path) == before


def test_a_changed_source_rebuilds_that_model_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder.build(tmp_path, SMALL)
    digest = Example.digest
    monkeypatch.setattr(Example, "digest", lambda self: "new" if self.name == "image_mean" else digest(self))
    assert builder.build(tmp_path, SMALL) == ["image_mean"]


def test_the_digest_follows_sources_config_and_package_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = EXAMPLES["digits"]
    folder = tmp_path / "examples"
    shutil.copytree(catalog.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    first = example.digest()
    monkeypatch.setattr(catalog, "FOLDER", folder)
    assert example.digest() == first
    digests = {first, replace(example, max_batch_size=1).digest(), replace(example, packages=()).digest()}
    for source in ("models/digits.py", "graph.py", "digits_data.py"):
        with (folder / source).open("a") as file:
            file.write("# changed\n")
        digests.add(example.digest())
    assert len(digests) == 6


def test_a_missing_file_or_a_config_edited_at_its_head_is_built_again(tmp_path: Path) -> None:
    builder.build(tmp_path, SMALL)
    builder.model_path(tmp_path, "image_mean").unlink()
    config = tmp_path / "identity_image/config.pbtxt"
    config.write_text("# mine\n" + config.read_text())
    assert builder.build(tmp_path, SMALL) == list(SMALL)


def test_a_build_that_fails_leaves_the_old_model_and_no_scraps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder.build(tmp_path, SMALL)
    before = files(tmp_path)

    def fail(name: str, model: bytes) -> NoReturn:
        raise check.CheckFailed(f"{name}: {len(model)} bytes of nonsense")

    monkeypatch.setattr(check, "check", fail)
    with pytest.raises(check.CheckFailed, match="image_mean"):
        builder.build(tmp_path, ["image_mean"], force=True)
    assert files(tmp_path) == before


def test_a_write_that_fails_half_way_leaves_no_scraps_and_the_model_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_file = Path.replace

    def fail_on_config(self: Path, target: Path) -> Path:
        if target.name == "config.pbtxt":
            raise OSError(28, "No space left on device")
        return replace_file(self, target)

    monkeypatch.setattr(Path, "replace", fail_on_config)
    with pytest.raises(OSError, match="No space"):
        builder.build(tmp_path, ["image_mean"])
    assert list(files(tmp_path)) == ["image_mean/1/model.onnx"]
    assert not builder.is_current(EXAMPLES["image_mean"], tmp_path)


def test_a_model_that_answers_wrongly_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = EXAMPLES["identity_image"].build()
    identity.graph.node[0].op_type = "Neg"
    monkeypatch.setattr(Example, "build", lambda _: identity)
    with pytest.raises(check.CheckFailed, match="another image"):
        builder.build(tmp_path, ["identity_image"])
    assert not files(tmp_path)


def test_the_command_line_builds_lists_and_says_what_is_current(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path), "--only", "image_mean"]
    assert builder.main(arguments) == 0
    assert capsys.readouterr().out.startswith("built")
    assert builder.main(arguments) == 0
    assert capsys.readouterr().out.startswith("current")
    assert builder.main(["--out", str(tmp_path), "--list"]) == 0
    lines = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
    assert lines == {name: "built" if name == "image_mean" else "-" for name in EXAMPLES}


def test_a_folder_that_cannot_be_made_gives_one_line_and_a_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert builder.main(["--out", str(tmp_path / "file"), "--only", "image_mean"]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("examples.build:")
    assert "\n" not in error


def test_inputs_for_an_unknown_model_are_refused() -> None:
    with pytest.raises(KeyError, match="nobody"):
        inputs.batch("nobody")

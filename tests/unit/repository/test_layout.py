from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardline.core.errors import InvalidRequest, ModelRejected, NotFound
from shardline.repository import layout

if TYPE_CHECKING:
    from pathlib import Path


def model(repository: Path, name: str = "m", *versions: str) -> Path:
    for version in versions or ("1",):
        folder = repository / name / version
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"x")
    return repository / name


def test_a_missing_repository_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"'/.*/nowhere' cannot be read: No such file") as caught:
        layout.open_root(tmp_path / "nowhere")
    assert "\n" not in caught.value.message


def test_a_file_is_not_a_repository(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotFound, match="is not a folder"):
        layout.open_root(tmp_path / "file")


def test_a_repository_may_be_a_link(tmp_path: Path) -> None:
    model(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    root = layout.open_root(tmp_path / "link")
    assert layout.model_folder(root, "m") == tmp_path / "real" / "m"


def test_models_are_listed_by_name_and_hidden_folders_and_files_are_not(tmp_path: Path) -> None:
    for name in ("b", "a", ".git", "..data", "lost+found", "__pycache__", "bad name"):
        (tmp_path / name).mkdir()
    (tmp_path / "README.md").write_text("")
    listing = layout.list_models(tmp_path)
    assert listing.names == ("a", "b")
    assert listing.skipped == ("folder 'bad name': not a model name (letters, digits and _ . + - are)",)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../m",
        "/etc",
        "a/b",
        "a\\b",
        "a\0",
        "a\n",
        "-a",
        "+a",
        ".a",
        "é",
        "a b",
        "a" * 129,
        "m/",
        "m/../m",
    ],
)
def test_a_name_that_is_no_model_name_is_an_invalid_request(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a model name"):
        layout.model_folder(tmp_path, name)


@pytest.mark.parametrize("name", ["m", "_m", "resnet-50.v1+q", "0", "A" * 128])
def test_an_ordinary_name_finds_its_folder(tmp_path: Path, name: str) -> None:
    assert layout.model_folder(tmp_path, model(tmp_path, name).name) == tmp_path / name


def test_an_unknown_model_and_version_are_not_found(tmp_path: Path) -> None:
    model(tmp_path)
    with pytest.raises(NotFound, match="model 'n' is not in the repository"):
        layout.model_folder(tmp_path, "n")
    with pytest.raises(NotFound, match="model 'm' version 2 is not in the repository"):
        layout.version_folder(tmp_path, "m", 2)


@pytest.mark.parametrize("version", [0, -1, 2**63])
def test_a_version_that_cannot_be_is_an_invalid_request(tmp_path: Path, version: int) -> None:
    model(tmp_path)
    with pytest.raises(InvalidRequest, match="is not a version"):
        layout.version_folder(tmp_path, "m", version)


def test_a_link_may_stay_in_the_repository_but_not_leave_it(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    model(root, "inside")
    model(tmp_path, "outside")
    (root / "alias").symlink_to("inside")
    (root / "escape").symlink_to("../outside")
    assert layout.model_folder(root, "alias") == root / "inside"
    with pytest.raises(ModelRejected, match="'escape' is a link that leaves"):
        layout.model_folder(root, "escape")


def test_a_version_link_that_leaves_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    model(root, "m")
    model(tmp_path, "outside")
    (root / "m" / "2").symlink_to(tmp_path / "outside" / "1")
    with pytest.raises(ModelRejected, match="version 2 is a link that leaves"):
        layout.version_folder(root, "m", 2)


def test_links_that_go_in_circles_or_nowhere_have_a_reason(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "nowhere").symlink_to("missing")
    assert layout.list_models(tmp_path).names == ("circle", "nowhere")
    with pytest.raises(ModelRejected, match="circle"):
        layout.model_folder(tmp_path, "circle")
    with pytest.raises(NotFound, match="nowhere"):
        layout.model_folder(tmp_path, "nowhere")


def test_versions_are_numbers_with_a_model_file_and_the_rest_is_skipped_with_a_reason(tmp_path: Path) -> None:
    folder = model(tmp_path, "m", "10", "2", "01", "0", "v3", "-4", str(2**63))
    (folder / "11").mkdir()
    (folder / ".tmp").mkdir()
    (folder / "5").write_text("a file")
    listing = layout.list_versions(folder, "model.onnx")
    assert listing.versions == (2, 10)
    told = "; ".join(listing.skipped)
    for name in ("'01'", "'0'", "'v3'", "'-4'", f"'{2**63}'", "version 11: holds no model.onnx"):
        assert name in told
    assert len(listing.skipped) == 6


def test_two_config_files_are_refused_by_name(tmp_path: Path) -> None:
    folder = model(tmp_path)
    assert layout.config_name(folder) is None
    (folder / "config.yaml").write_text("")
    assert layout.config_name(folder) == "config.yaml"
    (folder / "config.pbtxt").write_text("")
    with pytest.raises(ModelRejected, match=r"both config\.pbtxt and config\.yaml exist"):
        layout.config_name(folder)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is not a relative file name"),
        ("/etc/passwd", "is not a relative file name"),
        ("a\0b", "is not a relative file name"),
        ("../secret", "'..' is not allowed"),
        ("sub/../weights", "'..' is not allowed"),
        ("missing", "No such file"),
        ("sub", "is not a regular file"),
        ("escape", "is a link that leaves"),
        ("subescape/secret", "is a link that leaves"),
        ("n" * 300, "File name too long"),
    ],
)
def test_a_file_outside_its_folder_or_no_file_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (folder / "escape").symlink_to("../secret")
    (folder / "subescape").symlink_to("..")
    with pytest.raises(ModelRejected) as caught:
        layout.file_inside(folder, folder, name, "tensor 'w': external data")
    assert caught.value.message.startswith("tensor 'w': external data")
    assert reason in caught.value.message


def test_a_file_below_its_folder_is_taken_as_named(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "weights").write_text("w")
    (tmp_path / "link").symlink_to("sub/weights")
    assert layout.file_inside(tmp_path, tmp_path, "sub/weights", "w") == tmp_path / "sub" / "weights"
    assert layout.file_inside(tmp_path, tmp_path, "link", "w") == tmp_path / "link"


def test_outside_text_is_shown_on_one_short_line() -> None:
    assert layout.shown("a\nb\x1b[31m") == "'a\\nb\\x1b[31m'"
    assert len(layout.shown("x" * 1000)) < 100

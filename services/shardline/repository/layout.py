"""Where things lie in a model repository, and which paths may be followed.

    <repository>/<model>/config.pbtxt | config.yaml | config.yml     optional
    <repository>/<model>/<version>/model.onnx                        and its external data beside it

Triton's layout (its model_repository.md). Links may point anywhere inside the repository, never out of it.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from shardline.core.errors import InvalidRequest, ModelRejected, NotFound

CONFIG_NAMES = ("config.pbtxt", "config.yaml", "config.yml")
DEFAULT_MODEL_FILENAME = "model.onnx"
MAX_VERSION = 2**63 - 1
"""Versions are int64 in the protocol's version policy."""

_MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
_VERSION_NAME = re.compile(r"[1-9][0-9]{0,18}")
_NOT_MODELS = frozenset({"lost+found", "__pycache__"})


@dataclass(frozen=True, slots=True)
class Listing:
    """What a folder holds: names in order, and what was passed over and why (one line each)."""

    names: tuple[str, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VersionListing:
    """A model's versions on disk, ascending, and what was passed over and why."""

    versions: tuple[int, ...]
    skipped: tuple[str, ...]


def is_model_name(name: str) -> bool:
    """Whether a model may have this name: 1 to 128 of letters, digits, `_ . + -`, not starting with `. + -`."""
    return _MODEL_NAME.fullmatch(name) is not None


def shown(text: str, limit: int = 80) -> str:
    """Outside text, made fit for one line of an error or a log: quoted, escaped and cut."""
    return ascii(text if len(text) <= limit else text[:limit] + "…")


def one_line(text: str) -> str:
    """Text that may hold outside names, with every character escaped that does not print (line ends, control)."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def open_root(repository: Path) -> Path:
    """The repository's real path. Raises NotFound, in one line, when it is not a readable folder."""
    try:
        root = Path(os.path.realpath(repository, strict=True))
        if not root.is_dir():
            raise NotFound(f"the model repository {shown(str(repository), 400)} is not a folder")
        _names(root)
    except (OSError, ValueError) as error:
        raise NotFound(f"the model repository {shown(str(repository), 400)} cannot be read: {_why(error)}") from error
    return root


def list_models(root: Path) -> Listing:
    """Folders of the repository that may be models, sorted. Hidden ones and files are no one's mistake: not told."""
    names, skipped = [], []
    for name in _names(root):
        path = root / name
        dangling = path.is_symlink() and not path.exists()
        if name.startswith(".") or name in _NOT_MODELS or not (path.is_dir() or dangling):
            continue
        if is_model_name(name):
            names.append(name)
        else:
            skipped.append(f"folder {shown(name)}: not a model name (letters, digits and _ . + - are)")
    return Listing(tuple(names), tuple(skipped))


def model_folder(root: Path, model: str) -> Path:
    """The real folder of a model.

    root: as open_root gave it. Raises InvalidRequest (not a name), NotFound (no such folder),
    ModelRejected (a link that leaves the repository).
    """
    if not is_model_name(model):
        raise InvalidRequest(f"{shown(model)} is not a model name (letters, digits and _ . + - are allowed)")
    return _folder_inside(root, root / model, f"model {model!r}")


def version_folder(root: Path, model: str, version: int) -> Path:
    """The real folder of a version. Raises as model_folder does."""
    if not 1 <= version <= MAX_VERSION:
        raise InvalidRequest(f"model {model!r}: {version} is not a version (1 to {MAX_VERSION} are)")
    folder = model_folder(root, model)
    return _folder_inside(root, folder / str(version), f"model {model!r} version {version}")


def list_versions(folder: Path, filename: str) -> VersionListing:
    """Versions below a model's folder that hold `filename`, ascending.

    Skipped, with the reason: names that are not whole numbers above 0 or start with 0 (as in Triton), and versions
    without their model file (one that is just being copied must not take the place of the one that serves).
    """
    versions, skipped = [], []
    for name in _names(folder):
        path = folder / name
        if name.startswith(".") or not path.is_dir():
            continue
        if not _VERSION_NAME.fullmatch(name) or int(name) > MAX_VERSION:
            skipped.append(f"folder {shown(name)}: not a version (whole numbers from 1, without leading zeros, are)")
        elif not (path / filename).exists():
            skipped.append(f"version {name}: holds no {filename}")
        else:
            versions.append(int(name))
    return VersionListing(tuple(sorted(versions)), tuple(skipped))


def config_name(folder: Path) -> str | None:
    """The name of the model's config file, or None. Raises ModelRejected when there are several."""
    found = [name for name in CONFIG_NAMES if os.path.lexists(folder / name)]
    if len(found) > 1:
        raise ModelRejected(f"model {folder.name!r}: both {' and '.join(found)} exist; keep one")
    return found[0] if found else None


def file_inside(root: Path, folder: Path, name: str, what: str) -> Path:
    """The path of a file named by a config or a model, checked to lie in `folder` and within `root` after links.

    root, folder: real paths. name: from outside. what: begins the error ("default_model_filename").
    Returns the path as named (not the link's target: a runtime looks for external data beside it).
    Raises ModelRejected, with the name, when it is empty, absolute, climbs, leaves the root, is missing or no file.
    """
    reject = f"{what} {shown(name, 400)}"
    if not name or "\0" in name or name.startswith("/"):
        raise ModelRejected(f"{reject} is not a relative file name")
    if ".." in name.split("/"):
        raise ModelRejected(f"{reject} leaves its folder: '..' is not allowed")
    try:
        real = Path(os.path.realpath(folder / name, strict=True))
        mode = real.stat().st_mode
    except (OSError, ValueError) as error:
        raise ModelRejected(f"{reject} cannot be read in {folder}: {_why(error)}") from error
    if not real.is_relative_to(root):
        raise ModelRejected(f"{reject} is a link that leaves {root}")
    if not stat.S_ISREG(mode):
        raise ModelRejected(f"{reject} is not a regular file")
    return folder / name


def _folder_inside(root: Path, path: Path, what: str) -> Path:
    try:
        real = Path(os.path.realpath(path, strict=True))
    except FileNotFoundError as error:
        raise NotFound(f"{what} is not in the repository") from error
    except (OSError, ValueError) as error:
        raise ModelRejected(f"{what} cannot be read: {_why(error)}") from error
    if not real.is_relative_to(root):
        raise ModelRejected(f"{what} is a link that leaves the model repository")
    if not real.is_dir():
        raise NotFound(f"{what} is not a folder")
    return real


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)

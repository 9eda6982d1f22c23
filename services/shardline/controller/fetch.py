"""What a replica's pod runs where its model must be brought to it first: `python -m shardline.controller.fetch`.

Of a split model it extracts its own stage, reading no more than the graph and that stage's weights; of a whole one it copies the version
into the node's cache. Then the process becomes the replica, whose repository is the entry.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from shardline.controller import contract
from shardline.controller.bundle import REPOSITORY, Bundle
from shardline.controller.nodecache import NodeCache
from shardline.controller.settings import FetchSettings
from shardline.core.errors import ModelRejected, ServingError
from shardline.ops import logs
from shardline.ops.settings import SettingsError, load
from shardline.partition.extract import check_stage, extract_one
from shardline.repository import LoadOptions, find_model, version_files
from shardline.repository.layout import config_name, file_inside, model_folder, open_root

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logs.get(__name__)

_BLOCK = 8 << 20
DIGESTS = "digests.json"


def fetch(settings: FetchSettings) -> dict[str, str]:
    """Bring the model, or its stage, and return the variables that tell the replica where it lies. Raises ServingError."""
    cache = NodeCache(Path(settings.cache), settings.cache_bytes)
    if settings.plan:
        return fetch_stage(cache, settings)
    return fetch_whole(cache, settings)


def fetch_stage(cache: NodeCache, settings: FetchSettings) -> dict[str, str]:
    """One stage, by the plan. Raises PlanMismatch where the model was changed since it was planned."""
    body = Path(settings.plan).read_bytes()
    bundle = Bundle.unpack(body)
    index = settings.stage_index
    key = f"{bundle.model}-{bundle.version}-{hashlib.sha256(body).hexdigest()[:16]}-s{index}"

    def make(folder: Path) -> None:
        plan = bundle.write(folder)
        model_file = version_files(Path(settings.repository), settings.models[0], bundle.version)[0]
        extract_one(plan, model_file, index, folder)

    entry = cache.hold(key, make, partial(check_stage, index=index))
    return {
        contract.ENV_REPOSITORY: str(entry / REPOSITORY),
        contract.ENV_VERSION: str(bundle.version),
        contract.ENV_STAGE: f"{entry}#{index}",
    }


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the repository. name: below the model's folder."""

    name: str
    path: Path

    @property
    def mark(self) -> str:
        """Changes when the file does, as far as one can tell without reading it."""
        stat = self.path.stat()
        return f"{self.name}:{stat.st_size}:{stat.st_mtime_ns}"


def fetch_whole(cache: NodeCache, settings: FetchSettings) -> dict[str, str]:
    """The versions that are to be served, with all of their files. Raises ServingError where the model is broken."""
    model = settings.models[0]
    files = list(files_of(Path(settings.repository), model, settings.version))
    marks = hashlib.sha256("\n".join(file.mark for file in files).encode()).hexdigest()
    entry = cache.hold(f"{model}-{marks[:16]}", partial(copy, files, model), check)
    return {contract.ENV_REPOSITORY: str(entry / REPOSITORY)}


def files_of(repository: Path, model: str, version: int) -> Iterable[_File]:
    """The config and every file that the versions to be served are read from, by name."""
    found = find_model(repository, model, options=LoadOptions(version=version))
    if found.reason:
        raise ModelRejected(found.reason)
    root = open_root(repository)
    folder = model_folder(root, model)
    if name := config_name(folder):
        yield _File(name, file_inside(root, folder, name, f"model {model!r}: config file"))
    for number in found.versions:
        for path in version_files(repository, model, number):
            yield _File(str(path.relative_to(folder)), path)


def copy(files: Iterable[_File], model: str, folder: Path) -> None:
    """Copy files into an entry and write down what was read."""
    digests = {}
    for file in files:
        target = folder / REPOSITORY / model / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with file.path.open("rb") as source, target.open("wb") as out:
            while block := source.read(_BLOCK):
                digest.update(block)
                out.write(block)
        digests[f"{model}/{file.name}"] = digest.hexdigest()
    (folder / DIGESTS).write_text(json.dumps(digests), encoding="utf-8")


def check(entry: Path) -> None:
    """Compare an entry's files with what was copied. Raises ModelRejected naming the first that differs."""
    try:
        digests = json.loads((entry / DIGESTS).read_text(encoding="utf-8"))
        for name, digest in digests.items():
            with (entry / REPOSITORY / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise ModelRejected(f"{name} was changed since it was copied")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelRejected(f"{entry.name} cannot be read: {error}") from error


def main() -> int:
    """Fetch, then become the replica; where something is wrong returns the exit status."""
    try:
        settings = load(FetchSettings)
    except SettingsError as error:
        print(f"replica: {error}", file=sys.stderr)
        return 2
    logs.configure(settings, "replica")
    try:
        found = fetch(settings)
    except ServingError as error:
        log.error("fetch.failed", reason=error.message)
        return 1
    except OSError as error:
        log.error("fetch.failed", reason=f"{error.filename or settings.cache}: {error.strerror or error}")
        return 1
    return os.execve(sys.executable, [sys.executable, *contract.COMMAND[1:]], {**os.environ, **found})  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())

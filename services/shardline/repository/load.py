"""The repository's door: one version, one model, or all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardline.core.errors import ModelRejected, NotFound, ServingError
from shardline.core.models import ModelSpec, Stages
from shardline.repository import layout
from shardline.repository.config import DEFAULT_MAX_BATCH, Merged, merge, model_filename
from shardline.repository.config_text import MAX_CONFIG_BYTES, ParsedConfig, no_config, read_config, read_override
from shardline.repository.digest import files_digest, model_digest
from shardline.repository.external_data import check_external
from shardline.repository.features import PLATFORM
from shardline.repository.signature import MAX_GRAPH_BYTES, MAX_MODEL_BYTES, read_signature
from shardline.repository.versions import versions_to_serve

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from shardline.pb.inference.model_config_pb2 import ModelConfig


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Defaults and bounds for reading models.

    default_max_batch: rows, for models that can batch and whose config is silent. max_model_bytes: of a model file,
    max_graph_bytes: of its graph without weights, max_config_bytes: of a config.
    version: the one to serve, whatever the model's version policy says; 0: those that it asks for.
    """

    default_max_batch: int = DEFAULT_MAX_BATCH
    max_model_bytes: int = MAX_MODEL_BYTES
    max_graph_bytes: int = MAX_GRAPH_BYTES
    max_config_bytes: int = MAX_CONFIG_BYTES
    version: int = 0


DEFAULT_OPTIONS = LoadOptions()


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model version that can be served.

    model_path: of the ONNX file; external_files: the weights beside it. config: complete, as ModelConfig answers it.
    files_digest: of model_path and external_files alone (what a plan of stages is bound to); spec.digest covers the
    config too. warnings: what in the config is passed over.
    """

    spec: ModelSpec
    model_path: Path
    config: ModelConfig
    files_digest: str
    external_files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model of the repository, good or broken.

    versions: good and to be served by the version policy, ascending. broken: versions that should be served, and why
    they cannot be. skipped: folders passed over, and why. reason: why nothing of the model can be served, else "".
    stages: into how many its config asks to cut it.
    """

    name: str
    versions: tuple[int, ...] = ()
    broken: Mapping[int, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    reason: str = ""
    stages: Stages = field(default_factory=Stages)

    @property
    def ok(self) -> bool:
        """Whether at least one version can be served."""
        return bool(self.versions)


@dataclass(frozen=True, slots=True)
class _Opened:
    root: Path
    folder: Path
    model: str
    parsed: ParsedConfig


@dataclass(frozen=True, slots=True)
class _Read:
    merged: Merged
    folder: Path
    model_path: Path
    external_files: tuple[Path, ...]


def load_spec(
    repository: Path,
    model: str,
    version: int,
    *,
    config_override: str | bytes | None = None,
    options: LoadOptions = DEFAULT_OPTIONS,
) -> LoadedModel:
    """Read one version of a model: its config, its graph's signature, its digests. Weights are hashed, not loaded.

    config_override: JSON or text of a ModelConfig that takes the place of the model's config file.
    Raises InvalidRequest (not a model name), NotFound (no such repository, model or version), ModelRejected (it cannot
    be served; names the file, the field and both values).
    """
    opened = _open(repository, model, config_override, options)
    read = _read(opened, version, options)
    files = files_digest(read.folder, (read.model_path, *read.external_files))
    config = read.merged.config.SerializeToString(deterministic=True)
    spec = ModelSpec(
        name=model,
        version=version,
        platform=PLATFORM,
        inputs=read.merged.inputs,
        outputs=read.merged.outputs,
        batching=read.merged.batching,
        config=config,
        digest=model_digest(files, config),
        execution=read.merged.execution,
    )
    return LoadedModel(spec, read.model_path, read.merged.config, files, read.external_files, read.merged.warnings)


def version_files(
    repository: Path, model: str, version: int, *, options: LoadOptions = DEFAULT_OPTIONS
) -> tuple[Path, ...]:
    """The ONNX file of a version and the files that its weights lie in, checked but not hashed. Raises as load_spec does."""
    read = _read(_open(repository, model, None, options), version, options)
    return read.model_path, *sorted(read.external_files)


def find_model(
    repository: Path,
    model: str,
    *,
    config_override: str | bytes | None = None,
    options: LoadOptions = DEFAULT_OPTIONS,
) -> FoundModel:
    """Which versions of a model its version policy serves, each of them checked (but not hashed).

    Raises InvalidRequest and NotFound as load_spec does; a broken model comes back with its reason.
    """
    try:
        opened = _open(repository, model, config_override, options)
        listing = layout.list_versions(opened.folder, model_filename(opened.parsed.message))
    except ModelRejected as error:
        return FoundModel(model, reason=error.message)
    except OSError as error:
        return FoundModel(model, reason=f"model {model!r} cannot be read: {error.strerror or error}")
    if options.version:
        return _check_versions(opened, (options.version,), listing.skipped, options)
    try:
        wanted = versions_to_serve(listing.versions, opened.parsed.message.version_policy)
    except ModelRejected as error:
        return FoundModel(model, skipped=listing.skipped, reason=f"{opened.parsed.source}: {error.message}")
    return _check_versions(opened, wanted, listing.skipped, options)


def scan(
    repository: Path, *, options: LoadOptions = DEFAULT_OPTIONS, allow_empty: bool = False
) -> tuple[FoundModel, ...]:
    """Every model of the repository by name, good and broken.

    Raises NotFound, in one line, when the repository is missing, or holds no model folder and allow_empty is false.
    """
    root = layout.open_root(repository)
    listing = layout.list_models(root)
    if not listing.names and not allow_empty:
        odd = f" ({'; '.join(listing.skipped[:3])})" if listing.skipped else ""
        raise NotFound(
            f"the model repository {layout.shown(str(repository), 400)} holds no models{odd}; "
            "a model lies in <model>/<version>/model.onnx"
        )
    found = [_find_safely(root, name, options) for name in listing.names]
    return tuple(found)


def _find_safely(root: Path, model: str, options: LoadOptions) -> FoundModel:
    try:
        return find_model(root, model, options=options)
    except ServingError as error:
        return FoundModel(model, reason=error.message)


def _open(repository: Path, model: str, override: str | bytes | None, options: LoadOptions) -> _Opened:
    root = layout.open_root(repository)
    folder = layout.model_folder(root, model)
    if override is not None:
        parsed = read_override(override, max_bytes=options.max_config_bytes)
    elif (name := layout.config_name(folder)) is not None:
        path = layout.file_inside(root, folder, name, f"model {model!r}: config file")
        parsed = read_config(path, max_bytes=options.max_config_bytes)
    else:
        parsed = no_config(f"model {model!r} (it has no config file)")
    return _Opened(root, folder, model, parsed)


def _read(opened: _Opened, version: int, options: LoadOptions) -> _Read:
    folder = layout.version_folder(opened.root, opened.model, version)
    what = f"model {opened.model!r} version {version}: model file"
    path = layout.file_inside(opened.root, folder, model_filename(opened.parsed.message), what)
    signature = read_signature(path, max_model_bytes=options.max_model_bytes, max_graph_bytes=options.max_graph_bytes)
    try:
        external = check_external(folder, signature.external)
    except ModelRejected as error:
        raise ModelRejected(f"{path}: {error.message}") from error
    merged = merge(opened.model, opened.parsed, signature, default_max_batch=options.default_max_batch)
    return _Read(merged, folder, path, external)


def _check_versions(
    opened: _Opened, wanted: Iterable[int], skipped: tuple[str, ...], options: LoadOptions
) -> FoundModel:
    good: list[int] = []
    broken: dict[int, str] = {}
    warnings: dict[str, None] = {}
    stages = Stages()
    for version in wanted:
        try:
            merged = _read(opened, version, options).merged
            warnings.update(dict.fromkeys(merged.warnings))
            stages = merged.execution.stages
            good.append(version)
        except ServingError as error:
            broken[version] = error.message
    reason = ""
    if not good:
        reasons = (f"version {version}: {why}" for version, why in broken.items())
        reason = "; ".join(reasons) or "; ".join(("it has no versions", *skipped))
    return FoundModel(opened.model, tuple(good), broken, skipped, tuple(warnings), reason, stages)

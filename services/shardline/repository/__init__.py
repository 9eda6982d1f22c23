"""The model repository: layout, config, versions and digests. Reads files, serves nothing."""

from shardline.repository.index import IndexEntry, repository_index
from shardline.repository.load import FoundModel, LoadedModel, LoadOptions, find_model, load_spec, scan, version_files
from shardline.repository.versions import versions_to_serve

__all__ = [
    "FoundModel",
    "IndexEntry",
    "LoadOptions",
    "LoadedModel",
    "find_model",
    "load_spec",
    "repository_index",
    "scan",
    "version_files",
    "versions_to_serve",
]

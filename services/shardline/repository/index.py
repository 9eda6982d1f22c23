"""The answer to RepositoryIndex: what lies in the repository and what of it is served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shardline.repository.load import FoundModel


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of the index; version and state are empty for a model that was never loaded (as Triton answers)."""

    name: str
    version: str
    state: str
    reason: str


def repository_index(
    found: Iterable[FoundModel], states: Mapping[tuple[str, int], tuple[str, str]]
) -> tuple[IndexEntry, ...]:
    """One entry per model version that is known, by name and version.

    found: as scan gives it. states: (model, version) -> (state, reason) of what is or was served; state is one of
    READY, LOADING, UNLOADING, UNAVAILABLE. It goes before what the repository says: a version whose file
    was broken after it was loaded is still served.
    """
    known: dict[tuple[str, int], tuple[str, str]] = {}
    unloaded: dict[str, str] = {}
    for model in found:
        unloaded[model.name] = model.reason
        known.update({(model.name, version): ("UNAVAILABLE", why) for version, why in model.broken.items()})
    known.update(states)
    entries = [IndexEntry(name, str(version), *state) for (name, version), state in sorted(known.items())]
    listed = {name for name, _ in known}
    entries += [
        IndexEntry(name, "", "UNAVAILABLE" if reason else "", reason)
        for name, reason in unloaded.items()
        if name not in listed
    ]
    return tuple(sorted(entries, key=lambda entry: (entry.name, len(entry.version), entry.version)))

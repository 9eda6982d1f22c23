"""How facts look in Redis: JSON that a newer or older release can still read.

Unknown fields are ignored and missing ones take their defaults, so that releases can run side by side during a
rollout. What does not decode raises ValueError; readers skip it and say so.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Generic, TypeVar

from shardline.core.cluster import LoadReport, PoolKey, ReplicaInfo, ReplicaState, RouterInfo

M = TypeVar("M", bound=ReplicaInfo | RouterInfo)

Loads = Mapping[PoolKey, LoadReport]
"""A replica's load reports."""


class Action(StrEnum):
    """What is wanted of a model."""

    LOAD = "load"
    UNLOAD = "unload"


@dataclass(frozen=True, slots=True)
class Desired:
    """What somebody wanted of a model by a load or unload; it outlives replicas and wins over repository policy.

    config: serialised inference.ModelConfig that overrides the repository's, b"" for none.
    versions: those to serve, () for what the version policy says. revision: grows with every write.
    """

    action: Action
    config: bytes = b""
    versions: tuple[int, ...] = ()
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Kind(Generic[M]):
    """A kind of member: how its announcements are named, written and read."""

    name: str
    decode: Callable[[bytes], M]


def encode_info(info: ReplicaInfo | RouterInfo) -> bytes:
    """Inverse of decode_replica and decode_router; equal infos give equal bytes."""
    values = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
    if isinstance(info, ReplicaInfo):
        values["pools"] = sorted(str(pool) for pool in info.pools)
    return json.dumps(values, separators=(",", ":"), sort_keys=True).encode()


def decode_replica(data: bytes) -> ReplicaInfo:
    """Raises ValueError on anything but what encode_info writes."""
    values = _known_fields(ReplicaInfo, data)
    try:
        values["state"] = ReplicaState(values["state"])
        values["pools"] = tuple(pool_of(pool) for pool in values["pools"])
        return ReplicaInfo(**values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a replica's announcement: {error}") from None


def decode_router(data: bytes) -> RouterInfo:
    """Raises ValueError on anything but what encode_info writes."""
    values = _known_fields(RouterInfo, data)
    try:
        values["state"] = ReplicaState(values["state"])
        return RouterInfo(**values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a router's announcement: {error}") from None


REPLICA: Kind[ReplicaInfo] = Kind("replica", decode_replica)
ROUTER: Kind[RouterInfo] = Kind("router", decode_router)


def encode_loads(loads: Loads) -> bytes:
    """{pool: [the report's fields in their order]}, compact."""
    return json.dumps(
        {str(pool): [getattr(load, name) for name in _LOAD_FIELDS] for pool, load in loads.items()},
        separators=(",", ":"),
    ).encode()


def decode_loads(data: bytes) -> dict[PoolKey, LoadReport]:
    """Raises ValueError on anything but what encode_loads of some release writes."""
    try:
        return {pool_of(pool): LoadReport(*values[: len(_LOAD_FIELDS)]) for pool, values in _json_object(data).items()}
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a load report: {error}") from None


def encode_desired(desired: Desired) -> bytes:
    """Everything but the revision, which Redis gives."""
    values = {
        "action": desired.action,
        "config": base64.b64encode(desired.config).decode(),
        "versions": list(desired.versions),
    }
    return json.dumps(values, separators=(",", ":"), sort_keys=True).encode()


def decode_desired(record: bytes) -> Desired:
    """From `revision, newline, what encode_desired wrote`. Raises ValueError on anything else."""
    revision, _, data = record.partition(b"\n")
    values = _json_object(data)
    try:
        return Desired(
            Action(values["action"]),
            base64.b64decode(values.get("config", ""), validate=True),
            tuple(int(version) for version in values.get("versions", ())),
            int(revision),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a desired state: {error}") from None


@lru_cache(maxsize=4096)
def pool_of(text: str) -> PoolKey:
    """PoolKey.parse, remembered: load reports name the same few pools all day."""
    return PoolKey.parse(text)


_LOAD_FIELDS = tuple(field.name for field in dataclasses.fields(LoadReport))


def _json_object(data: bytes) -> dict[str, Any]:
    values = json.loads(data)
    if not isinstance(values, dict):
        raise ValueError(f"expected a JSON object, not {type(values).__name__}")  # noqa: TRY004 (bad data, not a bad caller)
    return values


def _known_fields(cls: type[ReplicaInfo | RouterInfo], data: bytes) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(cls)}
    return {name: value for name, value in _json_object(data).items() if name in names}

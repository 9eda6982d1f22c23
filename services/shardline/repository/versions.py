"""Which versions of a model to serve: Triton's version policy, as a pure function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardline.core.errors import ModelRejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardline.pb.inference.model_config_pb2 import ModelVersionPolicy


def versions_to_serve(available: Sequence[int], policy: ModelVersionPolicy | None = None) -> tuple[int, ...]:
    """The versions that the policy picks from those available, ascending.

    policy: None or empty means latest 1, as in Triton. Raises ModelRejected when a specific version does not exist
    (naming it and those that do), or when `specific` names none.
    """
    ordered = sorted(set(available))
    choice = policy.WhichOneof("policy_choice") if policy is not None else None
    if policy is None or choice is None:
        return tuple(ordered[-1:])
    if choice == "all":
        return tuple(ordered)
    if choice == "latest":
        return tuple(ordered[-(policy.latest.num_versions or 1) :])
    wanted = sorted(set(policy.specific.versions))
    if not wanted:
        raise ModelRejected("version_policy.specific names no versions")
    missing = [version for version in wanted if version not in ordered]
    if missing:
        there = ", ".join(map(str, ordered)) or "none"
        raise ModelRejected(
            f"version_policy.specific: version {', '.join(map(str, missing))} does not exist; available: {there}"
        )
    return tuple(wanted)

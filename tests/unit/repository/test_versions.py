from __future__ import annotations

import pytest

from shardline.core.errors import ModelRejected
from shardline.pb.inference.model_config_pb2 import ModelVersionPolicy
from shardline.repository import versions_to_serve

LATEST = ModelVersionPolicy.Latest


@pytest.mark.parametrize(
    ("available", "policy", "served"),
    [
        ((1, 2, 10), None, (10,)),
        ((1, 2, 10), ModelVersionPolicy(), (10,)),
        ((), None, ()),
        ((2, 10, 1), ModelVersionPolicy(latest=LATEST(num_versions=2)), (2, 10)),
        ((1, 2), ModelVersionPolicy(latest=LATEST(num_versions=9)), (1, 2)),
        ((1, 2), ModelVersionPolicy(latest=LATEST()), (2,)),
        ((), ModelVersionPolicy(latest=LATEST(num_versions=2)), ()),
        ((10, 2, 1), ModelVersionPolicy(all=ModelVersionPolicy.All()), (1, 2, 10)),
        ((1, 2, 3), ModelVersionPolicy(specific=ModelVersionPolicy.Specific(versions=[3, 1, 3])), (1, 3)),
    ],
)
def test_the_policy_picks(
    available: tuple[int, ...], policy: ModelVersionPolicy | None, served: tuple[int, ...]
) -> None:
    assert versions_to_serve(available, policy) == served


def test_a_specific_version_that_is_missing_is_named_beside_those_that_exist() -> None:
    policy = ModelVersionPolicy(specific=ModelVersionPolicy.Specific(versions=[1, 7, -3]))
    with pytest.raises(ModelRejected, match=r"version -3, 7 does not exist; available: 1, 2"):
        versions_to_serve((1, 2), policy)


def test_specific_without_versions_is_refused() -> None:
    with pytest.raises(ModelRejected, match="names no versions"):
        versions_to_serve((1,), ModelVersionPolicy(specific=ModelVersionPolicy.Specific()))

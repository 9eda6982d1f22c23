"""What can be asked of the cluster, as its members come, change and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardline.core.errors import NotFound, Unavailable
from tests.unit.router.messages import description, model, tensor

if TYPE_CHECKING:
    from tests.unit.router.doubles import Cluster


def ready(cluster: Cluster, name: str = "m", version: int = 0) -> list[str]:
    """Ids of the replicas that rows may be sent to."""
    return [member.info.id for member in cluster.table.resolve(name, version).ready]


def test_replicas_of_one_version_share_an_entry(cluster: Cluster) -> None:
    cluster.join("a")
    cluster.join("b")
    cluster.join("c", model(name="n"))
    assert ready(cluster) == ["a", "b"]
    assert ready(cluster, "n") == ["c"]
    assert cluster.table.resolve("m", 1).pool_text == "m:1/0"


def test_a_member_whose_link_is_down_is_known_but_not_ready(cluster: Cluster) -> None:
    cluster.join("a", up=False)
    with pytest.raises(Unavailable, match="'m' version 1 has no replica that is ready"):
        cluster.table.resolve("m", 0)
    (serving,) = cluster.table.models["m"].versions.values()
    assert [member.info.id for member in serving.members] == ["a"]


def test_models_and_versions_that_stay_keep_their_objects(cluster: Cluster) -> None:
    replica = cluster.join("a")
    known, serving = cluster.table.models["m"], cluster.table.resolve("m", 1)
    known.rows_in_flight = 5
    cluster.join("b")
    cluster.serve(replica, model(), model(version=2))
    cluster.rebuild()
    assert cluster.table.models["m"] is known
    assert cluster.table.resolve("m", 1) is serving
    assert known.rows_in_flight == 5
    assert [member.info.id for member in serving.ready] == ["a", "b"]


def test_a_version_that_went_away_is_left_with_no_member(cluster: Cluster) -> None:
    replica = cluster.join("a", model(), model(version=2))
    gone = cluster.table.resolve("m", 1)
    cluster.serve(replica, model(version=2))
    assert (gone.members, gone.ready) == ([], [])
    with pytest.raises(NotFound, match="'m' has no version 1; served versions: 2"):
        cluster.table.resolve("m", 1)


def test_a_model_that_went_away_altogether_is_not_known(cluster: Cluster) -> None:
    replica = cluster.join("a", model(), model(name="n"))
    cluster.serve(replica, model(name="n"))
    with pytest.raises(NotFound, match="'m' is not known; known models: n"):
        cluster.table.resolve("m", 0)


def test_what_the_newest_member_says_of_a_version_does_not_change_its_object(cluster: Cluster) -> None:
    replica = cluster.join("a")
    serving = cluster.table.resolve("m", 1)
    cluster.serve(replica, model([tensor("z")]))
    assert cluster.table.resolve("m", 1) is serving
    assert [tensor.name for tensor in serving.spec.inputs] == ["z"]


def test_the_default_changes_when_the_new_version_is_ready_everywhere(cluster: Cluster) -> None:
    a, b = cluster.join("a"), cluster.join("b")

    def default() -> int:
        return cluster.table.resolve("m", 0).pool.version

    seen = [default()]
    for replica in (a, b):
        cluster.serve(replica, model(), model(version=2))
        seen.append(default())
    for replica in (a, b):
        cluster.serve(replica, model(version=2))
        seen.append(default())
    assert seen == [1, 1, 2, 2, 2]


def test_a_replica_that_restarts_with_the_new_version_only_does_not_take_all_traffic(cluster: Cluster) -> None:
    cluster.join("a")
    cluster.join("b")
    cluster.join("c", model(version=2))
    assert cluster.table.resolve("m", 0).pool.version == 1
    assert ready(cluster, version=2) == ["c"]


@pytest.mark.parametrize(
    ("fields", "because", "largest"),
    [
        ({"max_rows": 8}, "", 8),
        ({"max_rows": 6}, "", 6),
        ({"max_rows": 0}, "", 0),
        ({"max_rows": 8}, "rows change each other's answers", 0),
    ],
)
def test_the_largest_part_is_the_largest_bucket_where_rows_share_batches(
    cluster: Cluster, fields: dict[str, int], because: str, largest: int
) -> None:
    cluster.join("a", description(model(**fields), unbatched_because=because))  # type: ignore[arg-type]
    assert cluster.table.resolve("m", 0).largest == largest


def test_the_names_of_an_error_are_bounded(cluster: Cluster) -> None:
    cluster.join("a", *(model(name=f"n{number}" * 10) for number in range(50)))
    with pytest.raises(NotFound) as caught:
        cluster.table.resolve("x" * 10_000, 0)
    assert len(caught.value.message) < 2000
    assert "and 40 more" in caught.value.message

"""How facts are written: round trips, and what an older or newer release may have written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline.coord.codec import (
    Action,
    Desired,
    decode_desired,
    decode_loads,
    decode_replica,
    decode_router,
    encode_desired,
    encode_info,
    encode_loads,
)
from shardline.core.cluster import LoadReport, PoolKey, ReplicaInfo, ReplicaState, RouterInfo

POOL = PoolKey("digits", 1)
REPLICA = ReplicaInfo("r", "h:1", "ipc:///x", ReplicaState.READY, (POOL,), "cpu", "h", 3, 1.5, pod="p", metrics="h:2")
ROUTER = RouterInfo("x", "h:8001", ReplicaState.READY, "native", "h", 3, 1.5)


def test_announcements_survive_the_round_trip() -> None:
    assert decode_replica(encode_info(REPLICA)) == REPLICA
    assert decode_router(encode_info(ROUTER)) == ROUTER


def test_fields_of_a_newer_release_are_ignored() -> None:
    values = json.loads(encode_info(REPLICA)) | {"colour": "blue"}
    assert decode_replica(json.dumps(values).encode()) == REPLICA


def test_fields_that_an_older_release_lacks_take_their_defaults() -> None:
    values = json.loads(encode_info(ROUTER))
    del values["pod"]
    assert decode_router(json.dumps(values).encode()).pod == ""


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"state":"flying"}', b"null", b'{"pools":3}'])
def test_rubbish_is_a_value_error_and_nothing_else(data: bytes) -> None:
    for decode in (decode_replica, decode_router):
        with pytest.raises(ValueError):
            decode(data)


@given(
    st.dictionaries(
        st.builds(PoolKey, st.text(min_size=1), st.integers(0, 99), st.integers(0, 9)),
        st.builds(LoadReport, st.integers(0), st.integers(0), st.floats(0, 1e6), sequence=st.integers(0, 2**50)),
        max_size=4,
    )
)
def test_load_reports_survive_the_round_trip(loads: dict[PoolKey, LoadReport]) -> None:
    assert decode_loads(encode_loads(loads)) == loads


@pytest.mark.parametrize("data", [b"", b"[1]", b'{"digits":[1]}', b'{"digits:1/0":3}', b'{"digits:x/0":[1]}'])
def test_rubbish_load_reports_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_loads(data)


def test_a_load_report_of_a_newer_release_has_more_fields() -> None:
    assert decode_loads(b'{"digits:1/0":[1,2,3.5,4.5,5.5,6,7,8,9,10,11,12]}')[POOL].queue_rows == 1


@given(st.sampled_from(Action), st.binary(max_size=64), st.lists(st.integers(1, 99), max_size=3), st.integers(1, 2**50))
def test_desired_states_survive_the_round_trip(
    action: Action, config: bytes, versions: list[int], revision: int
) -> None:
    desired = Desired(action, config, tuple(versions), revision)
    assert decode_desired(f"{revision}\n".encode() + encode_desired(desired)) == desired


@pytest.mark.parametrize("record", [b"", b"1", b"1\n{}", b'x\n{"action":"load"}', b'1\n{"action":"burn"}'])
def test_rubbish_desired_states_are_a_value_error(record: bytes) -> None:
    with pytest.raises(ValueError):
        decode_desired(record)

"""Which front serves, and what is asked of grpcio's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardline.wire.front import EdgeOptions, choose

PLAIN = EdgeOptions("127.0.0.1:0", 1 << 20)
AGED = replace(PLAIN, max_connection_age_s=60.0, max_connection_age_grace_s=5.0)


@pytest.mark.parametrize(
    ("asked", "options", "front", "because"),
    [
        ("auto", PLAIN, "native", "it can do all that is asked"),
        ("auto", AGED, "grpcio", "closing connections by age"),
        ("grpcio", PLAIN, "grpcio", "it was asked for"),
        ("grpcio", AGED, "grpcio", "it was asked for"),
        ("native", PLAIN, "native", "it was asked for"),
    ],
)
def test_the_front_is_what_was_asked_for_or_the_fastest_that_can(
    asked: str, options: EdgeOptions, front: str, because: str
) -> None:
    name, why = choose(asked, options)
    assert name == front
    assert because in why


def test_a_front_that_cannot_do_what_is_asked_is_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match=r"closing connections by age.*--front grpcio"):
        choose("native", AGED)


def test_grpcio_is_told_the_limits() -> None:
    args = dict(AGED.channel_args())
    assert args["grpc.max_connection_age_ms"] == 60_000
    assert args["grpc.max_connection_age_grace_ms"] == 5_000
    assert args["grpc.max_receive_message_length"] > AGED.max_message_bytes
    assert args["grpc.max_send_message_length"] == -1


def test_connections_live_for_ever_unless_told_otherwise() -> None:
    assert not any("connection_age" in name for name, _ in PLAIN.channel_args())


@pytest.mark.parametrize("size", [1, 1 << 30, (1 << 31) - 1, 1 << 40])
def test_no_limit_overflows_what_grpcio_can_count(size: int) -> None:
    for _, value in replace(PLAIN, max_message_bytes=size).channel_args():
        assert -1 <= value < 1 << 31


@pytest.mark.parametrize("reuse", [True, False])
def test_the_port_is_shared_only_where_that_is_asked(reuse: bool) -> None:
    assert dict(replace(PLAIN, reuse_port=reuse).channel_args())["grpc.so_reuseport"] == int(reuse)

"""Replicas and a watch over a real Redis that is killed, emptied, paused and cut off."""

from __future__ import annotations

import asyncio
import time

import pytest

from shardline.coord.codec import REPLICA
from shardline.coord.connection import Connection
from shardline.coord.errors import RedisAway
from shardline.coord.lease import Lease
from shardline.coord.members import RouterMembership
from shardline.coord.status import cluster_view
from shardline.coord.view import Left, Reason
from shardline.core.cluster import LoadReport, ReplicaState, RouterInfo
from tests.integration.coord.conftest import (
    BEAT_S,
    DIGITS,
    LEASE_S,
    MINILM,
    Spectator,
    eventually,
    member,
    replica,
    running,
)  # fmt: skip
from tests.redis_server import RedisServer, all_redis_servers


async def test_a_replica_joins_changes_and_withdraws_before_any_poll(connection: Connection) -> None:
    spectator = Spectator(connection, poll_s=30.0)  # so that only published changes can be what is seen
    one = member(connection)
    async with running(spectator.watch.run()):
        assert await spectator.watch.ready(5)
        await eventually(lambda: _subscribers(connection, 1))
        async with running(one.run()) as (task,):
            await eventually(lambda: spectator.names() == {"r1"})
            one.set_state(ReplicaState.DRAINING)
            await eventually(lambda: spectator.watch.members["r1"].state is ReplicaState.DRAINING)
            one.set_pools([MINILM])
            await eventually(lambda: spectator.watch.members["r1"].pools == (MINILM,))
            task.cancel()
            await eventually(lambda: not spectator.names())
    assert spectator.kinds() == ["Joined r1", "Changed r1", "Changed r1", "Left r1"]
    assert isinstance(spectator.events[-1], Left)
    assert spectator.events[-1].reason is Reason.WITHDRAWN


async def test_a_killed_replica_is_gone_when_its_lease_ends(connection: Connection) -> None:
    spectator = Spectator(connection, grace_s=0.0)
    async with running(spectator.watch.run()):
        await Lease(connection, REPLICA, replica("dead"), beat_s=BEAT_S, lease_s=LEASE_S).beat()  # and never again
        await eventually(lambda: spectator.kinds() == ["Joined dead", "Left dead"], spectator.kinds)
    assert isinstance(spectator.events[-1], Left)
    assert spectator.events[-1].reason is Reason.EXPIRED


async def test_another_replica_sweeps_up_after_the_dead(connection: Connection) -> None:
    await Lease(connection, REPLICA, replica("dead"), beat_s=BEAT_S, lease_s=LEASE_S).beat()
    async with running(member(connection, "r1").run()):
        await eventually(lambda: _holds(connection, "info", {b"r1"}))
        assert await connection.command("ZRANGE", connection.keys.of("pool", pool=DIGITS), 0, -1) == [b"r1"]


async def test_redis_killed_and_restarted_empty_costs_nobody_their_place(
    redis_server: RedisServer, connection: Connection
) -> None:
    spectator = Spectator(connection)
    members = [member(connection, f"r{at}") for at in range(3)]
    router = RouterMembership(
        connection,
        RouterInfo("x1", "h:8001", ReplicaState.READY, "native", "h", 1, 0.0),
        beat_s=BEAT_S,
        lease_s=LEASE_S,
    )
    async with running(spectator.watch.run(), router.run(), *(one.run() for one in members)):
        await eventually(lambda: spectator.names() == {"r0", "r1", "r2"})
        for _ in range(2):
            redis_server.restart_empty()
            await eventually(lambda: _is_whole(connection, replicas=3, routers=1))
        await eventually(lambda: spectator.watch._view.confirmed == 3)
    assert [kind for kind in spectator.kinds() if not kind.startswith("Joined")] == []


async def test_a_redis_that_stays_away_freezes_the_view(redis_server: RedisServer, connection: Connection) -> None:
    spectator = Spectator(connection)
    async with running(spectator.watch.run(), member(connection).run()):
        await eventually(lambda: spectator.names() == {"r1"})
        redis_server.kill()
        await eventually(lambda: connection.reachable is False)
        left = time.monotonic() + 3 * LEASE_S
        await eventually(lambda: time.monotonic() > left)
        assert spectator.names() == {"r1"}
        redis_server.start()
        await eventually(lambda: _is_whole(connection, replicas=1, routers=0))
    assert spectator.kinds() == ["Joined r1"]


async def test_a_redis_that_stands_still_ends_no_lease(redis_server: RedisServer, connection: Connection) -> None:
    spectator = Spectator(connection)
    members = [member(connection, f"r{at}") for at in range(3)]
    async with running(spectator.watch.run(), *(one.run() for one in members)):
        await eventually(lambda: spectator.names() == {"r0", "r1", "r2"})
        redis_server.pause()
        await eventually(lambda: connection.reachable is False)
        left = time.monotonic() + 2 * LEASE_S
        await eventually(lambda: time.monotonic() > left)
        redis_server.resume()
        await eventually(lambda: _is_whole(connection, replicas=3, routers=0))
        await eventually(lambda: spectator.watch._view.confirmed == 3)
    assert [kind for kind in spectator.kinds() if not kind.startswith("Joined")] == []


async def test_a_replica_that_died_while_redis_was_away_is_gone_after_the_grace_period(
    redis_server: RedisServer, connection: Connection
) -> None:
    spectator = Spectator(connection)
    async with running(spectator.watch.run(), member(connection, "stays").run()):
        async with running(member(connection, "dies").run()):
            await eventually(lambda: spectator.names() == {"stays", "dies"})
            redis_server.kill()
        redis_server.start()
        await eventually(lambda: spectator.names() == {"stays"})
    assert sorted(spectator.kinds()) == ["Joined dies", "Joined stays", "Left dies"]


async def test_no_setter_waits_for_redis(redis_server: RedisServer, connection: Connection) -> None:
    one = member(connection)
    redis_server.pause()
    async with running(one.run()):
        await asyncio.sleep(0)
        one.set_state(ReplicaState.DRAINING)
        one.set_pools([MINILM])
        one.report({MINILM: LoadReport(1)})
        one.put_statistics("minilm", 2, b"x")
        assert one.info == replica(pools=(MINILM,), state=ReplicaState.DRAINING)
        assert not await one.announced(0.01)
        redis_server.resume()
        assert await one.announced(5)


async def test_a_cut_subscription_is_made_again(connection: Connection) -> None:
    spectator = Spectator(connection)
    async with running(spectator.watch.run()):
        await eventually(lambda: _subscribers(connection, 1))
        await connection.command("CLIENT", "KILL", "TYPE", "pubsub")
        async with running(member(connection).run()):
            await eventually(lambda: spectator.names() == {"r1"})
        await eventually(lambda: _subscribers(connection, 1))


async def test_rubbish_from_outside_hurts_nobody(connection: Connection) -> None:
    keys = connection.keys
    heard: list[str] = []
    spectator = Spectator(connection, on_loads=lambda id_, _: heard.append(id_))
    one = member(connection)
    async with running(spectator.watch.run(), one.run()):
        await eventually(lambda: spectator.names() == {"r1"})
        for channel in (keys.of("changes"), keys.of("reports")):
            for rubbish in (b"", b"\xff\n\xff", b"replica\n1\n2", b"replica\n1\n2\n3\nburned\nx\n", b"desired\n"):
                await connection.command("PUBLISH", channel, rubbish)
        await connection.command("HSET", keys.of("info", kind="replica"), "evil", b"\xff{]")
        await connection.command("ZADD", keys.of("leases", kind="replica"), 10**15, "evil")
        one.set_pools([DIGITS, MINILM])
        await eventually(lambda: spectator.watch.members["r1"].pools == (DIGITS, MINILM))
        one.report({DIGITS: LoadReport(7)})
        await eventually(lambda: "r1" in heard)
        assert spectator.names() == {"r1"}


async def test_pools_have_the_leases_of_their_members(connection: Connection) -> None:
    def leases(pool: object) -> str:
        return connection.keys.of("pool", pool=pool)

    one = member(connection)
    async with running(one.run()):
        await eventually(lambda: _members_of(connection, leases(DIGITS), [b"r1"]))
        one.set_pools([MINILM])
        await eventually(lambda: _members_of(connection, leases(MINILM), [b"r1"]))
        assert await _members_of(connection, leases(DIGITS), [])
    assert await _members_of(connection, leases(MINILM), [])


async def test_two_clusters_in_one_redis_do_not_see_each_other(
    redis_server: RedisServer, connection: Connection
) -> None:
    async with Connection(redis_server.url, "other") as other:
        here, there = Spectator(connection), Spectator(other)
        async with running(
            here.watch.run(), there.watch.run(), member(connection, "a").run(), member(other, "b").run()
        ):
            await eventually(lambda: here.names() == {"a"} and there.names() == {"b"})
            assert set((await cluster_view(connection)).replicas) == {"a"}
            assert set((await cluster_view(other)).replicas) == {"b"}
        assert here.kinds()[0] == "Joined a"
        assert "b" not in {event.info.id for event in here.events}


async def test_an_idle_replica_costs_one_command_per_beat(connection: Connection) -> None:
    one = member(connection, on_desired=_ignore)
    one.report({DIGITS: LoadReport(1)})
    async with running(one.run()):
        await eventually(lambda: _calls(connection, 3))
        before = await connection.command("INFO", "commandstats")
        sent = one.load.sent
        await eventually(lambda: _calls(connection, before["cmdstat_evalsha"]["calls"] + 5))
        after = await connection.command("INFO", "commandstats")
        assert one.load.sent == sent
    busy = {"cmdstat_info", "cmdstat_evalsha"} | _INSIDE_THE_BEAT
    for name, stats in after.items():
        if name not in busy:
            assert stats["calls"] == before.get(name, {"calls": 0})["calls"], name


async def test_a_lease_must_outlast_a_beat(connection: Connection) -> None:
    with pytest.raises(ValueError, match="must be shorter"):
        member(connection, beat_s=2.0, lease_s=1.0)


@pytest.mark.parametrize("name", ["", "a\nb", "=folded"])
async def test_an_id_that_would_confuse_readers_is_refused(connection: Connection, name: str) -> None:
    with pytest.raises(ValueError, match="not a member's id"):
        member(connection, name)


@pytest.mark.parametrize("at", range(len(all_redis_servers())))
async def test_every_installed_server_will_do(tmp_path_factory: pytest.TempPathFactory, at: int) -> None:
    binary = all_redis_servers()[at]
    with RedisServer(tmp_path_factory.mktemp("redis"), binary=binary) as server:
        async with Connection(server.url) as connection:
            async with running(member(connection).run()):
                await eventually(lambda: _is_whole(connection, replicas=1, routers=0))
            view = await cluster_view(connection)
    assert view.redis.version >= "6.2"


async def test_a_missing_redis_is_said_in_one_line(redis_server: RedisServer, connection: Connection) -> None:
    redis_server.kill()
    with pytest.raises(RedisAway) as caught:
        await cluster_view(connection)
    assert str(caught.value) == f"cannot reach Redis at 127.0.0.1:{redis_server.port}: connection refused"


_INSIDE_THE_BEAT = {
    f"cmdstat_{name}"
    for name in ("time", "hget", "hset", "zadd", "get", "pexpire", "publish", "zrangebyscore", "zremrangebyscore")
}


async def _ignore(_: object) -> None:
    """Wanted states are none of these tests' business."""


async def _is_whole(connection: Connection, *, replicas: int, routers: int) -> bool:
    try:
        view = await cluster_view(connection)
    except RedisAway:
        return False
    return (len(view.replicas), len(view.routers)) == (replicas, routers)


async def _holds(connection: Connection, name: str, members: set[bytes]) -> bool:
    return set(await connection.command("HKEYS", connection.keys.of(name, kind="replica"))) == members


async def _members_of(connection: Connection, key: str, members: list[bytes]) -> bool:
    found: list[bytes] = await connection.command("ZRANGE", key, 0, -1)
    return found == members


async def _subscribers(connection: Connection, number: int) -> bool:
    _, count = await connection.command("PUBSUB", "NUMSUB", connection.keys.of("changes"))
    return int(count) == number


async def _calls(connection: Connection, at_least: int) -> bool:
    stats = await connection.command("INFO", "commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"]) >= at_least

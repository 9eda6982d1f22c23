"""What Redis keeps besides members: load, desired states, statistics, limits, depths, tuning and plans."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from shardline.coord.codec import REPLICA, Action, Desired
from shardline.coord.desired import DesiredState
from shardline.coord.errors import RedisAway, StaleRevision
from shardline.coord.facts import ModelFacts, StoredPlan
from shardline.coord.keys import TABLE, entry_of
from shardline.coord.limits import ALL_MODELS, Limits, QueueDepths
from shardline.coord.load import LoadPublisher
from shardline.coord.statistics import FOLDED, Statistics, StatisticsWriter
from shardline.coord.watch import survey
from shardline.core.cluster import LoadReport, PoolKey
from tests.integration.coord.conftest import DIGITS, MINILM, Spectator, eventually, member, running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardline.coord.connection import Connection
    from tests.redis_server import RedisServer


def summed(snapshots: Sequence[bytes]) -> bytes:
    return str(sum(int(snapshot) for snapshot in snapshots)).encode()


async def total(connection: Connection) -> int:
    return int(summed(list((await Statistics(connection).of("digits", 1)).values())))


# ---------------------------------------------------------------- load


async def test_a_watch_hears_the_newest_load_and_a_late_watch_finds_it(connection: Connection) -> None:
    one = member(connection)
    first = Spectator(connection, on_loads=lambda *_: None)
    async with running(first.watch.run(), one.run()):
        await eventually(lambda: first.names() == {"r1"})
        for rows in range(1, 500):
            one.report({DIGITS: LoadReport(rows, sequence=rows)})
        await eventually(lambda: first.watch.loads.get("r1", {}).get(DIGITS) == LoadReport(499, sequence=499))
        assert one.load.sent < 10, "a burst is one message or few"
        late = Spectator(connection, on_loads=lambda *_: None)
        async with running(late.watch.run()):
            await eventually(lambda: late.watch.loads.get("r1", {}).get(DIGITS) == LoadReport(499, sequence=499))


async def test_a_report_that_changed_in_its_sequence_alone_is_not_sent(connection: Connection) -> None:
    publisher = LoadPublisher(connection, "r1", interval_s=0.001)
    async with running(publisher.run()):
        publisher.report({DIGITS: LoadReport(1, sequence=1)})
        await eventually(lambda: publisher.sent == 1)
        publisher.report({DIGITS: LoadReport(1, sequence=2)})
        publisher.report({MINILM: LoadReport(1, sequence=3)})
        await eventually(lambda: publisher.sent == 2)


async def test_reports_are_frequent_only_while_several_routers_listen(connection: Connection) -> None:
    publisher = LoadPublisher(connection, "r1", interval_s=0.002)
    first, second = (Spectator(connection, on_loads=lambda *_: None) for _ in range(2))
    rows = iter(range(1, 10_000))

    def pause_s() -> float:
        publisher.report({DIGITS: LoadReport(next(rows))})
        return publisher.pause_s

    async with running(publisher.run(), first.watch.run()):
        await eventually(lambda: pause_s() > 0.05)
        async with running(second.watch.run()):
            await eventually(lambda: pause_s() == 0.002)
        await eventually(lambda: pause_s() > 0.05)


# ---------------------------------------------------------------- desired states


async def test_what_is_wanted_reaches_running_and_restarted_replicas(connection: Connection) -> None:
    heard: list[dict[str, Desired]] = []

    async def hear(wanted: object) -> None:
        heard.append(dict(wanted))  # type: ignore[call-overload]

    async with running(member(connection, on_desired=hear).run()):
        await eventually(lambda: heard == [{}])
        revision = await DesiredState(connection).set("digits", Action.LOAD, b"config", (1, 2))
        await eventually(lambda: heard[-1] == {"digits": Desired(Action.LOAD, b"config", (1, 2), revision)})
    async with running(member(connection, "again", on_desired=hear).run()):
        await eventually(lambda: len(heard) == 3)
    assert heard[2] == heard[1]


async def test_a_watch_learns_of_a_wish_at_once(connection: Connection) -> None:
    heard: list[object] = []

    async def hear(wanted: object) -> None:
        heard.append(wanted)

    spectator = Spectator(connection, on_desired=hear, poll_s=30.0)
    async with running(member(connection).run(), spectator.watch.run()):
        await eventually(lambda: len(heard) == 1)
        await DesiredState(connection).set("digits", Action.UNLOAD)
        await eventually(lambda: "digits" in spectator.watch.desired)


async def test_of_two_writers_at_one_revision_one_is_told(connection: Connection) -> None:
    state = DesiredState(connection)
    first = await state.set("digits", Action.LOAD, expected=0)
    outcomes = await asyncio.gather(
        *(state.set("digits", Action.UNLOAD, expected=first) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(outcome, StaleRevision) for outcome in outcomes) == 4
    assert (await state.all())["digits"].revision > first


async def test_members_fill_an_emptied_redis_with_what_was_wanted(
    redis_server: RedisServer, connection: Connection
) -> None:
    heard: list[object] = []

    async def hear(wanted: object) -> None:
        heard.append(wanted)

    state = DesiredState(connection)
    async with running(*(member(connection, f"r{at}", on_desired=hear).run() for at in range(2))):
        await state.set("digits", Action.LOAD)
        await eventually(lambda: len(heard) >= 2 and heard[-2:] == [heard[-1]] * 2 and bool(heard[-1]))
        wanted, calls = await state.all(), len(heard)
        redis_server.restart_empty()
        await eventually(lambda: _wants(state, wanted))
        assert len(heard) == calls, "nobody was told to unload in between"


async def test_what_was_wanted_after_the_emptying_wins_over_what_is_restored(connection: Connection) -> None:
    state = DesiredState(connection)
    await state.set("digits", Action.LOAD)
    known = await state.all()
    await connection.command("FLUSHALL")
    await state.set("digits", Action.UNLOAD)
    assert await state.restore(known) == 0
    assert (await state.all())["digits"].action is Action.UNLOAD


async def test_when_nobody_remembers_nothing_is_wanted(redis_server: RedisServer, connection: Connection) -> None:
    await DesiredState(connection).set("digits", Action.UNLOAD)
    redis_server.restart_empty()
    await eventually(lambda: _wants(DesiredState(connection), {}))


# ---------------------------------------------------------------- statistics


async def test_statistics_of_the_departed_stay(connection: Connection) -> None:
    one = member(connection, "gone")
    async with running(one.run()):
        one.put_statistics("digits", 1, b"40")
        await eventually(lambda: _total_is(connection, 40))
    two = member(connection, "here")
    async with running(two.run()):
        two.put_statistics("digits", 1, b"2")
        await eventually(lambda: _total_is(connection, 42))


async def test_too_many_departed_are_folded_and_the_total_stays(connection: Connection) -> None:
    for at in range(30):
        writer = StatisticsWriter(connection, f"r{at}", fold=summed, departed_max=5, departed_s=-1.0)
        writer.put("digits", 1, b"10")
        await writer.flush()
        assert await total(connection) == 10 * (at + 1)
    assert len(await Statistics(connection).of("digits", 1)) <= 6


async def test_two_that_fold_at_once_count_nobody_twice(connection: Connection) -> None:
    writers = [StatisticsWriter(connection, f"r{at}", fold=summed, departed_max=3, departed_s=-1.0) for at in range(20)]
    for writer in writers:
        writer.put("digits", 1, b"1")
    await asyncio.gather(*(writer.flush() for writer in writers))
    assert await total(connection) == 20


async def test_without_a_sum_the_oldest_departed_are_dropped(connection: Connection) -> None:
    for at in range(8):
        writer = StatisticsWriter(connection, f"r{at}", departed_max=3, departed_s=-1.0)
        writer.put("digits", 1, b"1")
        await writer.flush()
    kept = await Statistics(connection).of("digits", 1)
    assert FOLDED not in kept
    assert len(kept) == 3


async def test_after_an_emptying_the_living_write_their_statistics_again(
    redis_server: RedisServer, connection: Connection
) -> None:
    one = member(connection)
    async with running(one.run()):
        one.put_statistics("digits", 1, b"7")
        await eventually(lambda: _total_is(connection, 7))
        redis_server.restart_empty()
        await eventually(lambda: _total_is(connection, 7))


# ---------------------------------------------------------------- limits and depths


async def test_many_callers_take_no_more_than_the_bucket_holds(connection: Connection) -> None:
    limits = Limits(connection)
    taken = await asyncio.gather(*(limits.take("acme", "digits", 1, rate=0.001, burst=10) for _ in range(40)))
    assert sum(one.allowed for one in taken) == 10
    refused = next(one for one in taken if not one.allowed)
    assert refused.retry_after_s is not None
    assert 900 < refused.retry_after_s <= 1000


async def test_buckets_fill_again_and_are_apart(connection: Connection) -> None:
    limits = Limits(connection)
    assert (await limits.take("acme", "digits", 5, rate=50, burst=5)).allowed
    assert not (await limits.take("acme", "digits", 5, rate=50, burst=5)).allowed
    assert (await limits.take("acme", ALL_MODELS, 5, rate=50, burst=5)).allowed
    assert (await limits.take("other", "digits", 5, rate=50, burst=5)).allowed
    await eventually(lambda: _allowed(limits))


async def test_more_than_a_bucket_holds_is_never_allowed(connection: Connection) -> None:
    taken = await Limits(connection).take("acme", "digits", 6, rate=50, burst=5)
    assert not taken.allowed
    assert taken.retry_after_s is None


@pytest.mark.parametrize("numbers", [(0, 1, 1), (1, 0, 1), (1, 1, -1), (float("nan"), 1, 1), (1, float("inf"), 1)])
async def test_numbers_that_make_no_bucket_are_refused(
    connection: Connection, numbers: tuple[float, float, float]
) -> None:
    tokens, rate, burst = numbers
    with pytest.raises(ValueError, match="must be positive"):
        await Limits(connection).take("acme", "digits", tokens, rate=rate, burst=burst)


async def test_without_redis_nothing_is_limited(redis_server: RedisServer, connection: Connection) -> None:
    redis_server.kill()
    taken = await Limits(connection).take("acme", "digits", 1, rate=1, burst=1)
    assert taken.allowed
    assert not taken.known


async def test_depths_sum_up_by_source_and_expire(connection: Connection) -> None:
    depths = QueueDepths(connection)
    await depths.set(DIGITS, "a", 3)
    await depths.set(DIGITS, "b", 4)
    await depths.set(DIGITS, "b", 5)
    await depths.set(DIGITS, "brief", 100, ttl_s=0.02)
    await depths.set(PoolKey("digits", 1, 1), "a", 50)
    await eventually(lambda: _depth_is(depths, 8))


# ---------------------------------------------------------------- tuning and plans


async def test_tuned_values_are_merged_and_plans_are_versioned(connection: Connection) -> None:
    facts = ModelFacts(connection)
    assert await facts.tuned("digits", 1) == {}
    assert await facts.plan("digits", 1) is None
    await facts.set_tuned("digits", 1, {"alpha": b"1", "beta": b"2"})
    await facts.set_tuned("digits", 1, {"beta": b"\x00\xff"})
    await facts.set_tuned("digits", 1, {})
    assert await facts.tuned("digits", 1) == {"alpha": b"1", "beta": b"\x00\xff"}
    assert await facts.set_plan("digits", 1, b"p1", expected=0) == 1
    with pytest.raises(StaleRevision, match="at revision 1, not 0"):
        await facts.set_plan("digits", 1, b"p2", expected=0)
    assert await facts.set_plan("digits", 1, b"p3") == 2
    assert await facts.plan("digits", 1) == StoredPlan(2, b"p3")
    await facts.forget("digits", 1)
    assert await facts.plan("digits", 1) is None


# ---------------------------------------------------------------- the table of keys


async def test_every_key_in_redis_is_in_the_table_with_its_type_and_expiry(connection: Connection) -> None:
    one = member(connection)
    one.report({DIGITS: LoadReport(1)})
    one.put_statistics("digits", 1, b"1")
    await DesiredState(connection).set("digits", Action.LOAD)
    await Limits(connection).take("acme", "digits", 1, rate=1, burst=1)
    await QueueDepths(connection).set(DIGITS, "a", 1)
    await ModelFacts(connection).set_tuned("digits", 1, {"a": b"1"})
    await ModelFacts(connection).set_plan("digits", 1, b"p")
    async with running(one.run()):
        await eventually(lambda: _total_is(connection, 1))
        found = set()
        for key in await connection.command("KEYS", "*"):
            row = entry_of(key.decode())
            assert row is not None, key
            found.add(row.name)
            kind = await connection.command("TYPE", key)
            assert (kind.decode() if isinstance(kind, bytes) else kind) == row.type
            expires = await connection.command("PTTL", key) > 0
            assert expires != row.expiry.startswith(("never", "when the version")), row
    assert found == {row.name for row in TABLE if row.type != "channel"}


async def test_a_survey_says_how_long_each_lease_lasts(connection: Connection) -> None:
    async with running(member(connection).run()):
        await eventually(lambda: _seen(connection))


async def _seen(connection: Connection) -> bool:
    sightings = (await survey(connection, REPLICA)).sightings or {}
    return bool(sightings) and 0 < sightings["r1"].lease_s <= 0.6


async def _total_is(connection: Connection, number: int) -> bool:
    try:
        return await total(connection) == number
    except RedisAway:
        return False


async def _wants(state: DesiredState, wanted: dict[str, Desired]) -> bool:
    try:
        return await state.all() == wanted
    except RedisAway:
        return False


async def _allowed(limits: Limits) -> bool:
    return (await limits.take("acme", "digits", 5, rate=50, burst=5)).allowed


async def _depth_is(depths: QueueDepths, rows: int) -> bool:
    return await depths.of(DIGITS) == rows

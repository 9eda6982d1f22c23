"""When to try Redis again, and what a URL may say."""

from __future__ import annotations

import pytest

from shardline.coord.connection import Access, Breaker, Connection

BAD_URLS = ["", "localhost", "http://localhost", "redis://", "redis://h:port", "redis://h:99999", "unix://", "rediss:h"]


def never_jitter(delay_s: float) -> float:
    return delay_s


def test_while_nothing_failed_everyone_may_call() -> None:
    breaker = Breaker()
    assert all(breaker.allows(now) for now in (0.0, 0.0, 1.0))


def test_after_a_failure_one_caller_tries_per_step() -> None:
    breaker = Breaker(first_s=1.0, cap_s=4.0, jitter=never_jitter)
    breaker.failed(10.0)
    assert not breaker.allows(10.9)
    assert breaker.allows(11.0)
    assert not breaker.allows(11.1), "the one that tries has not failed yet"


def test_steps_double_up_to_the_cap() -> None:
    breaker = Breaker(first_s=1.0, cap_s=4.0, jitter=never_jitter)
    now, steps = 0.0, []
    for _ in range(5):
        breaker.failed(now)
        step = next(step for step in range(1, 100) if breaker.allows(now + step))
        steps.append(step)
        now += step
    assert steps == [1, 2, 4, 4, 4]


def test_an_answer_lets_everyone_call_again() -> None:
    breaker = Breaker(first_s=100.0)
    breaker.failed(0.0)
    breaker.succeeded()
    assert breaker.allows(0.0)


def test_very_many_failures_do_not_overflow() -> None:
    breaker = Breaker(first_s=1.0, cap_s=2.0, jitter=never_jitter)
    for _ in range(5000):
        breaker.failed(0.0)
    assert breaker.allows(2.0)


@pytest.mark.parametrize("url", BAD_URLS)
def test_what_is_no_redis_url_says_what_is(url: str) -> None:
    with pytest.raises(ValueError, match="not a Redis URL: expected redis://"):
        Connection(url)


def test_an_unknown_option_in_the_url_is_named() -> None:
    with pytest.raises(ValueError, match="unknown option 'ssl'"):
        Connection("rediss://h:1/0?ssl=yes")


@pytest.mark.parametrize("url", ["redis://me:hush@h:7000/1", "rediss://:hush@h:7000", "redis://:hush@h:port"])
def test_a_password_shows_in_nothing_a_person_may_see(url: str) -> None:
    try:
        shown = f"{Connection(url).where}"
        assert shown == "h:7000"
    except ValueError as error:
        shown = str(error)
    assert "hush" not in shown
    assert "hush" not in repr(Access(password="hush"))


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("redis://h", "h:6379"),
        ("redis://[::1]:7/2", "[::1]:7"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
        ("rediss://h:1?ssl_ca_certs=/ca.pem", "h:1"),
    ],
)
def test_a_connection_knows_where_it_leads(url: str, where: str) -> None:
    assert Connection(url).where == where

"""The way to Redis: short timeouts on every operation, reconnects with backoff, errors in one line.

While Redis is away calls fail at once instead of waiting for it: after a failure only one attempt per backoff step
goes out (`Breaker`), so a caller on a request's path never pays more than one timeout per step.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import random
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import parse_qs, urlsplit

import redis.asyncio
from redis import exceptions
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from shardline.coord.errors import RedisAway, RedisRefused
from shardline.coord.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

log = logging.getLogger(__name__)

T = TypeVar("T")
Value = bytes | str | int | float

_UNUSABLE = (exceptions.ConnectionError, exceptions.TimeoutError, OSError, TimeoutError)
_QUERY = frozenset({"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})
_FORMS = "redis://[[user]:password@]host[:port][/db], rediss://… (TLS) or unix:///path/to/socket"


@dataclass(frozen=True, slots=True)
class Access:
    """What the URL need not say: secrets and files, mostly from the environment. Wins over the URL.

    ca_file: who signs the server's certificate ("" = the system's). cert_file, key_file: our own, for mutual TLS.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    check_hostname: bool = True


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and its SHA-1, by which Redis caches it."""

    text: str

    @property
    def digest(self) -> str:
        """What EVALSHA wants."""
        return _digest(self.text)


def jittered(delay_s: float) -> float:
    """Between half of it and all of it, so that processes that lost Redis together do not return together."""
    return delay_s * (0.5 + 0.5 * random.random())  # noqa: S311 (nothing secret)


class Breaker:
    """Whether to try again now. Pure: time comes in. Delays double from first_s to cap_s, with jitter."""

    def __init__(self, first_s: float = 0.05, cap_s: float = 1.0, jitter: Callable[[float], float] = jittered) -> None:
        self.first_s = first_s
        self.cap_s = cap_s
        self.failures = 0
        self._jitter = jitter
        self._closed_until = 0.0

    def allows(self, now: float) -> bool:
        """True if nothing failed, or the wait is over; then one caller may try and the others wait on."""
        if self.failures == 0:
            return True
        if now < self._closed_until:
            return False
        self._closed_until = now + self._delay()
        return True

    def succeeded(self) -> None:
        """Redis answered: everyone may call."""
        self.failures = 0

    def failed(self, now: float) -> None:
        """Redis did not answer."""
        self.failures += 1
        self._closed_until = now + self._delay()

    def _delay(self) -> float:
        steps = min(self.failures, 30)
        return self._jitter(min(self.cap_s, self.first_s * 2.0 ** max(0, steps - 1)))


class Connection:
    """A cluster's Redis. Connects on first use; close it, or use it as an async context manager.

    url: one of `redis://[[user]:password@]host[:port][/db]`, `rediss://…` (TLS), `unix:///path`.
    timeout_s: bound of every operation. on_health: called with (reachable, one line) when that changes.
    Raises ValueError, without the password, on a URL that is none.
    """

    def __init__(
        self,
        url: str,
        cluster: str = "default",
        *,
        access: Access | None = None,
        timeout_s: float = 1.0,
        connections: int = 8,
        on_health: Callable[[bool, str], None] | None = None,
    ) -> None:
        self.keys = Keys(cluster)
        self.timeout_s = timeout_s
        self.where = _where(url)
        self.reachable: bool | None = None
        """None until the first operation ended."""
        self._on_health = on_health
        self._breaker = Breaker()
        self._why = f"cannot reach Redis at {self.where}: not tried yet"
        options = _options(url, access or Access(), timeout_s)
        self._pool: Any = redis.asyncio.BlockingConnectionPool(
            max_connections=connections, timeout=timeout_s, **options
        )
        self._client: Any = redis.asyncio.Redis(connection_pool=self._pool)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all sockets. Never raises because of Redis."""
        try:
            async with asyncio.timeout(self.timeout_s):
                await self._pool.aclose()
        except (exceptions.RedisError, *_UNUSABLE) as error:
            log.debug("redis.close: %s", _cause(error))

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Value], *, probe: bool = False) -> Any:
        """Run a script, by its digest where Redis has it cached. probe: try even while Redis is known to be away.

        Raises RedisAway, within timeout_s, and RedisRefused.
        """

        async def evaluate() -> Any:
            try:
                return await self._client.execute_command("EVALSHA", script.digest, len(keys), *keys, *args)
            except exceptions.NoScriptError:
                return await self._client.execute_command("EVAL", script.text, len(keys), *keys, *args)

        return await self.guarded(evaluate, probe=probe)

    async def command(self, *words: Value, probe: bool = False) -> Any:
        """Run one command. Raises RedisAway, within timeout_s, and RedisRefused."""
        return await self.guarded(lambda: self._client.execute_command(*words), probe=probe)

    async def ping(self) -> float:
        """Seconds that a PING took. Raises RedisAway."""
        start = time.perf_counter()
        await self.command("PING", probe=True)
        return time.perf_counter() - start

    def subscribe(self, channels: Sequence[str]) -> Subscription:
        """A subscription on a socket of its own; enter it to connect."""
        return Subscription(self, channels)

    def socket(self) -> Any:
        """A redis-py connection outside the pool, not connected yet."""
        return self._pool.make_connection()

    async def guarded(self, operation: Callable[[], Awaitable[T]], *, probe: bool) -> T:
        """Run an operation on Redis in bounded time. Raises RedisAway and RedisRefused, nothing else of redis-py."""
        with _no_cancellation_lost():
            return await self._attempt(operation, probe)

    async def _attempt(self, operation: Callable[[], Awaitable[T]], probe: bool) -> T:
        if not probe and not self._breaker.allows(time.monotonic()):
            raise RedisAway(self._why, retry_after_s=self._breaker.cap_s)
        try:
            # redis-py bounds connecting and each read by timeout_s; this bounds their sum.
            async with asyncio.timeout(2 * self.timeout_s):
                answer = await operation()
        except exceptions.AuthenticationError as error:
            raise self._lost(error) from None
        except _UNUSABLE as error:
            raise self._lost(error) from None
        except exceptions.RedisError as error:
            self._found()
            raise RedisRefused(f"Redis at {self.where} refused: {_cause(error)}") from None
        self._found()
        return answer

    def _found(self) -> None:
        self._breaker.succeeded()
        if self.reachable is not True:
            self._changed(True, f"Redis at {self.where} answers")

    def _lost(self, error: BaseException) -> RedisAway:
        self._breaker.failed(time.monotonic())
        self._why = f"cannot reach Redis at {self.where}: {_cause(error)}"
        if self.reachable is not False:
            self._changed(False, self._why)
        return RedisAway(self._why, retry_after_s=self._breaker.cap_s)

    def _changed(self, reachable: bool, line: str) -> None:
        self.reachable = reachable
        log.log(logging.INFO if reachable else logging.WARNING, "redis.health: %s", line)
        if self._on_health is not None:
            self._on_health(reachable, line)


class Subscription:
    """Messages of some channels, on a socket of its own. A context manager: entered connected, left closed.

    redis-py's PubSub is not used: it reconnects by itself, and then nobody learns that messages were missed.
    """

    def __init__(self, connection: Connection, channels: Sequence[str]) -> None:
        self._connection = connection
        self._channels = channels
        self._socket: Any = None

    async def __aenter__(self) -> Self:
        await self._connection.guarded(self._open, probe=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._socket.disconnect(nowait=True)

    async def next(self, timeout_s: float) -> tuple[str, bytes] | None:
        """The next (channel, payload), or None when timeout_s passed without one. Raises RedisAway."""
        try:
            with _no_cancellation_lost():
                answer = await self._socket.read_response(timeout=timeout_s, disconnect_on_error=False)
        except (exceptions.TimeoutError, TimeoutError):
            return None
        except (exceptions.RedisError, OSError) as error:
            raise RedisAway(f"lost the subscription at {self._connection.where}: {_cause(error)}") from None
        if answer is None or answer[0] != b"message":
            return None
        return answer[1].decode(), answer[2]

    async def _open(self) -> None:
        self._socket = self._connection.socket()
        try:
            await self._socket.connect()
            await self._socket.send_command("SUBSCRIBE", *self._channels)
            for _ in self._channels:
                await self._socket.read_response()
        except BaseException:
            await self._socket.disconnect(nowait=True)
            raise


@contextlib.contextmanager
def _no_cancellation_lost() -> Iterator[None]:
    """Raise the CancelledError of this task that was swallowed within.

    redis-py sends under `asyncio.wait_for`, which before Python 3.12 forgets a cancellation that comes in the turn in
    which the sending ends: the task would run on, and whoever cancelled it would wait for ever (bpo-37658).
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


def _digest(text: str) -> str:
    found = _DIGESTS.get(text)
    if found is None:
        found = _DIGESTS[text] = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return found


_DIGESTS: dict[str, str] = {}


def _where(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError:
        raise ValueError(f"not a Redis URL: expected {_FORMS}") from None
    if parts.scheme == "unix" and parts.path:
        return parts.path
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise ValueError(f"not a Redis URL: expected {_FORMS}")
    unknown = sorted(set(parse_qs(parts.query)) - _QUERY)
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r} in the Redis URL; known are {', '.join(sorted(_QUERY))}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}"


def _options(url: str, access: Access, timeout_s: float) -> dict[str, Any]:
    try:
        options: dict[str, Any] = dict(parse_url(url))
    except ValueError:
        raise ValueError(f"not a Redis URL: expected {_FORMS}") from None
    options |= {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": None,  # CLIENT SETINFO is Redis 7.2
    }
    if access.username:
        options["username"] = access.username
    if access.password:
        options["password"] = access.password
    if urlsplit(url).scheme == "rediss":
        options |= _tls_options(access, options)
    return options


def _tls_options(access: Access, given: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {"ssl_min_version": ssl.TLSVersion.TLSv1_2}
    if "ssl_check_hostname" not in given:
        options["ssl_check_hostname"] = access.check_hostname
    files = {"ssl_ca_certs": access.ca_file, "ssl_certfile": access.cert_file, "ssl_keyfile": access.key_file}
    return options | {name: value for name, value in files.items() if value}


def _cause(error: BaseException) -> str:
    """One line that says why, in words a user can act on."""
    if isinstance(error, exceptions.AuthenticationError):
        return "wrong or missing password"
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return "timed out"
    text = str(error)
    if any(words in text for words in ("NOAUTH", "Authentication required", "invalid username-password pair")):
        return "wrong or missing password"
    below = _system_error(error)
    if isinstance(below, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {below.verify_message}"
    if isinstance(below, socket.gaierror):
        return "no such host"
    if below is not None and below.errno and not isinstance(below, ssl.SSLError):
        return os.strerror(below.errno).lower()
    line = " ".join(text.split()) or type(error).__name__
    return line[:300]


def _system_error(error: BaseException | None) -> OSError | None:
    """The first error below that the operating system or TLS gave: redis-py wraps it in words of its own."""
    for _ in range(5):
        if error is None or isinstance(error, OSError):
            return error
        error = error.__cause__ or error.__context__
    return None

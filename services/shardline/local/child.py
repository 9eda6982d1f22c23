"""One process of the local cluster: started, listened to, ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    LineSink = Callable[[str, str], None]
    """Takes the child's name and one line of its output, without the line's end."""

_KEPT_LINES = 50
_CHUNK_BYTES = 1 << 16
_LINE_BYTES = 1 << 16
_LAST_WORDS_S = 1.0
_FATAL_LEVELS = frozenset({"error", "critical"})


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How a child is started. role: router, replica or redis. environment: the whole of it.

    stdin: what it reads on its standard input, for what must not show in the process list. memory_bytes: bound on the
    memory it may map (RLIMIT_DATA), 0 for none.
    """

    name: str
    role: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    stdin: bytes = b""
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Output:
    reader: asyncio.StreamReader
    transport: asyncio.ReadTransport


class Child:
    """A running process. Its output (stdout and stderr are one stream) is read line by line until it ends."""

    def __init__(
        self, spec: ChildSpec, process: asyncio.subprocess.Process, output: _Output, on_line: LineSink
    ) -> None:
        self.spec = spec
        self.started_at = time.monotonic()
        self.gone = asyncio.Event()
        self._process = process
        self._output = output
        self._on_line = on_line
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)

    @classmethod
    async def start(cls, spec: ChildSpec, on_line: LineSink) -> Child:
        """Start the process. Raises OSError where the program cannot be run.

        It leads a process group of its own: a Ctrl-C in the terminal reaches the supervisor only, which then
        ends the cluster in order (routers, replicas, Redis).
        """
        output, write_end = await _open_output()
        try:
            process = await asyncio.create_subprocess_exec(
                *spec.argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=write_end,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(spec.environment),
                process_group=0,
            )
        except OSError:
            output.transport.close()
            raise
        finally:
            os.close(write_end)
        if spec.memory_bytes:
            _bound_memory(process.pid, spec.memory_bytes)
        assert process.stdin is not None
        process.stdin.write(spec.stdin)
        process.stdin.close()
        return cls(spec, process, output, on_line)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process has ended and was reaped."""
        return self._process.returncode is not None

    def life_s(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.started_at

    async def wait(self) -> int:
        """Read its output until it ends; returns the exit status, negative for a signal. Call it exactly once."""
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._read())
                status = await self._process.wait()
                # Its last words may still be in the pipe; a grandchild that holds the pipe open must not hold us.
                await asyncio.wait({reading}, timeout=_LAST_WORDS_S)
                reading.cancel()
        finally:
            self._output.transport.close()
        self.gone.set()
        return status

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def last_words(self) -> str:
        """The error it ended with, in one line: see `last_error`."""
        return last_error(self._lines)

    async def _read(self) -> None:
        held = b""
        while chunk := await self._output.reader.read(_CHUNK_BYTES):
            *lines, held = (held + chunk).split(b"\n")
            if len(held) > _LINE_BYTES:
                lines, held = [*lines, held], b""
            for line in lines:
                self._take(line)
        self._take(held)

    def _take(self, raw: bytes) -> None:
        line = raw.decode(errors="replace").rstrip()
        if line:
            self._lines.append(line)
            self._on_line(self.spec.name, line)


def _bound_memory(pid: int, size_bytes: int) -> None:
    """From outside, since between fork and exec Python cannot run safely beside threads; it has hardly begun by now."""
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_DATA, (size_bytes, size_bytes))


async def _open_output() -> tuple[_Output, int]:
    """A pipe: our end, and the file descriptor for the child. asyncio's own pipe can only be closed by its writers."""
    read_end, write_end = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", buffering=0)
    )
    return _Output(reader, transport), write_end


def last_error(lines: Sequence[str]) -> str:
    """The last line that tells an error, else the last line at all, in words for people.

    Lines are JSON log events where our own processes wrote them, and plain text from everything else.
    """
    for line in reversed(lines):
        event = parse_event(line)
        if event is not None and str(event.get("level")) in _FATAL_LEVELS:
            return describe_event(event)
        if event is None:
            return line.strip()
    return describe_line(lines[-1]) if lines else "it said nothing"


def parse_event(line: str) -> dict[str, object] | None:
    """A line as a log event; None where it is not one."""
    if not line.startswith("{"):
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def describe_line(line: str) -> str:
    """A line of output in words for people."""
    event = parse_event(line)
    return line if event is None else describe_event(event)


def describe_event(event: Mapping[str, object]) -> str:
    """A log event in one line: what happened and why, without stack."""
    happened = str(event.get("event", "")).strip()
    cause = str(event.get("error") or event.get("reason") or event.get("message") or "").strip()
    if not cause and isinstance(event.get("exception"), str):
        cause = str(event["exception"]).strip().rpartition("\n")[2]
    return ": ".join(part for part in (happened, cause) if part) or json.dumps(event)


def describe_status(status: int) -> str:
    """An exit status in words.

    >>> describe_status(-9)
    'killed by SIGKILL'
    """
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"

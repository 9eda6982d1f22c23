"""The supervisor's side of the sweeper: tell it what exists, so that it can clean up if we are killed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Self

from shardline.local import sweeper

if TYPE_CHECKING:
    from pathlib import Path

_STOP_S = 5.0


class Sweeping:
    """A running sweeper."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls) -> Self:
        """Start the sweeper, in a session of its own so that nothing aimed at ours ends it.

        -I -S: nothing but the standard library, whatever the environment says.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(sweeper.__file__)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def watch(self, pid: int) -> None:
        """End this process when we are gone."""
        self._tell(f"watch {pid}")

    def forget(self, pid: int) -> None:
        """This process has ended."""
        self._tell(f"forget {pid}")

    def remove(self, path: Path) -> None:
        """Remove this file or folder when we are gone."""
        self._tell(f"remove {path}")

    async def finish(self) -> None:
        """Let it sweep what is left, and wait for its end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        # A sweeper that was killed costs the backstop only; our children also notice on their own.
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(f"{line}\n".encode())

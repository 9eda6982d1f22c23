"""Start `shardline serve` as a child process, wait until it answers, stop it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import IO, Any

POLL_S = 0.05
STOP_S = 20.0
"""How long a server may take to drain and end its children after SIGTERM."""

LAST_WORDS = 2000
"""Bytes of the server's output that a failure quotes."""


class NotServing(RuntimeError):
    """The server ended, or was not ready in time. The message has its last words."""


def free_port() -> int:
    """A TCP port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def serve(
    repository: Path, models: Sequence[str], replicas: int, patience_s: float, extra: Sequence[str] = ()
) -> Iterator[str]:
    """Run a cluster for these models of a repository while the block runs, and yield its HOST:PORT.

    patience_s: the longest time until it is ready. extra: further arguments of `shardline serve`. Raises NotServing.
    """
    port = free_port()
    command = [sys.executable, "-m", "shardline.cli", "serve", str(repository), "--models", ",".join(models)]
    command += ["--replicas", str(replicas), "--port", str(port), "--metrics-port", "0"]
    command += ["--cluster", f"demo-{port}", *extra]
    url = f"127.0.0.1:{port}"
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603
        try:
            _await_ready(child, url, models, time.monotonic() + patience_s, output)
            yield url
        finally:
            _stop(child)


def _await_ready(
    child: subprocess.Popen[bytes], url: str, models: Sequence[str], deadline: float, output: IO[bytes]
) -> None:
    from tritonclient.grpc import InferenceServerClient

    with contextlib.closing(InferenceServerClient(url)) as client:
        while not _ready(client, models):
            if child.poll() is not None:
                raise NotServing(f"the server ended with status {child.returncode}:\n{_last_words(output)}")
            if time.monotonic() > deadline:
                raise NotServing(f"the server was not ready in time:\n{_last_words(output)}")
            time.sleep(POLL_S)


def _ready(client: Any, models: Sequence[str]) -> bool:
    from tritonclient.utils import InferenceServerException

    try:
        return bool(client.is_server_ready() and all(client.is_model_ready(name) for name in models))
    except InferenceServerException:
        return False


def _last_words(output: IO[bytes]) -> str:
    end = output.seek(0, 2)
    output.seek(max(0, end - LAST_WORDS))
    return output.read().decode(errors="replace").strip()


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()

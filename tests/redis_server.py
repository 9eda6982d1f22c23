"""A real Redis server for tests: on loopback, in a temporary folder, that can be killed, paused and restarted empty."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from shardline.coord.connection import Access
from shardline.coord.server import find_redis_server, server_argv, server_settings
from tests.ports import free_port

START_S = 10.0


@dataclass(frozen=True)
class Certificates:
    """A throwaway authority and a certificate of it for `localhost` and 127.0.0.1."""

    ca: Path
    cert: Path
    key: Path


class RedisServer:
    """One server process. Use it as a context manager: left, it is killed."""

    def __init__(
        self,
        directory: Path,
        *,
        password: str = "",
        certificates: Certificates | None = None,
        on_unix_socket: bool = False,
        binary: Path | None = None,
    ) -> None:
        self.directory = directory
        self.password = password
        self.certificates = certificates
        self.socket = directory / "redis.sock" if on_unix_socket else None
        self.binary = binary or find_redis_server()
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Without the password."""
        if self.socket is not None:
            return f"unix://{self.socket}"
        scheme = "redis" if self.certificates is None else "rediss"
        return f"{scheme}://localhost:{self.port}/0" if self.certificates else f"{scheme}://127.0.0.1:{self.port}/0"

    @property
    def access(self) -> Access:
        """What a client needs beside the URL."""
        return Access(password=self.password, ca_file=str(self.certificates.ca) if self.certificates else "")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start on the port of last time, or a free one; return when it answers."""
        for _ in range(5):
            self.port = self.port or free_port()
            if self._launch():
                return
            self.port = 0  # somebody took it in between
        raise RuntimeError(f"{self.binary} does not start: {self._log()}")

    def kill(self) -> None:
        """kill -9, and everything in it is gone."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(timeout=START_S)
            self.process = None

    def restart_empty(self) -> None:
        """kill -9, then a new server at the same address."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: sockets stay open and nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _launch(self) -> bool:
        settings = server_settings(
            self.directory, port=0 if self.certificates else self.port, unix_socket=self.socket, password=self.password
        ) if not self.certificates else self._tls_settings()  # fmt: skip
        with (self.directory / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                server_argv(self.binary), stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self.directory
            )
        assert self.process.stdin is not None
        self.process.stdin.write(settings.encode())
        self.process.stdin.close()
        until = time.monotonic() + START_S
        while time.monotonic() < until and self.process.poll() is None:
            if self._listens():
                return True
            time.sleep(0.01)
        self.kill()
        return False

    def _tls_settings(self) -> str:
        assert self.certificates is not None
        plain = server_settings(self.directory, port=self.port, password=self.password)
        return plain.replace(f"port {self.port}\n", f"port 0\ntls-port {self.port}\n") + (
            f"tls-cert-file {self.certificates.cert}\ntls-key-file {self.certificates.key}\n"
            f"tls-ca-cert-file {self.certificates.ca}\ntls-auth-clients no\n"
        )

    def _listens(self) -> bool:
        family = socket.AF_INET if self.socket is None else socket.AF_UNIX
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            try:
                probe.connect(("127.0.0.1", self.port) if self.socket is None else str(self.socket))
                if self.certificates is not None:
                    return True
                probe.sendall(b"PING\r\n")
                return probe.recv(64)[:1] in (b"+", b"-")
            except OSError:
                return False

    def _log(self) -> str:
        path = self.directory / "redis.log"
        return path.read_text(errors="replace")[-500:] if path.exists() else "no log"


def all_redis_servers() -> list[Path]:
    """Every server binary there is, the preferred one first: PATH may hold several versions."""
    found = [find_redis_server()]
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        for name in ("redis-server", "valkey-server"):
            binary = shutil.which(name, path=folder)
            if binary is not None and not any(known.samefile(binary) for known in found):
                found.append(Path(binary))
    return found


def missing(server: str) -> None:
    """A server that a test needs is not there: an error in CI, skipped by name elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(f"{server} is missing, and CI must have it")
    pytest.skip(f"needs {server}")


def make_certificates(directory: Path) -> Certificates:
    """A new authority and server certificate, made by the openssl command line."""
    openssl = shutil.which("openssl")
    if openssl is None:
        missing("the openssl command line")
        raise AssertionError  # pragma: no cover: missing() never returns
    ca, ca_key = directory / "ca.pem", directory / "ca.key"
    cert, key, request = directory / "server.pem", directory / "server.key", directory / "server.csr"
    names = directory / "names"
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for words in (
        ["req", "-x509", *curve, "-keyout", ca_key, "-out", ca, "-days", "2", "-subj", "/CN=test authority"],
        ["req", *curve, "-keyout", key, "-out", request, "-subj", "/CN=localhost"],
        [
            "x509",
            "-req",
            "-in",
            request,
            "-CA",
            ca,
            "-CAkey",
            ca_key,
            "-CAcreateserial",
            "-out",
            cert,
            "-extfile",
            names,
        ],
    ):
        subprocess.run([openssl, *map(str, words)], check=True, capture_output=True, timeout=30)
    return Certificates(ca, cert, key)

"""Children, the sweeper and ports, with real processes and sockets."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from shardline.local import ports
from shardline.local.child import Child, ChildSpec
from shardline.local.failure import ClusterFailed
from shardline.local.sweeping import Sweeping

if TYPE_CHECKING:
    from collections.abc import Callable

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)


def spec(code: str, stdin: bytes = b"") -> ChildSpec:
    return ChildSpec("child", "replica", (sys.executable, "-c", code), dict(os.environ), stdin)


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  nothing tells it
            await asyncio.sleep(0.02)


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def started(code: str, lines: list[str], stdin: bytes = b"") -> Child:
    return await Child.start(spec(code, stdin), lambda _, line: lines.append(line))


async def test_a_child_hands_over_every_line_and_its_last_words() -> None:
    lines: list[str] = []
    code = "import sys; print('one'); print('x' * 200000); sys.stderr.write('last, without line end'); sys.exit(3)"
    child = await started(code, lines)
    assert await child.wait() == 3
    assert child.gone.is_set()
    assert (lines[0], lines[-1], child.last_words()) == ("one", "last, without line end", "last, without line end")
    assert sum(map(len, lines[1:-1])) == 200_000


async def test_what_must_not_show_in_the_process_list_goes_through_standard_input() -> None:
    lines: list[str] = []
    child = await started("print(input())", lines, b"secret\n")
    assert await child.wait() == 0
    assert lines == ["secret"]


async def test_a_grandchild_that_keeps_the_pipe_does_not_hold_up_the_childs_end() -> None:
    code = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]).pid, flush=True)"
    lines: list[str] = []
    child = await started(code, lines)
    async with asyncio.timeout(20):
        assert await child.wait() == 0
    os.kill(int(lines[0]), signal.SIGKILL)


async def test_a_signal_to_a_child_that_has_ended_does_nothing() -> None:
    child = await started("", [])
    await child.wait()
    child.signal(signal.SIGKILL)
    assert child.ended


async def test_a_program_that_does_not_exist_is_an_error_at_once() -> None:
    with pytest.raises(FileNotFoundError):
        await Child.start(ChildSpec("child", "redis", ("/nowhere/redis-server",), {}), lambda *_: None)


@pytest.mark.parametrize("code", [SLEEPER, STUBBORN])
async def test_the_sweeper_ends_what_a_killed_supervisor_left_and_removes_its_files(code: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "redis.sock").touch()
    (tmp_path / "state.json").touch()
    supervisor = textwrap.dedent(f"""
        import asyncio, pathlib
        from shardline.local.child import Child, ChildSpec
        from shardline.local.sweeping import Sweeping

        async def main():
            sweeping = await Sweeping.start()
            sweeping.remove(pathlib.Path({str(folder)!r}))
            sweeping.remove(pathlib.Path({str(tmp_path / "state.json")!r}))
            gone = await Child.start(ChildSpec("gone", "replica", ("true",), {{}}), lambda *_: None)
            sweeping.watch(gone.pid)
            await gone.wait()
            sweeping.forget(gone.pid)
            child = await Child.start({spec(code)!r}, lambda _, line: print(child.pid, sweeping.pid, flush=True))
            sweeping.watch(child.pid)
            await child.wait()

        asyncio.run(main())
    """)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", supervisor, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    child, sweeper = map(int, (await process.stdout.readline()).split())
    process.kill()
    await process.wait()
    await until(lambda: ended(child) and ended(sweeper))
    assert left_in(tmp_path) == []


async def test_the_sweeper_outlives_the_signals_that_end_a_terminals_processes() -> None:
    sweeping = await Sweeping.start()
    process = psutil.Process(sweeping.pid)
    await until(lambda: ignores(process.pid, signal.SIGTERM))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    assert process.is_running()
    await sweeping.finish()
    assert ended(process.pid)


async def test_a_killed_sweeper_does_not_stop_the_supervisor() -> None:
    sweeping = await Sweeping.start()
    os.kill(sweeping.pid, signal.SIGKILL)
    await until(lambda: ended(sweeping.pid))
    for _ in range(3):
        sweeping.watch(os.getpid())
        await asyncio.sleep(0)
    await sweeping.finish()


def ignores(pid: int, number: signal.Signals) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    mask = next(line for line in lines if line.startswith("SigIgn:")).split()[1]
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_a_taken_port_is_told_with_the_option_that_changes_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ClusterFailed, match=f"cannot listen on 127.0.0.1:{port} for gRPC: .* with --port"):
            ports.hold("127.0.0.1", port, "gRPC", "--port")
        with pytest.raises(ClusterFailed, match="for metrics"):
            ports.check_free("127.0.0.1", port, "metrics", "--metrics-port")


def test_an_address_that_is_not_ours_is_told() -> None:
    with pytest.raises(ClusterFailed, match=r"192\.0\.2\.1:0 for gRPC: cannot assign"):
        ports.hold("192.0.2.1", 0, "gRPC", "--port")


def test_a_held_port_is_shared_by_its_routers_and_by_no_other_cluster() -> None:
    with ports.hold("127.0.0.1", 0, "gRPC", "--port") as held:
        address = held.getsockname()
        with pytest.raises(ClusterFailed, match="already in use"):
            ports.hold("127.0.0.1", address[1], "gRPC", "--port")
        with socket.socket() as router:
            router.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            router.bind(address)
            router.listen()
            router.settimeout(10)
            for _ in range(20):
                with socket.create_connection(address, timeout=10):
                    router.accept()[0].close()


def test_a_port_is_free_again_when_it_is_let_go() -> None:
    with ports.hold("127.0.0.1", 0, "gRPC", "--port") as held:
        port = held.getsockname()[1]
    ports.check_free("127.0.0.1", port, "gRPC", "--port")

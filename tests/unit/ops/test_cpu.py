"""How many CPUs a process may use, from made-up cgroup folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardline.ops.allocator import keep_large_buffers
from shardline.ops.cpu import available_cpus, cgroup_quota

if TYPE_CHECKING:
    from pathlib import Path


def folder(root: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "self").write_text(own)
    return root, root / "self"


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
        ("0::/a/b\n", {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "400000 100000\n"}, 1.5),
        ("0::/a/b\n", {"cpu.max": "50000 100000\n", "a/b/cpu.max": "max 100000\n"}, 0.5),
        (
            "4:cpu,cpuacct:/pod\n2:memory:/pod\n",
            {"cpu/pod/cpu.cfs_quota_us": "300000\n", "cpu/pod/cpu.cfs_period_us": "100000\n"},
            3.0,
        ),
        (
            "4:cpu,cpuacct:/pod\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        ("", {}, None),
    ],
)
def test_the_tightest_quota_of_the_own_cgroup_and_those_above_it_holds(
    tmp_path: Path, own: str, files: dict[str, str], quota: float | None
) -> None:
    assert cgroup_quota(*folder(tmp_path, own, files)) == quota


@pytest.mark.parametrize(
    ("limit", "affinity", "cpus"),
    [("max 100000", 6, 6), ("250000 100000", 6, 2), ("50000 100000", 6, 1), ("800000 100000", 3, 3)],
)
def test_whole_cpus_within_both_quota_and_affinity_at_least_one(
    tmp_path: Path, limit: str, affinity: int, cpus: int
) -> None:
    root, own = folder(tmp_path, "0::/\n", {"cpu.max": limit})
    assert available_cpus(root, own, affinity) == cpus


def test_missing_cgroups_leave_the_affinity(tmp_path: Path) -> None:
    assert available_cpus(tmp_path / "none", tmp_path / "nowhere", 4) == 4
    assert available_cpus() >= 1


def test_the_allocator_is_told_only_where_it_is_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    class Mallopt:
        argtypes: tuple[type, ...] = ()
        restype: type | None = None

        def __call__(self, parameter: int, value: int) -> int:
            calls.append((parameter, value))
            return 1

    class Glibc:
        gnu_get_libc_version = None
        mallopt = Mallopt()

    class Musl:
        mallopt = Mallopt()

    monkeypatch.setattr("ctypes.CDLL", lambda _: Glibc)
    assert keep_large_buffers()
    assert calls == [(-3, 1 << 30), (-1, (1 << 31) - 1)]
    monkeypatch.setattr("ctypes.CDLL", lambda _: Musl)
    assert not keep_large_buffers()

"""What a replica was told to serve, and what it says of it where it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardline.ops.metrics import Metrics
from shardline.replica.devices import DeviceOptions
from shardline.replica.host import Host
from shardline.repository import LoadOptions
from tests.onnx_models import matmul, save

if TYPE_CHECKING:
    from pathlib import Path


def host(repository: Path, *models: str, version: int = 0) -> Host:
    options = LoadOptions(version=version)
    return Host(repository, models, DeviceOptions(), lambda: None, Metrics("replica", "0"), options)


async def test_a_told_model_that_is_broken_or_not_there_is_named_with_the_reason(tmp_path: Path) -> None:
    save(tmp_path, "good", 1, matmul())
    (tmp_path / "broken/1").mkdir(parents=True)
    (tmp_path / "broken/1/model.onnx").write_bytes(b"no model")
    for told, words in {"broken": "not an ONNX model", "absent": "not in the repository"}.items():
        replica = host(tmp_path, "good", told)
        await replica.load_all()
        reason = replica.missing({})
        assert reason.startswith(f"model '{told}'")
        assert words in reason
        assert replica.missing({told: True}) == "", "it was unloaded by hand"


async def test_one_version_is_served_whatever_the_policy_says(tmp_path: Path) -> None:
    for version in (1, 2):
        save(tmp_path, "m", version, matmul())
    newest, pinned = host(tmp_path, "m"), host(tmp_path, "m", version=1)
    for replica in (newest, pinned):
        await replica.load_all()
    assert [pool.version for pool in newest.pools] == [2]
    assert [pool.version for pool in pinned.pools] == [1]
    absent = host(tmp_path, "m", version=3)
    await absent.load_all()
    assert "version 3" in absent.missing({})

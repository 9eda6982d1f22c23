"""What a user asks of a local cluster, and how it can fail."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shardline.local.failure import ClusterFailed
from shardline.ops import settings
from shardline.ops.settings import ClusterSettings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardline.local.wishes import Wish

LOCAL_HOST = "127.0.0.1"
"""A cluster on a laptop is not the network's: other addresses are asked for, by flag or environment."""
_FLAGS = {
    "--redis-url=": "--redis=",
    "--start-s=": "--start-timeout=",
    "--replica-memory-bytes=": "--replica-memory=",
}


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """A local cluster.

    settings: from flags and environment. models: names to serve, all if empty. all_lines: children log as much as the settings
    say, since someone reads it; else warnings and errors only. splits: models to split, and their versions.
    plan_estimate: times are guessed where a plan is made.
    """

    settings: ClusterSettings
    models: tuple[str, ...] = ()
    all_lines: bool = False
    splits: Mapping[str, Wish] = field(default_factory=dict)
    versions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    plan_estimate: bool = False

    @property
    def endpoint(self) -> str:
        """Where clients on this machine connect: a wildcard address is not one to connect to."""
        host = {"0.0.0.0": LOCAL_HOST, "::": "::1"}.get(self.settings.host, self.settings.host)  # noqa: S104
        return f"[{host}]:{self.settings.port}" if ":" in host else f"{host}:{self.settings.port}"


def load_settings(**flags: Any) -> ClusterSettings:
    """Settings from flags that are not None, then the environment, then defaults. Raises ClusterFailed.

    Both listeners stay on the loopback interface unless someone says otherwise.
    """
    host = flags.get("host") or os.environ.get(f"{settings.PREFIX}HOST") or LOCAL_HOST
    metrics_host = os.environ.get(f"{settings.PREFIX}METRICS_HOST") or host
    try:
        return settings.load(ClusterSettings, **{**flags, "host": host, "metrics_host": metrics_host})
    except SettingsError as error:
        raise ClusterFailed(_with_flags(str(error))) from error


def _with_flags(message: str) -> str:
    """The message with the flags as the command line calls them, where that is not the setting's name."""
    for setting, flag in _FLAGS.items():
        message = message.replace(setting, flag)
    return message

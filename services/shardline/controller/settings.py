"""The controller's settings, from the environment, as `shardline.ops.settings` reads them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from shardline.ops.settings import ProcessSettings


class ControllerSettings(ProcessSettings):
    """The controller."""

    namespace: str = Field(min_length=1, description="The namespace whose Models it looks after.")
    pod: str = Field("", description="This pod's name: who holds the leader's Lease.")
    leader_lease: str = Field("shardline-controller", description="Name of the leader's Lease.")
    leader_lease_s: float = Field(
        15.0, ge=3, description="Seconds after which another pod takes the Lease of a leader that is gone."
    )
    pods_file: Path = Field(
        Path("/etc/shardline/replicas/pods.yaml"), description="What every replica's pod gets (written by the chart)."
    )
    resync_s: float = Field(60.0, gt=0, description="Every Model is looked at again after so many seconds.")

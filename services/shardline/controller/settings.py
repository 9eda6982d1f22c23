"""The controller's settings, from the environment, as `shardline.ops.settings` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

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


class _OneModel(ProcessSettings):
    """A process that works on one model of a repository."""

    repository: str = Field(description="Model repository: a folder.")
    models: Annotated[tuple[str, ...], NoDecode] = Field(min_length=1, max_length=1, description="The model.")
    version: int = Field(0, ge=0, description="Its version; 0: what its version policy asks for.")

    @field_validator("models", mode="before")
    @classmethod
    def _one_name(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class PlannerSettings(_OneModel):
    """A planning job."""

    stages: int = Field(0, ge=0, description="How many stages; 0: as few as fit stage_memory_bytes.")
    stage_memory_bytes: int = Field(
        0, ge=0, description="Memory that one stage's pod may take, in bytes; 0: unlimited."
    )
    estimate: bool = Field(
        False, description="Whether times are guessed from operations and bytes instead of measured."
    )


class FetchSettings(_OneModel):
    """A replica's pod that brings its model first."""

    cache: str = Field(description="Folder that entries are kept in.")
    cache_bytes: int = Field(0, ge=0, description="Entries beyond so many bytes are removed when unused; 0: never.")
    plan: str = Field("", description="The plan's file where the model is split; empty: it is whole.")
    stage_index: int = Field(0, ge=0, description="Which stage.")

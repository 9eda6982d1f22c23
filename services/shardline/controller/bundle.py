"""A plan on its way from the planning job to the pods of the stages: one gzipped JSON document of a few kilobytes.

Beside the plan it holds what a pod of one stage cannot find out without reading the whole model: what was written for each stage, when
all were compared with the whole (stages.json), and the whole model's shell and config.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from shardline.core.errors import ModelRejected
from shardline.partition.plan import PLAN_FILE, Plan, parse_plan
from shardline.repository.layout import CONFIG_NAMES, is_model_name

if TYPE_CHECKING:
    from pathlib import Path

STAGES_FILE = "stages.json"
REPOSITORY = "repository"
MAX_BYTES = 256 << 20
"""Of the document unpacked: what is read before it was checked is bounded."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """plan, written: the texts of plan.json and stages.json, "" where one pod serves the whole model. shell: of the whole model.

    config_name, config: the model's own config file, "" where it has none.
    """

    model: str
    version: int
    plan: str = ""
    written: str = ""
    shell: bytes = b""
    config_name: str = ""
    config: str = ""
    suggested: tuple[int, ...] = field(default=(1,))
    summary: str = "one pod holds the whole model"

    @property
    def stages(self) -> int:
        """How many."""
        return len(self.suggested)

    def pack(self) -> bytes:
        """The document; the same bundle gives the same bytes."""
        text = json.dumps({**asdict(self), "shell": base64.b64encode(self.shell).decode()}, sort_keys=True)
        return gzip.compress(text.encode(), mtime=0)

    @classmethod
    def unpack(cls, body: bytes) -> Bundle:
        """Inverse of pack. Raises ModelRejected."""
        try:
            with gzip.open(io.BytesIO(body)) as stream:
                text = stream.read(MAX_BYTES + 1)
            if len(text) > MAX_BYTES:
                raise ModelRejected(f"the plan is larger than {MAX_BYTES} bytes")
            fields = json.loads(text)
            fields["shell"] = base64.b64decode(fields["shell"], validate=True)
            fields["suggested"] = tuple(fields["suggested"])
            bundle = cls(**fields)
        except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
            raise ModelRejected(f"the plan cannot be read: {error}") from error
        if not is_model_name(bundle.model) or bundle.version < 1 or bundle.config_name not in ("", *CONFIG_NAMES):
            raise ModelRejected("the plan cannot be read: it names files that are no model's")
        return bundle

    def write(self, folder: Path) -> Plan:
        """Lay plan, digests, shell and config out as a stage's replica expects them. Raises ModelRejected."""
        plan = parse_plan(self.plan)
        (folder / PLAN_FILE).write_text(self.plan, encoding="utf-8")
        (folder / STAGES_FILE).write_text(self.written, encoding="utf-8")
        version = folder / REPOSITORY / self.model / str(self.version)
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(self.shell)
        if self.config_name:
            (version.parent / self.config_name).write_text(self.config, encoding="utf-8")
        return plan


def digest_of(body: bytes) -> str:
    """SHA-256 of a packed bundle, in hex."""
    return hashlib.sha256(body).hexdigest()

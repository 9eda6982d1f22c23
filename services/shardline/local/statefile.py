"""Which clusters run on this machine: one small file each, so that `shardline status` finds them."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunningCluster:
    """A local cluster. redis: its URL, which may hold a password: the file is readable by its user only. cluster: its name in Redis.

    stages: how many each split model has, by `model:version`.
    """

    pid: int
    endpoint: str
    redis: str
    cluster: str
    repository: str
    started_at: float
    stages: dict[str, int] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """Whether its supervisor still runs."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def folder() -> Path:
    """The folder of these files: the user's runtime directory, else a private one among the temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        return Path(runtime) / "shardline"
    return Path(tempfile.gettempdir()) / f"shardline-{os.getuid()}"


def write(cluster: RunningCluster) -> Path:
    """Record a cluster; returns the file, which its owner removes. Raises OSError where the folder is not ours."""
    where = folder()
    where.mkdir(mode=0o700, exist_ok=True)
    found = where.lstat()
    # A folder that someone else made in /tmp could be read, or be a link to elsewhere.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{where} must be a folder of yours with mode 700")
    path = where / f"{cluster.pid}.json"
    part = path.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(cluster), file)
    part.replace(path)
    return path


def running() -> tuple[RunningCluster, ...]:
    """Clusters of this user that run now, newest first; files of dead ones and unreadable ones are passed over."""
    found = []
    where = folder()
    if not where.is_dir() or where.lstat().st_uid != os.getuid():
        return ()
    for path in where.glob("*.json"):
        try:
            cluster = RunningCluster(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            continue
        if cluster.alive:
            found.append(cluster)
        else:
            # Its sweeper was killed, too; a later process with its pid must not be taken for it.
            path.unlink(missing_ok=True)
    return tuple(sorted(found, key=lambda cluster: cluster.started_at, reverse=True))

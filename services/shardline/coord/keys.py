"""Every Redis key and channel of a cluster, in one table; nothing else may name one.

All stand under `shardline:CLUSTER:`, so that several clusters can share one Redis. The part in braces is the hash
tag: keys of one model share a tag and so a slot of a Redis Cluster, which is what a script needs; the facts about
members share one tag of their own, because one beat of a replica with several models must be one atomic script.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

_CLUSTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PLACE = re.compile(r"<([a-z]+)>")


@dataclass(frozen=True, slots=True)
class Key:
    """One row of the table. `<word>` in the pattern is filled, percent-quoted, by the argument of that name."""

    name: str
    pattern: str
    type: str
    holds: str
    writer: str
    expiry: str
    readers: str


TABLE: tuple[Key, ...] = (
    Key("leases", "{members}:<kind>:leases", "zset", "member id -> end of its lease, server ms",
        "lease beat", "10 min after the last beat; entries: swept by any beat after their end", "watch, status"),
    Key("info", "{members}:<kind>:info", "hash", "member id -> ReplicaInfo or RouterInfo, JSON",
        "lease beat", "10 min after the last beat; fields: with the lease", "watch, status"),
    Key("version", "{members}:version", "hash", "epoch (born with an empty Redis); kind -> last change, us",
        "lease beat", "10 min after the last beat", "watch"),
    Key("load", "{members}:load", "hash", "replica id -> {pool: LoadReport}, JSON",
        "lease beat of a replica", "10 min after the last beat; fields: with the lease", "watch, status"),
    Key("pool", "{members}:pool:<pool>", "zset", "replica id -> end of its lease, server ms",
        "lease beat of a replica", "two leases after the last beat", "status, controller"),
    Key("changes", "{members}:changes", "channel", "joins, changes, leaves and desired revisions as they happen",
        "lease beat, withdraw, set desired", "-", "watch"),
    Key("reports", "{members}:reports", "channel", "load reports as they change",
        "load publisher, lease beat of a replica", "-", "watch"),
    Key("desired", "{members}:desired", "hash", "model -> revision, newline, Desired as JSON",
        "set desired, restore", "never: the next load or unload overwrites", "replicas, routers, controller"),
    Key("revision", "{members}:desired:revision", "string", "revision of the newest desired state",
        "set desired, restore", "never: with desired", "replicas, routers"),
    Key("statistics", "{model/<model>}:<version>:statistics", "hash", "replica id -> its cumulative statistics, opaque",
        "replicas, when changed", "7 days after the last write; departed replicas are folded beyond a bound", "routers"),
    Key("seen", "{model/<model>}:<version>:statistics:seen", "zset", "replica id -> its last write, server ms",
        "replicas, with the statistics", "with the statistics", "folding"),
    Key("depth", "{model/<model>}:<version>:<stage>:depth", "hash", "source -> rows, newline, end in server ms",
        "replicas, routers", "one time to live after the last write", "controller"),
    Key("tokens", "{model/<model>}:tokens:<tenant>", "hash", "tokens left and when, server us",
        "take", "when the bucket is full again", "take"),
    Key("tuned", "{model/<model>}:<version>:tuned", "hash", "parameter or fit -> value, opaque",
        "replicas, tuner", "when the version is removed", "the next replica"),
    Key("plan", "{model/<model>}:<version>:plan", "hash", "revision, plan (opaque)",
        "controller, CLI", "when the version is removed", "replicas, routers"),
)  # fmt: skip

_BY_NAME = {key.name: key for key in TABLE}


class Keys:
    """The keys of one cluster.

    Raises ValueError unless the cluster's name is 1 to 63 letters, digits, dots, dashes or underscores.
    """

    def __init__(self, cluster: str) -> None:
        if not _CLUSTER.fullmatch(cluster):
            raise ValueError(f"a cluster is named by 1 to 63 of A-Z a-z 0-9 . _ -, not {cluster!r}")
        self.cluster = cluster
        self.prefix = f"shardline:{cluster}:"

    def of(self, name: str, **parts: object) -> str:
        """The key `name` of the table with its places filled. Raises KeyError on a name or part it does not have."""
        pattern = _BY_NAME[name].pattern
        return self.prefix + _PLACE.sub(lambda place: quote(str(parts[place[1]]), safe=""), pattern)


def entry_of(key: str) -> Key | None:
    """The row of the table that a full key belongs to, None for a stranger."""
    _, _, rest = key.removeprefix("shardline:").partition(":")
    return next((row for row in TABLE if re.fullmatch(_as_regex(row.pattern), rest)), None)


def _as_regex(pattern: str) -> str:
    parts = _PLACE.split(pattern)
    return "".join(re.escape(part) if at % 2 == 0 else "[^:{}/]*" for at, part in enumerate(parts))

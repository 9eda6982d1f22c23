#!/usr/bin/env python3
"""Pack root file systems as an image archive that `ctr images import` and `docker load` read. No Docker needed.

The same input gives the same bytes: owners, times and order are fixed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class Config:
    """What runs in the image: an OCI image's `config`."""

    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    env: list[str] = field(default_factory=list)
    user: str = ""
    workdir: str = "/"
    labels: dict[str, str] = field(default_factory=dict)


def normal(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The member without what differs from one machine to the next."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def pack_layer(root: Path, archive: Path) -> None:
    """A folder as a layer."""
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for entry in sorted(root.iterdir()):
            tar.add(entry, arcname=entry.name, filter=normal)


def digest_of(path: Path) -> str:
    """SHA-256 in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def description(config: Config, layers: list[str]) -> bytes:
    """The image's JSON; layers are digests in hex, lowest first."""
    value = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": EPOCH,
        "config": {
            "Env": [PATH, *config.env],
            "Entrypoint": config.entrypoint,
            "Cmd": config.cmd,
            "WorkingDir": config.workdir,
            "User": config.user,
            "Labels": config.labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in layers]},
        "history": [{"created": EPOCH, "created_by": "mkimage"} for _ in layers],
    }
    return json.dumps(value, sort_keys=True).encode()


def pack_image(archive: Path, name: str, layers: list[Path], config: Config) -> str:
    """Write the archive. name: NAME:TAG, or several with commas. layers: folders or tar files, lowest first.

    Returns the image's id (SHA-256, hex).
    """
    packed = []
    for number, layer in enumerate(layers):
        if layer.is_dir():
            tar = archive.with_name(f"{archive.name}.layer{number}")
            pack_layer(layer, tar)
            packed.append((tar, digest_of(tar), True))
        else:
            packed.append((layer, digest_of(layer), False))
    text = description(config, [digest for _, digest, _ in packed])
    identity = hashlib.sha256(text).hexdigest()
    entry = {
        "Config": f"{identity}.json",
        "RepoTags": name.split(","),
        "Layers": [f"{digest}/layer.tar" for _, digest, _ in packed],
    }
    with tarfile.open(archive, "w") as whole:
        for member, content in ((f"{identity}.json", text), ("manifest.json", json.dumps([entry]).encode())):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            whole.addfile(info, io.BytesIO(content))
        for layer, digest, temporary in packed:
            info = tarfile.TarInfo(f"{digest}/layer.tar")
            info.size = layer.stat().st_size
            with layer.open("rb") as stream:
                whole.addfile(info, stream)
            if temporary:
                layer.unlink()
    return identity


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("name", help="NAME:TAG, or several with commas")
    parser.add_argument("--layer", type=Path, action="append", required=True, help="a folder or a tar file")
    parser.add_argument("--entrypoint", type=json.loads, help="a JSON list")
    parser.add_argument("--cmd", type=json.loads, help="a JSON list")
    parser.add_argument("--env", action="append", default=[], help="K=V")
    parser.add_argument("--user", default="")
    parser.add_argument("--workdir", default="/")
    given = parser.parse_args()
    config = Config(given.entrypoint, given.cmd, given.env, given.user, given.workdir)
    identity = pack_image(given.archive, given.name, given.layer, config)
    print(given.archive, given.archive.stat().st_size, identity[:12])


if __name__ == "__main__":
    main()

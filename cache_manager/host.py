"""What this host gives a container runtime: user namespaces, a set-uid starter, FUSE, its configuration's limits."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

RUNTIMES: Final = ("apptainer", "singularity")
CONFIGURATIONS: Final = ("/etc/apptainer/apptainer.conf", "/etc/singularity/singularity.conf")
LIMITS: Final = ("limit container owners", "limit container groups", "limit container paths")

_KNOBS: Final = {
    "/proc/sys/user/max_user_namespaces": "0",
    "/proc/sys/kernel/unprivileged_userns_clone": "0",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1",
}
"""Kernel settings that forbid user namespaces to ordinary users, with the value that does."""

_FUSE: Final = "/dev/fuse"
_SQUASHFUSE: Final = ("squashfuse_ll", "squashfuse")
_OF_APPTAINER: Final = "/usr/libexec/apptainer/bin"


def setuid_starter(runtime: str) -> str:
    """Return the path of the runtime's set-uid starter; empty if it has none."""
    prefix = Path(runtime).resolve().parent.parent
    for name in RUNTIMES:
        for directory in ("libexec", "lib"):
            starter = prefix / directory / name / "bin" / "starter-suid"
            try:
                found = starter.stat()
            except OSError:
                continue
            if found.st_uid == 0 and found.st_mode & 0o4000:
                return str(starter)
    return ""


def no_user_namespaces() -> str:
    """Return why ordinary users cannot make user namespaces, empty if nothing forbids it."""
    for name, forbids in _KNOBS.items():
        try:
            value = Path(name).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if value == forbids:
            return f"{name} is {value}"
    return ""


def no_fuse_device() -> str:
    """Return why SIFs cannot be mounted by ordinary users, as far as the device decides; empty if they can."""
    try:
        mode = os.stat(_FUSE).st_mode  # noqa: PTH116 - beside the others
    except OSError as error:
        return f"SIFs need {_FUSE}: {error.strerror}"
    usable = os.access(_FUSE, os.R_OK | os.W_OK) and (mode & 0o006 == 0o006 or os.geteuid() != 0)  # noqa: PLR2004
    return "" if usable else f"SIFs need {_FUSE}, which cannot be opened (mode {mode & 0o777:o})"


def no_squashfuse() -> str:
    """Return that squashfuse is missing, empty if it is there."""
    path = f"{os.environ.get('PATH', '')}:{_OF_APPTAINER}"
    if any(shutil.which(name, path=path) for name in _SQUASHFUSE):
        return ""
    return "SIFs need squashfuse, which is not installed"


def limits(configurations: tuple[str, ...] = CONFIGURATIONS) -> list[str]:
    """Return the settings of the runtime's configuration that limit which images a set-uid starter runs."""
    found = []
    for name in configurations:
        try:
            lines = Path(name).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for limit in LIMITS:
            value = next((line.partition("=")[2].strip() for line in lines if line.startswith(limit)), "NULL")
            if value != "NULL":
                found.append(f"{name}: {limit} = {value}")
    return found

"""The container runtime: which program, and what it can run here. Nothing else knows apptainer's command line."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NAMES: Final = ("apptainer", "singularity")
_FUSE: Final = ("squashfuse_ll", "squashfuse")


@dataclass(frozen=True, slots=True)
class Abilities:
    """What this EP can run, and why not, if it cannot."""

    runtime: str
    can_use_sif: bool
    can_use_sandbox: bool
    why_not: str = ""


def find(configured: str, condor_knob: str) -> str:
    """Return the runtime's path: ours, $(SINGULARITY) if executable, else one on PATH; empty if there is none."""
    for path in (configured, condor_knob):
        if path and os.access(path, os.X_OK):
            return path
    return next((path for path in map(shutil.which, NAMES) if path), "")


def abilities(runtime: str) -> Abilities:
    """Return what the runtime can run, by what it needs for that.

    A SIF is mounted by a set-uid starter or through FUSE; without either, each job would unpack it into its own
    directory, which counts as unable.
    """
    if not runtime:
        return Abilities("", can_use_sif=False, can_use_sandbox=False, why_not="no container runtime is installed")
    if _has_setuid_starter(runtime):
        return Abilities(runtime, can_use_sif=True, can_use_sandbox=True)
    if not _has_user_namespaces():
        why = "neither a set-uid starter nor user namespaces"
        return Abilities(runtime, can_use_sif=False, can_use_sandbox=False, why_not=why)
    missing = _missing_for_fuse()
    return Abilities(runtime, can_use_sif=not missing, can_use_sandbox=True, why_not=missing)


def _has_setuid_starter(runtime: str) -> bool:
    prefix = Path(runtime).resolve().parent.parent
    for name in NAMES:
        for directory in ("libexec", "lib"):
            starter = prefix / directory / name / "bin" / "starter-suid"
            try:
                found = starter.stat()
            except OSError:
                continue
            if found.st_uid == 0 and found.st_mode & 0o4000:
                return True
    return False


def _has_user_namespaces() -> bool:
    for knob in ("/proc/sys/user/max_user_namespaces", "/proc/sys/kernel/unprivileged_userns_clone"):
        try:
            if int(Path(knob).read_text(encoding="ascii")) == 0:
                return False
        except (OSError, ValueError):
            continue
    return True


def _missing_for_fuse() -> str:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "SIFs need /dev/fuse, which cannot be opened"
    if not any(shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/libexec/apptainer/bin") for name in _FUSE):
        return "SIFs need squashfuse, which is not installed"
    return ""

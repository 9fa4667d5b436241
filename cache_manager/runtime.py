"""The container runtime: which program, and what it can run here. Nothing else knows apptainer's command line."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

TEST_S: Final = 60.0
"""A test that takes longer says nothing: the disk may be busy."""

KNOWN_GOOD: Final = ("singularity_test_sandbox", "/exit_37", 37)
"""HTCondor's own test image below LIBEXEC, its program, and how that ends."""

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


class Tester:
    """Starts an image once, as the manager's user, before a job does.

    A failure counts only where an image that is known to be good does start: else it is the EP's, or this user's, and
    says nothing of the image. Methods block.
    """

    def __init__(self, runtime: str, libexec: str, home: str) -> None:
        self._runtime = runtime
        self._known_good = Path(libexec) / KNOWN_GOOD[0]
        self._home = home
        self._can_tell: bool | None = None

    def why_not(self, image: str) -> str:
        """Return why the image does not start; empty if it does, or if that cannot be told here."""
        if not self._runtime or not self._is_able():
            return ""
        status, said = self._run("test", "-C", image)
        if status == 0:
            return ""
        return " ".join(said.split())[-300:] or f"exit status {status}" if status is not None else ""

    def _is_able(self) -> bool:
        if self._can_tell is None:
            status, said = self._run("exec", "-C", str(self._known_good), KNOWN_GOOD[1])
            self._can_tell = status == KNOWN_GOOD[2]
            if not self._can_tell:
                log.warning(
                    "images are not tested before their first use: %s: %s", self._known_good, said.strip()[-300:]
                )
        return self._can_tell

    def _run(self, *words: str) -> tuple[int | None, str]:
        """Return exit status and what was said; None for one that took too long.

        All that the runtime keeps goes below our root: $HOME is small, and not ours.
        """
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": self._home, "LANG": "C.UTF-8"}
        for name in ("APPTAINER_CACHEDIR", "APPTAINER_TMPDIR", "SINGULARITY_CACHEDIR", "SINGULARITY_TMPDIR"):
            environment[name] = self._home
        try:
            done = subprocess.run(
                [self._runtime, "-s", *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                env=environment,
                cwd="/",
                timeout=TEST_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None, "not done in time"
        except OSError as error:
            return -1, str(error)
        return done.returncode, done.stderr

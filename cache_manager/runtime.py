"""The container runtime: which program, and what it can run here. Nothing else knows apptainer's command line."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from cache_manager import host, probe
from cache_manager.abilities import Abilities, Ran, judge

log = logging.getLogger(__name__)

TEST_S: Final = 60.0
"""A test that takes longer says nothing: the disk may be busy."""

RETRY_S: Final = 600.0
"""How often an EP that cannot run something is tried again: what is missing may have been installed."""

KNOWN_GOOD: Final = "singularity_test_sandbox"
"""HTCondor's own test image below LIBEXEC; its program is called as ours, and ends as ours."""

_SQUASH_OPTION: Final = "--mksquashfs-args"
_SQUASH_MEMORY: Final = "128M"

_OPTIONS: Final = frozenset({"--userns", "-u"})
"""What HTCondor gives the runtime for jobs, as far as it decides whether an image runs."""


def find(configured: str, condor_knob: str) -> str:
    """Return the runtime's path: ours, $(SINGULARITY) if executable, else one on PATH; empty if there is none."""
    for path in (configured, condor_knob):
        if path and os.access(path, os.X_OK):
            return path
    return next((path for path in map(shutil.which, host.RUNTIMES) if path), "")


def telling_options(arguments: str) -> tuple[str, ...]:
    """Return those of SINGULARITY_EXTRA_ARGUMENTS that decide whether an image runs."""
    return tuple(word for word in arguments.replace('"', " ").split() if word in _OPTIONS)


def assumed(runtime: str) -> Abilities:
    """Return what the runtime can probably run, by what it needs for that.

    A SIF is mounted by a set-uid starter or through FUSE; without either, each job would unpack it into its own
    directory, which counts as unable.
    """
    if not runtime:
        return Abilities("", can_use_sif=False, can_use_sandbox=False, why_not="no container runtime is installed")
    if host.setuid_starter(runtime):
        return Abilities(runtime, can_use_sif=True, can_use_sandbox=True)
    if host.no_user_namespaces():
        why = "neither a set-uid starter nor user namespaces"
        return Abilities(runtime, can_use_sif=False, can_use_sandbox=False, why_not=why)
    missing = host.no_fuse_device() or host.no_squashfuse()
    return Abilities(runtime, can_use_sif=not missing, can_use_sandbox=True, why_not=missing)


class Runtime:
    """The runtime of this EP and what it was seen to run, as the manager's user. Methods block.

    `locate` says which program it is now; `libexec` is HTCondor's, `home` a directory for all that the runtime keeps:
    $HOME is small, and not ours.
    """

    def __init__(self, locate: Callable[[], str], libexec: str, home: str, options: Iterable[str] = ()) -> None:
        self._locate = locate
        self._libexec = libexec
        self._home = home
        self._options = tuple(options)
        self._lock = threading.Lock()
        self._program: tuple[int, ...] = ()
        self._tried_at = 0.0
        self._abilities = assumed(locate())
        self._packs_as_told: tuple[tuple[int, ...], bool] | None = None

    @property
    def abilities(self) -> Abilities:
        """What can be run here: as it was tried, else as it is assumed."""
        return self._abilities

    def look(self, now: float) -> bool:
        """Try what can be run, if that is not known of this program; return whether something changed.

        What cannot be run is tried again from time to time.
        """
        with self._lock:
            runtime, before = self._locate(), self._abilities
            program = _identity(runtime)
            able = before.can_use_sif and before.can_use_sandbox
            known = before.tried and runtime == before.runtime and program == self._program
            if known and (able or 0 <= now - self._tried_at < RETRY_S):
                return False
            self._program, self._tried_at = program, now
            self._abilities = self._try(assumed(runtime))
            if self._abilities != before:
                _tell(self._abilities)
            return self._abilities != before

    def _try(self, one: Abilities) -> Abilities:
        """Run the smallest images; what is assumed stays where there is no place for them."""
        machine = platform.machine()
        if not one.runtime:
            return one
        try:
            with tempfile.TemporaryDirectory(prefix="probe-", dir=self._home, ignore_cleanup_errors=True) as place:
                condors = Path(self._libexec or "/nowhere") / KNOWN_GOOD
                is_there = (condors / probe.PROGRAM).exists()
                sandbox = self._run_probe(one, condors if is_there else _write_sandbox(Path(place), machine))
                sif = self._run_probe(one, _write_sif(Path(place), machine))
        except OSError as error:
            log.warning("%s: not tried out: %s", one.runtime, error)
            return one
        return judge(one, sif, sandbox)

    def _run_probe(self, one: Abilities, image: Path | None) -> Ran:
        """Have the probe run. Without -s: only an informational line says that the image was unpacked for it."""
        if image is None:
            return Ran(None)
        return self._run(one.runtime, "--nocolor", "exec", "-C", *self._options, str(image), f"/{probe.PROGRAM}")

    def why_not(self, image: str) -> str:
        """Return why the image does not start; empty if it does, or if that cannot be told here.

        It is blamed only where the smallest image of its form does start: else it is the EP's fault, or this user's.
        """
        if not self._abilities.tried:
            self.look(0.0)
        one = self._abilities
        able = one.can_use_sandbox if Path(image).is_dir() else one.can_use_sif
        if not (one.tried and able):
            return ""
        ran = self._run(one.runtime, "-s", "test", "-C", image)
        if ran.status == 0 or ran.status is None:
            return ""
        return " ".join(ran.said.split())[-300:] or f"exit status {ran.status}"

    def environment(self, home: str) -> dict[str, str]:
        """Return the environment in which all that the runtime keeps lies below `home`, and no secret of ours is."""
        found = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8", "HOME": home, "TMPDIR": home}
        for name in ("APPTAINER_CACHEDIR", "APPTAINER_TMPDIR", "SINGULARITY_CACHEDIR", "SINGULARITY_TMPDIR"):
            found[name] = home
        return found

    def unpack_command(self, image: str, target: str) -> list[str]:
        """Return the command that makes the directory `target` of a SIF, in whatever way the runtime does it."""
        return [self._abilities.runtime, "-s", "build", "--sandbox", target, image]

    def convert_command(self, archive: str, target: str, *, sandbox: bool, cpus: int) -> list[str]:
        """Return the command that makes a SIF, or the directory `target`, of an archive (`oci-archive:path`).

        Without its cache, which would keep what each image consists of a second time.
        """
        form = ["--sandbox"] if sandbox else self._squashing(cpus)
        return [self._abilities.runtime, "-s", "build", "--disable-cache", *form, target, archive]

    def _squashing(self, cpus: int) -> list[str]:
        """Return how the file system is packed, if the runtime lets that be said.

        Its own way takes a quarter of the machine's memory, and ten times as long for a few percent of the size.
        """
        identity = _identity(self._abilities.runtime)
        if self._packs_as_told is None or self._packs_as_told[0] != identity:
            said = self._run(self._abilities.runtime, "build", "--help", listen_to="stdout").said
            self._packs_as_told = identity, _SQUASH_OPTION in said
        if not self._packs_as_told[1]:
            return []
        return [_SQUASH_OPTION, f"-comp zstd -Xcompression-level 3 -mem {_SQUASH_MEMORY} -processors {cpus}"]

    def search_path(self) -> str:
        """Return where the programs are that the runtime calls."""
        prefix = Path(self._abilities.runtime or "/usr/bin/none").resolve().parent.parent
        beside = (prefix / "libexec" / name / "bin" for name in host.RUNTIMES)
        return ":".join([os.environ.get("PATH", "/usr/bin:/bin"), *map(str, beside), "/usr/sbin", "/sbin"])

    def _run(self, runtime: str, *words: str, listen_to: str = "stderr") -> Ran:
        """Return how the runtime ended, and what it said; status None for what took too long."""
        try:
            done = subprocess.run(
                [runtime, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if listen_to == "stdout" else subprocess.DEVNULL,
                stderr=subprocess.PIPE if listen_to == "stderr" else subprocess.DEVNULL,
                text=True,
                errors="replace",
                env=self.environment(self._home),
                cwd="/",
                timeout=TEST_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Ran(None, "not done in time")
        except OSError as error:
            return Ran(-1, str(error))
        return Ran(done.returncode, done.stdout if listen_to == "stdout" else done.stderr)


def _identity(program: str) -> tuple[int, ...]:
    """Return what changes when another program is put in place."""
    try:
        found = os.stat(program)  # noqa: PTH116 - follows links, like who starts it
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _tell(one: Abilities) -> None:
    can = [name for name, able in (("SIFs", one.can_use_sif), ("directories", one.can_use_sandbox)) if able]
    log.info("%s runs %s here%s", one.runtime or "no runtime", " and ".join(can) or "nothing", _because(one.why_not))


def _because(why: str) -> str:
    return f" ({why})" if why else ""


def _write_sandbox(place: Path, machine: str) -> Path | None:
    """Make the directory in which the probe runs. None for an architecture that it is not made for."""
    if not probe.is_known(machine):
        return None
    top = place / "sandbox"
    for name in probe.DIRECTORIES:
        (top / name).mkdir(parents=True)
    (top / probe.PROGRAM).write_bytes(probe.program(machine))
    (top / probe.PROGRAM).chmod(0o755)
    return top


def _write_sif(place: Path, machine: str) -> Path | None:
    if not probe.is_known(machine):
        return None
    path = place / "probe.sif"
    path.write_bytes(probe.sif(machine))
    return path

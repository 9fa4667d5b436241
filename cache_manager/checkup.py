"""The checks of `doctor`: each looks at one thing and says ok, warning or problem, with the remedy."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from cache_manager import client, disk, host, runtime, settings
from cache_manager.abilities import Abilities
from cache_manager.helper import Helper
from cache_manager.outcome import Absent, Denied
from cache_manager.ownership import Trust, why_unsafe
from cache_manager.settings import Settings
from cache_manager.sources import transport
from cache_manager.sources.base import SourceError
from cache_manager.sources.cvmfs import CHILD, Cvmfs
from cache_manager.sources.discovery import Discovery
from cache_manager.sources.federation import Federation, Federations
from cache_manager.sources.federation_url import is_in_federation
from cache_manager.sources.pelican_client import PROGRAM
from cache_manager.sources.transport import Patience
from cache_manager.switches import Switches
from cache_manager.text import human_bytes

NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "lustre", "gpfs", "cifs", "smb3", "afs", "ceph", "beegfs", "fuse.sshfs", "9p", "glusterfs"}
)
KEYWORD: Final = "IMAGE_CACHE"
PLUGIN: Final = "image_cache_plugin"
PIPE_BYTES: Final = 65536


class Level(Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's."""

    subject: str
    level: Level
    words: str
    remedy: str = ""


def examine(one: Settings, knobs: dict[str, str]) -> Iterator[Check]:
    """Yield all checks, the quick ones first."""
    for look in _LOOKS:
        yield from look(one, knobs)


def _configuration(_: Settings, knobs: dict[str, str]) -> Iterator[Check]:
    unknown = settings.unknown_knobs(knobs)
    if unknown:
        yield Check("knobs", Level.WARNING, f"unknown: {' '.join(unknown)}", "correct the spelling, or remove them")
    else:
        yield Check("knobs", Level.OK, "every IMAGE_CACHE_ knob is known")
    keyword = knobs.get("STARTER_JOB_HOOK_KEYWORD", "")
    if keyword == KEYWORD:
        yield Check("hook keyword", Level.OK, "STARTER_JOB_HOOK_KEYWORD = IMAGE_CACHE")
    else:
        words = f"STARTER_JOB_HOOK_KEYWORD is {keyword or 'not set'}: the hook does not run"
        yield Check("hook keyword", Level.PROBLEM, words, "install the file that `condor_image_cache config` prints")
    yield _former_hook(knobs)
    if "ImageCacheHealthy" not in knobs.get("START", ""):
        words = "START does not look at ImageCacheHealthy: a broken cache takes job after job"
        yield Check("START", Level.WARNING, words, "install the file that `condor_image_cache config` prints")
    if knobs.get("USE_DEFAULT_CONTAINER", "").lower() not in {"", "false", "0"}:
        words = "USE_DEFAULT_CONTAINER is set: two defaults for jobs that name no image"
        yield Check("default image", Level.WARNING, words, "use IMAGE_CACHE_DEFAULT_IMAGE alone")
    pipe = knobs.get("PIPE_BUFFER_MAX", "")
    if pipe.isdigit() and int(pipe) < PIPE_BYTES:
        yield Check("PIPE_BUFFER_MAX", Level.WARNING, f"{pipe} bytes", f"set it to {PIPE_BYTES}")


def _former_hook(knobs: dict[str, str]) -> Check:
    """Look for the hook that ours displaced."""
    after = knobs.get("IMAGE_CACHE_NEXT_HOOK", "")
    if after:
        runs = os.access(after, os.X_OK)
        words = f"{after} runs after ours" if runs else f"IMAGE_CACHE_NEXT_HOOK = {after} cannot be run"
        remedy = "" if runs else "make it executable for everybody, or unset the knob: jobs go back to idle with 399"
        return Check("displaced hook", Level.OK if runs else Level.PROBLEM, words, remedy)
    others = [name for name in knobs if name.endswith("_HOOK_PREPARE_JOB") and not name.startswith(KEYWORD)]
    if not others:
        return Check("displaced hook", Level.OK, "there was none")
    words = f"no longer run: {' '.join(f'{name} = {knobs[name]}' for name in others)}"
    return Check("displaced hook", Level.WARNING, words, "set IMAGE_CACHE_NEXT_HOOK to it, if it is still wanted")


def _plugin(one: Settings, knobs: dict[str, str]) -> Iterator[Check]:
    """Look at the transfer plug-ins: ours has to be the last, and those before it to be there."""
    plugins = knobs.get("FILETRANSFER_PLUGINS", "").replace(",", " ").split()
    ours = [path for path in plugins if Path(path).name == PLUGIN]
    again = "write the configuration again: `condor_image_cache config`"
    if not ours:
        words = "not among FILETRANSFER_PLUGINS: HTCondor transfers images that jobs name by URL for each job"
        yield Check("transfer plug-in", Level.WARNING, words, again)
        return
    for path in {*ours, *dict(one.next_plugin).values()}:
        if not os.access(path, os.X_OK):
            yield Check("transfer plug-in", Level.PROBLEM, f"{path} cannot be run", again)
    if plugins[-1] != ours[-1]:
        words = f"{plugins[-1]} comes after it: HTCondor has that one transfer its schemes"
        yield Check("transfer plug-in", Level.WARNING, words, again)
    schemes = " ".join(scheme for scheme, _ in one.next_plugin)
    level = Level.OK if schemes else Level.WARNING
    words = f"images of {schemes} are linked from the cache" if schemes else "IMAGE_CACHE_NEXT_PLUGIN names none"
    yield Check("transfer plug-in", level, words, "" if schemes else again)


def _exceptions(one: Settings, _: dict[str, str]) -> Iterator[Check]:
    """Look at the sites' exceptions."""
    if not one.exceptions:
        return
    found = Switches()
    found.read(one)
    for fault in found.faults:
        yield Check("exceptions", Level.WARNING, f"{one.exceptions}: {fault}", "correct it; the other lines count")
    if not one.site:
        yield Check("exceptions", Level.WARNING, "IMAGE_CACHE_SITE is empty: no line is for this EP", "set it")
    off = found.federations_off(one)
    yield Check("exceptions", Level.OK, f"data federations: {off}" if off else "data federations are asked here")


def _hook(_: Settings, knobs: dict[str, str]) -> Iterator[Check]:
    name = knobs.get("IMAGE_CACHE_HOOK_PREPARE_JOB", "")
    if not name:
        yield Check("hook", Level.PROBLEM, "IMAGE_CACHE_HOOK_PREPARE_JOB is not set", "see `condor_image_cache config`")
        return
    path = Path(name)
    remedy = "HTCondor refuses it, and every job of this EP with it: install again, write the configuration again"
    try:
        modes = [path.stat().st_mode, path.parent.stat().st_mode]
    except OSError as error:
        yield Check("hook", Level.PROBLEM, f"{name}: {error.strerror}", remedy)
        return
    if not modes[0] & stat.S_IXOTH or not modes[0] & stat.S_IROTH:
        yield Check("hook", Level.PROBLEM, f"{name}: cannot be run by every job's user", remedy)
    elif any(mode & stat.S_IWOTH for mode in modes):
        yield Check("hook", Level.PROBLEM, f"{name}: it or its directory is writable by everybody", remedy)
    else:
        yield Check("hook", Level.OK, name)


def _abilities(one: Settings, knobs: dict[str, str]) -> tuple[Abilities, str]:
    """Return what the manager saw the runtime run, as its user; without a manager try it here and now."""
    try:
        said = json.loads(client.ask(one.socket, "status"))
        shown = [said[name] for name in ("runtime", "can_use_sif", "can_use_sandbox", "why_not", "abilities_tried")]
        return Abilities(*shown), "the manager"
    except (client.ManagerDown, ValueError, KeyError):
        options = runtime.telling_options(knobs.get("SINGULARITY_EXTRA_ARGUMENTS", ""))
        with tempfile.TemporaryDirectory() as home:
            tried = runtime.Runtime(
                lambda: runtime.find(one.runtime, knobs.get("SINGULARITY", "")), knobs.get("LIBEXEC", ""), home, options
            )
            tried.look(time.time())
            return tried.abilities, "this command"


def _runtime(one: Settings, knobs: dict[str, str]) -> Iterator[Check]:
    found, by = _abilities(one, knobs)
    if not found.runtime:
        yield Check("runtime", Level.PROBLEM, "neither apptainer nor singularity", "install apptainer")
        return
    can = [name for name, able in (("SIF", found.can_use_sif), ("sandbox", found.can_use_sandbox)) if able]
    level = Level.OK if len(can) == 2 else Level.WARNING if can else Level.PROBLEM  # noqa: PLR2004 - both
    remedy = "" if level is Level.OK else "install squashfuse, make /dev/fuse usable, allow user namespaces"
    how = f"tried by {by}" if found.tried else f"not tried, assumed by {by}"
    why = f" ({found.why_not})" if found.why_not else ""
    yield Check("runtime", level, f"{found.runtime} runs {', '.join(can) or 'nothing'}, {how}{why}", remedy)


def _host(one: Settings, knobs: dict[str, str]) -> Iterator[Check]:
    program = runtime.find(one.runtime, knobs.get("SINGULARITY", ""))
    starter = host.setuid_starter(program) if program else ""
    forbidden = host.no_user_namespaces()
    if forbidden:
        level = Level.WARNING if starter else Level.PROBLEM
        yield Check("user namespaces", level, forbidden, "allow them, or install the runtime's set-uid starter")
    else:
        yield Check("user namespaces", Level.OK, "ordinary users can make them")
    yield Check("set-uid starter", Level.OK, starter or "none: images start in user namespaces")
    for subject, missing, remedy in (
        ("/dev/fuse", host.no_fuse_device(), "modprobe fuse; chmod 666 /dev/fuse"),
        ("squashfuse", host.no_squashfuse(), "install squashfuse"),
    ):
        needed = Level.OK if starter else Level.WARNING
        yield Check(
            subject, needed if missing else Level.OK, missing or "is there", "" if starter else remedy * bool(missing)
        )
    limits = host.limits()
    for words in limits:
        yield Check("runtime limits", Level.WARNING, words, f"it has to allow what lies under {one.root}")
    if not limits:
        yield Check("runtime limits", Level.OK, "none in the runtime's configuration")


def _root(one: Settings, knobs: dict[str, str]) -> Iterator[Check]:
    root = Path(one.root)
    try:
        found = root.stat()
    except OSError as error:
        yield Check("cache", Level.PROBLEM, f"{root}: {error.strerror}", "condor_image_cache config --prepare")
        return
    trust = Trust.of(found.st_uid, knobs)
    unsafe = [why for why in {why_unsafe(path, trust) for path in (one.root, one.socket)} if why]
    for why in unsafe:
        remedy = "give it to root and take the others' write permission away, or move IMAGE_CACHE_DIR"
        yield Check("cache", Level.PROBLEM, f"{why}: others could replace what lies below", remedy)
    if found.st_mode & 0o022:
        yield Check("cache", Level.PROBLEM, f"{root}: writable by others", f"chmod 755 {root}")
    elif not unsafe:
        yield Check("cache", Level.OK, f"{root}, owned by uid {found.st_uid}")
    kind = _file_system(root)
    if kind in NETWORK_FILE_SYSTEMS:
        words = f"{root} is on {kind}: each node needs its own, and locks and sockets fail there"
        yield Check("file system", Level.PROBLEM, words, "set IMAGE_CACHE_DIR to a local disk")
    else:
        yield Check("file system", Level.OK, f"{root} is on {kind or 'an unknown kind'}")
    execute = knobs.get("EXECUTE", "")
    if execute and (root == Path(execute) or Path(execute) in root.parents):
        yield Check("cache", Level.PROBLEM, f"{root}: under EXECUTE, which HTCondor empties", "set IMAGE_CACHE_DIR")
    room = disk.room(str(root))
    used, _ = disk.measure(str(root / "entries")) if (root / "entries").is_dir() else (0, 0)
    missing = one.max_bytes - used - (room.free_bytes - one.min_free_bytes)
    words = f"{human_bytes(room.free_bytes)} free, cap {human_bytes(one.max_bytes)}, used {human_bytes(used)}"
    if missing > 0:
        yield Check("disk", Level.WARNING, f"{words}: the cap cannot be reached", "lower IMAGE_CACHE_MAX_BYTES")
    else:
        yield Check("disk", Level.OK, words)


def _file_system(path: Path) -> str:
    """Return the kind of file system of a path, as the kernel names it."""
    best = ("", "")
    for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        mount, kind = words[1], words[2]
        if (path == Path(mount) or Path(mount) in path.parents) and len(mount) >= len(best[0]):
            best = (mount, kind)
    return best[1]


def _manager(one: Settings, knobs: dict[str, str]) -> Iterator[Check]:
    if "IMAGE_CACHE_MANAGER" not in knobs.get("DAEMON_LIST", "").replace(",", " ").split():
        words = "IMAGE_CACHE_MANAGER is not in DAEMON_LIST"
        yield Check("manager", Level.PROBLEM, words, "install the file that `condor_image_cache config` prints")
    try:
        client.ask(one.socket, "status")
    except client.ManagerDown as error:
        yield Check("manager", Level.PROBLEM, str(error), "condor_on -daemon image_cache_manager; see ImageCacheLog")
    else:
        mode = os.stat(one.socket).st_mode  # noqa: PTH116 - beside the others
        open_to_all = mode & 0o006 == 0o006  # noqa: PLR2004 - read and write
        yield Check("manager", Level.OK, "answers")
        words = f"{one.socket} (mode {mode & 0o777:o})"
        level = Level.OK if open_to_all else Level.PROBLEM
        yield Check("socket", level, words, "" if open_to_all else f"chmod 666 {one.socket}")
        told = knobs.get("IMAGE_CACHE_HOOK_PREPARE_JOB_ARGS", one.socket)
        if one.socket not in told:
            yield Check(
                "socket", Level.PROBLEM, f"the hook is told another one: {told}", "write the configuration again"
            )


def _cvmfs(one: Settings, _: dict[str, str]) -> Iterator[Check]:
    for name in one.cvmfs_repositories:
        helper = Helper(CHILD)
        trouble = Cvmfs(name, one.cvmfs_base, helper).check()
        helper.close()
        if trouble is None:
            yield Check("CVMFS", Level.OK, f"{one.cvmfs_base}/{name} is healthy")
        else:
            level = Level.WARNING if one.sif_sources else Level.PROBLEM
            yield Check("CVMFS", level, trouble.why, "mount it, or set IMAGE_CACHE_SIF_SOURCES")


def _sources(one: Settings, _: dict[str, str]) -> Iterator[Check]:
    if not one.sif_sources:
        yield Check("SIF sources", Level.WARNING, "none", "set IMAGE_CACHE_SIF_SOURCES")
    patience = Patience(one.min_rate_bytes, one.stall_timeout_s)
    federation = Federation(one.federation, patience, Federations())
    for base in one.sif_sources:
        url = f"{base.rstrip('/')}/catalog.json"
        try:
            if is_in_federation(base):
                federation.read(url)
            else:
                transport.read_small(url, patience)
        except SourceError as error:
            if isinstance(error.answer, (Absent, Denied)):  # it answers; trees of today have no catalog
                yield Check("SIF source", Level.OK, f"{transport.shown(base)} answers, and has no catalog")
            else:
                yield Check("SIF source", Level.PROBLEM, error.answer.why, "look at the server and at the network")
        else:
            yield Check("SIF source", Level.OK, transport.shown(base))


def _federation(one: Settings, _: dict[str, str]) -> Iterator[Check]:
    if one.pelican == "client" and shutil.which(PROGRAM) is None:
        words = f"IMAGE_CACHE_PELICAN = client, and there is no {PROGRAM!r} on PATH"
        yield Check("data federation", Level.PROBLEM, words, "install it, or set the knob to native")
        return
    local = one.pelican.removeprefix("unix://") if one.pelican.startswith("unix://") else ""
    if local and not Path(local).is_socket():
        words = f"IMAGE_CACHE_PELICAN: no socket at {local}"
        yield Check("data federation", Level.WARNING, words, "start the Pelican cache: the federation serves meanwhile")
    try:
        director = Discovery().director(one.federation)
    except SourceError as error:
        remedy = "look at the network and at IMAGE_CACHE_FEDERATION: osdf:// images come from nowhere else"
        yield Check("data federation", Level.WARNING, error.answer.why, remedy)
    else:
        yield Check("data federation", Level.OK, f"{one.federation} has its director at {director.url}")


_LOOKS: Final[tuple[Callable[[Settings, dict[str, str]], Iterator[Check]], ...]] = (
    _configuration,
    _hook,
    _plugin,
    _exceptions,
    _manager,
    _runtime,
    _host,
    _root,
    _cvmfs,
    _sources,
    _federation,
)

"""condor_image_cache config."""

from __future__ import annotations

import argparse
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from cache_manager import condorconfig, plugin_next
from cache_manager.commands.common import CommandError, complain, settings_and_knobs
from cache_manager.condorconfig import Installation
from cache_manager.ownership import OWN_USER_KNOB, Trust, open_log, why_unsafe
from cache_manager.settings import Settings

HELP: Final = (
    "Print HTCondor's configuration for this installation, each line explained. Changes nothing, unless --prepare is"
    " given: then the manager's user, directory and log are made as well (as root)."
)
PLUGIN: Final = "image_cache_plugin"
EXAMPLE: Final = "condor_image_cache config --prepare > /etc/condor/config.d/50-image-cache.conf"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("--pilot", action="store_true", help="for a pilot or EP that an ordinary user starts")
    parser.add_argument("--prepare", action="store_true", help="make the manager's user, directory and log file")
    parser.add_argument(
        "--other-filesystem", action="store_true", help="allow a cache on another file system than EXECUTE"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the configuration."""
    try:
        settings, knobs = settings_and_knobs()
        same = _same_file_system(settings.root, knobs.get("EXECUTE", ""))
        if same is False and not arguments.other_filesystem:
            raise CommandError(  # noqa: TRY301 - said as every other error of this command
                f"IMAGE_CACHE_DIR {settings.root}: on another file system than EXECUTE {knobs['EXECUTE']}, so HTCondor"
                " does not account for its disk; --other-filesystem if that is meant"
            )
        user = "" if arguments.pilot else condorconfig.OWN_USER
        if arguments.prepare:
            _prepare(settings, user, knobs)
        installation = Installation(
            command=_command(),
            hook=str(Path(__file__).resolve().parents[2] / "hooks" / "prepare-job"),
            python=_interpreter(),
            user=user,
            reserved_mb=settings.max_bytes // 1_000_000 if same else 0,
            arguments=knobs.get("SINGULARITY_EXTRA_ARGUMENTS", ""),
            binds=_binds(settings),
            plugin=_plugin(),
            next_plugins=_next_plugins(knobs.get("FILETRANSFER_PLUGINS", "")),
        )
    except (CommandError, OSError) as error:
        return complain(error)
    sys.stdout.write(condorconfig.render(installation))
    return 0


def _next_plugins(configured: str) -> str:
    """Return which of the site's transfer plug-ins is for which of the schemes that ours takes over."""
    others = [path for path in configured.replace(",", " ").split() if Path(path).name != PLUGIN]
    return plugin_next.render_map(((path, plugin_next.describe(path)) for path in others), plugin_next.TAKEN_OVER)


def _plugin() -> str:
    """Return the path of our transfer plug-in; empty where HTCondor could not read it: blanks part its list."""
    path = _command(PLUGIN)
    return "" if " " in path or "," in path else path


def _command(name: str = "condor_image_cache") -> str:
    """Return the path of a console script beside this interpreter, else what was called."""
    beside = Path(sys.executable).parent / name
    return str(beside if beside.exists() else Path(sys.argv[0]).resolve())


def _interpreter() -> str:
    """Return the interpreter for the hook: not a virtual environment's, which takes longer to start."""
    return str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())


def _same_file_system(root: str, execute: str) -> bool | None:
    """Whether the cache and EXECUTE share a file system; None where that cannot be told."""
    if not execute:
        return None
    return _existing(root).stat().st_dev == _existing(execute).stat().st_dev


def _existing(path: str) -> Path:
    one = Path(path)
    while not one.exists():
        one = one.parent
    return one


def _binds(settings: Settings) -> tuple[str, ...]:
    """Return what to bind: the knob, or CVMFS where the kernel says that it is mounted (a look could hang)."""
    if settings.binds:
        return tuple(settings.binds.replace(",", " ").split())
    base = settings.cvmfs_base
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    mounted = any(mount == base or mount.startswith(f"{base}/") for mount in mounts)
    return (base,) if mounted else ()


def _prepare(settings: Settings, user: str, knobs: dict[str, str]) -> None:
    """Make what the manager owns. Each step may be repeated. Raises CommandError, OSError.

    Root gives nothing away that somebody else put there: neither a directory with what is in it, nor a link's target.
    """
    uid, gid = os.geteuid(), os.getegid()
    if user:
        if uid != 0:
            raise CommandError("--prepare makes a system user, which takes root; use --pilot for an ordinary user's EP")
        entry = _system_user(user)
        uid, gid = entry.pw_uid, entry.pw_gid
    trust = Trust.of(uid, knobs | ({OWN_USER_KNOB: user} if user else {}))
    for path in (settings.root, settings.log):
        why = why_unsafe(path, trust)
        if why:
            raise CommandError(f"{path}: {why}")
    Path(settings.root).mkdir(mode=0o755, parents=True, exist_ok=True)
    root = os.open(settings.root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        owner = os.fstat(root).st_uid
        if owner not in trust.uids:
            raise CommandError(f"{settings.root}: was there before, and belongs to uid {owner}: remove it first")
        os.fchown(root, uid, gid)
    finally:
        os.close(root)
    log = open_log(settings.log, trust)
    os.fchown(log, uid, gid)
    os.close(log)


def _system_user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        program = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        raise CommandError(f"user {name}: does not exist, and there is no useradd to make it")
    made = subprocess.run(
        [program, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise CommandError(f"user {name}: {made.stderr.strip() or 'useradd failed'}")
    return pwd.getpwnam(name)

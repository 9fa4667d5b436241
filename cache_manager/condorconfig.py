"""The drop-in configuration that `condor_image_cache config` prints. Pure: facts in, text out, each line explained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

OWN_USER: Final = "imagecache"
"""The manager's user on an EP that root started."""

JOB_IS_OURS: Final = (
    "(TARGET.WantDocker =!= true && (TARGET.WantContainer =?= true || TARGET.SingularityImage =!= undefined"
    ' || "$(IMAGE_CACHE_DEFAULT_IMAGE:)" != ""))'
)
"""Which jobs run in an image of ours: containers, and all jobs where there is a default image."""


@dataclass(frozen=True, slots=True)
class Installation:
    """What the configuration depends on. Paths are absolute; `user` is empty for an unprivileged pilot.

    `reserved_mb` is the part of EXECUTE's file system that the cache may fill (0 if it lies elsewhere); `arguments`
    are the site's SINGULARITY_EXTRA_ARGUMENTS; `plugin` is our transfer plug-in, `next_plugins` the value of
    IMAGE_CACHE_NEXT_PLUGIN: what brings files from the schemes that it takes over. Empty where nothing does.
    """

    command: str
    hook: str
    python: str
    user: str = OWN_USER
    reserved_mb: int = 0
    arguments: str = ""
    binds: tuple[str, ...] = ()
    plugin: str = ""
    next_plugins: str = ""


def render(installation: Installation) -> str:
    """Return the configuration file."""
    one = installation
    blocks = [
        _HEAD.format(command=one.command),
        _MANAGER.format(command=one.command),
        _USER.format(user=one.user) if one.user else "",
        _HOOK.format(hook=one.hook, python=_word(one.python)),
        _SLOT.format(command=one.command, ours=JOB_IS_OURS),
        _HAS_SIF,
        _PLUGIN.format(plugin=one.plugin, plugins=one.next_plugins) if one.plugin and one.next_plugins else "",
        _binds(one),
        _RESERVED.format(megabytes=one.reserved_mb) if one.reserved_mb else "",
    ]
    return "\n".join(block for block in blocks if block)


_HEAD: Final = """\
# The container image cache of this execution point: drop-in configuration for HTCondor.
# Written by `{command} config`; see `{command} config --help`.
# Change knobs in a file that is read after this one, and write this one again after moving the installation.

# Where images are kept. Not under EXECUTE, which HTCondor empties.
if ! defined IMAGE_CACHE_DIR
  IMAGE_CACHE_DIR = $(LOCAL_DIR)/image_cache
endif
if ! defined IMAGE_CACHE_SOCKET
  IMAGE_CACHE_SOCKET = $(IMAGE_CACHE_DIR)/socket
endif
if ! defined IMAGE_CACHE_ALLOW
  IMAGE_CACHE_ALLOW = *
endif
"""

_MANAGER: Final = """\
# The cache manager: condor_master starts it, and starts it again should it end.
DAEMON_LIST = $(DAEMON_LIST) IMAGE_CACHE_MANAGER
IMAGE_CACHE_MANAGER = {command}
IMAGE_CACHE_MANAGER_ARGS = serve
# Waiting hooks ask again until their deadline, so a short pause before it starts again costs no job.
MASTER_IMAGE_CACHE_MANAGER_BACKOFF_CONSTANT = 2
"""

_USER: Final = """\
# Its own user, who owns IMAGE_CACHE_DIR and IMAGE_CACHE_LOG and nothing else (default: root).
IMAGE_CACHE_MANAGER_USERID = {user}
"""

_HOOK: Final = """\
# The hook that HTCondor runs before each job, as the job's user. Not STARTER_DEFAULT_JOB_HOOK_KEYWORD: a job that
# says +HookKeyword = "none" would run without it.
STARTER_JOB_HOOK_KEYWORD = IMAGE_CACHE
IMAGE_CACHE_HOOK_PREPARE_JOB = {hook}
# --owner says whose the manager is: the hook believes nobody else on the socket.
# --default-image and --degraded take the knobs themselves, so that condor_reconfig is enough after a change.
IMAGE_CACHE_HOOK_PREPARE_JOB_ARGS = --python {python} --socket '$(IMAGE_CACHE_SOCKET)' \
--owner='$(IMAGE_CACHE_MANAGER_USERID:)' --root '$(IMAGE_CACHE_DIR)' --deadline=$(IMAGE_CACHE_HOOK_DEADLINE:20m) \
--default-image='$(IMAGE_CACHE_DEFAULT_IMAGE:)' --degraded='$(IMAGE_CACHE_ALLOW)' \
--next-hook='$(IMAGE_CACHE_NEXT_HOOK:)'
# HTCondor reads no more of a hook's answer than this; the default holds jobs with long messages.
PIPE_BUFFER_MAX = 65536
"""

_SLOT: Final = """\
# What the slots say of the cache: printed whenever it changes.
STARTD_CRON_JOBLIST = $(STARTD_CRON_JOBLIST) IMAGE_CACHE
STARTD_CRON_IMAGE_CACHE_EXECUTABLE = {command}
STARTD_CRON_IMAGE_CACHE_ARGS = advertise --follow
STARTD_CRON_IMAGE_CACHE_MODE = WaitForExit
STARTD_CRON_IMAGE_CACHE_PERIOD = 10s

# Container jobs start only where the cache is well; others are not affected. Without this, an EP whose cache is
# broken would take job after job and send each of them back.
START = ($(START)) && (MY.ImageCacheHealthy =?= true || !{ours})
"""

_HAS_SIF: Final = """\
# Jobs that name a .sif match only where this is true: their submit file requires it. HTCondor's own trial needs a
# probe image (exit_37.sif) that not everybody installs, and does not know that SIFs can be unpacked. The cache manager
# saw whether SIFs run; where only directories do, it unpacks the SIFs that it fetches.
HasSIF = (ImageCacheCanUseSIF =?= true || ImageCacheCanUseSandbox =?= true)
STARTD_ATTRS = $(STARTD_ATTRS) HasSIF
"""

_PLUGIN: Final = """\
# Images that jobs name by URL (container_image = osdf:///...) are linked from the cache: HTCondor has the last plug-in
# of a scheme do it. All other files go to those that were there before; write this file again when those change.
if ! defined IMAGE_CACHE_NEXT_PLUGIN
  IMAGE_CACHE_NEXT_PLUGIN = {plugins}
endif
FILETRANSFER_PLUGINS = $(FILETRANSFER_PLUGINS), {plugin}
"""

_RESERVED: Final = """\
# The cache lies on EXECUTE's file system: what it may still fill is not offered to jobs (MB).
RESERVED_DISK = {megabytes}
"""


def _binds(one: Installation) -> str:
    if not one.binds:
        return ""
    return (
        "# What every container sees of this EP, appended to the arguments that the site had before.\n"
        f"SINGULARITY_EXTRA_ARGUMENTS = {with_binds(one.arguments, one.binds)}\n"
    )


def _word(text: str) -> str:
    """Return one argument of HTCondor's raw syntax: single quotes keep blanks together."""
    return f"'{text}'" if " " in text else text


def with_binds(arguments: str, binds: tuple[str, ...]) -> str:
    """Return SINGULARITY_EXTRA_ARGUMENTS with our binds at its end, in the syntax that it has: V2 is in quotes.

    Doing it twice changes nothing.
    """
    text = arguments.strip()
    quoted = len(text) > 1 and text.startswith('"') and text.endswith('"')
    words = text[1:-1].strip() if quoted else text
    for bind in binds:
        option = f"--bind {bind}"
        if f" {option} " not in f" {words} ":
            words = f"{words} {option}".strip()
    return f'"{words}"' if quoted or not text else words

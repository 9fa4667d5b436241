"""The block that the hook prints: ClassAd literals, one a line, which HTCondor merges into the job's ad.

Source: condor_starter's StarterHookMgr. Parsing stops silently at the first bad line, so nothing but literals that
we escaped ourselves is ever written here.
"""

from __future__ import annotations

import re
from typing import Final

from cache_manager.status import HookStatus
from cache_manager.text import shorten

MAX_BYTES: Final = 10_000
"""HTCondor closes the pipe at PIPE_BUFFER_MAX (10,240 bytes by default) and then holds the job."""

MESSAGE_BYTES: Final = 2_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

Literal = str | bool | int


def quote(text: str) -> str:
    r"""Return a ClassAd string literal of the old syntax: `"` escaped, control characters turned into a blank.

    A backslash stands for itself there, unless a quote follows that does not end the line.
    """
    return '"' + _CONTROL.sub(" ", text).replace('"', '\\"') + '"'


def render(attributes: dict[str, Literal]) -> bytes:
    """Return the attributes as the lines of a ClassAd. Raises ValueError above MAX_BYTES."""
    lines = []
    for name, value in attributes.items():
        if isinstance(value, str):
            shown = quote(value)
        elif isinstance(value, bool):
            shown = "true" if value else "false"
        else:
            shown = str(value)
        lines.append(f"{name} = {shown}\n")
    block = "".join(lines).encode(errors="replace")
    if len(block) > MAX_BYTES:
        raise ValueError(f"update ad: too large ({len(block)} bytes, at most {MAX_BYTES})")
    return block


def can_say(path: str) -> bool:
    """Whether a path can stand in an ad as it is: control characters and bytes that are no UTF-8 cannot."""
    return not _CONTROL.search(path) and not any("\ud800" <= c <= "\udfff" for c in path)


def runs_image(path: str, *, sandbox: bool, message: str) -> bytes:
    """Return the universal answer: the job runs in the image at `path`, whatever kind of job it is.

    An empty message leaves no event in the job's log.
    """
    attributes: dict[str, Literal] = {
        "ContainerImage": path,
        "SingularityImage": path,
        "WantContainer": True,
        "WantSIF": not sandbox,
        "WantSandboxImage": sandbox,
        "WantDockerImage": False,
        "WantDocker": False,
    }
    ad = render(attributes)
    return ad + status(HookStatus.OK, message, MAX_BYTES - len(ad))


def status(result: HookStatus, message: str, room_bytes: int = MAX_BYTES) -> bytes:
    """Return the status alone: an untouched job (OK), or one that does not run here. The message fits the room."""
    attributes: dict[str, Literal] = {"HookStatusCode": result.code}
    if message:
        # each character may have to be escaped
        attributes["HookStatusMessage"] = shorten(message, min(MESSAGE_BYTES, (room_bytes - 64) // 2))
    return render(attributes)

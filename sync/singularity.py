"""What Apptainer and Singularity look for in an image's tree, made of the image's configuration. Pure.

Current Apptainer brings `exec`, `run` and `shell` itself; it reads `env/*.sh` with a shell of its own, and takes
`runscript` and `actions/test` from the tree (HTCondor runs `apptainer test` before each job). Older ones run all of
`actions`. An image that brings files here was made from one of theirs: ours replace those of the same name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from sync.imageconfig import ImageConfig
from sync.request import Request
from sync.tarstream import Kind, Member

TOP: Final = ".singularity.d"

MOUNT_POINTS: Final = (
    *("dev", "proc", "sys", "tmp", "var/tmp", "home", "root", "etc"),
    *("srv", "cvmfs"),  # where OSPool's pilots mount the job's directory, and CVMFS
)
"""Directories on which something is mounted when the image runs: where it has none, they are made."""

MOUNT_FILES: Final = ("etc/resolv.conf", "etc/hosts")
"""The same, of files."""

LINKS: Final = {
    ".exec": "actions/exec",
    ".run": "actions/run",
    ".shell": "actions/shell",
    ".test": "actions/test",
    "environment": "env/90-environment.sh",
    "singularity": "runscript",
}

_SHELL: Final = "#!/bin/sh\n"
_ENVIRONMENT: Final = f"""\
for script in /{TOP}/env/*.sh; do
    [ ! -f "$script" ] || . "$script"
done
"""
_ACTIONS: Final = {
    "exec": 'exec "$@"\n',
    "run": f'[ -x /{TOP}/runscript ] || exec /bin/sh "$@"\nexec /{TOP}/runscript "$@"\n',
    "shell": (
        'if [ -n "${SINGULARITY_SHELL:-}" ] && [ -x "$SINGULARITY_SHELL" ]; then exec "$SINGULARITY_SHELL" "$@"; fi\n'
        'if [ -x /bin/bash ]; then SHELL=/bin/bash && export SHELL && exec /bin/bash --norc "$@"; fi\n'
        'SHELL=/bin/sh && export SHELL && exec /bin/sh "$@"\n'
    ),
    "start": f"[ ! -x /{TOP}/startscript ] || exec /{TOP}/startscript\n",
    "test": f'[ ! -x /{TOP}/test ] || exec /{TOP}/test "$@"\nexit 0\n',
}
_LIBRARIES: Final = f"""\
# where the runtime puts the libraries of a GPU's driver
LD_LIBRARY_PATH="${{LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}}/{TOP}/libs"
[ -n "${{PS1:-}}" ] || PS1='Apptainer> '
export LD_LIBRARY_PATH PS1
"""
_PATHS: Final = """\
# what the user wants of PATH
[ -z "${SING_USER_DEFINED_PREPEND_PATH:-}" ] || PATH="$SING_USER_DEFINED_PREPEND_PATH:$PATH"
[ -z "${SING_USER_DEFINED_APPEND_PATH:-}" ] || PATH="$PATH:$SING_USER_DEFINED_APPEND_PATH"
[ -z "${SING_USER_DEFINED_PATH:-}" ] || PATH="$SING_USER_DEFINED_PATH"
unset SING_USER_DEFINED_PREPEND_PATH SING_USER_DEFINED_APPEND_PATH SING_USER_DEFINED_PATH
export PATH
"""
_EVALUATE: Final = """\
if [ -z "${SINGULARITY_NO_EVAL:-}" ] && [ $# -gt 0 ]; then
    line=
    for word in "$@"; do line="$line \\"$word\\""; done
    eval "set -- $line"
fi
"""
# the runtime waits for the signal before it says that an instance runs
_FIRST: Final = {"start": "kill -CONT 1\n"}


def definition(source: str, digest: str) -> str:
    """Return what the image was made of, as a definition file."""
    return f"bootstrap: docker\nfrom: {source.partition('@')[0]}@{digest}\n"


def labels(config: ImageConfig, request: Request) -> dict[str, str]:
    """Return the image's labels, and those that tell where it comes from."""
    return {
        **config.labels,
        "org.label-schema.schema-version": "1.0",
        "org.label-schema.build-arch": request.variant.arch,
        "org.label-schema.build-date": f"{datetime.fromtimestamp(config.created_at, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "org.label-schema.usage.singularity.deffile.bootstrap": "docker",
        "org.label-schema.usage.singularity.deffile.from": request.source,
    }


def environment_script(config: ImageConfig) -> str:
    """Return the script that sets the image's variables: a value that comes with the job wins, but for PATH."""
    lines = [_SHELL]
    for name, value in config.environment.items():
        unless = "" if name == "PATH" else f'[ -n "${{{name}:-}}" ] || '
        lines.append(f"{unless}{name}={_quoted(value)}\nexport {name}\n")
    return "".join(lines)


def runscript(config: ImageConfig) -> str:
    """Return the script of `apptainer run`: the entry point, with the command unless there are arguments.

    Arguments are seen by the shell once more, as in images that Apptainer makes; SINGULARITY_NO_EVAL prevents that.
    """
    words = config.command or (() if config.entrypoint else ("/bin/sh",))
    default = f"[ $# -gt 0 ] || set -- {' '.join(map(_quoted, words))}\n" if words else ""
    entry = "".join(f"{_quoted(word)} " for word in config.entrypoint)
    return f'{_SHELL}{_EVALUATE}{default}exec {entry}"$@"\n'


def metadata(config: ImageConfig, request: Request) -> dict[str, Any]:
    """Return what `apptainer inspect` shows without starting the image."""
    attributes = {
        "labels": labels(config, request),
        "environment": {f"/{TOP}/env/10-docker2singularity.sh": environment_script(config).rstrip("\n")},
        "runscript": runscript(config).rstrip("\n"),
        "startscript": _SHELL.rstrip("\n"),
        "deffile": definition(request.source, request.index_digest).rstrip("\n"),
    }
    return {"data": {"attributes": attributes}, "type": "container"}


def members(config: ImageConfig, request: Request) -> Iterator[tuple[Member, bytes]]:
    """Yield what is put over every image, each with its content, in an order in which it can be made."""
    for name in ("", "/actions", "/env", "/libs"):
        yield _member(f"{TOP}{name}", 0o755, Kind.DIRECTORY), b""
    scripts = {f"actions/{name}": _FIRST.get(name, "") + _ENVIRONMENT + body for name, body in _ACTIONS.items()}
    scripts |= {
        "env/10-docker2singularity.sh": environment_script(config).removeprefix(_SHELL),
        "env/90-environment.sh": "",
        "env/99-base.sh": _LIBRARIES,
        "env/99-runtimevars.sh": _PATHS,
        "runscript": runscript(config).removeprefix(_SHELL),
        "startscript": "",
    }
    for path, body in scripts.items():
        yield _file(f"{TOP}/{path}", 0o755, _SHELL + body)
    yield _file(f"{TOP}/labels.json", 0o644, json.dumps(labels(config, request), indent=1, sort_keys=True) + "\n")
    yield _file(f"{TOP}/Singularity", 0o644, definition(request.source, request.index_digest))
    for path, target in LINKS.items():
        link = _member(path, 0o777, Kind.SYMLINK)
        link.link = f"{TOP}/{target}".encode()
        yield link, b""


def mount_members() -> Iterator[Member]:
    """Yield what something is mounted on; only what the image lacks is to be made."""
    for path in MOUNT_POINTS:
        yield _member(path, 0o755, Kind.DIRECTORY)
    for path in MOUNT_FILES:
        yield _member(path, 0o644, Kind.FILE)


def _member(path: str, mode: int, kind: Kind) -> Member:
    return Member(path.encode(), mode, kind)


def _file(path: str, mode: int, text: str) -> tuple[Member, bytes]:
    body = text.encode("utf-8", "surrogatepass")
    member = _member(path, mode, Kind.FILE)
    member.size = len(body)
    return member, body


def _quoted(text: str) -> str:
    """Return a word that a shell takes as it is."""
    return "'" + text.replace("'", "'\"'\"'") + "'"

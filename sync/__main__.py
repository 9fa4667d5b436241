"""condor_image_sync: dispatches to the publisher's commands; a command's modules are imported only for itself."""

from __future__ import annotations

import sys
from typing import Final

from cache_manager.program import Program
from sync.commands.common import CommandError

COMMANDS: Final = {
    "plan": "show what a run would do, and why, without doing it",
    "run": "resolve, convert, publish, retire",
    "verify": "check a list, or what a pull request changes in it",
    "status": "show each image: published, queued or failing, since when and why",
    "cleanup": "remove what nothing leads to any more, after its grace period",
}

PROGRAM: Final = Program(
    "condor_image_sync",
    "Publishes registry images for HTCondor's execution points, as CVMFS sandbox and as SIF.",
    "It reads sync.yaml (--config).",
    "sync.commands",
    COMMANDS,
)


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns 0 done, 1 not done, 2 wrong usage."""
    try:
        return PROGRAM.main(argv)
    except CommandError as error:
        sys.stderr.write("".join(f"{PROGRAM.name}: {line}\n" for line in str(error).splitlines()))
        return error.status


if __name__ == "__main__":
    sys.exit(main())

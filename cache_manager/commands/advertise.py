"""condor_image_cache advertise."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Final

from cache_manager import advertise, client
from cache_manager.commands.common import CommandError, socket

HELP: Final = (
    "Print the slot attributes for a startd cron job. A manager that does not answer is advertised as not healthy."
)
EXAMPLE: Final = "condor_image_cache advertise"

AGAIN_S: Final = 1.0
END: Final = b"- update:true\n"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("--follow", action="store_true", help="go on, and print whenever something changes")


def run(arguments: argparse.Namespace) -> int:
    """Print the attributes."""
    try:
        path = socket()
    except CommandError as error:
        _print(advertise.down(f"{error}"))
        return 1
    if not arguments.follow:
        try:
            _print(client.ask(path, "advertise"))
        except client.ManagerDown as error:
            _print(advertise.down(f"the cache manager does not answer: {error}"))
        return 0
    return _follow(path)


def _follow(path: str) -> int:
    """Print for ever; the startd ends this with itself, which closes standard output."""
    said_down = False
    while True:
        try:
            for block in client.follow(path, "advertise", follow=1):
                _print(block)
                said_down = False
            reason = f"{path}: the manager ended"
        except client.ManagerDown as error:
            reason = str(error)
        except BrokenPipeError:
            return 0
        if not said_down:
            _print(advertise.down(f"the cache manager does not answer: {reason}"))
            said_down = True
        time.sleep(AGAIN_S)


def _print(block: bytes) -> None:
    sys.stdout.buffer.write(block + END)
    sys.stdout.buffer.flush()

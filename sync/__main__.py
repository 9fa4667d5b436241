"""condor_image_sync: dispatches to the publisher's commands; a command's modules are imported only for itself."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import Final

from cache_manager import __version__
from sync.commands.common import CommandError

COMMANDS: Final = {
    "plan": "show what a run would do, and why, without doing it",
    "run": "resolve, convert, publish, retire",
    "verify": "check a list, or what a pull request changes in it",
    "status": "show each image: published, queued or failing, since when and why",
    "cleanup": "remove what nothing leads to any more, after its grace period",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns 0 done, 1 not done, 2 wrong usage."""
    words = sys.argv[1:] if argv is None else argv
    name = words[0] if words else ""
    if name not in COMMANDS:
        top_parser().parse_args(words[:1] or ["--help"])  # ends: help, version, or an unknown command
        return 2
    arguments = parser_of(name).parse_args(words[1:])
    try:
        return int(import_module(f"sync.commands.{name}").run(arguments))
    except CommandError as error:
        sys.stderr.write("".join(f"condor_image_sync: {line}\n" for line in str(error).splitlines()))
        return error.status
    except KeyboardInterrupt:
        sys.stderr.write("condor_image_sync: interrupted\n")
        return 1


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return the parser of one command; man pages and completion are made from it too."""
    module = import_module(f"sync.commands.{name}")
    parser = argparse.ArgumentParser(
        prog=f"condor_image_sync {name}",
        description=module.HELP,
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.configure(parser)
    return parser


def top_parser() -> argparse.ArgumentParser:
    """Return the parser of what stands before a command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="condor_image_sync",
        description="Publishes registry images for HTCondor's execution points, as CVMFS sandbox and as SIF.",
        epilog="commands:\n" + "\n".join(lines) + "\n\nIt reads sync.yaml (--config).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=list(COMMANDS), metavar="COMMAND", help="see below; each has --help")
    return parser


if __name__ == "__main__":
    sys.exit(main())

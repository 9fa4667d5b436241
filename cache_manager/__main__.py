"""condor_image_cache: dispatches to the admin commands; a command's modules are imported only for itself."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import Final

from cache_manager import __version__

COMMANDS: Final = {
    "serve": "run the cache manager in the foreground",
    "config": "print HTCondor's configuration for this installation",
    "status": "show the cache's health, use and fetches",
    "list": "show the images in the cache",
    "show": "show one image with its origin and history",
    "explain": "show how a job ad would be answered, without fetching",
    "prefetch": "bring images in before jobs ask",
    "pin": "keep images, also when no job uses them",
    "unpin": "keep images no longer",
    "evict": "give named images up",
    "cleanup": "free what nobody needs: partial fetches, orphans, old images, caches of dead pilots",
    "verify": "read images back against their digests",
    "doctor": "check what the cache needs on this EP",
    "advertise": "print the slot attributes, for a startd cron job",
    "metrics": "print the manager's numbers for Prometheus",
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
        return int(import_module(f"cache_manager.commands.{name}").run(arguments))
    except KeyboardInterrupt:
        sys.stderr.write("condor_image_cache: interrupted\n")
        return 1


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return the parser of one command; man pages and completion are made from it too."""
    module = import_module(f"cache_manager.commands.{name}")
    parser = argparse.ArgumentParser(
        prog=f"condor_image_cache {name}",
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
        prog="condor_image_cache",
        description="The container image cache of an HTCondor execution point.",
        epilog="commands:\n" + "\n".join(lines) + "\n\nIt reads HTCondor's configuration (CONDOR_CONFIG).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=list(COMMANDS), metavar="COMMAND", help="see below; each has --help")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""A program of several commands, each a module that is imported only for itself: its parsers, and how it ends."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

from cache_manager import __version__


@dataclass(frozen=True)
class Program:
    """`package` holds a module for each of `commands` (name: what it does), which has HELP, EXAMPLE, configure and run.

    `reads` says where the program's configuration comes from.
    """

    name: str
    description: str
    reads: str
    package: str
    commands: Mapping[str, str]

    def main(self, argv: list[str] | None = None) -> int:
        """Run a command. Returns 0 done, 1 not done, 2 wrong usage."""
        words = sys.argv[1:] if argv is None else argv
        name = words[0] if words else ""
        if name not in self.commands:
            self.top_parser().parse_args(words[:1] or ["--help"])  # ends: help, version, or an unknown command
            return 2
        arguments = self.parser_of(name).parse_args(words[1:])
        try:
            return int(import_module(f"{self.package}.{name}").run(arguments))
        except KeyboardInterrupt:
            sys.stderr.write(f"{self.name}: interrupted\n")
            return 1

    def parser_of(self, name: str) -> argparse.ArgumentParser:
        """Return the parser of one command; man pages and completion are made from it too."""
        module = import_module(f"{self.package}.{name}")
        parser = argparse.ArgumentParser(
            prog=f"{self.name} {name}",
            description=module.HELP,
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.configure(parser)
        return parser

    def top_parser(self) -> argparse.ArgumentParser:
        """Return the parser of what stands before a command."""
        width = max(map(len, self.commands))
        lines = [f"  {name:<{width}}  {what}" for name, what in self.commands.items()]
        parser = argparse.ArgumentParser(
            prog=self.name,
            description=self.description,
            epilog="commands:\n" + "\n".join(lines) + f"\n\n{self.reads}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("--version", action="version", version=__version__)
        parser.add_argument(
            "command", choices=list(self.commands), metavar="COMMAND", help="see below; each has --help"
        )
        return parser

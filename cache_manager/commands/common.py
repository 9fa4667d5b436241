"""What the commands have in common: the settings, tables, and how they say that something is wrong."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from cache_manager.configuration import ConfigurationError, read_knobs
from cache_manager.settings import Settings, SettingsError, socket_path
from cache_manager.text import human_time, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console


MAX_CELL: Final = 2000
"""Longest text in a table. Names of images are other people's: control characters do not reach a terminal."""


WIDE: Final = 110
"""From so many columns on a table has room for what is only nice to know."""


class CommandError(Exception):
    """The command could not do it; the text says why. Exit status 1."""


def settings_and_knobs() -> tuple[Settings, dict[str, str]]:
    """Read the configuration. Raises CommandError."""
    try:
        knobs = read_knobs()
        return Settings.from_knobs(knobs), knobs
    except (ConfigurationError, SettingsError) as error:
        raise CommandError(str(error)) from None


def socket() -> str:
    """Return the manager's socket; knobs that are wrong do not matter for that. Raises CommandError."""
    try:
        return socket_path(read_knobs())
    except ConfigurationError as error:
        raise CommandError(str(error)) from None


def complain(error: Exception) -> int:
    """Say on stderr what is wrong, and return the exit status for that."""
    sys.stderr.write(f"condor_image_cache: {error}\n")
    return 1


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def print_json(value: Any) -> None:  # noqa: ANN401 - whatever JSON can say
    """Print for programs; a list with one item a line, which ten thousand of them need and grep likes."""
    if isinstance(value, list):
        lines = ",\n".join(json.dumps(one) for one in value)
        sys.stdout.write(f"[\n{lines}\n]\n" if value else "[]\n")
    else:
        sys.stdout.write(json.dumps(value, indent=1) + "\n")


@dataclass(frozen=True)
class Column:
    """A column of a table. `number`: to the right; `whole`: never broken; `wide`: only where there is room."""

    name: str
    number: bool = False
    whole: bool = False
    wide: bool = False


def console() -> Console:
    """Return what prints for people; as wide as it has to be where nobody watches."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 240, highlight=False, markup=False)


def print_table(columns: Sequence[str | Column], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print for people."""
    from rich.table import Table

    screen = console()
    known = [Column(one) if isinstance(one, str) else one for one in columns]
    headed = any(one.name for one in known)
    table = Table(
        title=title or None,
        box=None,
        pad_edge=False,
        show_header=headed,
        header_style="bold",
        title_justify="left",
    )
    kept = [number for number, one in enumerate(known) if not one.wide or screen.width >= WIDE]
    for one in (known[number] for number in kept):
        justify: Literal["left", "right"] = "right" if one.number else "left"
        table.add_column(one.name, overflow="fold", no_wrap=one.whole or one.number, justify=justify)
    for row in rows:
        table.add_row(*(printable(row[number], MAX_CELL) for number in kept))
    screen.print(table)


def as_argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a reader of sizes or times for argparse, which says what is wrong in the reader's words."""

    def read(text: str) -> Any:  # noqa: ANN401 - what it reads
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


REF_HELP: Final = "a published name (htc/rocky:9), any other reference, a key, or 8 or more characters of its beginning"


def add_refs(parser: argparse.ArgumentParser, many: str = "+") -> None:
    """Add REF."""
    parser.add_argument("refs", metavar="REF", nargs=many, help=REF_HELP)


def counted(number: int, noun: str) -> str:
    """Return `1 job`, `2 jobs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def ago(moment: float) -> str:
    """Return how long ago something was, in words."""
    return f"{human_time(time.time() - moment)} ago"


def clock(moment: float) -> str:
    """Return a moment as a clock shows it here."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))

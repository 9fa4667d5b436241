"""What the commands have in common: the settings, tables, and how they say that something is wrong."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from cache_manager.configuration import ConfigurationError, read_knobs
from cache_manager.settings import Settings, SettingsError, socket_path
from cache_manager.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence


MAX_CELL: Final = 2000
"""Longest text in a table. Names of images are other people's: control characters do not reach a terminal."""


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
    """Print for programs."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print for people; as wide as it has to be where nobody watches."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(printable(cell, MAX_CELL) for cell in row))
    Console(width=None if sys.stdout.isatty() else 240, highlight=False, markup=False).print(table)


def ago(moment: float) -> str:
    """Return how long ago something was, in words."""
    seconds = max(0.0, time.time() - moment)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"

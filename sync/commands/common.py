"""What the publisher's commands have in common: the configuration, and how an answer and a fault are printed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cache_manager.text import printable
from sync.settings import Settings, SettingsError

CONFIG_VARIABLE: Final = "CONDOR_IMAGE_SYNC_CONFIG"
DEFAULT_CONFIG: Final = "/etc/condor/sync.yaml"
MAX_CELL: Final = 2000
"""Longest text in a table. Names of images are other people's: control characters do not reach a terminal."""


class CommandError(Exception):
    """The command could not do it; the text says why. `status` is the exit status: 1 not done, 2 wrong usage."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add --config."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG,
        help=f"the publisher's configuration; default: ${CONFIG_VARIABLE}, else {DEFAULT_CONFIG}",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def settings(arguments: argparse.Namespace) -> Settings:
    """Read the configuration that --config names. Raises CommandError (usage) with all faults."""
    path = str(arguments.config)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: {getattr(error, 'strerror', None) or 'is no text'}", 2) from None
    try:
        return Settings.from_yaml(text)
    except SettingsError as error:
        raise CommandError("\n".join(f"{path}: {line}" for line in str(error).splitlines()), 2) from None


def print_json(value: Any) -> None:  # noqa: ANN401 - whatever JSON can say
    """Print for programs."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print for people; as wide as it has to be where nobody watches."""
    from rich.console import Console  # noqa: PLC0415 - rich takes 100 ms: only for who looks at a table
    from rich.table import Table  # noqa: PLC0415 - the same

    screen = Console(width=None if sys.stdout.isatty() else 240, highlight=False, markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for one in columns:
        table.add_column(one, overflow="fold")
    for row in rows:
        table.add_row(*(printable(cell, MAX_CELL) for cell in row))
    screen.print(table)

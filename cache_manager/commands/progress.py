"""What the commands have in common that have the manager do something: asking it, progress, results."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from cache_manager.commands.common import complain, console
from cache_manager.text import human_bytes, human_time, printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

NAME_WIDTH: Final = 28
BAR_WIDTH: Final = 12
MAX_NAME: Final = 120


class Lines:
    """One progress line for each thing under way, on a terminal; nothing where nobody watches."""

    def __init__(self, screen: Progress | None) -> None:
        self._screen = screen
        self._lines: dict[str, TaskID] = {}

    def show(self, name: str, words: str, done: float, of: float) -> None:
        """Show how far something is, and in words what it does; `of` 0 where that is not known."""
        if self._screen is None:
            return
        short = printable(name, MAX_NAME) if len(name) <= NAME_WIDTH else f"...{name[3 - NAME_WIDTH :]}"
        if name not in self._lines:
            self._lines[name] = self._screen.add_task(short, total=None, words=words)
        self._screen.update(self._lines[name], completed=done, total=of or None, words=words)


@contextmanager
def progress_lines(*, wanted: bool) -> Iterator[Lines]:
    """Give progress lines, which are gone when the answer is printed."""
    if not wanted or not sys.stdout.isatty():
        yield Lines(None)
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(BAR_WIDTH),
        DownloadColumn(),
        TextColumn("{task.fields[words]}", markup=False),
    )
    with Progress(*columns, console=console(), transient=True) as screen:
        yield Lines(screen)


def speed(done: float, of: float, seconds: float) -> str:
    """Return a rate, and the time that is left at that rate."""
    rate = done / max(seconds, 0.1)
    left = f", {human_time((of - done) / rate)} left" if of and rate else ""
    return f"{human_bytes(rate)}/s{left}"


def say_failures(results: Iterable[dict[str, Any]]) -> int:
    """Say on stderr what was not done, and return the exit status."""
    failed = [one for one in results if not one["done"]]
    for one in failed:
        complain(Exception(printable(one["message"], 4000)))
    return 1 if failed else 0

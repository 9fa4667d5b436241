"""What a run tells while it runs: a line for each image under way on a terminal, a line for each event in a log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cache_manager.text import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

log = logging.getLogger("condor_image_sync")

_ENDS: Final = ("published", "failed")
_NAME_WIDTH: Final = 48


class Telling:
    """Tells what is done with which image. `screen` is None where nobody watches."""

    def __init__(self, screen: Progress | None) -> None:
        self._screen = screen
        self._lines: dict[str, TaskID] = {}
        self._total: TaskID | None = None

    def expect(self, images: int) -> None:
        """Say how many images there are to do."""
        log.info("%d image(s) to convert", images)
        if self._screen is not None and images:
            self._total = self._screen.add_task("images", total=images, words="")

    def tell(self, name: str, what: str) -> None:
        """Tell of an event."""
        log.info("%s: %s", printable(name), printable(what, 2000))
        if self._screen is None:
            return
        if name not in self._lines:
            short = printable(name, 120) if len(name) <= _NAME_WIDTH else f"...{name[3 - _NAME_WIDTH :]}"
            self._lines[name] = self._screen.add_task(short, total=None, words="")
        self._screen.update(self._lines[name], words=printable(what, 160))
        if what.startswith(_ENDS):
            self._screen.remove_task(self._lines.pop(name))
            if self._total is not None:
                self._screen.advance(self._total)

    def looked(self, done: int, of: int) -> None:
        """Tell how many of the list's names were looked at."""
        self.tell("the list", f"{done} of {of} names looked at")
        if done == of and self._screen is not None and "the list" in self._lines:
            self._screen.remove_task(self._lines.pop("the list"))


@contextmanager
def telling() -> Iterator[Telling]:
    """Give what tells; the lines on a terminal are gone when the answer is printed. Logs go to stderr."""
    if not sys.stdout.isatty():
        _log_to_stderr()
        yield Telling(None)
        return
    from rich.console import Console  # noqa: PLC0415 - rich takes 100 ms: only where somebody watches
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn  # noqa: PLC0415 - the same

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[words]}", markup=False),
    )
    screen = Console(highlight=False, markup=False)
    with Progress(*columns, MofNCompleteColumn(), console=screen, transient=True) as progress:
        yield Telling(progress)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)

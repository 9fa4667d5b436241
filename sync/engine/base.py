"""What every engine offers: many conversions, each with an end of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from sync.request import Request
from sync.values import Converted, Failure

Report = Callable[[Request, str], None]
"""Told what happens with an image, as it happens: `fetching`, `unpacking`, `packing`, `waiting`, `running`."""


class EngineError(RuntimeError):
    """No image can be converted here, whatever it is; the text says why."""


class Engine(Protocol):
    """Where conversions run."""

    def run(self, requests: Sequence[Request], report: Report) -> Iterator[Converted | Failure]:
        """Yield one result for each request, as they end, in whatever order.

        What a `Converted` names lies in the work directory until the caller removes it. Closing the iterator cancels
        what has not ended; nothing of that stays. Raises EngineError where the engine itself does not work.
        """
        ...


def directory_name(request: Request) -> str:
    """Return the name of an image's directory in the work directory: no two requests of a run have the same digest."""
    return f"{request.variant.digest.removeprefix('sha256:')}-{request.variant.arch}"


def make_images(directory: Path) -> None:
    """Make the directory of all images, closed to others: where root publishes, a set-uid program in it is root's."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)

"""Reading http(s) and file URLs, with every failure as one of the answers of a source."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cache_manager.outcome import Unwell
from cache_manager.sources.base import Route, SourceError
from cache_manager.sources.exchange import Ask, Patience, length_of
from cache_manager.sources.opening import opened
from cache_manager.sources.refusals import shown, unreachable
from cache_manager.sources.transfer import transfer
from cache_manager.status import HookStatus
from cache_manager.text import human_bytes

__all__ = ["Head", "Patience", "Route", "accepts", "head", "read_small", "shown", "transfer"]

SMALL_BYTES: Final = 64 * 1024
"""More is no latest.txt and no manifest."""


def read_small(place: str | Route, patience: Patience, clock: Callable[[], float] = time.monotonic) -> bytes:
    """Return the body of a small object. Raises SourceError."""
    route = _route(place)
    url = route.url
    parts: list[bytes] = []
    came = 0
    began = clock()
    with opened(Ask(route), patience) as body:
        for piece in body.pieces:
            parts.append(bytes(piece))
            came += len(piece)
            if came > SMALL_BYTES:
                raise unreachable(url, f"larger than {SMALL_BYTES} bytes, so no index")
            _keep_to_budget(url, came, clock() - began, patience.budget_s(came))
    return b"".join(parts)


def _keep_to_budget(url: str, came_bytes: int, spent_s: float, budget_s: float) -> None:
    if spent_s > budget_s:
        rate = f"{human_bytes(came_bytes / spent_s)}/s"
        what = f"too slow ({human_bytes(came_bytes)} in {spent_s:.0f} s, {rate}; its time was {budget_s:.0f} s)"
        raise SourceError(Unwell(HookStatus.SOURCE_TOO_SLOW, f"{shown(url)}: {what}"))


def _route(place: str | Route) -> Route:
    return Route(place) if isinstance(place, str) else place


def accepts(url: str, patience: Patience) -> None:
    """Ask for an object, and take nothing of it. Raises SourceError if it is not delivered."""
    with opened(Ask(Route(url)), patience):
        return


@dataclass(frozen=True, slots=True)
class Head:
    """What a server says of an object: what tells one version from the next (empty if nothing does), its size.

    `server` is how it calls itself.
    """

    version: str
    size_bytes: int | None
    server: str = ""


def head(place: str | Route, patience: Patience) -> Head:
    """Ask for an object without its body. Raises SourceError."""
    with opened(Ask(_route(place), "HEAD"), patience) as body:
        headers = body.headers
        etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
        version = etag or (f"{modified} {headers.get('Content-Length', '')}" if modified else "")
        return Head(version, length_of(headers), headers.get("Server", ""))

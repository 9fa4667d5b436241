"""Where a data federation's director is: asked of the federation's own URL, and kept.

One question at a time for each federation, however many threads want to know; what was known last serves on where a
federation does not answer for a while.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from cache_manager.memory import Memory
from cache_manager.outcome import Unwell
from cache_manager.sources.asking import Question, Reply, UnansweredError, ask
from cache_manager.sources.base import SourceError
from cache_manager.sources.refusals import shown
from cache_manager.status import HookStatus
from cache_manager.text import printable

WELL_KNOWN: Final = "/.well-known/pelican-configuration"
LIMIT_S: Final = 5.0
TRIES: Final = 3
PAUSE_S: Final = 2.0
KEPT_S: Final = 1800.0
FAILURE_KEPT_S: Final = 300.0
LAST_KNOWN_S: Final = 86400.0
FEDERATIONS: Final = 256
"""So many are remembered: jobs may name any."""


@dataclass(frozen=True, slots=True)
class Director:
    """Where objects are asked for. `near` says whether the federation that named it answers this machine alone."""

    url: str
    near: bool


@dataclass(eq=False)
class Discovery:
    """Knows directors. Blocks; for threads."""

    clock: Callable[[], float] = time.time
    pause: Callable[[float], None] = time.sleep
    limit_s: float = LIMIT_S
    _found: Memory[str, Director | Unwell] = field(default_factory=lambda: Memory(FEDERATIONS))
    _last: Memory[str, Director] = field(default_factory=lambda: Memory(FEDERATIONS))
    _asking: dict[str, threading.Lock] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def director(self, federation: str) -> Director:
        """Return the director of a federation, which is named by the URL where it is found. Raises SourceError."""
        with self._guard:
            while len(self._asking) >= FEDERATIONS and federation not in self._asking:
                self._asking.pop(next(iter(self._asking)))
            asking = self._asking.setdefault(federation, threading.Lock())
        with asking:
            known = self._found.get(federation, self.clock())
            if known is None:
                known = self._discover(federation)
        if isinstance(known, Unwell):
            raise SourceError(known)
        return known

    def _discover(self, federation: str) -> Director | Unwell:
        found = self._ask(federation)
        now = self.clock()
        if isinstance(found, Director):
            self._last.put(federation, found, now + LAST_KNOWN_S)
            self._found.put(federation, found, now + KEPT_S)
            return found
        found = self._last.get(federation, now) or found
        self._found.put(federation, found, now + FAILURE_KEPT_S)
        return found

    def _ask(self, federation: str) -> Director | Unwell:
        """Ask, again where that may help: a late answer, a server in trouble."""
        url = federation.rstrip("/") + WELL_KNOWN
        answer = Unwell(HookStatus.SOURCE_UNREACHABLE, f"{shown(url)}: was not asked", everything=True)
        for attempt in range(TRIES):
            if attempt:
                self.pause(PAUSE_S)
            try:
                reply = ask(Question(url, self.limit_s, follow=True))
            except UnansweredError as error:
                if isinstance(error.answer, Unwell):
                    answer = error.answer
                if not error.late:
                    break
                continue
            if reply.status < 500:  # noqa: PLR2004 - from here on the server is in trouble
                return _read(url, reply)
            answer = _no_federation(url, reply.words)
        return answer


def _read(url: str, reply: Reply) -> Director | Unwell:
    if reply.status != 200:  # noqa: PLR2004 - OK
        return _no_federation(url, reply.words)
    try:
        return Director(director_of(reply.body), reply.near)
    except ValueError as error:
        return _no_federation(url, str(error))


def director_of(body: bytes) -> str:
    """Return the director's URL that a federation's configuration names. Raises ValueError."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError(f"no JSON ({len(body)} bytes)") from None
    url = said.get("director_endpoint") if isinstance(said, dict) else None
    if not isinstance(url, str) or not url:
        raise ValueError("names no director_endpoint")
    if "://" not in url:
        url = f"https://{url}"
    parts = urlsplit(url)
    usable = parts.scheme in {"http", "https"} and parts.hostname and "@" not in parts.netloc and not parts.query
    if not usable or not url.isascii() or any(one <= " " for one in url):
        raise ValueError(f"its director_endpoint is no URL: {printable(url, 80)!r}")
    return url.rstrip("/")


def _no_federation(url: str, why: str) -> Unwell:
    return Unwell(HookStatus.SOURCE_UNREACHABLE, f"{shown(url)}: no data federation: {why}", everything=True)

"""How a registry is asked by many threads: it is waited for within bounds, and left alone when that is not enough."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from cache_manager.registry.failure import Kind, RegistryError
from cache_manager.registry.ratelimit import RateLimit
from cache_manager.text import human_time

TRIES: Final = 2
"""For a question that gets no answer, or an error of the server's."""

MOST_ERRORS: Final = 30
"""In a row, then the others would only fail too; fewer may be one broken repository's."""

_NO_ANSWER: Final = 10
"""What a question without any answer counts: it costs each of the others as long a wait."""

FIRST_WAIT_S: Final = 1.0
"""Before a second try; doubled each time where a registry says `later`, and not when."""

_MOST_DOUBLINGS: Final = 12
_T = TypeVar("_T")


class Manners:
    """Asks one registry, for one kind of questions (some registries count those for manifests alone).

    `patience_s` is how long a run waits for it in all. When that is spent, or the registry is silent, every further
    question fails at once, as one that may be asked in the next run.
    """

    def __init__(self, registry: str, patience_s: float) -> None:
        self._registry = registry
        self._left_s = patience_s
        self._until = 0.0
        self._errors = 0
        self._refusals = 0
        self._closed = ""
        self._kind = Kind.UNREACHABLE
        self._heeded: RateLimit | None = None
        self._state = threading.Condition()

    def ask(self, question: Callable[[], _T], limit: Callable[[], RateLimit | None] = lambda: None) -> _T:
        """Return the answer. Raises RegistryError.

        `limit` says what the registry said last of how much may be asked: where nothing is left, it is not asked.
        """
        tries = 0
        while True:
            self._heed(limit())
            self._wait()
            try:
                answer = question()
            except RegistryError as error:
                if error.kind is Kind.THROTTLED or error.retry_after_s is not None:  # a 503 may say when, too
                    self._refused(error.retry_after_s)
                    continue
                if error.kind is not Kind.UNREACHABLE:
                    self._answered()
                    raise
                tries += 1
                if self._failed(error) or tries == TRIES:
                    raise
                self._pause()
            else:
                self._answered()
                return answer

    def give_up(self) -> None:
        """Have everybody who waits fail."""
        with self._state:
            self._close(Kind.UNREACHABLE, "is not asked any more: the run ends")

    def _heed(self, limit: RateLimit | None) -> None:
        """Rest before the registry has to refuse. What was said is heeded once: nobody says when it is over."""
        with self._state:
            if limit is None or not limit.spent or limit is self._heeded:
                return
            self._heeded = limit
        self._rest(FIRST_WAIT_S if limit.wait_s is None else limit.wait_s)

    def _refused(self, wait_s: float | None) -> None:
        """Wait as long as the registry says; where it does not, twice as long each time."""
        with self._state:
            doubled_s = FIRST_WAIT_S * 2.0 ** min(self._refusals, _MOST_DOUBLINGS)
            self._refusals += time.monotonic() >= self._until  # those who asked together were refused once
        self._rest(doubled_s if wait_s is None else wait_s)

    def _rest(self, wait_s: float) -> None:
        """Have everybody wait, or give up on the registry for this run."""
        with self._state:
            now = time.monotonic()
            until = now + wait_s
            more_s = until - max(now, self._until)
            if more_s <= 0:
                return
            if more_s > self._left_s:
                said = f"asks to be left alone for {human_time(until - now)}"
                self._close(Kind.THROTTLED, f"{said}; looked at again in the next run")
                return
            self._left_s -= more_s
            self._until = until

    def _wait(self) -> None:
        with self._state:
            while not self._closed:
                left_s = self._until - time.monotonic()
                if left_s <= 0:
                    return
                self._state.wait(left_s)
            raise RegistryError(self._kind, f"{self._registry}: {self._closed}", everything=True)

    def _pause(self) -> None:
        """Wait before a second try of one question; the others go on."""
        with self._state:
            self._state.wait_for(lambda: bool(self._closed), FIRST_WAIT_S)

    def _answered(self) -> None:
        with self._state:
            self._errors = self._refusals = 0

    def _failed(self, error: RegistryError) -> bool:
        """Count a question without an answer; whether there were too many."""
        with self._state:
            self._errors += 1 if error.status else _NO_ANSWER
            if self._errors >= MOST_ERRORS and not self._closed:
                why = error.message.rpartition(": ")[2]
                self._close(Kind.UNREACHABLE, f"does not answer ({why}); looked at again in the next run")
            return bool(self._closed)

    def _close(self, kind: Kind, why: str) -> None:
        self._kind, self._closed = kind, why
        self._state.notify_all()

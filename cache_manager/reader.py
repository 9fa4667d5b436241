"""From what the hook sent to a JobRequest: at once where literals say it all, else by who may be ended for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cache_manager import jobad
from cache_manager.ads import NeedsEvaluation, evaluate_at_once, not_here
from cache_manager.evaluator import Evaluator
from cache_manager.jobad import JobRequest
from cache_manager.protocol import Header
from cache_manager.turns import Turns

LARGE_BYTES: Final = 64 * 1024
"""Larger ads are read by a child: taking a million bytes apart keeps the loop for a fifth of a second."""

AT_A_TIME: Final = 8
"""So many requests are read, and mostly answered, in one turn of the loop: what else there is to do comes between."""


class Reader:
    """Reads requests; users take turns."""

    def __init__(self) -> None:
        self.turns = Turns(AT_A_TIME, lambda: AT_A_TIME)
        """For work of milliseconds on the loop: nobody waits for longer than the others' turns take."""
        self._evaluator = Evaluator()

    async def request(self, user: str, header: Header, body: bytes) -> JobRequest:
        """Return what the hook sent. Raises StatusError."""
        if len(body) <= LARGE_BYTES:
            async with self.turns.turn(user):
                try:
                    return read_request(header, body, not_here)
                except NeedsEvaluation:
                    pass
        length = int(header.number("job", len(body)))
        return await self._evaluator.read(user, body[:length], body[length:], header.keys.get("scratch", ""))

    def close(self) -> None:
        """End the children."""
        self._evaluator.close()


def read_request(header: Header, body: bytes, evaluating: Callable[[str], None] = evaluate_at_once) -> JobRequest:
    """Return what the hook sent, its two ads told apart. Raises StatusError, and what `evaluating` raises."""
    length = int(header.number("job", len(body)))
    # an old locale's letters in some argument are nobody's business here
    job, machine = body[:length].decode(errors="replace"), body[length:].decode(errors="replace")
    return jobad.read_request(job, machine, header.keys.get("scratch", ""), evaluating)

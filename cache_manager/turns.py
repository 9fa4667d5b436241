"""Who comes next where only so many are served at a time: users take turns, however much one of them asks for.

Those of one user keep their order; of several users the one with fewest turns comes next, and then each in a round.
Lives on one loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress

NOBODY = ""
"""The user of what an admin or the manager itself asks for: only the whole is limited."""


class Turns:
    """Gives `at_a_time` turns, and to one user no more than `each` of them."""

    def __init__(self, at_a_time: int, each: Callable[[], int]) -> None:
        self._at_a_time = at_a_time
        self._each = each
        self._waiting: dict[str, deque[asyncio.Future[str]]] = {}
        """By user, in the order of the round."""
        self._taken: Counter[str] = Counter()
        self._under_way = 0

    def waiting(self, user: str) -> int:
        """Return how many turns a user waits for."""
        return len(self._waiting.get(user, ()))

    def ask(self, user: str, turn: asyncio.Future[str] | None = None) -> asyncio.Future[str]:
        """Ask for a turn. The future's result is the user at whose expense it was given: hand that to `end`.

        The same future may be asked for by several users, who wait for the same thing: it is given once.
        """
        turn = turn or asyncio.get_running_loop().create_future()
        self._waiting.setdefault(user, deque()).append(turn)
        self._give()
        return turn

    def end(self, user: str) -> None:
        """Give a turn back."""
        self._under_way -= 1
        self._taken[user] -= 1
        if not self._taken[user]:
            del self._taken[user]
        self._give()

    def give_up(self, user: str, turn: asyncio.Future[str]) -> None:
        """Forget a turn that was asked for; one that was had meanwhile is given back."""
        with suppress(ValueError):
            self._waiting.get(user, deque()).remove(turn)
            if not self._waiting[user]:
                del self._waiting[user]
        if not turn.cancel() and not turn.cancelled():
            self.end(turn.result())

    def turn(self, user: str, deadline: float | None = None) -> AbstractAsyncContextManager[None]:
        """Wait for a turn and have it. Raises TimeoutError when it does not come by `deadline` (the loop's clock)."""
        return _Turn(self, user, deadline)

    def take(self, user: str) -> bool:
        """Take a turn where nobody waits for one; whether that was so."""
        may = not self._waiting and self._under_way < self._at_a_time and self._may_have(user)
        if may:
            self._under_way += 1
            self._taken[user] += 1
        return may

    def _may_have(self, user: str) -> bool:
        return user == NOBODY or self._taken[user] < self._each()

    def _give(self) -> None:
        while self._under_way < self._at_a_time:
            # who has least comes first; of those, who has waited longest
            user = min(filter(self._may_have, self._waiting), key=self._taken.__getitem__, default=None)
            if user is None:
                return
            queue = self._waiting.pop(user)
            turn = queue.popleft()
            if queue:
                self._waiting[user] = queue  # behind all others who wait
            if not turn.done():
                self._under_way += 1
                self._taken[user] += 1
                turn.set_result(user)


class _Turn(AbstractAsyncContextManager[None]):
    """One turn. A class, because a generator costs more than most turns take."""

    __slots__ = ("_deadline", "_turns", "_user")

    def __init__(self, turns: Turns, user: str, deadline: float | None) -> None:
        self._turns = turns
        self._user = user
        self._deadline = deadline

    async def __aenter__(self) -> None:
        if self._turns.take(self._user):
            return
        turn = self._turns.ask(self._user)
        try:
            async with asyncio.timeout_at(self._deadline):
                await turn
        except BaseException:
            self._turns.give_up(self._user, turn)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._turns.end(self._user)

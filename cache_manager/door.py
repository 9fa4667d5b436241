"""Lets connections in. One is attended to when it has said something, and when it is its user's turn.

To accept a connection and to see that it says something costs a hundredth of what an answer costs: however many one
user has and however fast they ask again, another user's first word is heard between two of theirs.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from cache_manager.connections import Connections, Seat
from cache_manager.processes import Peer
from cache_manager.turns import Turns

log = logging.getLogger(__name__)

SILENT_S: Final = 5.0
"""Whoever has not said a word by then is sent away."""

BATCH: Final = 64
"""So many are let in before the loop sees to something else."""

BACKLOG: Final = 4096
AGAIN_S: Final = 0.2
"""After this time it is tried again to let somebody in, where no more files could be opened."""

AT_A_TIME: Final = 16
"""So many connections are taken up in one turn of the loop."""


@dataclass(eq=False, slots=True)
class Guest:
    """A connection that was let in."""

    connection: socket.socket
    peer: Peer
    seat: Seat | None = None
    timer: asyncio.TimerHandle | None = None


class Door:
    """Listens on one socket. `attend` is given a guest with something to say; it closes the connection."""

    def __init__(self, connections: Connections, attend: Callable[[Guest, Seat], Awaitable[None]]) -> None:
        self._connections = connections
        self._attend = attend
        self._turns = Turns(AT_A_TIME, lambda: AT_A_TIME)
        self._attended: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._again: asyncio.TimerHandle | None = None

    def open(self, listener: socket.socket) -> None:
        """Let connections in from now on. Raises OSError."""
        listener.setblocking(False)  # noqa: FBT003 - its only parameter
        listener.listen(BACKLOG)
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept)

    def close(self) -> None:
        """Let nobody in any more; guests stay until they were attended to."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        if self._again is not None:
            self._again.cancel()

    def _accept(self) -> None:
        for _ in range(BATCH):
            if self._listener is None:
                return
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors or no memory now
                log.warning("nobody can be let in now: %s", error.strerror)
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._listener)
                self._again = loop.call_later(AGAIN_S, self._go_on)
                return
            self._let_in(Guest(connection, Peer.of(connection)))

    def _go_on(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _let_in(self, guest: Guest) -> None:
        guest.connection.setblocking(False)  # noqa: FBT003 - its only parameter
        guest.seat = self._connections.enter(guest.peer.uid, lambda: self._send_away(guest))
        if guest.seat is None:
            guest.connection.close()
            return
        try:
            guest.connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            loop = asyncio.get_running_loop()
            guest.timer = loop.call_later(SILENT_S, self._send_away, guest)
            loop.add_reader(guest.connection, self._hears, guest)
        except OSError:
            self._connections.leave(guest.seat)
            guest.connection.close()
        else:
            self._hears(guest)

    def _hears(self, guest: Guest) -> None:
        if guest.timer is not None:
            guest.timer.cancel()
            guest.timer = None
            asyncio.get_running_loop().remove_reader(guest.connection)
        task = asyncio.get_running_loop().create_task(self._in_turn(guest))
        self._attended.add(task)
        task.add_done_callback(self._attended.discard)

    async def _in_turn(self, guest: Guest) -> None:
        seat = guest.seat
        if seat is None:
            return
        try:
            async with self._turns.turn(str(guest.peer.uid)):
                await asyncio.sleep(0)  # the others who wait get theirs in later turns of the loop
            if guest.connection.fileno() >= 0:
                await self._attend(guest, seat)
        finally:
            self._connections.leave(seat)

    def _send_away(self, guest: Guest) -> None:
        """End the connection of a guest who has said nothing, or not enough."""
        if guest.timer is not None:
            guest.timer.cancel()
            guest.timer = None
            asyncio.get_running_loop().remove_reader(guest.connection)
            if guest.seat is not None:
                self._connections.leave(guest.seat)
        guest.connection.close()

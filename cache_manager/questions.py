"""What the admin commands may ask for over the socket, and who answers."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cache_manager.processes import Peer
from cache_manager.protocol import Header
from cache_manager.selection import NotDone


@dataclass(frozen=True, slots=True)
class Question:
    """What an admin command asks, and who asks."""

    header: Header
    body: bytes
    peer: Peer

    @property
    def may_change(self) -> bool:
        """Whether the kernel says that root or the manager's own user asks."""
        return self.peer.uid in {0, os.geteuid()}

    @property
    def wishes(self) -> dict[str, Any]:
        """What the command's arguments say. Raises NotDone."""
        try:
            wishes = json.loads(self.body or b"{}")
        except (ValueError, RecursionError):
            wishes = None
        if not isinstance(wishes, dict):
            raise NotDone("the request's body is no JSON object")
        return wishes

    def words(self, name: str) -> list[str]:
        """Return a list of words among the arguments. Raises NotDone."""
        words = self.wishes.get(name, [])
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise NotDone(f"{name}: is no list of words")
        return words


Report = Callable[[Question], Awaitable[dict[str, Any]]]
"""Answers a question that anybody may ask."""

Work = Callable[[Question], AsyncGenerator[dict[str, Any]]]
"""Does what root and the manager's user may ask for: says how far it is, and at the end the result (`done`)."""


@dataclass(frozen=True)
class Verbs:
    """What the admin commands may ask for."""

    reports: Mapping[str, Report] = field(default_factory=dict)
    works: Mapping[str, Work] = field(default_factory=dict)

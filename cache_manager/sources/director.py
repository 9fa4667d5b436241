"""What a federation's director says: which servers have an object, the best first, and who may have it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

from cache_manager.outcome import Absent, Denied, Unwell
from cache_manager.registry import links
from cache_manager.retry_after import retry_after_s
from cache_manager.sources.asking import Question, Reply, UnansweredError, ask
from cache_manager.sources.base import SourceError
from cache_manager.sources.discovery import Director
from cache_manager.sources.federation_url import FederationUrl
from cache_manager.sources.refusals import shown
from cache_manager.status import HookStatus
from cache_manager.text import printable

LIMIT_S: Final = 10.0
SERVERS: Final = 6
"""More of the director's servers are not tried."""

TRIES: Final = 4
PAUSE_S: Final = 3.0
"""Before the second try; each further one waits so much longer."""

_FOUND: Final = 307
_DENIED: Final = frozenset({401, 403})
_GONE: Final = 404
_THROTTLED: Final = 429
_TROUBLE: Final = 500
_OBJECT, _ORIGIN = "object", "origin"


@dataclass(frozen=True, slots=True)
class Directions:
    """The servers of an object, in order, and what its namespace asks of who wants it."""

    servers: tuple[str, ...]
    namespace: str = ""
    needs_token: bool = False
    issuer: str = ""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks the director: with which token, for which job, and with how much patience."""

    token: str = ""
    budget_s: float = 60.0
    headers: Mapping[str, str] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random

    def directions(self, director: Director, what: FederationUrl, *, origin: bool = False) -> Directions:
        """Return who has an object: caches, or its origin. Raises SourceError.

        Asks again while the director starts up, or a proxy answers in its place, as long as the budget lasts.
        """
        kind = _ORIGIN if origin else _OBJECT
        query = f"?{what.query}" if what.query else ""
        url = f"{director.url}/api/v1.0/director/{kind}{what.path}{query}"
        began = self.clock()
        for attempt in range(1, TRIES):
            try:
                return self._ask(url, near=director.near)
            except RefusedError as error:
                said = error.answer.retry_after_s if isinstance(error.answer, Unwell) else None
                wait_s = PAUSE_S * attempt + self.jitter() if said is None else said
                if not error.may_change or self.clock() - began + wait_s > self.budget_s:
                    raise
            self.pause(wait_s)
        return self._ask(url, near=director.near)

    def _ask(self, url: str, *, near: bool) -> Directions:
        headers = {"X-Pelican-Timeout": f"{LIMIT_S:g}s", **self.headers}
        if self.token and (near or url.startswith("https:")):  # else whoever is between could read it
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            reply = ask(Question(url, LIMIT_S, headers=headers, near=near))
        except UnansweredError as error:
            raise RefusedError(error.answer, may_change=error.late) from None
        return read(url, reply, with_token=bool(self.token))


class RefusedError(SourceError):
    """The director leads nowhere; `may_change` says that it may soon."""

    def __init__(self, answer: Absent | Denied | Unwell, *, may_change: bool = False) -> None:
        super().__init__(answer)
        self.may_change = may_change


def read(url: str, reply: Reply, *, with_token: bool) -> Directions:
    """Return what a reply says. Raises RefusedError."""
    name = f"director {shown(url)}"
    if reply.status == _FOUND:
        try:
            return directions_of(reply.headers)
        except ValueError as error:
            raise RefusedError(Unwell(HookStatus.SOURCE_UNREACHABLE, f"{name}: {error}")) from None
    what = f"{name}: {printable(reply.words, 80)}{_said(reply)}"
    wait_s = retry_after_s(reply.headers.get("Retry-After", ""), time.time())
    if reply.status == _THROTTLED:  # it has just started, and does not know its servers yet
        raise RefusedError(Unwell(HookStatus.SOURCE_THROTTLED, what, retry_after_s=wait_s), may_change=True)
    trouble = Unwell(HookStatus.SOURCE_UNREACHABLE, what, everything=True, retry_after_s=wait_s)
    if not _is_directors(reply):
        raise RefusedError(replace(trouble, why=f"{what}, which is not the director's own word"), may_change=True)
    if reply.status == _GONE:  # also when no server is known to it
        raise RefusedError(Absent(what))
    if reply.status in _DENIED:
        raise RefusedError(Denied(what, wants_credential=not with_token))
    if reply.status >= _TROUBLE:
        raise RefusedError(trouble, may_change=True)
    raise RefusedError(replace(trouble, everything=False))


def _is_directors(reply: Reply) -> bool:
    """Whether it is the director that speaks: a proxy before it has other things to say, with the same statuses."""
    return reply.headers.get("Server", "").lower().startswith("pelican/")


def directions_of(headers: Mapping[str, str]) -> Directions:
    """Read the headers of a director's redirect. Raises ValueError if they lead nowhere."""
    said = [(url.strip(), _rank(of)) for url, of in links.parse(headers.get("Link", ""))]
    named = sorted((one for one in said if _is_server(one[0])), key=lambda one: one[1])
    servers = tuple(dict.fromkeys(url for url, _ in named))[:SERVERS]
    if not servers:
        location = headers.get("Location", "").strip()
        servers = (location,) if _is_server(location) else ()
    if not servers:
        raise ValueError("redirects to no server")
    namespace = _pairs(headers.get("X-Pelican-Namespace", ""))
    authorization = _pairs(headers.get("X-Pelican-Authorization", ""))
    return Directions(
        servers,
        namespace=printable(namespace.get("namespace", ""), 200),
        needs_token=namespace.get("require-token", "").lower() == "true",
        issuer=printable(authorization.get("issuer", ""), 200),
    )


def _rank(parameters: Mapping[str, str]) -> int:
    """Return a server's place among the others; the last for one that has none, or none that can be meant."""
    text = parameters.get("pri", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 10**9  # noqa: PLR2004 - digits


def _is_server(url: str) -> bool:
    """Whether a URL can be asked: what else a header holds is not told to an HTTP library."""
    if not url.isascii() or any(one <= " " for one in url):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _pairs(text: str) -> dict[str, str]:
    """Return what stands in `namespace=/x, require-token=true`; the first of each name counts."""
    found: dict[str, str] = {}
    for pair in text[: links.MAX_CHARACTERS].split(","):  # no regular expression: a hostile one takes minutes
        name, equals, value = pair.partition("=")
        if equals and name.strip():
            found.setdefault(name.strip().lower(), value.strip())
    return found


def _said(reply: Reply) -> str:
    """Return the message of a JSON body: the director says what is wrong, a server of objects too."""
    try:
        said = json.loads(reply.body)
    except (ValueError, RecursionError):
        return ""
    text = said.get("msg") or said.get("error") if isinstance(said, dict) else None
    return f": {printable(text, 200)}" if isinstance(text, str) and text else ""

"""Objects in a data federation (OSDF, Pelican): from caches in the director's order, and from the origin at last.

What is public is fetched without a credential, also for a job that has one. A credential goes along only where it is
asked for, and over TLS. What the origin says of an object is final; a cache or the director may be wrong for a while.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar
from uuid import uuid4

from cache_manager.credential import Credential
from cache_manager.memory import Memory
from cache_manager.outcome import Absent, Answer, Denied, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.sources import transport, unix_socket
from cache_manager.sources.base import Route, Sink, SourceError
from cache_manager.sources.director import Asker, Directions
from cache_manager.sources.discovery import Director, Discovery
from cache_manager.sources.federation_url import FederationUrl
from cache_manager.sources.tokens import located_in, token_of
from cache_manager.sources.transport import Head, Patience, shown
from cache_manager.status import HookStatus

AVOIDED_S: Final = 300.0
"""A server that did not answer is asked after the others for so long."""

HEAD_S: Final = 10.0
"""How long a server may take to say what it has: a cache may have to ask the origin."""

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_Failure = Absent | Denied | Unwell


@dataclass(eq=False)
class Federations:
    """What all who ask know of federations: their directors, and servers that do not answer. For threads."""

    discovery: Discovery = field(default_factory=Discovery)
    clock: Callable[[], float] = time.time
    pause: Callable[[float], None] = time.sleep
    _avoided: Memory[str, float] = field(default_factory=lambda: Memory(1000))

    def ordered(self, servers: Sequence[str]) -> list[str]:
        """Return servers in the director's order, those last that did not answer a short time ago."""
        now = self.clock()
        return sorted(servers, key=lambda url: self._avoided.get(_server(url), now) is not None)

    def avoid(self, url: str) -> None:
        """Remember that a server did not answer."""
        now = self.clock()
        self._avoided.put(_server(url), now, now + AVOIDED_S)


@dataclass(frozen=True, slots=True)
class Federation:
    """Objects as one user may have them. `own` is where the federation is found that osdf:// and stash:// mean.

    `local` is the Pelican cache of this machine (unix:///path), which is asked before all others; empty if there is
    none. `trace` is in the records of all servers that are asked.
    """

    own: str
    patience: Patience
    known: Federations
    credential: Credential | None = None
    local: str = ""
    trace: str = field(default_factory=lambda: str(uuid4()))

    def locate(self, image: ImageReference) -> Answer:
        """Say which version of an object there is, by what its servers say of it."""
        return located_in(image, self.own, self._located)

    def confirm(self, located: Located) -> None:
        """Ask whether this user would get the object now. Raises SourceError."""
        self._located(FederationUrl.parse(located.url, self.own))

    def transfer(self, located: Located, sink: Sink) -> None:
        """Fetch an object. Raises SourceError."""
        self._bring(FederationUrl.parse(located.url, self.own), sink, located)

    def read(self, url: str, *, fresh: bool = False) -> bytes:
        """Return the body of a small object; a `fresh` one from its origin: caches keep what they once had.

        Raises SourceError. That a tree lacks an object says nothing of the image: its origin's word is not final here.
        """
        what = FederationUrl.parse(url, self.own)
        try:
            if fresh:
                with suppress(SourceError):  # not every origin lets everybody read
                    return self._read_small(what.direct())
            return self._read_small(what)
        except SourceError as error:
            if isinstance(error.answer, Absent):
                raise SourceError(replace(error.answer, authoritative=False)) from None
            raise

    def _read_small(self, what: FederationUrl) -> bytes:
        def read_small(route: Route) -> bytes:
            return transport.read_small(route, self.patience)

        return self._from_servers(what, lambda routes: _first(routes, read_small))

    def bring(self, url: str, sink: Sink, digest: str) -> None:
        """Write an object to the sink. Raises SourceError, and the sink's StatusError."""
        self._bring(FederationUrl.parse(url, self.own), sink, Located(url=url, digest=digest))

    def _bring(self, what: FederationUrl, sink: Sink, located: Located) -> None:
        distrusted: list[Route] = []

        def bring(routes: Sequence[Route]) -> None:
            # objects do not change: of one whose size is known, any server may give the rest
            known = [replace(route, of_bytes=located.about_bytes) for route in routes]
            good = [route for route in known if route.url not in sink.wrong_from]
            if not good:
                distrusted.extend(known)
                raise SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, "delivered something else"))
            transport.transfer(good, sink, self.patience, located.digest)

        try:
            self._from_servers(what, bring)
        except SourceError:
            if not distrusted:
                raise
            transport.transfer(distrusted, sink, self.patience, located.digest)  # perhaps it was the network between

    def _located(self, what: FederationUrl) -> Located:
        found = self._from_servers(what, lambda routes: _first(routes, self._head))
        return Located(
            url=what.identity,
            version=_version(found),
            about_bytes=found.size_bytes,
            private=self.credential is not None,
        )

    def _head(self, route: Route) -> Head:
        try:
            return transport.head(route, replace(self.patience, stall_s=min(HEAD_S, self.patience.stall_s)))
        except SourceError as error:
            if isinstance(error.answer, Unwell):
                self.known.avoid(route.url)
            raise

    def _from_servers(self, what: FederationUrl, act: Callable[[Sequence[Route]], _T]) -> _T:
        """Return what comes of caches, else of the origin. Raises SourceError with the answer that tells most."""
        token = token_of(self.credential, self.known.clock())
        if self.local and what.discovery == self.own and "directread" not in what.query:
            try:
                return act([Route(unix_socket.url_at(self.local, what.path), self._headers(token), trailer=True)])
            except SourceError as error:
                log.warning("%s: %s", self.local, error)
        asker = Asker(token, self.patience.stall_s, headers=self._headers(), pause=self.known.pause)
        director = self.known.discovery.director(what.discovery)

        caches: _Failure | None = None
        while True:
            is_origin, spoke = caches is not None, False
            try:
                directions = asker.directions(director, what, origin=is_origin)
                self._refuse_without_token(what, directions)
                spoke = True
                return act(list(self.routes(director, directions, token)))
            except SourceError as error:
                answer = error.answer
            if caches is not None:
                raise SourceError(_telling(caches, answer, origin_spoke=spoke))
            if not spoke and not isinstance(answer, Absent):  # the director will say no more of the origin
                raise SourceError(answer)
            caches = answer

    def _headers(self, token: str = "") -> dict[str, str]:
        """Return what tells servers' admins which of their records belong together, and nothing of the job."""
        return {"X-Pelican-JobId": self.trace} | ({"Authorization": f"Bearer {token}"} if token else {})

    def routes(self, director: Director, directions: Directions, token: str) -> Iterator[Route]:
        """Yield the servers to ask, in order. A token goes only where nobody between can read it."""
        headers = self._headers(token)
        for url in self.known.ordered(directions.servers):
            if not token or url.startswith("https:") or director.near:
                yield Route(url, headers, trailer=True, near=director.near)

    def _refuse_without_token(self, what: FederationUrl, directions: Directions) -> None:
        if directions.needs_token and self.credential is None:
            issuer = f" of {directions.issuer}" if directions.issuer else ""
            why = f"{shown(what.identity)}: {directions.namespace or 'its namespace'} needs a token{issuer}"
            raise SourceError(Denied(why, wants_credential=True))


def _version(found: Head) -> str:
    """Return what tells an object's versions apart, wherever it is asked for.

    XRootD's ETag is a number of the server's own file: each has another one, and a cache has a new one once it has the
    object. There the size has to do: objects of a federation do not change, and its caches do not look if they did.
    """
    if found.version and "xrootd" not in found.server.lower():
        return found.version
    return "" if found.size_bytes is None else f"{found.size_bytes} bytes"


def _server(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]


def _telling(caches: _Failure, origin: _Failure, *, origin_spoke: bool) -> _Failure:
    """Return which answer counts, with the words of both. Only the origin itself knows what there is."""
    also = f" [and the origin: {origin.why}]"
    if not origin_spoke or (isinstance(caches, Denied) and isinstance(origin, Unwell)):
        return replace(caches, why=caches.why + also)
    if isinstance(origin, Absent):
        return replace(origin, authoritative=True)
    if isinstance(origin, Unwell) and isinstance(caches, Unwell):
        return replace(caches, why=caches.why + also)
    return origin


def _first(routes: Sequence[Route], act: Callable[[Route], _T]) -> _T:
    """Return what comes of the first of the servers that serves. Raises SourceError with the answer that tells most."""
    failures: list[_Failure] = []
    for route in routes:
        try:
            return act(route)
        except SourceError as error:
            failures.append(error.answer)
    if not failures:
        what = "no server of it speaks TLS, and a token goes to no other"
        raise SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, what))
    # one server's trouble says nothing of the object, and another's "not here" neither
    main = next((one for one in failures if isinstance(one, Unwell)), failures[0])
    if not isinstance(main, Unwell) and len({type(one) for one in failures}) > 1:
        main = Unwell(HookStatus.SOURCE_UNREACHABLE, main.why)
    others = [one.why for one in failures if one.why != main.why]
    why = "; ".join([main.why, *others])
    raise SourceError(replace(main, why=why, everything=False) if isinstance(main, Unwell) else replace(main, why=why))

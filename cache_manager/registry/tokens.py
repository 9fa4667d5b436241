"""How a registry lets us in: a password, or a token that its own server gives for it. Both are kept until they end."""

from __future__ import annotations

import base64
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode, urlsplit

from cache_manager.registry.challenge import Challenge, choose, parse
from cache_manager.registry.exchange import Question, Servers
from cache_manager.registry.failure import Kind, RegistryError
from cache_manager.registry.ratelimit import wait_s
from cache_manager.registry.reference import RegistryReference
from cache_manager.text import printable

MAX_BYTES: Final = 1 << 20
MAX_KEPT: Final = 4096
DEFAULT_S: Final = 60.0
"""How long a token is good whose server does not say."""

LONGEST_S: Final = 3600.0
MARGIN: Final = 0.9
"""This part of a token's time it is used: it has to be good when it arrives."""

_OK: Final = 200
_REFUSED: Final = frozenset({400, 401, 403, 404})
_THROTTLED: Final = 429


@dataclass(frozen=True, slots=True)
class Credential:
    """A user's name and password (or personal token) for a registry. Neither is ever shown."""

    user: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The Authorization header of both."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Access:
    """What is read, and as whom; anonymously without a credential."""

    reference: RegistryReference
    credential: Credential | None = None

    @property
    def place(self) -> tuple[str, str, Credential | None]:
        """What a permission is for: the repository, whichever of its tags."""
        return self.reference.host, self.reference.repository, self.credential

    def refused(self, what: str, status: int) -> RegistryError:
        """Return the failure of who is not let in."""
        how = "with the credential that was given" if self.credential else "without a credential"
        return RegistryError(Kind.PRIVATE, f"{self.reference}: {what} (asked {how})", status=status)


class Tokens:
    """What lets us read each repository, by the credential it is read with. May be used from several threads."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._kept: dict[tuple[str, str, Credential | None], tuple[str, float]] = {}
        self._lock = threading.Lock()

    def known(self, access: Access) -> str:
        """Return the Authorization for a repository; empty if none is known that is still good."""
        with self._lock:
            secret, until = self._kept.get(access.place, ("", 0.0))
        return secret if time.monotonic() < until else ""

    def meet(self, demand: str, access: Access, *, plain: bool) -> str:
        """Return the Authorization that meets a WWW-Authenticate. Raises RegistryError.

        `plain` says that the registry itself was asked without TLS: only then may its token server be.
        """
        challenge = choose(parse(demand))
        if challenge is None:
            raise access.refused("the registry wants a kind of credential that is not known here", 401)
        if challenge.scheme == "bearer":
            return self._keep(access, *self._fetch(challenge, access, plain=plain))
        if access.credential is None:
            raise access.refused("the registry wants a password", 401)
        return self._keep(access, access.credential.basic, LONGEST_S)

    def _keep(self, access: Access, secret: str, good_for_s: float) -> str:
        with self._lock:
            if len(self._kept) >= MAX_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[access.place] = (secret, time.monotonic() + good_for_s * MARGIN)
        return secret

    def _fetch(self, challenge: Challenge, access: Access, *, plain: bool) -> tuple[str, float]:
        question = _question(challenge, access, plain=plain)
        with self._servers.ask(question) as answer:
            if answer.status in _REFUSED and not answer.relayed:
                raise access.refused(f"no token from {urlsplit(question.url).hostname}", answer.status)
            if answer.status != _OK:
                kind = Kind.THROTTLED if answer.status == _THROTTLED else Kind.UNREACHABLE
                after_s = wait_s(answer.headers, time.time())
                what = f"{question.about}: HTTP {answer.status}"
                raise RegistryError(kind, what, status=answer.status, retry_after_s=after_s)
            return _token(answer.read(MAX_BYTES, question.about), question.about)


def _question(challenge: Challenge, access: Access, *, plain: bool) -> Question:
    """Return the question for a token. Raises RegistryError for a realm that may not get a credential."""
    reference, credential = access.reference, access.credential
    try:
        realm = urlsplit(challenge.parameters["realm"])
        host = realm.hostname or ""
    except ValueError:
        host = ""
    if not host or not (realm.scheme == "https" or (plain and realm.scheme == "http")):
        raise RegistryError(Kind.WRONG, f"{reference}: its registry names a token server that is none, or without TLS")
    service = challenge.parameters.get("service", "")
    words = {"service": service} if service else {}
    words["scope"] = challenge.parameters.get("scope") or reference.scope
    query = "&".join(filter(None, (realm.query, urlencode(words))))
    return Question(
        "GET",
        realm._replace(query=query, fragment="", netloc=realm.netloc.rpartition("@")[2]).geturl(),
        f"{reference}: token server {printable(host, 80)}",
        {},
        credential.basic if credential else "",
        sent_by=urlsplit(f"//{reference.host}").hostname or "",
    )


def _token(body: bytes, about: str) -> tuple[str, float]:
    """Return the Authorization that a token server gave, and for how many seconds it is good."""
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        values = None
    said = values if isinstance(values, dict) else {}
    token = said.get("token") or said.get("access_token")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or " " in token:
        raise RegistryError(Kind.WRONG, f"{about}: what it gave is no token ({len(body)} bytes)")
    good_for = said.get("expires_in")
    seconds = good_for if isinstance(good_for, (int, float)) and good_for > 0 else DEFAULT_S
    return f"Bearer {token}", float(min(seconds, LONGEST_S))

"""The forms in which a job names an object in a data federation, as one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from cache_manager.reference import FEDERATION_SCHEMES, ImageReference

QUERIES: Final = ("directread", "prefercached", "skipstat")
"""What is passed on to the director."""

_SLASHES = re.compile(r"/{2,}")


def is_in_federation(url: str) -> bool:
    """Whether a URL names something in a data federation."""
    return url.partition("://")[0].lower() in FEDERATION_SCHEMES


@dataclass(frozen=True, slots=True)
class FederationUrl:
    """An object: the URL where its federation is found, its path there, what the director is asked beside."""

    discovery: str
    path: str
    query: str = ""

    @property
    def identity(self) -> str:
        """The same for all ways to write it."""
        return f"pelican://{self.discovery.partition('://')[2].rstrip('/')}{self.path}"

    @classmethod
    def of(cls, image: ImageReference, federation: str) -> FederationUrl:
        """Take a reference, where `federation` is the URL that osdf:// and stash:// stand for."""
        return cls.parse(image.url, federation)

    @classmethod
    def parse(cls, url: str, federation: str) -> FederationUrl:
        """Take a URL that ImageReference or the settings have let pass."""
        scheme, _, rest = url.partition("://")
        path, _, query = rest.partition("#")[0].partition("?")
        if scheme == "pelican":
            host, _, path = path.partition("/")
            # a federation that the admin reaches without TLS is the same one when a job names it
            own = urlsplit(federation)
            federation = federation if own.netloc.lower() == host.lower() else f"https://{host.lower()}"
        asked = [(key, value) for key, value in parse_qsl(query, keep_blank_values=True) if key in QUERIES]
        return cls(federation.rstrip("/"), _SLASHES.sub("/", f"/{path}"), urlencode(asked))

    def direct(self) -> FederationUrl:
        """Return the same object as its origin has it now: caches keep what they once had."""
        return FederationUrl(self.discovery, self.path, "directread")

"""The name of an image in a Singularity library, taken apart as Apptainer does. Pure.

`library://[host/]entity/collection/container[:tag]`, and from the left less where there is no host: a library has
defaults for entity and collection. Of several tags the first is meant. A digest (`sha256.<hex>`) is a tag too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from cache_manager.text import printable

DEFAULT_TAG: Final = "latest"
_DEPTH: Final = 3
"""Entity, collection, container: what has more begins with a host."""

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{1,5}))?")
_LAST_PORT: Final = 65535


class LibraryReferenceError(ValueError):
    """No library has an image of that name; the text says why."""


@dataclass(frozen=True, slots=True)
class LibraryReference:
    """An image in a library; `host` (with its port, if one is named) is empty where the site's own is meant."""

    host: str
    path: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> LibraryReference:
        """Take apart what follows `library://`. Raises LibraryReferenceError."""
        for mark in "@?#":
            if mark in text:
                raise LibraryReferenceError(f"takes no user, no query and no fragment ({mark!r})")
        host, path = text.split("/", 1) if text.count("/") >= _DEPTH else ("", text)
        path, colon, tags = path.partition(":")
        tag = tags.partition(",")[0] if colon else DEFAULT_TAG
        if host and not _is_host(host):
            raise LibraryReferenceError(f"{printable(host, 80)!r} is no host")
        parts = path.split("/")
        if len(parts) > _DEPTH:
            raise LibraryReferenceError(f"has {len(parts)} parts, at most entity/collection/container ({_DEPTH})")
        for part in parts:
            if not _PART.fullmatch(part):
                raise LibraryReferenceError(f"{printable(part, 80)!r} is no part of a name in a library")
        if not _TAG.fullmatch(tag):
            raise LibraryReferenceError(f"{printable(tag, 80)!r} is no tag")
        return cls(host.lower(), path, tag)

    def server(self, own: str) -> str:
        """Return the URL of the library to ask, where `own` is the site's; empty if there is none.

        A library that the admin reaches without TLS is the same one when a job names it.
        """
        if not self.host or own.partition("://")[2].partition("/")[0].lower() == self.host:
            return own
        return f"https://{self.host}"


def _is_host(text: str) -> bool:
    found = _HOST.fullmatch(text)
    if found is None or not 0 < int(found[2] or "1") <= _LAST_PORT:
        return False
    try:
        return found[1] is None or bool(IPv6Address(found[1]))
    except ValueError:
        return False

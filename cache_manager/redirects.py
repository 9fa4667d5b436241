"""Where a redirect leads, and whether a job's user and password go with it."""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult, urldefrag, urljoin, urlsplit

from cache_manager.text import printable, without_secrets

MAX_REDIRECTS: Final = 20
CODES: Final = frozenset({301, 302, 303, 307, 308})
_PORTS: Final = {"http": 80, "https": 443}


class RedirectError(ValueError):
    """A redirect that is not followed; the text says why."""


def next_url(url: str, location: str) -> str:
    """Return where an answer for `url` with this Location leads. Raises RedirectError.

    User and password of `url` stay with its own server: another host or port does not get them, nor a connection that
    is no longer encrypted.
    """
    try:
        # http.client reads headers as Latin-1; URLs in them are UTF-8, if they are not ASCII
        joined = urldefrag(urljoin(url, location.encode("latin-1").decode())).url
        parts = urlsplit(joined)
        server = _server(parts)
    except ValueError:
        raise RedirectError("redirects to what is no URL") from None
    if parts.scheme not in _PORTS:
        where = printable(without_secrets(joined), 100)
        raise RedirectError(f"redirects to {where}: only http and https are followed")
    before = urlsplit(url)
    user = before.netloc.rpartition("@")[0]
    if not user or "@" in parts.netloc or not _may_know(_server(before), server):
        return parts.geturl()
    return parts._replace(netloc=f"{user}@{parts.netloc}").geturl()


def goes_along(asked: str, url: str) -> bool:
    """Whether what only the server of `asked` may know may be sent to where redirects led."""
    try:
        return _may_know(_server(urlsplit(asked)), _server(urlsplit(url)))
    except ValueError:
        return asked == url


def host_of(url: str) -> str:
    """Return the name or address of a URL's server; empty for none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _server(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)


def _may_know(before: tuple[str, str, int], after: tuple[str, str, int]) -> bool:
    """Whether it is the same server, or the same one encrypted from now on."""
    host = before[1]
    return before == after or (before, after) == (("http", host, 80), ("https", host, 443))

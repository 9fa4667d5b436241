"""What an HTTP server's answer means, and what went wrong where there is none: in words without secrets."""

from __future__ import annotations

import time
from typing import Final, NoReturn

import requests
from urllib3.exceptions import DecodeError

from cache_manager.outcome import Absent, Denied, Unwell
from cache_manager.retry_after import retry_after_s
from cache_manager.sources.base import SourceError
from cache_manager.status import HookStatus
from cache_manager.text import printable, without_secrets
from cache_manager.web import cause, through_proxy

_DENIED: Final = frozenset({401, 403})
_GONE: Final = frozenset({404, 410})
_THROTTLED: Final = 429


def shown(url: str) -> str:
    """Return a URL for messages, logs and records: without user, password, query (which may be signed), fragment."""
    return printable(without_secrets(url), 300)


def unreachable(url: str, why: str) -> SourceError:
    """Return the failure of a source that does not deliver."""
    return SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, f"{shown(url)}: {why}"))


def refuse(response: requests.Response, name: str) -> NoReturn:
    """Raise SourceError with what an answer means that is none of the good ones; `name` begins the message."""
    code = response.status_code
    what = f"{name}HTTP {code} {printable(response.reason or '', 40)}".rstrip()
    relayed = through_proxy(response)
    if code in _GONE:
        raise SourceError(Absent(what, relayed=relayed))
    if code in _DENIED and not relayed:
        raise SourceError(Denied(what))
    said = response.headers.get("Retry-After", "")
    wait_s = retry_after_s(said, time.time())
    if code == _THROTTLED or said:
        what += f" (Retry-After: {_wait_words(said, wait_s)})"
    status = HookStatus.SOURCE_THROTTLED if code == _THROTTLED else HookStatus.SOURCE_UNREACHABLE
    raise SourceError(Unwell(status, what, retry_after_s=wait_s))


def _wait_words(said: str, wait_s: float | None) -> str:
    if not said:
        return "not said"
    words = printable(said, 40)
    return f"{words}, which is no time" if wait_s is None else f"{words}, that is {wait_s:.0f} s"


def broken(error: Exception) -> str:
    """Return what ended a body before its end."""
    if isinstance(error, DecodeError):
        return "its Content-Encoding cannot be undone"
    why = cause(error)
    return "ended early" if "IncompleteRead" in why else why

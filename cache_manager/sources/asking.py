"""One small question to an HTTP server, and whatever it says: for services whose every status means something."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import requests
from urllib3.exceptions import HTTPError

from cache_manager import __version__
from cache_manager.outcome import Unwell
from cache_manager.redirects import CODES, MAX_REDIRECTS, RedirectError, goes_along, host_of, next_url
from cache_manager.sources.base import SourceError
from cache_manager.sources.refusals import shown
from cache_manager.status import HookStatus
from cache_manager.web import Watch, cause, session

LARGEST: Final = 64 * 1024
USER_AGENT: Final = f"htcondor-image-cache/{__version__}"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. `near`: who led us here answers this machine alone; None where nobody led us.

    `limit_s` is for the connection and for the answer, each.
    """

    url: str
    limit_s: float
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    near: bool | None = None
    follow: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What came: `body` is its beginning. `near` says whether the server answers this machine alone."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    near: bool

    @property
    def words(self) -> str:
        """The status as people read it."""
        return f"HTTP {self.status} {self.reason}".rstrip()


class UnansweredError(SourceError):
    """No answer: nobody is there, or nothing came in time (`late`)."""

    def __init__(self, url: str, why: str, *, late: bool) -> None:
        super().__init__(Unwell(HookStatus.SOURCE_UNREACHABLE, f"{shown(url)}: {why}", everything=True))
        self.late = late


def ask(question: Question) -> Reply:
    """Return the answer. Raises UnansweredError."""
    with session() as one, Watch() as watch:
        at = question.url
        try:
            if question.near is None:
                watch.begin(host_of(at))
            else:
                watch.led(host_of(at), near=question.near)
            for _ in range(MAX_REDIRECTS):
                reply, leads_to = _exchange(one, watch, question, at)
                if not leads_to:
                    return reply
                at = next_url(at, leads_to)
                watch.redirect(host_of(at))
        except (requests.RequestException, HTTPError, RedirectError, OSError) as error:
            late = watch.ended or isinstance(error, requests.Timeout)
            why = f"no answer in {question.limit_s:g} s" if late else _why(error)
            raise UnansweredError(question.url, why, late=late) from None
    raise UnansweredError(question.url, "too many redirects", late=False)


def _exchange(one: requests.Session, watch: Watch, question: Question, at: str) -> tuple[Reply, str]:
    """Return what one server says, and where it leads to if that is to be followed."""
    watch.allow(2 * question.limit_s)
    limits = (question.limit_s, question.limit_s)
    headers = {"Accept-Encoding": "identity", "User-Agent": USER_AGENT}
    if goes_along(question.url, at):
        headers |= question.headers
    sent = one.request(question.method, at, allow_redirects=False, stream=True, timeout=limits, headers=headers)
    with sent as response:
        location = response.headers.get("Location", "")
        if question.follow and response.status_code in CODES and location:
            return Reply(response.status_code, "", {}, b"", near=watch.is_near), location
        body = _beginning(response, time.monotonic() + question.limit_s)
        watch.allow(threading.TIMEOUT_MAX)
        if watch.ended:
            raise requests.Timeout
        return Reply(response.status_code, response.reason or "", response.headers, body, near=watch.is_near), ""


def _beginning(response: requests.Response, ends: float) -> bytes:
    body = b""
    while len(body) < LARGEST and time.monotonic() < ends:
        piece: bytes = response.raw.read1(LARGEST - len(body), decode_content=True)
        if not piece:
            break
        body += piece
    return body


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, RedirectError) else cause(error)

"""The revision of a CVMFS repository that is published now, asked where the client here would get it.

A client that cannot reach its servers goes on with the revision that it has, and looks healthy: an image that was
published since is missing there, and only there. Source: the client's `user.host` and `user.proxy`, and the signed
manifest `.cvmfspublished` of a Stratum 1, one field a line by its first letter (`S` is the revision) up to `--`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

import requests
from urllib3.exceptions import HTTPError

from cache_manager.memory import Memory
from cache_manager.web import cause

TRUSTED_S: Final = 15.0
"""How long a published revision is taken for the newest: however many names are wrong, one request in that time."""

CONNECT_S: Final = 5.0
READ_S: Final = 5.0
TOTAL_S: Final = 10.0
MANIFEST_BYTES: Final = 64 * 1024
_REVISION: Final = re.compile(rb"S(\d{1,18})")
_OK: Final = 200


class PublishedRevisions:
    """What Stratum 1 servers say. Methods block; safe to use from several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._known: Memory[str, int | str] = Memory(100)
        self._clock = clock

    def why_old(self, facts: dict[str, object]) -> str:
        """Return why the mounted revision may not be the newest; empty if it is, or if the client tells nothing."""
        revision, host = str(facts.get("revision", "")), str(facts.get("host", ""))
        if not revision.isdecimal() or not host.startswith(("http://", "https://")):
            return ""
        proxy = str(facts.get("proxy", ""))
        now = self._clock()
        published = self._known.get(f"{host} {proxy}", now)
        if published is None:
            published = self._ask(host, proxy)
            self._known.put(f"{host} {proxy}", published, now + TRUSTED_S)
        if isinstance(published, str):
            return f"it cannot be told whether its revision {revision} is the newest: {published}"
        old = published > int(revision)
        return f"an old revision is mounted here ({revision}, published is {published})" if old else ""

    def _ask(self, host: str, proxy: str) -> int | str:
        """Return the published revision, or why it cannot be told."""
        url = f"{host.rstrip('/')}/.cvmfspublished"
        with requests.Session() as session:
            session.trust_env = False  # what the client does, and not what our environment says
            if proxy.startswith("http"):
                session.proxies = {"http": proxy, "https": proxy}
            try:
                with session.get(url, stream=True, timeout=(CONNECT_S, READ_S)) as response:
                    body = _beginning(response)
                    if response.status_code != _OK:
                        return f"its Stratum 1 says HTTP {response.status_code}"
            except (requests.RequestException, HTTPError, ValueError) as error:
                return f"its Stratum 1: {cause(error)}"
        revision = revision_of(body)
        return "its Stratum 1 sends no manifest" if revision is None else revision


def revision_of(manifest: bytes) -> int | None:
    """Return the revision that a manifest tells; None for what is none."""
    fields = manifest.split(b"\n--", 1)[0].split(b"\n")
    found = next((match for match in map(_REVISION.fullmatch, fields) if match), None)
    return int(found.group(1)) if found else None


def _beginning(response: requests.Response) -> bytes:
    """Return the fields of a manifest: what comes before its signature, in a time and size that fit one."""
    body = b""
    ends = time.monotonic() + TOTAL_S
    for chunk in response.iter_content(4096):
        body += chunk
        if b"\n--" in body or len(body) > MANIFEST_BYTES or time.monotonic() > ends:
            break
    return body

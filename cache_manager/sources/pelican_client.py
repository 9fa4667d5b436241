"""Objects in a data federation by way of the `pelican` command, for sites that prefer it.

It fetches into a file, from which the sink takes the object: both count while it does. A token goes by the environment,
which only this user and root can see.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cache_manager import limited
from cache_manager.abilities import Ran
from cache_manager.credential import Credential
from cache_manager.limited import Limits
from cache_manager.outcome import Absent, Answer, Denied, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.sources.base import Sink, SourceError
from cache_manager.sources.federation_url import FederationUrl
from cache_manager.sources.tokens import located_in, token_of
from cache_manager.sources.transport import Patience, shown
from cache_manager.status import HookStatus
from cache_manager.text import human_bytes, printable

PROGRAM: Final = "pelican"
MEMORY_BYTES: Final = 4 << 30
STAT_S: Final = 60.0
SMALL_BYTES: Final = 64 * 1024
CHUNK: Final = 1 << 20
_PASSED_ON: Final = ("PATH", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

OK: Final = 0
AUTHORIZATION: Final = 7
NOT_FOUND: Final = 8
UNKNOWN: Final = 1
TOO_LATE: Final = frozenset({124, 137})
_REFUSED: Final = re.compile(r"\b(?:401|403)\b|permission denied|authoriz|forbidden", re.IGNORECASE)
_LACKED: Final = re.compile(r"\b404\b|not found|no such file", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PelicanClient:
    """Objects as one user may have them; `directory` is where the command may put files. As `Federation` otherwise."""

    own: str
    patience: Patience
    directory: str
    credential: Credential | None = None
    clock: Callable[[], float] = time.time

    def locate(self, image: ImageReference) -> Answer:
        """Ask for an object's size. Objects of a federation do not change: nothing else tells versions apart."""
        return located_in(image, self.own, self._located)

    def confirm(self, located: Located) -> None:
        """Ask whether this user would get the object now. Raises SourceError."""
        self._located(FederationUrl.parse(located.url, self.own))

    def transfer(self, located: Located, sink: Sink) -> None:
        """Fetch an object. Raises SourceError."""
        self.bring(located.url, sink, located.digest)

    def bring(self, url: str, sink: Sink, digest: str) -> None:  # noqa: ARG002 - the command resumes by itself
        """Write an object to the sink. Raises SourceError, and the sink's StatusError."""
        with tempfile.TemporaryDirectory(prefix="pelican-", dir=self.directory) as place:
            file = self._got(FederationUrl.parse(url, self.own), place, lambda came: sink.expect(2 * came))
            sink.restart()  # what another way has begun
            sink.came_from.add(url)
            with file.open("rb") as source:
                while data := source.read(CHUNK):
                    sink.write(data)

    def read(self, url: str, *, fresh: bool = False) -> bytes:
        """Return the body of a small object. Raises SourceError."""
        what = FederationUrl.parse(url, self.own)
        with tempfile.TemporaryDirectory(prefix="pelican-", dir=self.directory) as place:
            file = self._got(what.direct() if fresh else what, place, lambda _: None)
            with file.open("rb") as source:
                data = source.read(SMALL_BYTES + 1)
        if len(data) > SMALL_BYTES:
            raise _unwell(what, f"larger than {SMALL_BYTES} bytes, so no index")
        return data

    def _located(self, what: FederationUrl) -> Located:
        with tempfile.TemporaryDirectory(prefix="pelican-", dir=self.directory) as place:
            ran = self._run(["object", "stat", "--json", _argument(what)], place, STAT_S, lambda: None)
        if ran.status != OK:
            raise SourceError(answer_of(what, ran, with_token=self.credential is not None))
        size = size_of(ran.said)
        version = "" if size is None else f"{size} bytes"
        private = self.credential is not None
        return Located(url=what.identity, version=version, about_bytes=size, private=private)

    def _got(self, what: FederationUrl, place: str, expect: Callable[[int], None]) -> Path:
        """Have an object fetched into a file below `place`, within the budget. Raises SourceError."""
        file = Path(place, "object")
        began = time.monotonic()

        def look() -> None:
            came = _size_below(place)
            expect(came)
            spent_s, budget_s = time.monotonic() - began, self.patience.budget_s(came)
            if spent_s > budget_s:
                why = f"too slow ({human_bytes(came)} in {spent_s:.0f} s; its time was {budget_s:.0f} s)"
                raise SourceError(Unwell(HookStatus.SOURCE_TOO_SLOW, f"{shown(what.identity)}: {why}"))

        ran = self._run(["object", "get", _argument(what), str(file)], place, float(7 * 86400), look)
        if ran.status != OK:
            raise SourceError(answer_of(what, ran, with_token=self.credential is not None))
        if not file.is_file():
            raise _unwell(what, f"{PROGRAM} says that it has it, and there is no file")
        return file

    def _run(self, words: list[str], place: str, limit_s: float, look: Callable[[], None]) -> Ran:
        program = shutil.which(PROGRAM)
        if program is None:
            what = f"the command {PROGRAM!r} is not on PATH (IMAGE_CACHE_PELICAN = client)"
            raise SourceError(Unwell(HookStatus.NO_CONTAINER_RUNTIME, what))
        token = token_of(self.credential, self.clock())
        limits = Limits(MEMORY_BYTES, os.cpu_count() or 1, limit_s)
        try:
            return limited.run([program, *words], limits, self._environment(place, token), place, look)
        except OSError as error:
            what = f"{program}: {error.strerror}"
            raise SourceError(Unwell(HookStatus.NO_CONTAINER_RUNTIME, what)) from None

    def _environment(self, place: str, token: str) -> Mapping[str, str]:
        known = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        known |= {
            "HOME": place,
            "LC_ALL": "C.UTF-8",
            "PELICAN_CLIENT_MINIMUMDOWNLOADSPEED": str(self.patience.min_rate_bytes),
            "PELICAN_CLIENT_STOPPEDTRANSFERTIMEOUT": f"{self.patience.stall_s:.0f}s",
        }
        return known | ({"BEARER_TOKEN": token} if token else {})


def _argument(what: FederationUrl) -> str:
    return f"{what.identity}?{what.query}" if what.query else what.identity


def _size_below(place: str) -> int:
    """Return what the command has written: under the object's name, or another one while it is not whole."""
    sizes = [0]
    for path in Path(place).iterdir():
        with suppress(OSError):
            sizes.append(path.stat().st_size)
    return max(sizes)


def size_of(said: str) -> int | None:
    """Return the size that `object stat --json` tells, in whatever stands around it; None if it does not."""
    found = re.search(r'"size"\s*:\s*([0-9]{1,18})\b', said, re.IGNORECASE)
    return int(found[1]) if found else None


def answer_of(what: FederationUrl, ran: Ran, *, with_token: bool) -> Absent | Denied | Unwell:
    """Return what an exit status of the command means; of 1, which says nothing, its words are read."""
    status, words = ran.status, printable(" ".join(ran.said.split())[-300:], 300)
    why = f"{shown(what.identity)}: {PROGRAM} {'did not end in time' if status is None else f'ended with {status}'}"
    why += f": {words}" if words else ""
    if status is None or status in TOO_LATE:
        return Unwell(HookStatus.SOURCE_TOO_SLOW, why)
    if status == AUTHORIZATION or (status == UNKNOWN and _REFUSED.search(ran.said)):
        return Denied(why, wants_credential=not with_token)
    if status == NOT_FOUND or (status == UNKNOWN and _LACKED.search(ran.said)):
        return Absent(why)  # its director says so too when no server is known to it
    return Unwell(HookStatus.SOURCE_UNREACHABLE, why)


def _unwell(what: FederationUrl, why: str) -> SourceError:
    return SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, f"{shown(what.identity)}: {why}"))

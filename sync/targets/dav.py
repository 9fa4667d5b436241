"""SIFs by HTTP PUT, with what of WebDAV the server knows: an XRootD origin, nginx, Apache, an object store's gateway.

A file is put beside its place and moved there. A server that cannot move gets it at its place, which no pointer leads
to before it is whole; a name that was used once, even for a part of a file, is not used again.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote

import crc32c
import requests
from requests.auth import AuthBase

from cache_manager.text import printable
from cache_manager.web import cause
from sync import credentials
from sync.targets.base import NoRoom, TargetError

TIMEOUT_S: Final = (10, 120)
"""For the connection, and for each wait until something is sent or received."""

_BLOCK: Final = 1 << 20
_CANNOT: Final = frozenset({400, 403, 405, 409, 501})
"""How servers say that they know no MOVE, or not here."""

_GONE: Final = frozenset({404, 410})
_FOR_GOOD: Final = frozenset({400, 401, 403, 405, 413})


class _Given(AuthBase):
    """Sends what the credentials file says; and so keeps requests from looking into ~/.netrc."""

    def __init__(self, header: str) -> None:
        self._header = header

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._header:
            request.headers["Authorization"] = self._header
        return request


def _header(path: str) -> str:
    """Return the Authorization header for a credentials file. Raises TargetError."""
    try:
        found = credentials.read(path)
    except credentials.CredentialsError as error:
        raise TargetError(f"credentials {error}") from None
    if not found.user:
        return f"Bearer {found.secret}"
    return f"Basic {base64.b64encode(f'{found.user}:{found.secret}'.encode()).decode()}"


class SifServer:
    """See FileStore: a server's tree below `base`, an http(s) URL without credentials."""

    def __init__(self, base: str, credentials_file: str = "") -> None:
        self.base = base.rstrip("/")
        self._credentials_file = credentials_file
        self._session = requests.Session()
        self._moves = True
        self._made: set[str] = set()

    def begin(self) -> None:
        """See FileStore. What was left there cannot be told from elsewhere."""
        self._session.auth = _Given(_header(self._credentials_file) if self._credentials_file else "")

    def versions(self, directory: str) -> set[str] | None:  # noqa: ARG002 - as every store
        """See FileStore: HTTP lists nothing."""
        return None

    def add(self, path: str, source: Path, sha256: str) -> None:
        """See FileStore; read back are the size, and the digest if the server tells one."""
        size, sha, crc = _read(source)
        if sha.hex() != sha256:
            raise TargetError(f"{source}: its sha256 is {sha.hex()}, not {sha256}")
        if self._ask("HEAD", path, expected={HTTPStatus.OK, *_GONE}).status_code == HTTPStatus.OK:
            raise TargetError(f"{self._shown(path)}: is there already, and is not overwritten", transient=False)
        with source.open("rb") as stream:
            self._put(path, stream, overwrite=False)
        self._verify(path, size, sha, crc)

    def replace(self, path: str, content: bytes) -> None:
        """See FileStore."""
        with BytesIO(content) as stream:
            self._put(path, stream, overwrite=True)

    def remove(self, path: str) -> bool:
        """See FileStore."""
        self._ask("DELETE", path, expected={200, 202, 204, *_GONE})
        return True

    def _put(self, path: str, stream: IO[bytes], *, overwrite: bool) -> None:
        directory, _, name = path.rpartition("/")
        hidden = f"{directory}/.new-{name}".lstrip("/")
        place = hidden if self._moves else path
        self._make_directories(directory)
        self._ask("PUT", place, data=stream, expected={200, 201, 204})
        if place == hidden and not self._moved(hidden, path, overwrite=overwrite):
            self._moves = False
            stream.seek(0)
            self._put(path, stream, overwrite=overwrite)

    def _moved(self, hidden: str, path: str, *, overwrite: bool) -> bool:
        headers = {"Destination": self._url(path), "Overwrite": "T" if overwrite else "F"}
        answer = self._ask("MOVE", hidden, headers=headers, expected={200, 201, 204, 412, *_CANNOT})
        if answer.status_code == HTTPStatus.PRECONDITION_FAILED:
            raise TargetError(f"{self._shown(path)}: is there already, and is not overwritten", transient=False)
        if answer.status_code in _CANNOT:
            self._ask("DELETE", hidden, expected=set(range(200, 500)))
            return False
        return True

    def _make_directories(self, directory: str) -> None:
        """Make what may be missing, before anything is put there: servers differ in how they say that it is."""
        parts = directory.split("/") if directory else []
        for count in range(1, len(parts) + 1):
            one = "/".join(parts[:count])
            if one not in self._made:
                self._ask("MKCOL", f"{one}/", expected=set(range(200, 600)))  # 405: it is there, or needs no making
                self._made.add(one)

    def _verify(self, path: str, size: int, sha: bytes, crc: int) -> None:
        headers = {"Accept-Encoding": "identity"}
        answer = self._ask("HEAD", path, headers=headers, expected={HTTPStatus.OK})
        told = answer.headers.get("Content-Length", "")
        if told.isascii() and told.isdigit() and int(told) != size:
            raise TargetError(f"{self._shown(path)}: the server has {told} bytes of {size}")
        headers["Want-Digest"] = "crc32c,sha-256"
        answer = self._ask("HEAD", path, headers=headers, expected=set(range(200, 600)))  # XRootD without sums: 405
        for name, value in _digests(answer.headers.get("Digest", "")):
            wrong = (name == "sha-256" and value != sha) or (name == "crc32c" and value != crc.to_bytes(4, "big"))
            if wrong:
                raise TargetError(f"{self._shown(path)}: the server has another {name} than what was sent")

    def _ask(self, method: str, path: str, *, expected: set[int], **options: Any) -> requests.Response:  # noqa: ANN401 - those of requests
        """Ask the server for something. Raises TargetError for any status that is not expected."""
        try:
            answer = self._session.request(method, self._url(path), timeout=TIMEOUT_S, **options)
        except requests.RequestException as error:
            raise TargetError(f"{self._shown(path)}: {method}: {cause(error)}") from None
        if answer.status_code in expected:
            return answer
        message = (
            f"{self._shown(path)}: {method} was answered with HTTP {answer.status_code} {printable(answer.reason)}"
        )
        if answer.status_code == HTTPStatus.INSUFFICIENT_STORAGE:
            raise NoRoom(message)
        raise TargetError(message, transient=answer.status_code not in _FOR_GOOD)

    def _url(self, path: str) -> str:
        return f"{self.base}/{quote(path)}"

    def _shown(self, path: str) -> str:
        return f"{self.base}/{printable(path)}"


def _read(source: Path) -> tuple[int, bytes, int]:
    """Return the size, sha256 and CRC-32C of a file."""
    size, sha, crc = 0, hashlib.sha256(), 0
    try:
        with source.open("rb") as stream:
            while block := stream.read(_BLOCK):
                size += len(block)
                sha.update(block)
                crc = crc32c.crc32c(block, crc)
    except OSError as error:
        raise TargetError(f"{source}: {error.strerror}") from None
    return size, sha.digest(), crc


def _digests(header: str) -> Iterator[tuple[str, bytes]]:
    """Yield the digests that a server tells, those that can be meant; CRC-32C in hexadecimal or base64."""
    for part in header.split(","):
        name, _, text = part.strip().partition("=")
        name, text = name.lower(), text.strip()
        try:
            if name == "sha-256":
                yield name, base64.b64decode(text, validate=True)
            elif name == "crc32c" and len(text) <= 8 and not text.endswith("="):  # noqa: PLR2004 - digits of 4 bytes
                yield name, int(text, 16).to_bytes(4, "big")
            elif name == "crc32c":
                yield name, base64.b64decode(text, validate=True)
        except ValueError:
            continue

"""What servers say of one object, and of parts of it: whole, cut, in chunks, compressed, of another version."""

from __future__ import annotations

import gzip

from cache_manager.sources.exchange import Patience
from cache_manager.status import HookStatus
from tests.contract.raw_server import End, Script, answer

PATIENCE = Patience(min_rate_bytes=10**6, stall_s=20.0)
HASTY = Patience(min_rate_bytes=10**3, stall_s=0.3)
IMAGE = bytes(range(256)) * 16
OTHER = IMAGE[::-1]
SIZE, HALF = len(IMAGE), len(IMAGE) // 2
ETAG = {"ETag": '"one"'}
DIGEST = "ab" * 32
"""Whoever reads the sink holds it against what came; here it says that somebody will."""

UNREACHABLE, TOO_SLOW = HookStatus.SOURCE_UNREACHABLE, HookStatus.SOURCE_TOO_SLOW


def start(upto: int = HALF, body: bytes = IMAGE, headers: dict[str, str] | None = None, end: End = End.RESET) -> Script:
    """Return an answer that is cut."""
    return answer(body=body[:upto], headers=ETAG if headers is None else headers, length=str(len(body))), end


def rest(
    first: int = HALF, body: bytes = IMAGE, said: str = "", headers: dict[str, str] | None = None, sent: int = SIZE
) -> bytes:
    """Return an answer with the rest of an object, what is said of it (`said`), and so many bytes of it."""
    part = {"Content-Range": said or f"bytes {first}-{SIZE - 1}/{SIZE}"}
    found = (ETAG if headers is None else headers) | part
    return answer("206 Partial Content", body[first:][:sent], found, str(SIZE - first))


def piece(first: int, last: int) -> bytes:
    """Return an answer with less than all of the rest."""
    part = {"Content-Range": f"bytes {first}-{last}/{SIZE}"}
    return answer("206 Partial Content", IMAGE[first : last + 1], ETAG | part)


def whole(body: bytes = IMAGE, headers: dict[str, str] | None = None) -> Script:
    """Return an answer with all of an object."""
    return (answer(body=body, headers=ETAG if headers is None else headers),)


def chunked(*pieces: bytes, trailer: str | None = None) -> bytes:
    """Return a body in chunks, with what a Pelican server says after the last."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n"
    said = b"" if trailer is None else f"X-Transfer-Status: {trailer}\r\n".encode()
    head = answer(headers={"Transfer-Encoding": "chunked", "Trailer": "X-Transfer-Status"} | ETAG, length="")
    return head + body + said + b"\r\n"


def squeezed(status: str = "200 OK") -> tuple[bytes]:
    """Return an answer that is compressed although nobody asked for that."""
    part = {"Content-Range": f"bytes {HALF}-{SIZE - 1}/{SIZE}"} if status.startswith("206") else {}
    return (answer(status, gzip.compress(IMAGE), ETAG | part | {"Content-Encoding": "gzip"}),)


UNSATISFIABLE = answer("416 Range Not Satisfiable", headers={"Content-Range": f"bytes */{HALF}"})
GONE = answer("404 Not Found")
WEAK = {"ETag": 'W/"one"'}
TWO = {"ETag": '"two"'}

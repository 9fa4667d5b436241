"""The questions that only the hook can answer, because only the job's user may look: asked back on its connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from cache_manager import protocol
from cache_manager.caller import ProbeResult, TestResult
from cache_manager.credential import Credential, NoCredential
from cache_manager.protocol import Header, ProtocolError
from cache_manager.status import HookStatus, StatusError
from cache_manager.text import printable

PROBE_S: Final = 30.0
TEST_S: Final = 60.0
CREDENTIAL_S: Final = 30.0

Exchange = Callable[[bytes, float], Awaitable[tuple[Header, bytes]]]
"""Sends a frame and returns the answer, if it comes in so many seconds. Raises ProtocolError and the connection's."""


async def _asked(exchange: Exchange, question: bytes, limit_s: float) -> tuple[Header, bytes]:
    try:
        return await exchange(question, limit_s)
    except ProtocolError as error:
        raise StatusError(HookStatus.HOOK_INTERNAL_ERROR, f"image cache hook: {error}") from None


def prober(exchange: Exchange) -> Callable[[str], Awaitable[ProbeResult]]:
    """Return what has a path opened as the job's user."""

    async def probe(path: str) -> ProbeResult:
        question = protocol.frame(path.encode(errors="surrogateescape"), ask="probe")
        header, head = await _asked(exchange, question, PROBE_S)
        kind, why = header.keys.get("kind", "unwell"), header.keys.get("error", "")
        return ProbeResult(kind, int(header.number("size", 0)), head, why, header.keys.get("real", ""))

    return probe


def tester(exchange: Exchange) -> Callable[[str, str], Awaitable[TestResult]]:
    """Return what has an image started as the job's user."""

    async def test(runtime: str, image: str) -> TestResult:
        question = protocol.frame(f"{runtime}\n{image}".encode(errors="surrogateescape"), ask="test")
        header, said = await _asked(exchange, question, TEST_S)
        status = header.keys.get("status", "")
        known = int(status) if status.removeprefix("-").isdecimal() and len(status) < 5 else None  # noqa: PLR2004 - digits
        return TestResult(known, said[-4096:].decode(errors="replace"))

    return test


def reader_of_credentials(exchange: Exchange) -> Callable[[Sequence[str]], Awaitable[Credential | NoCredential]]:
    """Return what has a credential of the job's read as its user."""

    async def credential(names: Sequence[str]) -> Credential | NoCredential:
        question = protocol.frame("\n".join(names).encode(errors="surrogateescape"), ask="credential")
        header, secret = await _asked(exchange, question, CREDENTIAL_S)
        return credential_of(header, secret, names)

    return credential


def credential_of(header: Header, secret: bytes, names: Sequence[str]) -> Credential | NoCredential:
    """Return what the hook read, or why there is nothing."""
    name = printable(header.keys.get("name", ""), 128)
    kind, why = header.keys.get("kind", "unwell"), printable(header.keys.get("error", ""), 80)
    if kind == "file" and secret.strip():
        return Credential(name, secret)
    others = tuple(printable(one, 64) for one in header.keys.get("names", "").split(",") if one)
    if kind == "file":
        return NoCredential(f"the credential {name!r} of the job is empty", others)
    if kind == "absent":
        wanted = f"credential {names[0]!r}" if names else "credential that could be the one" if others else "credential"
        return NoCredential(f"the job has no {wanted}", others)
    return NoCredential(f"the credential {name!r} of the job cannot be read: {why or kind}", others)

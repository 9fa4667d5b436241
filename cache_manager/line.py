"""One connection: frames in, frames out, each within a time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from cache_manager import protocol
from cache_manager.processes import Peer
from cache_manager.protocol import Header, ProtocolError

HEADER_S: Final = 5.0
BODY_S: Final = 10.0
SEND_S: Final = 30.0
"""Who does not read his answer within this time does not want it."""


@dataclass(frozen=True, slots=True)
class Line:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    peer: Peer

    @property
    def user(self) -> str:
        """Who takes turns with others for the loop's time."""
        return str(self.peer.uid)

    async def read_frame(self, limit_s: float = HEADER_S) -> tuple[Header, bytes]:
        """Return a frame. Raises ProtocolError, TimeoutError, EOFError."""
        header = await self.read_header(limit_s)
        return header, await self.read_body(header)

    async def read_header(self, limit_s: float = HEADER_S) -> Header:
        """Return the header of a frame. Raises ProtocolError, TimeoutError, EOFError."""
        async with asyncio.timeout(limit_s):
            try:
                line = await self.reader.readuntil(b"\n")
            except asyncio.LimitOverrunError:
                raise ProtocolError("the header is too long") from None
            header = protocol.parse_header(line)
        if header.length > protocol.MAX_BODY_BYTES:
            raise ProtocolError(f"the request is too large ({header.length} bytes, at most {protocol.MAX_BODY_BYTES})")
        return header

    async def read_body(self, header: Header) -> bytes:
        """Return the rest of a frame. Raises TimeoutError, EOFError."""
        async with asyncio.timeout(BODY_S):
            return await self.reader.readexactly(header.length)

    async def exchange(self, frame: bytes, limit_s: float) -> tuple[Header, bytes]:
        """Write a frame and return the one that answers it. Raises as `send` and `read_frame`."""
        await self.send(frame)
        return await self.read_frame(limit_s)

    async def send(self, frame: bytes) -> None:
        """Write a frame. Raises ConnectionError, and TimeoutError where nobody reads."""
        self.writer.write(frame)
        async with asyncio.timeout(SEND_S):
            await self.writer.drain()

"""A registry that is far away: every answer takes 50 ms more. A process of its own, to take nothing from who asks it.

Prints its port; answers HEAD for any tag with a digest made of its name, and counts what it is asked: `GET /counts`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from typing import Final

LATENCY_S: Final = 0.05
INDEX: Final = "application/vnd.oci.image.index.v1+json"

asked: Counter[str] = Counter()


def digest_of(path: str) -> str:
    """Return the digest that a tag points to."""
    return f"sha256:{hashlib.sha256(path.encode()).hexdigest()}"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of a connection, one after the other."""
    try:
        while True:
            first = await reader.readexactly(1)
            if not first.isalpha():  # somebody tries TLS
                return
            head = first + await reader.readuntil(b"\r\n\r\n")
            method, path, _ = head.decode("latin-1").split(" ", 2)
            body = b""
            lines = ["HTTP/1.1 200 OK"]
            if path == "/counts":
                body = json.dumps(asked).encode()
            else:
                asked[method] += path != "/v2/"
                await asyncio.sleep(LATENCY_S)
                lines += [f"Docker-Content-Digest: {digest_of(path)}", f"Content-Type: {INDEX}"]
            lines += [f"Content-Length: {len(body)}", "", ""]
            writer.write("\r\n".join(lines).encode() + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    """Serve until the process is ended."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

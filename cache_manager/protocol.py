r"""What the hook and the admin commands say to the manager on its Unix socket, and what it answers.

A frame is one header line and a body:

    request   IMGC/1 <length> key=value ...\n<job ad><machine ad>
    reply     IMGC/1 <length> [key=value ...]\n<body>

`length` counts the body's bytes. Values are percent-encoded. Keys are only ever added; an unknown one is ignored, so
that an older hook talks to a newer manager and the other way round. Keys of a request: `verb` (prepare if missing),
`job` (length of the job ad, the machine ad is the rest), `left` (seconds that the hook may still wait), `starter`
(pid), `scratch` (the job's directory), `slot`, `can` (the questions beside `probe` that this hook knows, with commas),
`url` (from a transfer plug-in: bring the image at this URL, whatever the ad names; it answers `credential` alone).
A reply with `ask` is a question. `ask=probe`, its body a path: the hook opens it as the job's user and answers with a
frame of the keys `kind`, `size`, `error`, `real` (where the path leads, every link followed), and the first bytes.
`ask=test`, its body the runtime's path and an image's, on a line each: the hook starts the image as the job's user and
answers with the key `status` (exit status, `timeout` or `error`) and the last words.
`ask=credential`, its body names of services, one a line (empty: whichever the job has): the hook reads the first of
<service>.use that is there, as the job's user, and answers with the keys `kind` (as a probe's), `name`, `error`,
`names` (what the job has credentials for, with commas), and the credential.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

MAGIC: Final = b"IMGC/1"
MAX_HEADER_BYTES: Final = 16 * 1024
MAX_BODY_BYTES: Final = 1024 * 1024
"""Of a request. An ordinary job ad has 6 KB."""

PROBE_HEAD_BYTES: Final = 4096
"""How many of a file's first bytes a probe brings."""


class ProtocolError(ValueError):
    """A frame that is none; the text says why."""


@dataclass(frozen=True, slots=True)
class Header:
    """The header line of a frame."""

    length: int
    keys: dict[str, str]

    def number(self, key: str, default: float) -> float:
        """Return a key's value as a number, or `default` where it is missing or none."""
        try:
            value = float(self.keys[key])
        except (KeyError, ValueError):
            return default
        return value if value == value and abs(value) < 1e12 else default  # noqa: PLR0124, PLR2004 - NaN, infinity


def parse_header(line: bytes) -> Header:
    """Take a header line apart. Raises ProtocolError."""
    words = line.split()
    if not line.endswith(b"\n") or len(words) < 2 or words[0] != MAGIC:  # noqa: PLR2004 - magic and length
        raise ProtocolError(f"no {MAGIC.decode()} header ({len(line)} bytes)")
    if not words[1].isdigit() or len(words[1]) > 18:  # noqa: PLR2004 - more digits than any size
        raise ProtocolError("the length in the header is no number")
    keys = {}
    for word in words[2:]:
        name, equals, value = word.partition(b"=")
        if not equals:
            raise ProtocolError(f"no key=value in the header: {word[:40]!r}")
        keys[name.decode("ascii", "replace")] = unquote(value.decode("ascii", "replace"), errors="surrogateescape")
    return Header(int(words[1]), keys)


def frame(body: bytes, **keys: str | int) -> bytes:
    """Return header and body as they go over the socket."""
    pairs = "".join(
        f" {name}={quote(str(value), safe='/:@,', errors='surrogateescape')}" for name, value in keys.items()
    )
    return b"%s %d%s\n%s" % (MAGIC, len(body), pairs.encode(), body)

"""Coverage-guided fuzzing of what reads other people's text: `python -m tests.fuzz -max_total_time=600`.

It needs atheris, and is not part of `make test`. What it finds becomes a row of a test's table.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import atheris

with atheris.instrument_imports():
    from cache_manager import jobad, protocol, sif
    from cache_manager.reference import ImageReference
    from cache_manager.status import HookStatus, StatusError


def one_input(data: bytes) -> None:
    """Give one input to every parser: each has its own errors, and no other way out."""
    text = data.decode(errors="replace")
    for parse in (ImageReference.parse, ImageReference.parse_configured):
        with suppress(StatusError):
            image = parse(text)
            if image.scheme in {"http", "https"} and "@" in image.short.partition("://")[2].partition("/")[0]:
                raise AssertionError(image.short)
    try:
        jobad.read_request(text, text)
    except StatusError as error:
        if error.status.holds and error.status is not HookStatus.IMAGE_REFERENCE_INVALID:
            raise AssertionError(error.message) from None
    with suppress(protocol.ProtocolError):
        protocol.parse_header(data)
    with suppress(sif.SifError):
        sif.parse_header(data, len(data))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()

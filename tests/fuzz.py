"""Coverage-guided fuzzing of what reads other people's text: `python -m tests.fuzz -max_total_time=600`.

It needs atheris, and is not part of `make test`. What it finds becomes a row of a test's table.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from urllib.parse import urlsplit

import atheris

with atheris.instrument_imports():
    from cache_manager import jobad, protocol, sif
    from cache_manager.reference import ImageReference
    from cache_manager.sources import redirects, retry_after
    from cache_manager.status import HookStatus, StatusError

KNOWN = "http://user:s3cr3t@one.example/x.sif"


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
    read_sif(data)
    read_header_values(data.decode("latin-1"))


def read_sif(data: bytes) -> None:
    """Give it to the SIF parser, as it is and behind a SIF's magic: what it takes lies within the file."""
    for image in (data, b"#!".ljust(32, b"\0") + b"SIF_MAGIC\0" + b"01\0" + b"02\0" + bytes(16) + data):
        with suppress(sif.SifError):
            _within(sif.parse(lambda at, length, image=image: image[at : at + length], len(image)), image)  # type: ignore[misc]
        with suppress(sif.SifError):
            _within(sif.parse_header(image[:4096], len(image)), image)


def _within(found: sif.SifHeader, image: bytes) -> None:
    if not 0 <= found.end_bytes <= len(image):
        raise AssertionError(found.end_bytes)


def read_header_values(text: str) -> None:
    """Give it to what reads the headers of HTTP answers."""
    seconds = retry_after.retry_after_s(text, 1.7e9)
    if seconds is not None and not retry_after.MIN_S <= seconds <= retry_after.MAX_S:
        raise AssertionError(seconds)
    with suppress(redirects.RedirectError):
        leads_to = redirects.next_url(KNOWN, text)
        if "s3cr3t" in leads_to and "s3cr3t" not in text and urlsplit(leads_to).hostname != "one.example":
            raise AssertionError(leads_to)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()

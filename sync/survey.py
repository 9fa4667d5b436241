"""A look at the list and at the registries, as `plan` and `run` begin: read, resolve, and remember what was found."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import requests

from cache_manager.text import without_secrets
from cache_manager.web import cause
from sync import credentials, imagelist, resolution
from sync.imagelist import ImageList
from sync.resolution import Resolution
from sync.resolve import Resolver, connect
from sync.settings import Settings

KNOWN: Final = "digests.json"
"""In the state directory; without it every image is asked for in full once more."""

_TIMEOUT_S: Final = (10.0, 30.0)
_OK: Final = 200


class ListError(Exception):
    """The list cannot be read; the text says why. Nothing may be concluded from that about any image."""


def survey(settings: Settings, progress: Callable[[int, int], None] = lambda _done, _all: None) -> Resolution:
    """Return what is listed, and what the registries have for it. Raises ListError, CredentialsError."""
    secrets = credentials.for_registries(settings)
    images = read_list(settings.image_list)
    try:
        text = (Path(settings.state_directory) / KNOWN).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    known, refused = resolution.parse_known(text), resolution.parse_refused(text)
    client = connect(settings)
    try:
        return Resolver(client, settings, known, secrets, progress, refused).resolve(images)
    finally:
        client.close()


def remember(settings: Settings, found: Resolution) -> None:
    """Keep what was found out, for the next run. Raises OSError."""
    path = Path(settings.state_directory) / KNOWN
    beside = path.with_name(f".{KNOWN}.{os.getpid()}")
    beside.write_text(resolution.render_known(found.known, found.refused), encoding="utf-8")
    beside.replace(path)


def read_list(place: str) -> ImageList:
    """Return the list at a path or an http(s) URL. Raises ListError, also for one without any image or broken line."""
    shown = without_secrets(place)
    raw = _fetched(place, shown) if "://" in place else _read(place)
    if len(raw) > imagelist.MAX_BYTES:
        raise ListError(f"list {shown}: is too large for one ({len(raw)} bytes, at most {imagelist.MAX_BYTES})")
    images = ImageList.parse(raw)
    if not images.entries and not images.faults:
        raise ListError(f"list {shown}: lists no image ({len(raw)} bytes)")
    return images


def _read(place: str) -> bytes:
    try:
        with Path(place).open("rb") as file:
            return file.read(imagelist.MAX_BYTES + 1)
    except OSError as error:
        raise ListError(f"list {place}: {error.strerror}") from None


def _fetched(place: str, shown: str) -> bytes:
    try:
        with requests.get(place, timeout=_TIMEOUT_S, stream=True) as answer:
            if answer.status_code != _OK:
                raise ListError(f"list {shown}: HTTP {answer.status_code}")
            if answer.headers.get("Content-Type", "").startswith("text/html"):
                raise ListError(f"list {shown}: is a web page; forges have a link to the file itself (raw)")
            raw = b""
            for piece in answer.iter_content(65536):
                raw += piece
                if len(raw) > imagelist.MAX_BYTES:
                    break
    except requests.RequestException as error:
        why = "ended early" if "IncompleteRead" in str(error) else cause(error)
        raise ListError(f"list {shown}: {why}") from None
    length = answer.headers.get("Content-Length", "")
    if length.isdigit() and "Content-Encoding" not in answer.headers and len(raw) < int(length):
        raise ListError(f"list {shown}: ended early ({len(raw)} of {length} bytes)")
    return raw

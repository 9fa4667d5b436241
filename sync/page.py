"""The status page: one HTML file that needs nothing else, for people who wait for their image.

Names and errors are other people's: every value is escaped, and the page's policy lets no other script or style run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from cache_manager.text import human_bytes, printable
from sync.view import STATES, Row, Shown, counts

TITLE: Final = "Container images"
FILE: Final = "index.html"


@cache
def _part(name: str) -> str:
    return resources.files("sync").joinpath(name).read_text(encoding="utf-8")


def render(rows: Sequence[Row], now: float, title: str = TITLE) -> str:
    """Return the page."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters |= {"clock": _clock, "iso": _iso, "size": human_bytes, "sizes": _sizes, "words": _words}
    style, script = _part("page.css"), _part("page.js")
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none';"
        f" style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )
    return environment.from_string(_part("page.html")).render(
        rows=rows,
        counts=counts(rows),
        states=STATES,
        total=len(rows),
        now=now,
        title=title,
        policy=policy,
        style=Markup(style),  # noqa: S704 - our own files
        script=Markup(script),  # noqa: S704 - the same
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _clock(at: float) -> str:
    return _moment(at).strftime("%Y-%m-%d %H:%M UTC")


def _iso(at: float) -> str:
    return _moment(at).strftime("%Y-%m-%dT%H:%M:%SZ")


def _sizes(versions: Sequence[Shown]) -> str:
    """Return how large the SIF is, or else the sandbox."""
    return human_bytes(max(one.sif_bytes or one.tree_bytes for one in versions))


def _words(row: Row) -> str:
    """Return what the search looks through."""
    parts = [row.name, row.source, row.state, row.why, row.digest]
    parts += [text for one in row.versions for text in (one.arch, one.digest, one.sif_sha256, one.version)]
    return printable(" ".join(filter(None, parts)).lower(), 4000)

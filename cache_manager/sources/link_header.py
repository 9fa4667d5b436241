"""The Link header (RFC 8288): URLs in angle brackets, each with parameters. A comma in a URL is its own."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

MAX_BYTES: Final = 64 * 1024
"""More is no list of servers."""

_TARGET = re.compile(r"[\s,]*<([^<>]*)>")
_PARAMETER = re.compile(r'\s*;\s*([A-Za-z0-9!#$&+.^_`|~*-]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;,"]*))?')
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Link:
    """One URL of the header, and what is said of it. Names are in lower case."""

    url: str
    parameters: dict[str, str] = field(default_factory=dict)

    def number(self, name: str, default: int) -> int:
        """Return a parameter as a number, or `default` where it is missing or none."""
        text = self.parameters.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default  # noqa: PLR2004 - digits


def parse(text: str) -> list[Link]:
    """Return the links of a header, as they stand in it. What comes after something that is no link is left out."""
    links: list[Link] = []
    at, text = 0, text[:MAX_BYTES]
    while target := _TARGET.match(text, at):
        at = target.end()
        parameters: dict[str, str] = {}
        while found := _PARAMETER.match(text, at):
            at = found.end()
            parameters.setdefault(found[1].lower(), _unquoted(found[2] or ""))
        links.append(Link(target[1].strip(), parameters))
    return links


def _unquoted(text: str) -> str:
    return _ESCAPED.sub(r"\1", text[1:-1]) if text.startswith('"') else text

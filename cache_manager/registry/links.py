"""The Link header: where a list goes on. Pure."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urljoin, urlsplit

MAX_CHARACTERS: Final = 64 * 1024

_WORD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_TARGET = re.compile(r"[ \t,]*<([^<>]*)>")
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*({_WORD})(?:[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^";,\s]+)))?', re.DOTALL)


class LinkError(ValueError):
    """A link that is not followed; the text says why."""


def parse(header: str) -> list[tuple[str, dict[str, str]]]:
    """Return each target with its parameters (names in lower case), up to the first thing that is no link.

    Targets may hold commas and semicolons: what is between `<` and `>` is taken as it is.
    """
    found = []
    at = 0
    if len(header) > MAX_CHARACTERS:
        return []
    while (target := _TARGET.match(header, at)) is not None:
        at = target.end()
        parameters: dict[str, str] = {}
        while (one := _PARAMETER.match(header, at)) is not None:
            parameters.setdefault(one[1].lower(), one[3] or re.sub(r"\\(.)", r"\1", one[2] or ""))
            at = one.end()
        found.append((target[1], parameters))
    return found


def next_page(url: str, header: str) -> str:
    """Return the URL of the page after `url`; empty for the last one. Raises LinkError.

    Only the same server is asked for it: who is asked gets our credential.
    """
    for target, parameters in parse(header):
        if "next" in parameters.get("rel", "").lower().split():
            try:
                leads_to = urljoin(url, target)
                here, there = urlsplit(url), urlsplit(leads_to)
            except ValueError:
                raise LinkError("the next page is no URL") from None
            if here.netloc.lower() != there.netloc.lower():
                raise LinkError("the next page is on another server")
            # behind a proxy that ends TLS, registries say http for what is asked by https
            return there._replace(scheme=here.scheme, fragment="").geturl()
    return ""

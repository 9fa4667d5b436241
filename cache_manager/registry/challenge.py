"""What a registry asks for before it answers: the WWW-Authenticate header. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MAX_CHARACTERS: Final = 16 * 1024
"""What is longer is no challenge."""

_WORD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_SCHEME = re.compile(rf"[ \t,]*({_WORD})(?:[ \t]+|(?=,)|$)")
_PARAMETER = re.compile(rf'[ \t,]*({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_WORD}))[ \t]*(?=,|$)', re.DOTALL)
_OPAQUE = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to be let in. `scheme` and the names of its parameters are lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse(header: str) -> tuple[Challenge, ...]:
    """Return the challenges of a header, in its order; what follows the first thing that is none is left out.

    A header that was sent more than once comes in joined by commas, which separate parameters too.
    """
    found: list[Challenge] = []
    if len(header) > MAX_CHARACTERS:
        return ()
    at = 0
    while at < len(header):
        scheme = _SCHEME.match(header, at)
        if scheme is None:
            break
        at = scheme.end()
        parameters: dict[str, str] = {}
        while (one := _PARAMETER.match(header, at)) is not None:
            value = one[3] if one[2] is None else _ESCAPED.sub(r"\1", one[2])
            parameters.setdefault(one[1].lower(), value)
            at = one.end()
        if not parameters and (opaque := _OPAQUE.match(header, at)) is not None:
            at = opaque.end()
        found.append(Challenge(scheme[1].lower(), parameters))
    return tuple(found)


def choose(challenges: tuple[Challenge, ...]) -> Challenge | None:
    """Return the challenge that is met: a token if the registry takes one, else a password; None if neither."""
    for scheme, needed in (("bearer", "realm"), ("basic", "")):
        for one in challenges:
            if one.scheme == scheme and (not needed or one.parameters.get(needed)):
                return one
    return None

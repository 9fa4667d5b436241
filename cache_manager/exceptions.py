"""The sites' exceptions: a CSV of `Site,percent,message` lines, which switch data federations off. Pure.

`percent` is the part of a site's execution points, and not of its jobs: an image is fetched once for all jobs of an EP,
so whichever job asked first would decide for all others, and the load on a site's network would hardly change. The
choice is the EP's and stays: a job that is tried again there hears the same, and `explain` says what jobs hear.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cache_manager.text import printable

MESSAGE_CHARACTERS: Final = 300
_POINTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class SiteException:
    """One line: at `site`, on `percent` of its EPs, for the reason that `message` gives."""

    site: str
    percent: float
    message: str


def parse(text: str) -> tuple[tuple[SiteException, ...], tuple[str, ...]]:
    """Return the lines, and what is wrong with those that are none: they are passed over."""
    rules, faults = [], []
    for number, words in enumerate(csv.reader(text.splitlines()), 1):
        if not words or words[0].lstrip().startswith("#") or (number == 1 and words[0].strip().lower() == "site"):
            continue
        rule = _rule([word.strip() for word in words])
        if isinstance(rule, SiteException):
            rules.append(rule)
        else:
            faults.append(f"line {number}: {rule}")
    return tuple(rules), tuple(faults)


def _rule(words: list[str]) -> SiteException | str:
    site, percent, *message = [*words, ""] if len(words) == 2 else words if len(words) > 1 else ["", ""]  # noqa: PLR2004
    if not site:
        return f"is not Site,percent,message: {printable(','.join(words), 60)!r}"
    try:
        share = float(percent.removesuffix("%"))
    except ValueError:
        share = -1.0
    if not 0 <= share <= 100:  # noqa: PLR2004 - percent
        return f"{printable(percent, 20)!r} is no percentage from 0 to 100"
    return SiteException(site, share, printable(", ".join(message).strip(), MESSAGE_CHARACTERS))


def switched_off(rules: Iterable[SiteException], site: str, execution_point: str) -> str:
    """Return why data federations are not asked by an EP of a site; empty if they are."""
    point = int.from_bytes(hashlib.sha256(f"{site}\n{execution_point}".encode()).digest()[:8], "big") % _POINTS
    for rule in rules:
        if site and rule.site.casefold() == site.casefold() and point < rule.percent * _POINTS / 100:
            share = "" if rule.percent == 100 else f" on {rule.percent:g}% of its EPs"  # noqa: PLR2004 - percent
            return f"switched off at {rule.site}{share}: {rule.message or 'no reason given'} (IMAGE_CACHE_EXCEPTIONS)"
    return ""

"""The list of images that a community keeps by pull requests: lines with comments, or YAML with options. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cache_manager.text import printable
from sync import imagelist_yaml
from sync.imageline import Entry, parse_reference
from sync.imagelist_yaml import Fault

MAX_BYTES: Final = 16 * 2**20
"""No list is larger: what is was no list."""

_YAML = re.compile(r"images:(?:\s|$)")
"""What a line of the other form is never: its tag would be missing."""


@dataclass(frozen=True)
class ImageList:
    """What is listed, in the order of the lines, and every line that is broken.

    `lines` are the lines as they came, with their ends: comments, blank ones and broken ones too.
    """

    lines: tuple[str, ...]
    entries: tuple[Entry, ...]
    faults: tuple[Fault, ...]

    @classmethod
    def parse(cls, raw: bytes) -> ImageList:
        """Read a list of either form. Whatever is wrong is in `faults`; an entry that is in one is left out."""
        text = raw.decode("utf-8", "surrogateescape")
        lines = tuple(text.split("\n"))
        lines = tuple(f"{one}\n" for one in lines[:-1]) + ((lines[-1],) if lines[-1] else ())
        is_yaml = any(_YAML.match(one) for one in lines)
        entries, faults = imagelist_yaml.read(text) if is_yaml else _read_lines(lines)
        clashes = tuple(_clashes(entries))
        twice = {one.line for one in clashes}
        left = tuple(one for one in entries if one.line not in twice)
        return cls(lines, left, tuple(sorted((*faults, *clashes), key=lambda one: one.line)))

    def render(self) -> bytes:
        """Return the list as it came, to the last byte."""
        return "".join(self.lines).encode("utf-8", "surrogateescape")


def _read_lines(lines: Iterable[str]) -> tuple[list[Entry], list[Fault]]:
    """Read one image a line; what begins with `#` is a comment."""
    entries, faults = [], []
    for number, line in enumerate(lines, 1):
        text = line.strip(" \t\r\n")
        if not text or text.startswith("#"):
            continue
        try:
            entries.append(Entry(number, number, parse_reference(text)))
        except ValueError as error:
            faults.append(Fault(number, number, printable(text), str(error)))
    return entries, faults


def _clashes(entries: Iterable[Entry]) -> Iterator[Fault]:
    """Yield the entries that one before them shuts out: the same image, or another that would lie at the same path."""
    by_source: dict[str, Entry] = {}
    by_place: dict[str, Entry] = {}
    for entry in entries:
        same = by_source.setdefault(entry.source, entry)
        if same is not entry:
            yield Fault(entry.line, entry.last_line, entry.source, f"the same image as in line {same.line}", same.line)
            continue
        there = by_place.setdefault(entry.tree_name, entry)
        if there is not entry:
            why = f"would be published at the same path as {there.source} in line {there.line} ({entry.tree_name})"
            yield Fault(entry.line, entry.last_line, entry.source, why, there.line)

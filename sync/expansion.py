"""Lines with `*` as the tags that they stand for, each image once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sync.imageline import Entry
from sync.values import Failure


@dataclass(frozen=True)
class Expansion:
    """The images that are listed, what is wrong with patterns by their own names, and those that stay open."""

    entries: tuple[Entry, ...] = ()
    failures: Mapping[str, Failure] = field(default_factory=dict)
    open_globs: tuple[Entry, ...] = ()


def expand(entries: Iterable[Entry], tags: Mapping[Entry, tuple[str, ...] | Failure], max_tags: int) -> Expansion:
    """Replace each pattern by the tags that it stands for. A line that names an image itself counts for that image.

    A pattern that stands for nothing, or for more than `max_tags`, is as one whose registry did not answer: what was
    published for it stays.
    """
    entries = tuple(entries)
    found = {one.source: one for one in entries if not one.is_glob}
    places = {one.tree_name: one for one in found.values()}
    failures: dict[str, Failure] = {}
    still_open = []
    for glob in (one for one in entries if one.is_glob):
        mine = tags[glob]
        if not isinstance(mine, Failure):
            mine = _fault(glob, len(mine), max_tags) or mine
        if isinstance(mine, Failure):
            failures[glob.name] = mine
            still_open.append(glob)
            continue
        for one in map(glob.with_tag, mine):
            there = places.setdefault(one.tree_name, one)
            found.setdefault(there.source, there)
            if there.source != one.source:
                why = f"{one.source} would be published at the same path as {there.source} in line {there.line}"
                failures[glob.name] = Failure(glob.name, glob.source, why)
    return Expansion(tuple(found.values()), failures, tuple(still_open))


def _fault(glob: Entry, count: int, max_tags: int) -> Failure | None:
    if count == 0:
        return Failure(glob.name, glob.source, "no tag of the repository fits it")
    if count > max_tags:
        return Failure(glob.name, glob.source, f"stands for {count} tags, and may for {max_tags}")
    return None

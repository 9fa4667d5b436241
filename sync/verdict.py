"""What is said of each image of a change, and the table of it for a pull request. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cache_manager.text import human_bytes, printable
from sync.imageline import Entry
from sync.imagelist import ImageList
from sync.imagelist_yaml import Fault
from sync.values import Failure, Resolved

_MARKDOWN = re.compile(r"[\\`*_\[\]<>|~&@#]")
_LONGEST = 300


class Opinion(StrEnum):
    """How an image of a change fares."""

    OK = "ok"
    NO = "no"
    LATER = "not known"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of one image: its line, its name as it is written, and why."""

    line: int
    image: str
    opinion: Opinion
    what: str


def of_fault(fault: Fault) -> Verdict:
    """Say what is wrong with a line."""
    return Verdict(fault.line, fault.text, Opinion.NO, fault.why)


def of_failure(entry: Entry, failure: Failure) -> Verdict:
    """Say why an image cannot be published. One whose registry does not answer now may be all right."""
    if failure.transient:
        return Verdict(entry.line, _shown(entry), Opinion.LATER, f"could not be looked at: {failure.why}")
    return Verdict(entry.line, _shown(entry), Opinion.NO, failure.why)


def of_image(entry: Entry, found: Resolved) -> Verdict:
    """Say what will be published."""
    sizes = ", ".join(f"{one.arch} {human_bytes(one.compressed_bytes or 0)}" for one in found.variants)
    return Verdict(entry.line, _shown(entry), Opinion.OK, f"{sizes} compressed, {found.digest}{_waiver(entry)}")


def of_glob(glob: Entry, count: int, outcomes: Sequence[Resolved | Failure]) -> Verdict:
    """Say what a pattern stands for, and what was found of some of its tags."""
    failures = [one for one in outcomes if isinstance(one, Failure)]
    what = f"stands for {count} tag{'' if count == 1 else 's'}"
    if failures:
        worst = min(failures, key=lambda one: one.transient)
        tag = worst.source.rpartition(":")[2]
        opinion = Opinion.LATER if worst.transient else Opinion.NO
        return Verdict(glob.line, _shown(glob), opinion, f"{what}; of these {tag}: {worst.why}")
    sizes = [
        sum(one.compressed_bytes or 0 for one in found.variants) for found in outcomes if not isinstance(found, Failure)
    ]
    total = human_bytes(sum(sizes) / len(sizes) * count)
    looked = f"{len(sizes)} looked at, up to {human_bytes(max(sizes))} compressed, about {total} in all"
    return Verdict(glob.line, _shown(glob), Opinion.OK, f"{what}; {looked}{_waiver(glob)}")


def touched(images: ImageList, lines: frozenset[int] | None) -> tuple[list[Fault], list[Entry]]:
    """Return the faults and entries that a change of some lines answers for; of all lines for None.

    Two lines that clash are the fault of whoever changed either of them.
    """
    if lines is None:
        return list(images.faults), list(images.entries)
    faults = [one for one in images.faults if _meets(one, lines) or one.other_line in lines]
    return faults, [one for one in images.entries if _meets(one, lines)]


def _meets(one: Fault | Entry, lines: frozenset[int]) -> bool:
    return not lines.isdisjoint(range(one.line, one.last_line + 1))


def markdown(verdicts: Iterable[Verdict], elsewhere: int) -> str:
    """Return the table; `elsewhere` is how many broken lines are not this change's."""
    verdicts = sorted(verdicts, key=lambda one: one.line)
    parts = ["### Images of this change\n\n"]
    if verdicts:
        parts.append("| line | image | | what |\n|---:|---|---|---|\n")
        for one in verdicts:
            opinion = one.opinion.value if one.opinion is Opinion.OK else f"**{one.opinion.value}**"
            parts.append(f"| {one.line} | {_code(one.image)} | {opinion} | {_text(one.what)} |\n")
        good = sum(one.opinion is Opinion.OK for one in verdicts)
        parts.append(f"\n{good} of {len(verdicts)} can be published.\n")
    else:
        parts.append("No line with an image is new or changed.\n")
    if elsewhere:
        parts.append(f"\nBroken lines elsewhere in the file, which are not this change's: {elsewhere}.\n")
    return "".join(parts)


def _shown(entry: Entry) -> str:
    return entry.source.removeprefix("docker.io/").removeprefix("library/")


def _waiver(entry: Entry) -> str:
    return f"; the list allows it {human_bytes(entry.size_limit_bytes)}" if entry.size_limit_bytes else ""


def _code(text: str) -> str:
    """Return a name as code: nothing in it is read as Markdown."""
    shown = printable(text, _LONGEST).replace("`", "'").replace("|", "\\|")
    return f"`{shown}`"


def _text(text: str) -> str:
    return _MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", printable(text, _LONGEST))

"""What a run found out about the list: which names are listed, and what each registry has for them. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cache_manager.registry.failure import Kind
from cache_manager.registry.reference import is_digest
from sync.imageline import Entry
from sync.imagelist_yaml import Fault
from sync.values import Failure, Resolved, Variant

Known = Mapping[str, tuple[Variant, ...]]
"""Of a digest that a tag pointed to: the image for each architecture. It never changes, so it is asked for once."""

Refused = Mapping[str, "Refusal"]
"""By a manifest's whole name with its digest: why it is refused, which a next run need not ask again."""

SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a manifest cannot be used, and when that was found, in epoch seconds.

    `kind` is the name of what failed with the registry; empty: it answered, and the image is none to publish.
    """

    why: str
    found_at: float
    kind: str = ""


@dataclass(frozen=True)
class Resolution:
    """What is listed now, by published name.

    `resolved` and `failures` share no name. `open_globs` are patterns whose registry did not say which tags there are:
    what was published for them stays. `faults` are the broken lines: while there is one, nothing is known to have
    left the list.
    """

    resolved: Mapping[str, Resolved] = field(default_factory=dict)
    failures: Mapping[str, Failure] = field(default_factory=dict)
    open_globs: tuple[Entry, ...] = ()
    faults: tuple[Fault, ...] = ()
    known: Known = field(default_factory=dict)
    refused: Refused = field(default_factory=dict)

    def lists(self, name: str, source: str) -> bool:
        """Whether a name, published from `source`, is still listed, or may be."""
        return name in self.resolved or name in self.failures or any(one.stands_for(source) for one in self.open_globs)


def render_known(known: Known, refused: Refused | None = None) -> str:
    """Return the file that remembers which images a digest stands for, or why it is refused, from run to run."""
    records = {
        digest: [[one.arch, one.digest, one.compressed_bytes] for one in variants]
        for digest, variants in sorted(known.items())
    }
    lines = ",\n".join(f"{json.dumps(digest)}: {json.dumps(record)}" for digest, record in records.items())
    refusals = ",\n".join(
        f"{json.dumps(name)}: {json.dumps([one.why, one.found_at, one.kind])}"
        for name, one in sorted((refused or {}).items())
    )
    return f'{{"schema": {SCHEMA}, "digests": {{\n{lines}\n}}, "refused": {{\n{refusals}\n}}}}\n'


def parse_known(text: str) -> dict[str, tuple[Variant, ...]]:
    """Read that file. What is not understood is asked for again: nothing else is lost with it."""
    try:
        document = json.loads(text)
        digests = document["digests"] if document["schema"] == SCHEMA else {}
        return {digest: tuple(map(_variant, record)) for digest, record in digests.items() if is_digest(digest)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def parse_refused(text: str) -> dict[str, Refusal]:
    """Read what that file says of refusals. What is not understood is asked for again."""
    try:
        document = json.loads(text)
        records = document.get("refused", {}) if document["schema"] == SCHEMA else {}
        return {name: _refusal(record) for name, record in records.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _refusal(record: list[object]) -> Refusal:
    why, found_at, kind = record
    if not isinstance(why, str) or not isinstance(found_at, int | float) or not math.isfinite(found_at):
        raise TypeError("no refusal")
    if kind not in {"", *Kind.__members__}:
        raise TypeError("no kind of a failure")
    return Refusal(why, float(found_at), str(kind))


def _variant(record: list[object]) -> Variant:
    arch, digest, size = record
    if not isinstance(arch, str) or not isinstance(digest, str) or not is_digest(digest):
        raise TypeError("no variant")
    if size is not None and (not isinstance(size, int) or size < 0):
        raise TypeError("no size")
    return Variant(arch, digest, size)

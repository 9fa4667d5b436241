"""What an admin means by a REF: a published name, any other reference, a key, or the beginning of a key. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from cache_manager.entry import CacheEntry
from cache_manager.layout import is_key
from cache_manager.pin import Pin, canonical
from cache_manager.reference import ImageReference
from cache_manager.status import StatusError

_KEY_PREFIX: Final = re.compile(r"(?:sha256:)?([0-9a-f]{8,64}(?:\.[a-z]{0,7})?)")
SHOWN_KEYS: Final = 5


class NotDone(Exception):  # noqa: N818 - a finding
    """What an admin asked cannot be done; the text says why."""


def reference_of(text: str) -> ImageReference:
    """Read a reference as admins write it: a bare `htc/rocky:9` is a published name. Raises NotDone."""
    try:
        return ImageReference.parse_configured(text)
    except StatusError as error:
        raise NotDone(error.message) from None


def matching_keys(text: str, keys: Iterable[str]) -> list[str]:
    """Return the keys that a text names, whole or by their beginning of 8 characters or more."""
    found = _KEY_PREFIX.fullmatch(text)
    return sorted(key for key in keys if key.startswith(found.group(1))) if found else []


def select(text: str, entries: Iterable[CacheEntry], pins: Iterable[Pin] = ()) -> list[CacheEntry]:
    """Return the entries that a REF means, the newest first; of a name all versions that are there.

    Raises NotDone for none, and for the beginning of several keys.
    """
    known = list(entries)
    keys = matching_keys(text, (one.key for one in known))
    if len(keys) > 1:
        shown = ", ".join(keys[:SHOWN_KEYS]) + (", ..." if len(keys) > SHOWN_KEYS else "")
        raise NotDone(f"{text}: is the beginning of {len(keys)} keys ({shown})")
    if keys:
        return [one for one in known if one.key == keys[0]]
    if is_key(text):
        raise NotDone(f"{text}: not in the cache ({len(known)} images)")
    name = canonical(reference_of(text).short)
    pinned = {pin.key for pin in pins if pin.reference == name}
    found = [one for one in known if canonical(one.name) == name or one.key in pinned]
    if not found:
        raise NotDone(f"{text}: not in the cache ({len(known)} images)")
    return sorted(found, key=lambda one: (one.created_at, one.key), reverse=True)


def select_pin(text: str, pins: Iterable[Pin]) -> list[Pin]:
    """Return the pins that a REF means: of this reference, or of this key. Raises NotDone for none or several keys."""
    known = list(pins)
    keys = matching_keys(text, {pin.key for pin in known})
    if len(keys) > 1:
        raise NotDone(f"{text}: is the beginning of {len(keys)} pinned keys")
    if keys:
        return [pin for pin in known if pin.key == keys[0]]
    name = text if is_key(text) else canonical(reference_of(text).short)
    found = [pin for pin in known if pin.reference == name]
    if not found:
        raise NotDone(f"{text}: is not pinned ({len(known)} pins)")
    return found

"""Pins: an admin's leases without end.

The rule: a pin is by reference. A pinned name holds the entry that was last served under it: when a newer version
comes in, the pin moves to that, and the former one is an entry like any other. A pinned key holds that entry alone.
A pin whose entry is gone (quarantined, evicted by force) stays, and holds what is fetched next under its reference.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from cache_manager.entry import read_object
from cache_manager.layout import is_key, record_name, with_tag


def canonical(name: str) -> str:
    """Return the one form of a name: an image without a tag is `latest`; keys and other references stay."""
    return name if "://" in name or name.startswith("/") or is_key(name) else with_tag(name)


@dataclass(frozen=True, slots=True)
class Pin:
    """A reference that an admin keeps (canonical, or a key), and the key of the entry that it holds now."""

    reference: str
    key: str
    pinned_at: float

    @property
    def file_name(self) -> str:
        """The name of this pin's file under `pins`."""
        return record_name(self.reference)

    def to_json(self) -> str:
        """Return the pin as it lies under `pins`."""
        return json.dumps({"reference": self.reference, "key": self.key, "pinned_at": self.pinned_at}) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Pin:
        """Read a pin's file. Raises ValueError if it is none."""
        values = read_object(text)
        try:
            pin = cls(str(values["reference"]), str(values["key"]), float(values["pinned_at"]))
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"no pin: {error!r}") from None
        if not is_key(pin.key):
            raise ValueError(f"no pin: {pin.key[:80]!r} is no key")
        return pin

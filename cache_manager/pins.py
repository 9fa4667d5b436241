"""The pins of one cache, in memory and on disk. Only the loop's thread calls this."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from cache_manager.pin import Pin, canonical
from cache_manager.store import Store

log = logging.getLogger(__name__)


class Pins:
    """What admins keep. The rule is in `pin.py`."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._pins: dict[str, Pin] = {}
        self._expected: set[str] = set()
        self.keys: frozenset[str] = frozenset()
        """The keys that some pin holds."""

    def load(self, pins: Iterable[Pin]) -> None:
        """Take up what lies on disk."""
        self._pins = {pin.reference: pin for pin in pins}
        self._index()

    def all(self) -> list[Pin]:
        """Return every pin, oldest first."""
        return sorted(self._pins.values(), key=lambda pin: (pin.pinned_at, pin.reference))

    def of(self, key: str) -> list[Pin]:
        """Return the pins that hold an entry."""
        return [pin for pin in self.all() if pin.key == key]

    def put(self, reference: str, key: str, now: float) -> Pin:
        """Pin a reference (canonical) to the entry that it means now. It is on disk when this returns. Raises OSError.

        Pinning again changes nothing but the entry.
        """
        before = self._pins.get(reference)
        pin = replace(before, key=key) if before else Pin(reference, key, now)
        self._store.write_pin(pin)
        self._pins[reference] = pin
        self._index()
        return pin

    def remove(self, pin: Pin) -> None:
        """End a pin. Raises OSError."""
        self._store.remove_pin(pin)
        self._pins.pop(pin.reference, None)
        self._index()

    def expect(self, reference: str) -> None:
        """Have what is served next under a reference pinned in that moment: nothing can evict it before."""
        self._expected.add(reference)

    def expect_no_more(self, reference: str) -> None:
        """Undo `expect`."""
        self._expected.discard(reference)

    def follow(self, name: str, key: str) -> None:
        """Move the pin of a name, if there is one, to the entry that was just served under it."""
        if not self._pins and not self._expected:
            return
        reference = canonical(name)
        pin = self._pins.get(reference)
        if reference not in self._expected if pin is None else pin.key == key:
            return
        log.info("pin %s: holds %s%s", reference, key, f" instead of {pin.key}" if pin else "")
        try:
            self.put(reference, key, self._clock())
        except OSError as error:
            log.warning("pin %s: cannot be moved to %s: %s", reference, key, error)

    def _index(self) -> None:
        self.keys = frozenset(pin.key for pin in self._pins.values())

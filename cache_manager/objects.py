"""What is known of URLs, also over a restart: which bytes an object had, which version a pointer named."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress

from cache_manager.layout import record_name
from cache_manager.store import Store

log = logging.getLogger(__name__)

Record = dict[str, str | float]


class Objects:
    """The records of one root. Losing one costs a request."""

    def __init__(self, store: Store, is_read_only: Callable[[], bool]) -> None:
        self.by_name: dict[str, Record] = {}
        self._store = store
        self._is_read_only = is_read_only

    def __len__(self) -> int:
        return len(self.by_name)

    def load(self, found: Mapping[str, Record]) -> None:
        """Take what lies on the disk."""
        self.by_name = dict(found)

    def known(self, object_id: str) -> Record:
        """Return what is remembered of an object or a pointer; nothing if it is not known."""
        return self.by_name.get(record_name(object_id), {})

    def remember(self, object_id: str, record: Record) -> None:
        """Remember what was learned of an object or a pointer, also over a restart.

        Records are named by a digest of the id, because a URL may hold a signature.
        """
        name = record_name(object_id)
        self.by_name[name] = record
        if self._is_read_only():
            return
        try:
            self._store.write_object(name, record)
        except OSError as error:
            log.warning("cannot remember %s: %s", record.get("url"), error)

    def forget(self, digest: str) -> None:
        """Forget which objects had a digest whose entries are gone, as a start does: a record takes room as well."""
        for name in [name for name, record in self.by_name.items() if record.get("digest") == digest]:
            if self.by_name[name].get("kind") != "pointer":
                del self.by_name[name]
                with suppress(OSError):
                    self._store.remove_object(name)

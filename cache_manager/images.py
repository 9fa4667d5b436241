"""What `list` and `show` say of the images in the cache. Private ones have a name only for those who may have them."""

from __future__ import annotations

from typing import Any, Final

from cache_manager.cache import Cache
from cache_manager.entry import CacheEntry
from cache_manager.questions import Question, Report
from cache_manager.scrub import Scrubber
from cache_manager.selection import NotDone, matching_keys, select

PRIVATE: Final = "(private)"


class Images:
    """Answers the verbs that look at images."""

    def __init__(self, cache: Cache, scrubber: Scrubber) -> None:
        self._cache = cache
        self._scrubber = scrubber

    @property
    def verbs(self) -> dict[str, Report]:
        """The verbs, as the server takes them."""
        return {"list": self._list, "show": self._show}

    async def _list(self, question: Question) -> dict[str, Any]:
        users = self._users()
        entries = sorted(self._cache.entries.values(), key=lambda entry: entry.last_used_at, reverse=True)
        return {"entries": [self._row(entry, users, question) for entry in entries]}

    async def _show(self, question: Question) -> dict[str, Any]:
        """Tell all about the entries that a REF means, the newest first. Raises NotDone."""
        cache, users = self._cache, self._users()
        (text,) = question.words("refs")[:1] or [""]
        self._refuse_quarantined(text)
        chosen = select(text, cache.entries.values(), cache.pins.all())
        known = [one for one in chosen if self._may_see(one, question)]
        if not known:
            raise NotDone(f"{text}: an image that came with a credential; only who may have it may see it")
        return {"entries": [self._row(entry, users, question) | self._details(entry) for entry in known]}

    def _refuse_quarantined(self, text: str) -> None:
        """Say of a key that is in quarantine why, instead of that it is not here. Raises NotDone."""
        if matching_keys(text, self._cache.entries):
            return
        for key in matching_keys(text, self._cache.quarantined)[:1]:
            raise NotDone(f"{text}: in quarantine: {self._cache.quarantined[key].why}")

    def _users(self) -> dict[str, list[str]]:
        """Return who runs from each entry."""
        users: dict[str, list[str]] = {}
        for lease in self._cache.leases.values():
            for key in lease.keys:
                users.setdefault(key, []).append(lease.job_id or f"pid {lease.holder.pid}")
        return users

    def _may_see(self, entry: CacheEntry, question: Question) -> bool:
        """Whether who asks may know what an image is: an admin, or a user who was admitted to it."""
        if entry.public or question.may_change:
            return True
        return entry.closed and self._cache.may_read(entry, question.peer.uid)

    def _row(self, entry: CacheEntry, users: dict[str, list[str]], question: Question) -> dict[str, Any]:
        if not self._may_see(entry, question):
            return self._veiled(entry, len(users.get(entry.key, [])))
        pins = [pin.reference for pin in self._cache.pins.of(entry.key)] if entry.key in self._cache.pins.keys else []
        return {
            "key": entry.key,
            "name": entry.name,
            "digest": f"sha256:{entry.digest}",
            "format": entry.format,
            "size_bytes": entry.size_bytes,
            "disk_bytes": entry.disk_bytes,
            "inodes": entry.inodes,
            "origin": entry.origin,
            "created_at": entry.created_at,
            "last_used_at": entry.last_used_at,
            "leases": users.get(entry.key, []),
            "pins": pins,
        }

    def _veiled(self, entry: CacheEntry, jobs: int) -> dict[str, Any]:
        """Return a row for those who may know no more than that there is an image, and what room it takes."""
        pinned = entry.key in self._cache.pins.keys
        return {
            "key": PRIVATE,
            "name": PRIVATE,
            "digest": PRIVATE,
            "format": entry.format,
            "size_bytes": entry.size_bytes,
            "disk_bytes": entry.disk_bytes,
            "inodes": entry.inodes,
            "origin": PRIVATE,
            "created_at": entry.created_at,
            "last_used_at": entry.last_used_at,
            "leases": [PRIVATE] * jobs,
            "pins": [PRIVATE] * pinned,
        }

    def _details(self, entry: CacheEntry) -> dict[str, Any]:
        verified = self._scrubber.verified_at.get(entry.key)
        history = [(entry.created_at, f"fetched from {entry.origin}"), (entry.last_used_at, "last used")]
        history += [(pin.pinned_at, "pinned") for pin in self._cache.pins.of(entry.key)]
        history += [(verified, "read back: whole")] if verified else []
        history += [
            (lease.taken_at, f"job {lease.job_id or '?'} (pid {lease.holder.pid}) began to use it")
            for lease in self._cache.leases.values()
            if entry.key in lease.keys
        ]
        return {
            "architecture": entry.architecture,
            "path": str(self._cache.store.layout.image(entry.key)),
            "uses": self._cache.counters.uses[entry.key],
            "verified_at": verified,
            "history": [{"at": at, "what": what} for at, what in sorted(history)],
        }

"""Applies what is not a conversion: names that lead elsewhere or nowhere, and sandboxes and SIFs that go.

All that changes in a repository is done in one transaction. What cannot be done is told and stays as it is known: the
next run tries it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from cache_manager.layout import with_tag
from sync import foreign, transitions
from sync.catalog import Catalog
from sync.foreign import Seen, Tidying
from sync.ledger import Ledger
from sync.resolution import Resolution
from sync.settings import Settings
from sync.step import Action, Verb
from sync.targets.base import Needed, SandboxTarget, TargetError
from sync.targets.sandboxes import Sandboxes
from sync.targets.siftree import SifTree
from sync.transitions import Form

LITTLE: Final = Needed(10_000_000, 1000)
"""What links, records and what CVMFS writes itself take."""


class Retirement:
    """Both targets, as far as there are two."""

    def __init__(self, ledger: Ledger, sandboxes: SandboxTarget | None, tree: SifTree | None) -> None:
        self._ledger = ledger
        self._sandboxes = sandboxes
        self._tree = tree

    def begin(self) -> None:
        """Clear up what a former run left behind in both targets. Raises TargetError."""
        if self._sandboxes is not None:
            self._sandboxes.begin()
        if self._tree is not None:
            self._tree.store.begin()

    def show(self) -> list[str]:
        """Show the catalog to readers; return what is wrong with that."""
        try:
            self._ledger.show(self._tree)
        except TargetError as error:
            return [f"catalog: {error}"]
        return []

    def tidying(self, now_listed: Resolution | None, settings: Settings) -> tuple[Seen, Tidying]:
        """Return what the repository holds that the catalog does not know, and what is to be done with it."""
        if self._sandboxes is None:
            return Seen({}, frozenset(), {}), Tidying()
        target = self._sandboxes.readable()
        seen = Seen(target.links(), frozenset(target.images()), target.missing_since())
        return seen, foreign.decide(seen, self._ledger.catalog, now_listed, settings, self._ledger.now)

    def apply(self, actions: Sequence[Action], now_listed: Resolution | None, settings: Settings) -> list[str]:
        """Do what is planned, and tidy; return what went wrong. Raises OSError where nothing can be remembered."""
        faults: list[str] = []
        done = self._in_the_repository(actions, now_listed, settings, faults)
        for action in actions:
            try:
                self._in_the_tree(action, sandbox_done=done, faults=faults)
            except TargetError as error:
                faults.append(f"{action.name}: {action.verb}: {error}")
        before = self._ledger.now - settings.sandboxes_grace_s
        catalog = transitions.without_shared(self._ledger.catalog, before)
        if catalog is not self._ledger.catalog:
            self._ledger.save(catalog)
        return faults

    def _in_the_repository(
        self, actions: Sequence[Action], now_listed: Resolution | None, settings: Settings, faults: list[str]
    ) -> bool:
        """Change links and remove sandboxes; return whether that was done."""
        if self._sandboxes is None:
            return True
        seen, tidying = self.tidying(now_listed, settings)
        if not (tidying.changes(seen) or any(map(_touches_sandboxes, actions))):
            return True
        try:
            with self._sandboxes.writing(LITTLE) as writing:
                for action in actions:
                    _change(writing, action)
                for name in tidying.unlink:
                    writing.unlink(name)
                for place in tidying.remove:
                    writing.remove(place)
                self._record_missing(writing, tidying.missing)
        except TargetError as error:
            faults.append(str(error))
            return False
        return True

    def _record_missing(self, writing: Sandboxes, known: Mapping[str, float]) -> None:
        """Record since when no name leads to the images to which none does now."""
        unlinked = writing.images() - set(writing.links().values())
        writing.write_missing({place: known.get(place, self._ledger.now) for place in unlinked})

    def _in_the_tree(self, action: Action, *, sandbox_done: bool, faults: list[str]) -> None:
        """Change pointers, remove SIFs, and note in the catalog what is done by then. Raises TargetError, OSError."""
        catalog, now, version = self._ledger.catalog, self._ledger.now, action.version
        if _touches_sandboxes(action) and not sandbox_done:
            return
        if action.verb is Verb.LINK and version is not None:
            if version.has_sif and self._tree is not None:
                self._tree.point(version.arch, action.name, version.version)
            self._ledger.save(transitions.linked(catalog, action.name, version, now))
        elif action.verb is Verb.UNLINK:
            self._withdraw(catalog, action.name, faults)
            unlisted = transitions.unlisted(catalog, action.name, now)
            self._ledger.save(transitions.unlinked(unlisted, action.name, now))
        elif action.verb is Verb.REMOVE and version is not None and action.form is not None:
            if action.form is Form.SIF and not self._removed(action, faults):
                return
            self._ledger.save(transitions.removed(catalog, action.name, version, action.form))

    def _withdraw(self, catalog: Catalog, name: str, faults: list[str]) -> None:
        """Have no pointer of a name lead to a SIF. Raises TargetError."""
        if self._tree is None:
            return
        archs = sorted({one.arch for one in catalog.get(name).versions if one.has_sif})
        left = [arch for arch in archs if not self._tree.withdraw(arch, name)]
        faults += [f"{name} ({arch}): latest.txt stays: the command for SIFs removes nothing" for arch in left]

    def _removed(self, action: Action, faults: list[str]) -> bool:
        """Remove a version's SIF; return whether it is gone. Raises TargetError."""
        version = action.version
        if self._tree is None or version is None:
            return True
        gone = self._tree.remove(version.arch, action.name, version.version)
        if not gone:
            faults.append(f"{action.name}: {version.version}.sif stays: the command for SIFs removes nothing")
        return gone


def _touches_sandboxes(action: Action) -> bool:
    if action.verb is Verb.UNLINK:
        return True
    has_sandbox = action.version is not None and bool(action.version.sandbox)
    return has_sandbox and (action.verb is Verb.LINK or action.form is Form.SANDBOX)


def _change(writing: Sandboxes, action: Action) -> None:
    """Do one step in the repository. Raises OSError."""
    if not _touches_sandboxes(action):
        return
    if action.verb is Verb.UNLINK:
        writing.unlink(with_tag(action.name))
    elif action.version is not None and action.verb is Verb.LINK:
        writing.link(action.name, action.version.sandbox)
    elif action.version is not None:
        writing.remove(action.version.sandbox)

"""What a run does, and why: from what is listed, what is published, the settings and the time. Pure.

A list with a broken line takes no name away, nor does a registry that does not answer; one that was cut off takes away
no more than so many in a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from cache_manager.text import human_bytes, human_time
from sync import transitions
from sync.catalog import Catalog, Image, Version
from sync.resolution import Resolution
from sync.retention import Needed, removals
from sync.settings import Settings
from sync.step import Action, Verb
from sync.transitions import Form
from sync.values import Failure, Resolved, Variant

FIRST_WAIT_S: Final = 900.0
"""After an image's first failure with a digest; it doubles with each, up to LONGEST_WAIT_S."""

LONGEST_WAIT_S: Final = 86_400.0
_MOST_DOUBLINGS: Final = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a run, in their order."""

    actions: tuple[Action, ...]

    def of(self, *verbs: Verb) -> tuple[Action, ...]:
        """Return the steps of some kinds."""
        return tuple(one for one in self.actions if one.verb in verbs)

    def counts(self) -> dict[str, int]:
        """Return how many steps of each kind there are."""
        found = Counter(one.verb for one in self.actions)
        return {verb.value: found[verb] for verb in Verb}

    def only(self, names: Iterable[str]) -> Plan:
        """Return what concerns some images alone."""
        wanted = frozenset(names)
        return Plan(tuple(one for one in self.actions if one.name in wanted))


def decide(now_listed: Resolution, catalog: Catalog, settings: Settings, now: float) -> Plan:
    """Return what to do."""
    actions = [step for found in now_listed.resolved.values() for step in _publish(found, catalog, settings, now)]
    actions += [_unresolved(failure, catalog) for failure in now_listed.failures.values()]
    listed = frozenset(name for name, one in catalog.images.items() if now_listed.lists(name, one.source))
    gone = (image for name, image in catalog.images.items() if name not in listed)
    leaving = [step for image in gone for step in _leave(image, now_listed, settings, now)]
    actions += _so_many(leaving, catalog, settings, now)
    needed = Needed(
        listed,
        frozenset(one.version for one in actions if one.version),
        frozenset(one.digest for found in now_listed.resolved.values() for one in found.variants),
    )
    actions += removals(catalog, needed, settings, now)
    return Plan(tuple(sorted(actions, key=lambda one: (_ORDER[one.verb], one.name, one.arch))))


def clean_up(catalog: Catalog, settings: Settings, now: float) -> Plan:
    """Return what goes without a look at the list or at any registry: what a run left unlinked before."""
    listed = frozenset(name for name, image in catalog.images.items() if not image.unlisted_at)
    return Plan(tuple(removals(catalog, Needed(listed), settings, now)))


def note(now_listed: Resolution, plan: Plan, catalog: Catalog, now: float) -> Catalog:
    """Return the catalog with what a look at the list tells, before anything is done of the plan."""
    for found in now_listed.resolved.values():
        catalog = transitions.resolved(catalog, found, now)
    for failure in now_listed.failures.values():
        catalog = transitions.failed(catalog, failure, "", now)
    for name, image in tuple(catalog.images.items()):
        if not image.versions and not now_listed.lists(name, image.source):
            catalog = catalog.without(name)
    busy = {one.name for one in plan.actions if one.verb is not Verb.KEEP}
    for action in plan.actions:
        if action.verb is Verb.CONVERT:
            catalog = transitions.queued(catalog, action.name, now)
        elif action.is_leaving and action.verb is Verb.KEEP:
            catalog = transitions.unlisted(catalog, action.name, now)
        elif action.verb is Verb.KEEP and action.resolved and action.name not in busy:
            catalog = transitions.kept(catalog, action.name)
    return catalog


def note_some(now_listed: Resolution, names: Iterable[str], catalog: Catalog, now: float) -> Catalog:
    """Return the catalog with what a look at the list tells of some names alone."""
    for name in names:
        if name in now_listed.resolved:
            catalog = transitions.resolved(catalog, now_listed.resolved[name], now)
    return catalog


_ORDER: Final = {verb: number for number, verb in enumerate(Verb)}


def forms_wanted(arch: str, archs: Iterable[str], settings: Settings) -> frozenset[Form]:
    """Return what an image for `arch` is published as, of those that it is there for (`archs`).

    In CVMFS a name is one link: it leads to the first of the configured architectures that the image has.
    """
    wanted = set()
    if settings.sif_directory or settings.sif_url or settings.sif_command:
        wanted.add(Form.SIF)
    there = set(archs)
    first = next((one for one in settings.architectures if one in there), next(iter(sorted(there)), ""))
    if (settings.cvmfs_repository or settings.cvmfs_directory) and arch == first:
        wanted.add(Form.SANDBOX)
    return frozenset(wanted)


def _publish(found: Resolved, catalog: Catalog, settings: Settings, now: float) -> Iterator[Action]:
    """Yield a step for each architecture of a listed image."""
    image = catalog.get(found.name, found.source)
    archs = [one.arch for one in found.variants]
    for variant in found.variants:
        forms = forms_wanted(variant.arch, archs, settings)
        if forms:
            yield _one(found, variant, forms, image, now)


def _one(found: Resolved, variant: Variant, forms: frozenset[Form], image: Image, now: float) -> Action:
    there = image.version(variant.arch, variant.digest)
    lacking = sorted(forms - _forms_of(there)) if there else sorted(forms)
    current = image.current.get(variant.arch)
    if there and not lacking:
        if current == there and not image.unlinked_at:
            return Action(Verb.KEEP, found.name, "unchanged", found.source, found, variant, version=there)
        why = "the tag went back to what is still there" if current else "listed again, and still there"
        return Action(Verb.LINK, found.name, why, found.source, found, variant, version=there)
    wait_s = _wait_left_s(image, found.digest, now)
    if wait_s > 0:
        why = f"failed {image.failures} times ({image.error}); tried again in {human_time(wait_s)}"
        return Action(Verb.WAIT, found.name, why, found.source, found, variant, forms)
    why = _why_convert(there, current, lacking)
    if variant.compressed_bytes is not None:
        why += f" ({human_bytes(variant.compressed_bytes)} compressed)"
    return Action(Verb.CONVERT, found.name, why, found.source, found, variant, forms)


def _forms_of(version: Version) -> set[Form]:
    return ({Form.SIF} if version.has_sif else set()) | ({Form.SANDBOX} if version.sandbox else set())


def _why_convert(there: Version | None, current: Version | None, lacking: list[Form]) -> str:
    if there:
        return f"published without its {' and '.join(lacking)}"
    return "the tag points to another image now" if current else "not published yet"


def _wait_left_s(image: Image, digest: str, now: float) -> float:
    """Return how long an image that fails is left alone: a layer that is broken stays broken.

    A failure that may pass is tried again with the next run, and so is another digest.
    """
    if not image.failures or image.is_transient or image.failed_digest != digest:
        return 0.0
    wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(image.failures - 1, _MOST_DOUBLINGS))
    age_s = now - image.failed_at
    return wait_s - age_s if age_s >= 0 else 0.0  # a clock that was set back keeps nothing waiting


def _unresolved(failure: Failure, catalog: Catalog) -> Action:
    """Say what becomes of an image that its registry does not show: what is published of it stays."""
    image = catalog.get(failure.name, failure.source)
    if image.current:
        why = f"what is published stays: {failure.why}"
        return Action(Verb.KEEP, failure.name, why, failure.source, failure=failure)
    return Action(Verb.WAIT, failure.name, failure.why, failure.source, failure=failure)


def _leave(image: Image, now_listed: Resolution, settings: Settings, now: float) -> Iterator[Action]:
    """Yield what becomes of a name that no line names any more, while it is published."""
    if image.unlinked_at or not image.versions:
        return
    if now_listed.faults:
        why = f"not in the list, which has {len(now_listed.faults)} broken line(s): unlinked when they are mended"
        yield Action(Verb.KEEP, image.name, why, image.source)
        return
    since = image.unlisted_at or now
    left_s = since + settings.links_grace_s - now
    step = Action(Verb.UNLINK, image.name, "no longer listed", image.source, is_leaving=True)
    if left_s > 0:
        step = replace(step, verb=Verb.KEEP, reason=f"no longer listed; unlinked in {human_time(left_s)}")
    yield step


def _so_many(leaving: Iterable[Action], catalog: Catalog, settings: Settings, now: float) -> Iterator[Action]:
    """Yield what becomes of names that left, those first that did so first; beyond what one run unlinks they stay."""
    number = 0
    for step in sorted(leaving, key=lambda one: (catalog.get(one.name).unlisted_at or now, one.name)):
        number += step.verb is Verb.UNLINK
        if step.verb is Verb.UNLINK and number > settings.max_removals:
            why = f"{step.reason}; stays for now: a run unlinks {settings.max_removals}"
            yield replace(step, verb=Verb.KEEP, reason=why)
        else:
            yield step

"""What a run would do, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync import plan, transitions
from sync.catalog import UNKNOWN, Catalog, Image, State, Version
from sync.imagelist import ImageList
from sync.plan import decide, note
from sync.resolution import Resolution
from sync.settings import Settings
from sync.step import Verb
from sync.transitions import Form
from sync.values import Failure, Resolved, Variant

NAME = "htc/rocky:9"
SOURCE = "docker.io/htc/rocky:9"
NOW = 1_795_000_000.0
HOUR = 3600.0
DAY = 24 * HOUR
BOTH = frozenset({Form.SIF, Form.SANDBOX})
SETTINGS = Settings(image_list="/list", cvmfs_directory="/cvmfs", sif_directory="/sif", max_removals=3)


def digest(word: str) -> str:
    return "sha256:" + word.encode().hex().ljust(64, "0")


def found(word: str = "one", *archs: str, name: str = NAME) -> Resolved:
    variants = tuple(Variant(arch, digest(word + arch), 5_000_000) for arch in archs or ("x86_64",))
    return Resolved(name, f"docker.io/{name}", digest(word), variants)


def listed(*images: Resolved, **more: Any) -> Resolution:  # noqa: ANN401 - what a case has
    return replace(Resolution({one.name: one for one in images}), **more)


def publish(catalog: Catalog, image: Resolved, at: float, second: int = 0, arch: str = "x86_64") -> Catalog:
    variant = next(one for one in image.variants if one.arch == arch)
    moment = f"20261101T0000{second:02}Z"
    new = Version(arch, moment, image.digest, variant.digest, at, has_sif=True, sandbox=f".images/{variant.digest[7:]}")
    return transitions.published(transitions.resolved(catalog, image, at), image.name, new, at)


def steps(resolution: Resolution, catalog: Catalog, now: float = NOW, settings: Settings = SETTINGS) -> list[str]:
    """Return what is done, without what only stays as it is."""
    made = decide(resolution, catalog, settings, now)
    return [
        " ".join(filter(None, (one.verb.value, one.name, one.arch, one.form)))
        for one in made.actions
        if one.verb is not Verb.KEEP
    ]


def test_what_is_not_published_is_converted_into_both_forms() -> None:
    """The reason names its size."""
    (step,) = decide(listed(found()), Catalog(), SETTINGS, NOW).actions
    assert (step.verb, step.forms) == (Verb.CONVERT, BOTH)
    assert step.reason == "not published yet (5.0 MB compressed)"


def test_what_is_published_of_this_digest_is_kept() -> None:
    """Nothing is done for an unchanged list."""
    catalog = publish(Catalog(), found(), NOW - DAY)
    assert steps(listed(found()), catalog) == []
    assert decide(listed(found()), catalog, SETTINGS, NOW).counts()["keep"] == 1


def test_a_tag_that_moved_is_converted_and_one_that_moved_back_is_linked() -> None:
    """What is still there needs no conversion."""
    catalog = publish(Catalog(), found("one"), NOW - DAY, 1)
    assert steps(listed(found("two")), catalog) == [f"convert {NAME} x86_64"]
    catalog = publish(catalog, found("two"), NOW, 2)
    assert steps(listed(found("one")), catalog) == [f"link {NAME} x86_64"]


def test_a_form_that_is_wanted_since_is_made() -> None:
    """A tree of SIFs that is new gets every image."""
    catalog = publish(Catalog(), found(), NOW - DAY)
    image = catalog.images[NAME]
    bare = catalog.with_image(replace(image, versions=(replace(image.versions[0], has_sif=False),)))
    (step,) = decide(listed(found()), bare, SETTINGS, NOW).of(Verb.CONVERT)
    assert step.reason.startswith("published without its sif")


@pytest.mark.parametrize(
    ("archs", "change", "wanted"),
    [
        (("x86_64", "aarch64"), {}, {"x86_64": BOTH, "aarch64": {Form.SIF}}),
        (("aarch64",), {}, {"aarch64": BOTH}),
        (("x86_64", "aarch64"), {"sif_directory": ""}, {"x86_64": {Form.SANDBOX}}),
        (("x86_64", "aarch64"), {"cvmfs_directory": ""}, {"x86_64": {Form.SIF}, "aarch64": {Form.SIF}}),
    ],
)
def test_a_name_in_cvmfs_leads_to_one_architecture_and_sifs_are_for_each(
    archs: tuple[str, ...], change: dict[str, Any], wanted: dict[str, set[Form]]
) -> None:
    """The first of the configured ones that the image has."""
    settings = replace(SETTINGS, architectures=("x86_64", "aarch64"), **change)
    made = decide(listed(found("one", *archs)), Catalog(), settings, NOW)
    assert {one.arch: set(one.forms) for one in made.of(Verb.CONVERT)} == wanted


def test_a_name_that_left_the_list_is_unlinked_after_its_grace() -> None:
    """At once by default."""
    catalog = publish(Catalog(), found(), NOW - DAY)
    assert steps(listed(), catalog) == [f"unlink {NAME}"]
    patient = replace(SETTINGS, links_grace_s=HOUR)
    assert steps(listed(), catalog, settings=patient) == []
    catalog = note(listed(), decide(listed(), catalog, patient, NOW), catalog, NOW)
    assert catalog.images[NAME].state is State.RETIRED
    assert steps(listed(), catalog, NOW + HOUR - 1, patient) == []
    assert steps(listed(), catalog, NOW + HOUR, patient) == [f"unlink {NAME}"]


def test_a_list_that_was_cut_off_takes_only_so_many_names_away() -> None:
    """Those first that left first; the others stay, say why, and go with the next runs, unless they are listed."""
    names = [f"htc/n{number}:1" for number in range(8)]
    catalog = Catalog()
    for name in names:
        catalog = publish(catalog, found(name, name=name), NOW - DAY)
    catalog = transitions.unlisted(catalog, names[7], NOW - 1)
    made = decide(listed(), catalog, SETTINGS, NOW)
    assert [one.name for one in made.of(Verb.UNLINK)] == [names[0], names[1], names[7]]
    assert {one.name: one.reason for one in made.of(Verb.KEEP)} == dict.fromkeys(
        names[2:7], "no longer listed; stays for now: a run unlinks 3"
    )
    catalog = note(listed(), made, catalog, NOW)
    assert {catalog.images[name].state for name in names[2:7]} == {State.RETIRED}
    for step in made.of(Verb.UNLINK):
        catalog = transitions.unlinked(catalog, step.name, NOW)
    again = found(names[2], name=names[2])
    assert steps(listed(again), catalog, NOW + 1) == [f"unlink {name}" for name in names[3:6]]


def test_a_broken_line_takes_no_name_away() -> None:
    """It may have been that name's line."""
    catalog = publish(Catalog(), found(), NOW - DAY)
    broken = ImageList.parse(b"HTC/Rocky:9\n")
    made = decide(listed(faults=broken.faults), catalog, SETTINGS, NOW)
    assert [one.verb for one in made.actions] == [Verb.KEEP]
    assert "broken line" in made.actions[0].reason


def test_a_pattern_whose_tags_are_not_known_takes_no_name_away() -> None:
    """Only those that it stands for."""
    other = found(name="htc/alma:9")
    catalog = publish(publish(Catalog(), found(), NOW - DAY), other, NOW - DAY)
    pattern = ImageList.parse(b"htc/rocky:*\n").entries
    assert steps(listed(open_globs=pattern), catalog) == ["unlink htc/alma:9"]


def test_an_image_that_its_registry_does_not_show_stays_as_it_is() -> None:
    """However long that lasts: what is published is the last good one."""
    catalog = publish(Catalog(), found(), NOW - 100 * DAY)
    failures = {
        NAME: Failure(NAME, SOURCE, "the registry has no such image"),
        "a/b:1": Failure("a/b:1", "docker.io/a/b:1", "needs a password"),
    }
    made = decide(listed(failures=failures), catalog, SETTINGS, NOW)
    assert [(one.verb, one.name) for one in made.actions] == [(Verb.KEEP, NAME), (Verb.WAIT, "a/b:1")]
    assert made.actions[0].reason == "what is published stays: the registry has no such image"
    told = note(listed(failures=failures), made, catalog, NOW).images
    assert {name: one.state for name, one in told.items()} == {NAME: State.FAILING, "a/b:1": State.FAILING}


@pytest.mark.parametrize(
    ("age_s", "expected"),
    [
        (2 * DAY - 1, []),
        (2 * DAY, ["remove htc/rocky:9 x86_64 sandbox"]),
        (10 * DAY, ["remove htc/rocky:9 x86_64 sandbox", "remove htc/rocky:9 x86_64 sif"]),
    ],
)
def test_each_form_of_what_is_superseded_has_its_own_grace(age_s: float, expected: list[str]) -> None:
    """Two days for sandboxes, ten for SIFs; the current version stays."""
    catalog = publish(publish(Catalog(), found("one"), NOW - 50 * DAY, 1), found("two"), NOW, 2)
    assert sorted(steps(listed(found("two")), catalog, NOW + age_s)) == expected
    cleaned = plan.clean_up(catalog, SETTINGS, NOW + age_s)
    assert len(cleaned.actions) == len(expected)


def test_what_a_killed_publisher_began_is_not_taken_for_the_last_good_version() -> None:
    """A name that is listed again, and cannot be had, keeps what was whole."""
    catalog = publish(Catalog(), found(), NOW - 60 * DAY)
    catalog = transitions.unlinked(catalog, NAME, NOW - 50 * DAY)
    image = catalog.images[NAME]
    began = Version(
        "x86_64", "20261102T000000Z", UNKNOWN, UNKNOWN, NOW - 40 * DAY, has_sif=True, superseded_at=NOW - 40 * DAY
    )
    catalog = catalog.with_image(replace(image, versions=(*image.versions, began)))
    resolution = Resolution(failures={NAME: Failure(NAME, SOURCE, "no answer", transient=True)})
    made = decide(resolution, catalog, SETTINGS, NOW)
    assert [one.version for one in made.of(Verb.REMOVE)] == [began]


def test_a_run_removes_only_so_many_and_the_oldest_first() -> None:
    """The others are kept, and that is told."""
    catalog = Catalog()
    for number in range(6):
        catalog = publish(catalog, found(f"n{number}"), NOW + number, number)
    made = decide(listed(found("n5")), catalog, replace(SETTINGS, sifs_grace_s=0), NOW + HOUR)
    gone = made.of(Verb.REMOVE)
    assert [one.version.version[-3:-1] for one in gone if one.version] == ["00", "01", "02"]
    assert sum("a run removes 3" in one.reason for one in made.of(Verb.KEEP)) == 2


def test_a_sandbox_that_another_name_leads_to_stays() -> None:
    """Names of one digest share it."""
    other = replace(found("one"), name="htc/other:1", source="docker.io/htc/other:1")
    catalog = publish(publish(Catalog(), found("one"), NOW, 1), other, NOW, 2)
    catalog = publish(catalog, found("two"), NOW, 3)
    resolution = listed(found("two"), other)
    assert steps(resolution, catalog, NOW + 5 * DAY) == []
    catalog = publish(catalog, replace(other, digest=digest("x"), variants=found("x").variants), NOW + 5 * DAY, 4)
    resolution = listed(found("two"), replace(other, digest=digest("x"), variants=found("x").variants))
    assert steps(resolution, catalog, NOW + 6 * DAY) == []
    assert steps(resolution, catalog, NOW + 7 * DAY) == [
        "remove htc/other:1 x86_64 sandbox",
        "remove htc/rocky:9 x86_64 sandbox",
    ]


def test_a_sandbox_of_a_digest_that_is_wanted_again_stays() -> None:
    """Also for a name that has it converted only now."""
    catalog = publish(publish(Catalog(), found("one"), NOW, 1), found("two"), NOW, 2)
    new = replace(found("one"), name="htc/new:1", source="docker.io/htc/new:1")
    assert steps(listed(found("two"), new), catalog, NOW + 5 * DAY) == ["convert htc/new:1 x86_64"]
    assert steps(listed(found("one")), catalog, NOW + 20 * DAY) == [f"link {NAME} x86_64"]


def test_an_image_that_stays_broken_is_left_alone_for_longer_each_time() -> None:
    """A failure that may pass is tried again with the next run, and so is another digest."""
    catalog = Catalog()
    for turn, wait in enumerate((900, 1800, 3600)):
        catalog = transitions.failed(catalog, Failure(NAME, SOURCE, "a layer differs"), found().digest, NOW)
        assert steps(listed(found()), catalog, NOW + wait - 1) == [f"wait {NAME} x86_64"], turn
        assert steps(listed(found()), catalog, NOW + wait) == [f"convert {NAME} x86_64"], turn
    assert steps(listed(found("two")), catalog, NOW) == [f"convert {NAME} x86_64"]
    assert steps(listed(found()), catalog, NOW - DAY) == [f"convert {NAME} x86_64"]
    passing = transitions.failed(catalog, Failure(NAME, SOURCE, "503", transient=True), found().digest, NOW)
    assert steps(listed(found()), passing, NOW) == [f"convert {NAME} x86_64"]


def test_a_name_that_is_listed_again_leads_to_what_is_still_there() -> None:
    """Without a conversion."""
    catalog = transitions.unlinked(publish(Catalog(), found(), NOW - DAY), NAME, NOW)
    assert steps(listed(found()), catalog, NOW + 5 * DAY) == [f"link {NAME} x86_64"]
    assert steps(listed(), catalog, NOW + 20 * DAY) == [f"remove {NAME} x86_64 sandbox", f"remove {NAME} x86_64 sif"]


def test_a_run_of_some_names_notes_what_was_seen_of_these_alone() -> None:
    """Where they come from, too; nothing is taken from the others."""
    other = found("two", name="htc/other:1")
    catalog = plan.note_some(listed(found(), other), [NAME, "htc/unlisted:1"], Catalog(), NOW)
    assert {name: image.source for name, image in catalog.images.items()} == {NAME: SOURCE}
    assert catalog.images[NAME].digest == digest("one")


def test_what_was_seen_is_noted_before_anything_is_done() -> None:
    """Queued since the first look, well again when all of a name is as its registry has it."""
    made = decide(listed(found()), Catalog(), SETTINGS, NOW)
    first = note(listed(found()), made, Catalog(), NOW)
    later = note(listed(found()), made, first, NOW + HOUR).images[NAME]
    assert (later.state, later.since) == (State.QUEUED, NOW)
    failing = transitions.failed(publish(Catalog(), found(), NOW), Failure(NAME, SOURCE, "down"), "", NOW)
    well = note(listed(found()), decide(listed(found()), failing, SETTINGS, NOW), failing, NOW)
    assert well.images[NAME].state is State.PUBLISHED


WORDS = st.sampled_from(["one", "two", "six"])
NAMES = ("a/x:1", "a/y:1")
EVENTS = st.lists(st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), WORDS), st.integers(0, 12)), max_size=25)


@given(EVENTS)
def test_whatever_is_published_and_retired_no_name_leads_to_what_is_gone(
    events: list[tuple[str, str | None, int]],
) -> None:
    """Runs in any order, each of which does all that its plan says."""
    catalog, tags, disk, now = Catalog(), dict[str, str](), set[str](), NOW
    for second, (name, word, days) in enumerate(events):
        now += days * DAY
        tags.pop(name, None)
        if word:
            tags[name] = word
        resolution = listed(*(found(one, name=key) for key, one in tags.items()))
        made = decide(resolution, catalog, SETTINGS, now)
        catalog = note(resolution, made, catalog, now)
        for step in made.actions:
            if step.verb is Verb.CONVERT and step.resolved:
                catalog = publish(catalog, step.resolved, now, second)
                disk |= {one.sandbox for one in catalog.images[step.name].versions}
            elif step.verb is Verb.LINK and step.version:
                catalog = transitions.linked(catalog, step.name, step.version, now)
            elif step.verb is Verb.UNLINK:
                catalog = transitions.unlinked(catalog, step.name, now)
            elif step.verb is Verb.REMOVE and step.version and step.form:
                if step.form is Form.SANDBOX:
                    disk.discard(step.version.sandbox)
                catalog = transitions.removed(catalog, step.name, step.version, step.form)
        leading = {name: image.current for name, image in catalog.images.items() if image.current}
        assert set(leading) == set(tags)
        for current in leading.values():
            assert all(one.has_sif and one.sandbox in disk for one in current.values())


def test_an_image_is_known_by_name_alone() -> None:
    """A new one has its source from the list."""
    assert Catalog().get(NAME, SOURCE) == Image(NAME, SOURCE)

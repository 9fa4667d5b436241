"""catalog.json, and what happens to an image between two of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from sync import transitions
from sync.catalog import Catalog, CatalogError, Image, State, Version, parse, render
from sync.transitions import Form
from sync.values import Failure, Resolved

NAME = "htc/rocky:9"
SOURCE = "registry.example.org/htc/rocky:9"
NOW = 1_795_000_000.0
DAY = 86_400.0


def version(number: int, arch: str = "x86_64", at: float = NOW) -> Version:
    return Version(
        arch,
        f"20261125T0000{number:02}Z",
        f"sha256:{'1' * 64}",
        f"sha256:{number:064x}",
        at,
        sha256="ab" * 32,
        size_bytes=7,
        has_sif=True,
        sandbox=f".images/{number:02x}/{'a' * 62}",
        tree_digest="cd" * 32,
        tree_bytes=9,
        tree_inodes=3,
    )


def published(*versions: Version) -> Catalog:
    catalog = transitions.resolved(Catalog(), Resolved(NAME, SOURCE, f"sha256:{'1' * 64}"), NOW)
    for one in versions:
        catalog = transitions.published(catalog, NAME, one, one.created_at)
    return catalog


def test_what_is_written_is_read_again() -> None:
    """To the last field; one image a line."""
    catalog = replace(published(version(1), version(2)), authoritative=("htc",), generated_at=NOW)
    catalog = transitions.failed(catalog, Failure("a/b:1", "docker.io/a/b:1", "it is gone"), "", NOW)
    text = render(catalog)
    assert parse(text) == catalog
    assert len(text.splitlines()) == 4
    record = json.loads(text)["images"][NAME]
    assert (record["state"], record["since"], record["source"]) == ("published", NOW, SOURCE)


def test_an_empty_catalog_is_one_too() -> None:
    """Before the first image."""
    assert parse(render(Catalog())) == Catalog()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema": 99}, "newer version"),
        ({"schema": "1"}, "names no schema"),
        ({"images": []}, "no mapping"),
        ({"authoritative": [1]}, "no list of names"),
        ({"images": {"../../etc": {"source": "a"}}}, "no name under which anything is published"),
        ({"images": {"a/b:1": {}}}, "source is missing"),
        ({"images": {"a/b:1": {"source": "a", "failures": "many"}}}, "failures is no int"),
        ({"images": {"a/b:1": {"source": "a", "queued_at": float("nan")}}}, "queued_at is no moment"),
        ({"images": {"a/b:1": {"source": "a", "versions": [{"arch": "x86_64"}]}}}, "version is missing"),
    ],
)
def test_a_file_that_is_no_catalog_says_where(change: dict[str, Any], why: str) -> None:
    """It would be believed, and things removed for it."""
    with pytest.raises(CatalogError, match=why):
        parse(json.dumps({"schema": 1, "authoritative": [], "images": {}} | change))


@pytest.mark.parametrize(
    "change", [{"sandbox": "../../etc"}, {"sandbox": "/etc"}, {"version": "latest"}, {"arch": "../x"}]
)
def test_a_version_that_lies_elsewhere_is_refused(change: dict[str, str]) -> None:
    """What a catalog names is removed one day."""
    document = json.loads(render(published(version(1))))
    document["images"][NAME]["versions"][0] |= change
    with pytest.raises(CatalogError):
        parse(json.dumps(document))


def test_a_tree_speaks_for_its_namespaces_alone() -> None:
    """`htc` is not `htcondor`."""
    catalog = Catalog(authoritative=("htc",))
    assert catalog.covers("htc/rocky:9")
    assert not catalog.covers("htcondor/mini:1")
    assert Catalog(authoritative=("*",)).covers("any/thing:1")


def test_a_new_version_supersedes_the_one_of_its_architecture() -> None:
    """And no other."""
    catalog = published(version(1), version(2, "aarch64"), version(3, at=NOW + DAY))
    image = catalog.images[NAME]
    assert {arch: one.version[-3:-1] for arch, one in image.current.items()} == {"x86_64": "03", "aarch64": "02"}
    assert [one.superseded_at for one in image.versions] == [NOW + DAY, 0.0, 0.0]


def test_a_tag_that_goes_back_makes_the_older_version_current_again() -> None:
    """Nothing is converted for that."""
    first = version(1)
    catalog = transitions.linked(published(first, version(2)), NAME, first, NOW + DAY)
    assert catalog.images[NAME].current["x86_64"].version == first.version


def test_a_failure_is_told_and_leaves_what_is_published() -> None:
    """It says since when, how often, and why; a success ends it."""
    catalog = published(version(1))
    for turn in range(3):
        catalog = transitions.failed(catalog, Failure(NAME, SOURCE, "layer 2 differs"), "sha256:2", NOW + turn)
    image = catalog.images[NAME]
    assert (image.state, image.since, image.failures, image.error) == (State.FAILING, NOW, 3, "layer 2 differs")
    assert image.current
    well = transitions.published(catalog, NAME, version(2), NOW + 9).images[NAME]
    assert (well.state, well.failures, well.error) == (State.PUBLISHED, 0, "")


def test_a_name_goes_step_by_step_and_is_back_at_any_time() -> None:
    """Unlisted, unlinked, its forms removed; the image goes with its last version."""
    one = version(1)
    catalog = transitions.unlisted(published(one), NAME, NOW + 1)
    assert (catalog.images[NAME].state, catalog.images[NAME].since) == (State.RETIRED, NOW + 1)
    assert catalog.images[NAME].current
    catalog = transitions.unlinked(catalog, NAME, NOW + 2)
    assert not catalog.images[NAME].current
    back = transitions.linked(catalog, NAME, catalog.images[NAME].versions[0], NOW + 3)
    assert back.images[NAME].state is State.PUBLISHED
    catalog = transitions.removed(catalog, NAME, catalog.images[NAME].versions[0], Form.SANDBOX)
    assert [step.has_sif for step in catalog.images[NAME].versions] == [True]
    catalog = transitions.removed(catalog, NAME, catalog.images[NAME].versions[0], Form.SIF)
    assert NAME not in catalog.images


def test_an_image_that_waits_for_its_first_conversion_is_queued() -> None:
    """Since it was seen."""
    catalog = transitions.queued(Catalog().with_image(Image(NAME, SOURCE)), NAME, NOW)
    assert (catalog.images[NAME].state, catalog.images[NAME].since) == (State.QUEUED, NOW)

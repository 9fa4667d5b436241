"""Where things lie: names only."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.layout import (
    CacheLayout,
    is_key,
    is_version_file,
    manifest_file,
    record_name,
    tree_name,
    tree_url,
)
from tests.unit.builders import key_of

LAYOUT = CacheLayout(PurePosixPath("/cache"))


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("htc/rocky:9", "htc__rocky__9"),
        ("ns/a/b/c:1.2", "ns__a__b__c__1.2"),
        ("library/debian:latest", "library__debian__latest"),
        ("htc/rocky", "htc__rocky__latest"),
        ("debian", "debian__latest"),
        ("host:5000/ns/r", "host__5000__ns__r__latest"),
        ("a__b/c:1", "a__b__c__1"),
    ],
)
def test_todays_pilots_find_the_same_directory(name: str, directory: str) -> None:
    """The published trees of today are laid out so; no tag means `latest`."""
    assert tree_name(name) == directory


@pytest.mark.parametrize("base", ["https://host.example/v2", "https://host.example/v2/", "file:///srv/v2//"])
def test_a_tree_is_found_with_and_without_a_slash_at_the_end_of_its_base(base: str) -> None:
    """Admins write both."""
    clean = base.rstrip("/")
    assert tree_url(base, "x86_64", "htc/rocky:9", "latest.txt") == f"{clean}/x86_64/htc__rocky__9/latest.txt"


@pytest.mark.parametrize(
    "name", ["a?b:1", "a#b:1", "a%2e%2e%2fb:1", "a b:1", "größe:1", "a\\b:1", "%00:1", "a;b&c=d:1"]
)
def test_a_name_stays_one_directory_of_the_tree_whatever_it_holds(name: str) -> None:
    """A job chooses the name: it must not reach a query, a fragment, or another directory of the server."""
    url = tree_url("https://host.example/v2", "x86_64", name, "latest.txt")
    path = url.removeprefix("https://host.example/v2/x86_64/").removesuffix("/latest.txt")
    assert not set(path) & set(" ?#/\\")
    assert "%2e" not in path.lower().replace("%252e", "")
    assert path.isascii()


@pytest.mark.parametrize("text", ["20250505T120000Z.sif", "00000000T000000Z.sif"])
def test_a_version_is_a_moment(text: str) -> None:
    """It is what latest.txt holds."""
    assert is_version_file(text)
    assert manifest_file(text) == text.replace(".sif", ".json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latest.sif",
        "20250505T120000Z",
        "20250505T120000Z.sif\n",
        "20250505T120000Z.sif\n20250506T120000Z.sif",
        "../20250505T120000Z.sif",
        "20250505T120000Z.sif?x",
        "<html><body>502 Bad Gateway</body></html>",
        "\u0662\u0660\u0662\u0665\u0660\u0665\u0660\u0665T120000Z.sif",
    ],
)
def test_what_proxies_put_into_latest_txt_is_no_version(text: str) -> None:
    """A Squid's error page once became the name of an image."""
    assert not is_version_file(text)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (key_of("a"), True),
        (key_of("a", "sandbox"), True),
        (key_of("a").upper(), False),
        (key_of("a", "img"), False),
        (key_of("a") + "\n", False),
        (key_of("a")[1:], False),
        ("x" + key_of("a"), False),
        ("README", False),
        ("", False),
    ],
)
def test_only_a_digest_with_a_format_is_a_key(name: str, *, expected: bool) -> None:
    """Whatever else lies in the cache is not taken for an image."""
    assert is_key(name) is expected


def test_everything_lies_under_the_root_so_that_a_rename_publishes() -> None:
    """A rename works within one file system only."""
    places = [*LAYOUT.directories, LAYOUT.lock, LAYOUT.image(key_of("a"))]
    assert all(place.is_relative_to("/cache") for place in places)
    assert len(set(places)) == len(places)
    assert LAYOUT.image(key_of("a")).parent.parent == LAYOUT.entries


@given(st.text(max_size=300))
def test_a_record_has_a_plain_file_name_that_tells_nothing(url: str) -> None:
    """A URL may hold a signature, slashes, and more bytes than a file name takes."""
    name = record_name(url)
    assert len(name) == 64 + len(".json")
    assert name.removesuffix(".json").isalnum()
    assert record_name(url) == name


@given(st.text(max_size=50), st.text(max_size=50))
def test_two_objects_have_two_records(one: str, other: str) -> None:
    """What is known of one is never taken for the other."""
    assert (record_name(one) == record_name(other)) == (one == other)

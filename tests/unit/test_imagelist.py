"""The list of images, as a community writes it, and as people write it wrong."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.imageline import Entry
from sync.imagelist import ImageList

DIGEST = "sha256:" + "0a" * 32
COMMUNITY = """\
# Images for the pool, by community.
# One image a line: [registry/]namespace/repository[:tag]

debian:latest
alpine

# Physics
ns-one/reco
ns-one/reco:24.1-stable
ghcr.io/ns_two/sim:2.0.0
containers.example.org/computing/distributed/tools/gpu_burn:latest
#ns-one/gone:1.0

# Nightlies
ns-three/nightly:el9-m*
ns-three/other:*
hub.example.org:8443/htc/rocky:9-cuda-12.6.0
hub.example.org/htc/rocky@{DIGEST}
hub.example.org/htc/alma:9@{DIGEST}
""".replace("{DIGEST}", DIGEST)


def entries(text: str) -> list[Entry]:
    found = ImageList.parse(text.encode())
    assert not found.faults
    return list(found.entries)


def test_the_list_is_read_as_the_community_writes_it() -> None:
    """Comments, sections, bare names, namespaces, other registries, ports, digests and patterns."""
    assert [(one.line, one.name, one.source) for one in entries(COMMUNITY)] == [
        (4, "library/debian:latest", "docker.io/library/debian:latest"),
        (5, "library/alpine:latest", "docker.io/library/alpine:latest"),
        (8, "ns-one/reco:latest", "docker.io/ns-one/reco:latest"),
        (9, "ns-one/reco:24.1-stable", "docker.io/ns-one/reco:24.1-stable"),
        (10, "ns_two/sim:2.0.0", "ghcr.io/ns_two/sim:2.0.0"),
        (
            11,
            "computing/distributed/tools/gpu_burn:latest",
            "containers.example.org/computing/distributed/tools/gpu_burn:latest",
        ),
        (15, "ns-three/nightly:el9-m*", "docker.io/ns-three/nightly:el9-m*"),
        (16, "ns-three/other:*", "docker.io/ns-three/other:*"),
        (17, "htc/rocky:9-cuda-12.6.0", "hub.example.org:8443/htc/rocky:9-cuda-12.6.0"),
        (18, f"htc/rocky@{DIGEST}", f"hub.example.org/htc/rocky@{DIGEST}"),
        (19, "htc/alma:9", f"hub.example.org/htc/alma:9@{DIGEST}"),
    ]


@pytest.mark.parametrize("text", [COMMUNITY, "", "\n\n", "# only words", "a/b:1", "a/b:1\r\n# c\r\n", "a//b\n\x00\n"])
def test_a_list_is_written_as_it_was_read(text: str) -> None:
    """To the last byte: comments, order, broken lines, and what ends them."""
    assert ImageList.parse(text.encode()).render() == text.encode()


@given(st.binary(max_size=400))
def test_any_bytes_are_a_list_and_come_back(raw: bytes) -> None:
    """Whatever is wrong is a fault of a line that there is."""
    found = ImageList.parse(raw)
    assert found.render() == raw
    assert all(1 <= one.line <= max(1, len(found.lines)) for one in found.faults)


LINES = st.sampled_from(
    [
        "a/b:1",
        "a/b",
        "a/b:latest",
        "debian",
        "ghcr.io/a/b:1",
        "a/b:*",
        "a/c__d:1",
        "a/c/d:1",
        "# a/b:1",
        "",
        "A/b",
        "x y",
    ]
)


@given(st.lists(LINES, max_size=30))
def test_no_two_entries_are_one_image_or_lie_at_one_path(lines: list[str]) -> None:
    """Each line is an entry, a fault, or a comment."""
    found = ImageList.parse("\n".join(lines).encode())
    assert len({one.source for one in found.entries}) == len({one.tree_name for one in found.entries})
    assert len({one.tree_name for one in found.entries}) == len(found.entries)
    told = {one.line for one in found.entries} | {one.line for one in found.faults}
    assert told == {number for number, line in enumerate(lines, 1) if line and not line.startswith("#")}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("docker://a/b:1", "leave `docker://` out: a/b:1"),
        ("https://ghcr.io/a/b:1", "leave `https://` out"),
        ("https://hub.docker.com/r/rocky/linux/tags", "web page; did you mean rocky/linux?"),
        ("oras://ghcr.io/a/b:1", "is no registry"),
        ("a/b:1 # for joe", "a comment needs a line of its own"),
        ("a/b :1", "one image a line"),
        ("a/b:1 a/c:1", "one image a line"),
        ("HTC/Rocky:El9", "lower case; did you mean htc/rocky:El9?"),
        ("Rocky/linux", "did you mean rocky/linux?"),
        ("/cvmfs/images.example.org/a/b:1", "write where it comes from"),
        ("a/b:", "a tag is missing"),
        ("a/b*:1", "in the tag only"),
        ("*/b", "in the tag only"),
        (f"a/b:*@{DIGEST}", "`*` says nothing there"),
        ("a/b@sha256:abc", "no digest"),
        ("a//b", "no part of a repository"),
        ("a/b/", "no part of a repository"),
        ("a/../b", "no part of a repository"),
        ("host.example.org:99999/a/b", "no registry"),
        ("a/b:" + "x" * 129, "no tag"),
        ("a/b:*" + "x" * 129, "fits no tag"),
        ("a/b:ä", "U+00E4 at position 5"),
        ("\ufeffa/b:1", "U+FEFF at position 1"),
        ("a/b:1\u00a0", "U+00A0"),
        ("<html>", "no part of a repository"),
        ("- a/b:1", "one image a line"),
    ],
)
def test_a_broken_line_says_what_may_have_been_meant(text: str, hint: str) -> None:
    """With its number, and the other lines are read all the same."""
    found = ImageList.parse(f"# first\nok/ok:1\n{text}\nok/ok:2\n".encode())
    (fault,) = found.faults
    assert fault.line == 3
    assert hint in fault.why
    assert [one.line for one in found.entries] == [2, 4]


def test_all_broken_lines_are_told_at_once() -> None:
    """In their order, each with its number."""
    found = ImageList.parse(b"A/b\nok/ok\nx y\nok/ok:latest\nz:\n")
    assert [one.line for one in found.faults] == [1, 3, 4, 5]


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ("a/b", "a/b:latest", "the same image as in line 1"),
        ("docker.io/library/debian", "debian:latest", "the same image as in line 1"),
        ("registry.hub.docker.com/a/b:1", "a/b:1", "the same image as in line 1"),
        ("a/b:*", "a/b:*", "the same image as in line 1"),
        ("a/b:1", "ghcr.io/a/b:1", "same path as docker.io/a/b:1 in line 1"),
        ("a/b:1", f"a/b:1@{DIGEST}", "same path as docker.io/a/b:1 in line 1"),
        ("a/b__c:1", "a/b/c:1", "same path as docker.io/a/b__c:1 in line 1"),
        ("a/b:1__2", "a/b/1:2", "same path"),
    ],
)
def test_two_lines_that_cannot_both_be_published_are_named_both(first: str, second: str, why: str) -> None:
    """The first stays; a `__` in a name may be a slash in a tree of SIFs."""
    found = ImageList.parse(f"{first}\n{second}\n".encode())
    (fault,) = found.faults
    assert (fault.line, fault.other_line) == (2, 1)
    assert why in fault.why
    assert [one.line for one in found.entries] == [1]


def test_a_pattern_beside_one_of_its_tags_is_no_clash() -> None:
    """The line that names the tag is the one that counts for it."""
    assert len(entries("a/b:*\na/b:1\n")) == 2


@pytest.mark.parametrize(
    ("pattern", "fits", "others"),
    [
        ("*", ["1", "latest"], []),
        ("v2.11.*", ["v2.11.0"], ["v2.110", "v2.1"]),
        ("*-stable", ["24-stable"], ["24-stable-x"]),
        ("v[0-9]?", ["v10"], ["v1", "vx1"]),
    ],
)
def test_a_pattern_stands_for_the_tags_that_it_fits(pattern: str, fits: list[str], others: list[str]) -> None:
    """As a shell would say; letters are told apart."""
    (entry,) = entries(f"ghcr.io/a/b:{pattern}")
    assert entry.is_glob
    assert [one for one in (*fits, *others) if entry.fits(one)] == fits
    assert entry.stands_for(f"ghcr.io/a/b:{fits[0]}")
    assert not entry.stands_for(f"docker.io/a/b:{fits[0]}")
    assert entry.with_tag(fits[0]).source == f"ghcr.io/a/b:{fits[0]}"


def test_a_list_of_the_communitys_size_is_read_whole() -> None:
    """The counts are those of a real one: 746 lines, 562 images, 113 patterns, 99 comments."""
    order = random.Random(7)  # noqa: S311 - no secret
    images = [f"library-{number}" for number in range(14)]
    images += [f"ns{number % 200}/tool-{number}:{number}.0" for number in range(305)]
    images += [f"ns{number % 50}/glob-{number}:{'*' if number % 11 else 'v2.*'}" for number in range(113)]
    images += [f"containers.example.org/group/sub/t{number}:latest" for number in range(58)]
    images += [f"ghcr.io/org/t{number}" for number in range(51)]
    images += [f"hub.example.org/htc/t{number}:9" for number in range(21)]
    lines = [*images, *("# section" for _ in range(99)), *("" for _ in range(85))]
    order.shuffle(lines)
    text = "\n".join(lines) + "\n"
    found = entries(text)
    assert (len(lines), len(found), sum(one.is_glob for one in found)) == (746, 562, 113)
    assert ImageList.parse(text.encode()).render() == text.encode()

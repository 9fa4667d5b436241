"""The list of images in YAML, with options for an image."""

from __future__ import annotations

import pytest

from sync.imagelist import ImageList

LIST = """\
# Physics
images:
  - htc/rocky:9   # the default
  - image: htc/large:3.10
    architectures: [x86_64, aarch64]
    size_limit: 30 GB

  # others
  - {image: "ghcr.io/a/b:*", size_limit: 1 GB}
  - image: a/c:1
    architectures:
      - aarch64
"""


def test_options_are_read_with_the_lines_that_they_span() -> None:
    """A value is what was written: `3.10` is no number."""
    found = ImageList.parse(LIST.encode())
    assert not found.faults
    assert [(one.line, one.last_line, one.name, one.architectures, one.size_limit_bytes) for one in found.entries] == [
        (3, 3, "htc/rocky:9", (), None),
        (4, 6, "htc/large:3.10", ("x86_64", "aarch64"), 30_000_000_000),
        (9, 9, "a/b:*", (), 1_000_000_000),
        (10, 12, "a/c:1", ("aarch64",), None),
    ]
    assert found.render() == LIST.encode()


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("images: [\n", {(2, "is no YAML")}),
        ("images:\n  - a/b:1\nother: 1\n", {(1, "something else than one list")}),
        ("images:\n  a: b\n", {(1, "something else than one list")}),
        ("images:\n  - &x a/b:1\n  - *x\n", {(1, "aliases")}),
        ("images:\n  - [a, b]\n", {(2, "neither a name nor a section")}),
        ("images:\n  - architectures: [x86_64]\n", {(2, "image: ")}),
        (
            "images:\n  - image: A/b\n    architectures: [amd64]\n    size_limit: big\n    colour: red\n",
            {(2, "did you mean a/b"), (2, "here it is x86_64"), (2, "size_limit: is no size"), (2, "colour: ")},
        ),
        ("images:\n  - image: a/b\n    image: a/c\n", {(2, "there twice")}),
        ("images:\n  - a/b:1\n  - docker://a/c:1\n  - ghcr.io/a/b:1\n", {(3, "leave `docker"), (4, "same path")}),
    ],
)
def test_what_is_wrong_is_told_at_once_with_its_line(text: str, faults: set[tuple[int, str]]) -> None:
    """As in a list of lines."""
    found = ImageList.parse(text.encode()).faults
    assert len(found) == len(faults)
    for line, why in faults:
        assert any(one.line == line and why in one.why for one in found), found


@pytest.mark.parametrize("text", ["images:\n" + "[" * 5000, "images:\n- " + "{a: " * 3000])
def test_a_list_that_is_nested_too_deeply_is_a_fault(text: str) -> None:
    """And no crash."""
    assert ImageList.parse(text.encode()).faults

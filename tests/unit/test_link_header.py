"""The Link header of a director."""

from __future__ import annotations

import pytest

from cache_manager.sources.link_header import parse

A, B = "https://a.example:8443/ns/x.sif", "https://b.example/ns/x,y;z.sif?q=<"


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        (f'<{A}>; rel="duplicate"; pri=1; depth=3', [A]),
        (f'<{A}>; rel="duplicate"; pri=1, <https://b.example/x,y;z>; pri=2', [A, "https://b.example/x,y;z"]),
        (f"<{A}>,<{A}2>", [A, f"{A}2"]),
        (f" , <{A}> ,, <{A}2>;pri=2", [A, f"{A}2"]),
        (f'<{A}>; title="a, <b>; \\"c\\""; pri=3, <{A}2>', [A, f"{A}2"]),
        (f"<{A}>; rel; pri, <{A}2>", [A, f"{A}2"]),
        (f"<{A}> nonsense, <{A}2>", [A]),
        (A, []),
        ("", []),
        ("<", []),
        ("<<>>", []),
    ],
)
def test_urls_are_what_stands_in_angle_brackets(text: str, urls: list[str]) -> None:
    """Commas, semicolons and quotes are where they are: a simple split breaks at each of them."""
    assert [one.url for one in parse(text)] == urls


@pytest.mark.parametrize(
    ("text", "pri"),
    [("pri=7", 7), ('PRI="7"', 7), ("pri=7; pri=8", 7), ("pri=-7", 99), ("pri=\u0667", 99), ("pri=" + "9" * 40, 99)],
)
def test_a_parameter_is_a_number_or_nothing(text: str, pri: int) -> None:
    """The first of a name counts; what is no small number says nothing."""
    assert parse(f"<{A}>; {text}")[0].number("pri", 99) == pri

"""What a director says: which servers there are, and in which order."""

from __future__ import annotations

import pytest

from cache_manager.sources.director import directions_of

A, B = "https://a.example:8443/ns/x.sif", "https://b.example/ns/x,y;z.sif?q=1"


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        (f'<{A}>; rel="duplicate"; pri=2; depth=3, <{B}>; rel="duplicate"; pri=1; depth=3', (B, A)),
        (f"<{A}>;pri=10,<{B}>;pri=9", (B, A)),
        (f'<{A}>; title="a, <b>; pri=1"; pri=3, <{B}>; PRI="2"', (B, A)),
        (f"<{A}>, <{B}>; pri=7", (B, A)),
        (f"<{A}>; pri=\u0667, <{B}>; pri=7", (B, A)),
        (f"<{A}>; pri=-1, <{B}>; pri=99999999999", (A, B)),
        (f"<{A}>; pri=1, <{A}>; pri=2, <ftp://h/x>; pri=0, <https://h:99999/x>; pri=0, <//h/x>; pri=0", (A,)),
        (", ".join(f"<{A}{n}>; pri={n}" for n in range(9)), tuple(f"{A}{n}" for n in range(6))),
    ],
)
def test_servers_come_in_the_order_of_their_priority(text: str, urls: tuple[str, ...]) -> None:
    """Six at most; commas and semicolons in a URL are its own, and what is no server is left out."""
    assert directions_of({"Link": text, "Location": "https://c.example/x?authz=t"}).servers == urls


@pytest.mark.parametrize("text", ["", A, "<>", "<ftp://h/x>; pri=1"])
def test_without_a_link_the_location_is_the_server(text: str) -> None:
    """It alone may hold a token."""
    assert directions_of({"Link": text, "Location": f"{A}?authz=t"}).servers == (f"{A}?authz=t",)
    with pytest.raises(ValueError, match="no server"):
        directions_of({"Link": text})


@pytest.mark.parametrize(
    ("text", "namespace", "needs_token"),
    [
        ("namespace=/igwn, require-token=true, collections-url=https://h", "/igwn", True),
        ("require-token=True,namespace=/igwn", "/igwn", True),
        ("namespace=/ospool, require-token=false", "/ospool", False),
        ("require-token=false, require-token=true", "", False),
        ("", "", False),
        ("=,=,,require-token", "", False),
        ("a" * 65_000, "", False),
        (" " * 65_000, "", False),
    ],
)
def test_a_namespace_says_whether_it_wants_a_token(text: str, namespace: str, needs_token: bool) -> None:  # noqa: FBT001
    """What it does not say is not so: the servers of objects have the last word."""
    found = directions_of({"Location": A, "X-Pelican-Namespace": text})
    assert (found.namespace, found.needs_token) == (namespace, needs_token)

"""What registries say in headers: challenges, links, limits."""

from __future__ import annotations

import pytest

from cache_manager.registry import challenge, links, ratelimit
from cache_manager.registry.challenge import Challenge
from cache_manager.registry.links import LinkError
from cache_manager.registry.ratelimit import RateLimit

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull"'

CHALLENGES = {
    HUB: [
        (
            "bearer",
            {
                "realm": "https://auth.docker.io/token",
                "service": "registry.docker.io",
                "scope": "repository:library/alpine:pull",
            },
        )
    ],
    'Bearer realm="https://h/t",scope="repository:a/b:pull,push repository:c:pull"': [
        ("bearer", {"realm": "https://h/t", "scope": "repository:a/b:pull,push repository:c:pull"})
    ],
    'Basic realm="Registry \\"Realm\\""': [("basic", {"realm": 'Registry "Realm"'})],
    "Basic": [("basic", {})],
    'Basic realm="a", Bearer realm = "https://h/t" , error=invalid_token': [
        ("basic", {"realm": "a"}),
        ("bearer", {"realm": "https://h/t", "error": "invalid_token"}),
    ],
    "BEARER REALM=x": [("bearer", {"realm": "x"})],
    "Negotiate, Basic realm=x": [("negotiate", {}), ("basic", {"realm": "x"})],
    "Negotiate abc==, Basic realm=x": [("negotiate", {}), ("basic", {"realm": "x"})],
    'Bearer realm="first",realm="second"': [("bearer", {"realm": "first"})],
    "": [],
    '"': [],
    "Bearer realm=" + "x" * 20_000: [],
}


@pytest.mark.parametrize(("header", "expected"), CHALLENGES.items())
def test_a_challenge_is_read_in_every_form(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    """Quoted strings may hold commas, and commas separate challenges as well as parameters."""
    assert [(one.scheme, dict(one.parameters)) for one in challenge.parse(header)] == expected


def test_a_token_comes_before_a_password() -> None:
    """And a challenge that cannot be met is none."""
    assert challenge.choose(challenge.parse(f"Negotiate, Basic realm=x, {HUB}")) == challenge.parse(HUB)[0]
    assert challenge.choose(challenge.parse("Basic realm=x")) == Challenge("basic", {"realm": "x"})
    assert challenge.choose(challenge.parse("Bearer service=x, Negotiate")) is None


PAGES = {
    '</v2/a/tags/list?n=100&last=x>; rel="next"': "https://h/v2/a/tags/list?n=100&last=x",
    "</v2/a/tags/list?last=x,y>;rel=next": "https://h/v2/a/tags/list?last=x,y",
    '<https://h/p1>; rel="prev", <https://h/p3>; title="a, b; c"; rel="next"': "https://h/p3",
    '<?last=x>; rel="last next"': "https://h/v2/a/tags/list?last=x",
    '<http://h/p>; rel="next"': "https://h/p",
    '<https://h/p#f>; rel="next"': "https://h/p",
    "<https://h/p>": "",
    '<https://h/p>; rel="prev"': "",
    "nonsense": "",
    "": "",
    "<" + "x" * 70_000 + ">; rel=next": "",
}


@pytest.mark.parametrize(("header", "url"), PAGES.items())
def test_the_next_page_is_found_in_a_link(header: str, url: str) -> None:
    """Relative to what was asked for; a URL may hold commas."""
    assert links.next_page("https://h/v2/a/tags/list?n=100", header) == url


@pytest.mark.parametrize("target", ["https://elsewhere/p", "//elsewhere/p", "https://h:444/p", "https://[/p"])
def test_a_list_goes_on_at_its_own_server_only(target: str) -> None:
    """It would get our credential."""
    with pytest.raises(LinkError):
        links.next_page("https://h/v2/a/tags/list", f'<{target}>; rel="next"')


NOW = 1_700_000_000.0
LIMITS = {
    "Docker Hub": (
        {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600"},
        RateLimit(100, 76, 21600.0),
        None,
    ),
    "spent": ({"ratelimit-remaining": "0;w=21600"}, RateLimit(None, 0, 21600.0), 21600),
    "spent until": (
        {"ratelimit-limit": "10", "ratelimit-remaining": "0", "ratelimit-reset": "30"},
        RateLimit(10, 0, None, 30.0),
        30,
    ),
    "until a moment": (
        {"x-ratelimit-limit": "10", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000042"},
        RateLimit(10, 0, None, 42.0),
        42,
    ),
    "Retry-After comes first": ({"ratelimit-remaining": "0;w=9", "retry-after": "5"}, RateLimit(None, 0, 9.0), 5),
    "nonsense": ({"ratelimit-limit": "many", "ratelimit-remaining": "-1"}, None, None),
    "nothing": ({}, None, None),
}


@pytest.mark.parametrize(("headers", "limit", "wait_s"), LIMITS.values(), ids=LIMITS)
def test_limits_are_read_in_every_form(headers: dict[str, str], limit: RateLimit | None, wait_s: float | None) -> None:
    """With the wait that they ask for."""
    assert ratelimit.read(headers, NOW) == limit
    assert ratelimit.wait_s(headers, NOW) == wait_s

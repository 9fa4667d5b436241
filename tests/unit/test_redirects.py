"""Where a redirect leads, and what it takes along."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.redirects import RedirectError, next_url

PLAIN = "http://one.example/a/x.sif"
KNOWN = "http://user:s3cr3t@one.example/a/x.sif"
SECURE = "https://user:s3cr3t@one.example/a/x.sif"


@pytest.mark.parametrize(
    ("url", "location", "leads_to"),
    [
        (PLAIN, "/b", "http://one.example/b"),
        (PLAIN, "y.sif?sig=1#part", "http://one.example/a/y.sif?sig=1"),
        (PLAIN, "//two.example/b", "http://two.example/b"),
        (PLAIN, "HTTPS://two.example/b", "https://two.example/b"),
        (KNOWN, "/b", "http://user:s3cr3t@one.example/b"),
        (KNOWN, "http://ONE.example:80/b", "http://user:s3cr3t@ONE.example:80/b"),
        (KNOWN, "https://one.example/b", "https://user:s3cr3t@one.example/b"),
        (KNOWN, "http://two.example/b", "http://two.example/b"),
        (KNOWN, "//two.example/b", "http://two.example/b"),
        (KNOWN, "http://one.example:8080/b", "http://one.example:8080/b"),
        (KNOWN, "https://one.example:8443/b", "https://one.example:8443/b"),
        (KNOWN, "http://one.example.two.example/b", "http://one.example.two.example/b"),
        (KNOWN, "http://other:w0rd@one.example/b", "http://other:w0rd@one.example/b"),
        (SECURE, "https://one.example/b", "https://user:s3cr3t@one.example/b"),
        (SECURE, "http://one.example/b", "http://one.example/b"),
        (SECURE, "http://one.example:443/b", "http://one.example:443/b"),
    ],
)
def test_a_redirect_takes_the_users_password_to_no_other_server(url: str, location: str, leads_to: str) -> None:
    """Nor to another port, nor out of TLS."""
    assert next_url(url, location) == leads_to


@pytest.mark.parametrize(
    ("location", "what"),
    [
        ("file:///etc/passwd", "redirects to file:///etc/passwd: only http and https are followed"),
        ("ftp://user:s3cr3t@one.example/x?sig=s3cr3t", "redirects to ftp://one.example/x: only"),
        ("gopher://one.example/", "only http and https"),
        ("javascript:alert(1)", "only http and https"),
        ("http://[::1/x.sif", "what is no URL"),
        ("http://one.example:port/", "what is no URL"),
        ("/\xe4.sif", "what is no URL"),
        ("/\u20ac.sif", "what is no URL"),
    ],
)
def test_a_redirect_that_is_not_followed_says_why(location: str, what: str) -> None:
    """Without a secret."""
    with pytest.raises(RedirectError, match=what) as caught:
        next_url(KNOWN, location)
    assert "s3cr3t" not in str(caught.value)


@given(st.text(max_size=60) | st.text("htps:/[]@?#.%x1", max_size=30).map(lambda rest: f"http://{rest}"))
def test_any_location_is_a_url_or_an_error(location: str) -> None:
    """Headers are text from anybody."""
    with suppress(RedirectError):
        assert next_url(KNOWN, location).startswith(("http:", "https:"))

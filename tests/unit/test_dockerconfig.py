"""Docker's config.json: what a user has for a registry, and nothing of it in what is said."""

from __future__ import annotations

import base64
import json

import pytest

from cache_manager.registry.dockerconfig import DockerConfigError, password_for

WORDS = "s3cr3t:with:colons"
AUTH = base64.b64encode(f"joe:{WORDS}".encode()).decode()


def config(**auths: object) -> bytes:
    """Return a configuration."""
    return json.dumps({"auths": auths}).encode()


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("ghcr.io", "ghcr.io"),
        ("https://ghcr.io", "ghcr.io"),
        ("https://GHCR.io/v2/", "ghcr.io"),
        ("http://localhost:5000/v1/", "localhost:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
    ],
)
def test_a_registry_is_found_however_login_wrote_it(key: str, registry: str) -> None:
    """With a scheme, with a path."""
    text = json.dumps({"auths": {"other.example": {"auth": ""}, key: {"auth": AUTH}}}).encode()
    assert password_for(text, registry) == ("joe", WORDS)
    assert password_for(text, "elsewhere.example") is None


def test_user_and_password_may_stand_side_by_side() -> None:
    """As programs write them."""
    assert password_for(config(h={"username": "joe", "password": "x"}), "h") == ("joe", "x")


@pytest.mark.parametrize("value", [{}, {"auth": 7}, {"auth": base64.b64encode(b"joe").decode()}, 7])
def test_what_a_helper_keeps_is_not_in_the_file(value: object) -> None:
    """Then there is nothing for the registry."""
    assert password_for(config(h=value), "h") is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"joe:" + WORDS.encode(),
        b"[]",
        b"{}",
        b'{"auths": []}',
        b"[" * 100_000,
        config(h={"auth": WORDS}),
        config(h={"username": "\ud800", "password": "s3cr3t"}),
    ],
)
def test_what_is_no_configuration_is_refused_without_its_secret(text: bytes) -> None:
    """It may be one all the same."""
    with pytest.raises(DockerConfigError) as found:
        password_for(text, "h")
    assert "s3cr3t" not in str(found.value)

"""Docker's config.json: where `docker login` keeps what a user has for each registry. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Final

from cache_manager.registry.reference import DOCKER_HUB

_HUB_KEYS: Final = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")


class DockerConfigError(ValueError):
    """A file that is none; the text says why, and nothing of what it holds."""


def password_for(config: bytes, registry: str) -> tuple[str, str] | None:
    """Return the user and password for a registry (`docker.io`, `ghcr.io`, `host:5000`); None if it has none.

    Raises DockerConfigError. What a helper program keeps (`credsStore`) is not in the file.
    """
    try:
        values = json.loads(config)
    except (ValueError, RecursionError):
        raise DockerConfigError(f"no JSON ({len(config)} bytes)") from None
    auths = values.get("auths") if isinstance(values, dict) else None
    if not isinstance(auths, dict):
        raise DockerConfigError("no Docker configuration: it has no `auths`")
    for key, value in auths.items():
        if _is_for(key, registry) and isinstance(value, dict):
            found = _password(value)
            if found and not all(_is_text(one) for one in found):
                raise DockerConfigError("a user or password in it is no text")
            return found
    return None


def _is_text(value: str) -> bool:
    """Whether it can be sent: JSON may hold halves of characters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_for(key: str, registry: str) -> bool:
    if registry == DOCKER_HUB and key in _HUB_KEYS:
        return True
    host = key.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return host.lower() == registry


def _password(value: dict[str, object]) -> tuple[str, str] | None:
    user, password, auth = value.get("username"), value.get("password"), value.get("auth")
    if isinstance(user, str) and isinstance(password, str) and user:
        return user, password
    if not isinstance(auth, str):
        return None
    try:
        decoded = base64.b64decode(auth, validate=True).decode()
    except (binascii.Error, ValueError):
        raise DockerConfigError("an `auth` in it is no base64") from None
    name, colon, secret = decoded.partition(":")
    return (name, secret.rstrip("\0")) if colon and name else None

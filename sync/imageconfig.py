"""What an image says of itself beside its files: environment, what it runs, labels. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)")
_LAST_TIME: Final = 2**32 - 1
"""As late as a squashfs can say."""


class ConfigError(ValueError):
    """The configuration cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """An image's configuration. `created_at` is 0 where it does not say; `raw` is its `config` part."""

    environment: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: int = 0
    raw: Mapping[str, Any] = field(default_factory=dict)


def parse(body: bytes) -> ImageConfig:
    """Read the configuration blob. Raises ConfigError for what is none; what is missing is empty."""
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise ConfigError(f"its configuration is no JSON ({len(body)} bytes)") from None
    if not isinstance(values, dict):
        raise ConfigError("its configuration is no JSON object")
    raw = values.get("config")
    raw = raw if isinstance(raw, dict) else {}
    return ImageConfig(
        environment=_environment(_words(raw, "Env")),
        entrypoint=_words(raw, "Entrypoint"),
        command=_words(raw, "Cmd"),
        labels=_labels(raw.get("Labels")),
        created_at=_created_at(values.get("created")),
        raw=raw,
    )


def _words(raw: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = raw.get(name)
    if found is None:
        return ()
    if isinstance(found, str):  # Docker took it for a command of a shell, long ago
        return ("/bin/sh", "-c", found)
    if not isinstance(found, list) or not all(isinstance(one, str) and "\0" not in one for one in found):
        raise ConfigError(f"its configuration's {name} is no list of words")
    return tuple(found)


def _environment(lines: tuple[str, ...]) -> dict[str, str]:
    """Return the variables; what no shell can have as a name is left out."""
    pairs = (line.partition("=") for line in lines)
    return {name: value for name, _, value in pairs if _NAME.fullmatch(name)}


def _labels(found: object) -> dict[str, str]:
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _created_at(text: object) -> int:
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return 0
    try:
        when = datetime.fromisoformat(f"{found[1]}{found[2].replace('Z', '+00:00')}")
        return min(_LAST_TIME, max(0, int(when.astimezone(UTC).timestamp())))
    except (ValueError, OverflowError):
        return 0

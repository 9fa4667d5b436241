"""Credentials by reference: sync.yaml names a file, its owner's alone, and what it holds is never printed."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cache_manager.registry.tokens import Credential
from sync.settings import Settings

_MAX_BYTES: Final = 65536


class CredentialsError(Exception):
    """A credentials file cannot be used; the text names the file, and nothing of what is in it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a server is shown: user and password, or, without a user, a bearer token."""

    user: str = field(repr=False)
    secret: str = field(repr=False)


def read(path: str) -> Credentials:
    """Read `user:password`, or a token, from a file that nobody but its owner may read. Raises CredentialsError."""
    try:
        with Path(path).open("rb") as file:
            found = os.fstat(file.fileno())  # of what is open: the name may lead elsewhere by now
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror}") from None
    if found.st_uid not in {0, os.geteuid()}:
        raise CredentialsError(f"{path}: belongs to somebody else (uid {found.st_uid})")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise CredentialsError(f"{path}: others may read or write it (mode {mode:04o}, wanted 0600)")
    try:
        text = raw.decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text or len(raw) > _MAX_BYTES or not text.isprintable():
        raise CredentialsError(f"{path}: is no line `user:password`, and no token ({len(raw)} bytes)")
    user, colon, password = text.partition(":")
    return Credentials(user, password) if colon else Credentials("", text)


def for_registries(settings: Settings) -> dict[str, Credential]:
    """Return what each registry is shown, read from its file. Raises CredentialsError with all faults, one a line."""
    found, faults = {}, []
    for host, registry in settings.registries.items():
        if not registry.credentials_file:
            continue
        option = f"registries.{host}.credentials_file"
        try:
            mine = read(registry.credentials_file)
        except CredentialsError as error:
            faults.append(f"{option}: {error}")
            continue
        if not mine.user:
            faults.append(f"{option}: {registry.credentials_file}: a registry wants `user:password`, there is no colon")
        found[host] = Credential(mine.user, mine.secret)
    if faults:
        raise CredentialsError("\n".join(faults))
    return found

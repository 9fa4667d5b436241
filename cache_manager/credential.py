"""What a job's user holds for a service, as values that show their secret to nobody."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field
from math import inf
from typing import Final

HANDLES: Final = "use_oauth_services"
"""The submit command with which a job gets a credential."""

_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")  # RFC 6750: anything else could forge a header


class CredentialError(ValueError):
    """A credential that cannot be used; the text says why, and nothing of what it holds."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What was read for the service `name`. Equal only to what has the same secret; `repr` does not tell it."""

    name: str
    secret: bytes = field(repr=False)

    @property
    def bearer(self) -> str:
        """The token, written plainly or as `access_token` of a JSON object. Raises CredentialError."""
        text = self.secret.strip()
        if text.startswith(b"{"):
            try:
                text = str(json.loads(text)["access_token"]).strip().encode()
            except (ValueError, KeyError, RecursionError):
                raise CredentialError(f"the credential {self.name!r} is JSON without an access_token") from None
        if not _TOKEN.fullmatch(text):
            raise CredentialError(f"the credential {self.name!r} is no bearer token ({len(text)} bytes)")
        return text.decode()

    @property
    def expires_at(self) -> float:
        """When the token ends by its own word, in seconds since 1970; infinity if it says nothing that can be meant."""
        try:
            claims = self.bearer.split(".")[1]
            said = json.loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
            return float(said["exp"])
        except (CredentialError, ValueError, LookupError, TypeError, RecursionError, OverflowError):
            return inf


@dataclass(frozen=True, slots=True)
class NoCredential:
    """There is none to be had, and `why`. `others` are the services for which the job has some."""

    why: str
    others: tuple[str, ...] = ()

    @property
    def advice(self) -> str:
        """What the job's author can do, with what the job has instead."""
        has = f"; it has {', '.join(self.others)}" if self.others else ""
        return f"{self.why}{has}"

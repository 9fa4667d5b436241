"""How a question to a registry may fail, as a value. Pure."""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """What a failure means for whoever asked."""

    GONE = "the registry says that there is no such thing"
    PRIVATE = "the registry refuses it: it wants another credential, or there is no such thing"
    THROTTLED = "the registry asks to be left alone for a time"
    UNREACHABLE = "no answer, or one that says nothing about the image"
    WRONG = "an answer that cannot be meant: another digest, another size, no manifest"


class RegistryError(Exception):
    """A question that failed. The text names what was asked for, and holds no secret.

    `status` is the HTTP status, 0 if none came; `retry_after_s` how long the registry asks to be left alone, None if it
    does not say; `everything` that it is the registry as a whole that does not answer.
    """

    def __init__(
        self, kind: Kind, message: str, *, status: int = 0, retry_after_s: float | None = None, everything: bool = False
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s
        self.everything = everything

"""One step of a plan, and its reason. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sync.catalog import Version
from sync.transitions import Form
from sync.values import Failure, Resolved, Variant


class Verb(StrEnum):
    """What is done with an image, in the order in which a run does it."""

    CONVERT = "convert"
    LINK = "link"
    KEEP = "keep"
    WAIT = "wait"
    UNLINK = "unlink"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Action:
    """One step, and its reason.

    CONVERT: `resolved` and `variant` are what to convert into `forms`. LINK: `version` is what the name shall lead to.
    UNLINK: the name shall lead nowhere. REMOVE: `form` of `version` goes. KEEP, WAIT: nothing is done; `failure` is
    why an image could not be resolved, `is_leaving` that no line of the list names it any more.
    """

    verb: Verb
    name: str
    reason: str
    source: str = ""
    resolved: Resolved | None = None
    variant: Variant | None = None
    forms: frozenset[Form] = frozenset()
    version: Version | None = None
    form: Form | None = None
    failure: Failure | None = None
    is_leaving: bool = False

    @property
    def arch(self) -> str:
        """The architecture that it is about; empty for all of a name's."""
        about = self.variant or self.version
        return about.arch if about else ""

    @property
    def digest(self) -> str:
        """The image's digest in its registry; empty where it is about none."""
        about = self.variant or self.version
        return about.digest if about else ""

"""A job's token on its way to a data federation: whether it is one, still good, and meant for that federation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cache_manager.credential import Credential, CredentialError
from cache_manager.outcome import Absent, Answer, Denied, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.sources.base import SourceError
from cache_manager.sources.federation_url import FederationUrl
from cache_manager.status import HookStatus
from cache_manager.text import human_time


def token_of(credential: Credential | None, now: float) -> str:
    """Return the token; empty without a credential. Raises SourceError for one that is of no use now."""
    if credential is None:
        return ""
    try:
        token = credential.bearer
    except CredentialError as error:
        raise SourceError(Denied(str(error))) from None
    over_s = now - credential.expires_at
    if over_s >= 0:  # HTCondor will bring a fresh one
        what = f"the credential {credential.name!r} of the job expired {human_time(over_s)} ago"
        raise SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, what, of_credential=True))
    return token


def located_in(image: ImageReference, own: str, ask: Callable[[FederationUrl], Located]) -> Answer:
    """Return where an image is that a job names in a federation, by whoever `ask`s its servers; `own` as there."""
    what = FederationUrl.of(image, own)
    try:
        return ask(what)
    except SourceError as error:
        return _to_own_federation(error.answer, image, what, own)


def _to_own_federation(
    answer: Absent | Denied | Unwell, image: ImageReference, what: FederationUrl, own: str
) -> Absent | Denied | Unwell:
    """Return an answer that asks for a credential only where the job gives it one.

    Whoever names a federation in an image's name must not get a credential that was meant for another.
    """
    foreign = what.discovery != own.rstrip("/") and not image.token
    if isinstance(answer, Denied) and answer.wants_credential and foreign:
        advice = "a credential for another federation has to be named: <name>+pelican://"
        return replace(answer, why=f"{answer.why}; {advice}", wants_credential=False)
    return answer

"""A SIF at an http(s) URL that the job names itself."""

from __future__ import annotations

from dataclasses import dataclass

from cache_manager.outcome import Absent, Answer, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.sources import transport
from cache_manager.sources.base import Route, Sink, SourceError
from cache_manager.sources.transport import Patience


@dataclass(frozen=True, slots=True)
class Url:
    """The job's own URL. It is the authority for what it names: a 404 from its server is "does not exist"."""

    patience: Patience

    def locate(self, image: ImageReference) -> Answer:
        """Return the URL and the version of what it names now.

        A server that does not answer HEAD (signed URLs are for one method) gives no version: what was fetched is
        then trusted for a time.
        """
        try:
            found = transport.head(image.url, self.patience)
        except SourceError as error:
            if isinstance(error.answer, Unwell) and error.answer.everything:
                return error.answer
            return Located(url=image.url)
        return Located(url=image.url, version=found.version, about_bytes=found.size_bytes)

    def confirm(self, located: Located) -> None:
        """Ask whether the server would deliver now: who names the URL may have it then. Raises SourceError.

        A server may allow other methods to fewer, and signatures are for one: it is asked as for a transfer.
        """
        transport.accepts(located.url, self.patience)

    def transfer(self, located: Located, sink: Sink) -> None:
        """Fetch the SIF. Raises SourceError."""
        try:
            transport.transfer([Route(located.url)], sink, self.patience, located.digest)
        except SourceError as error:
            if isinstance(error.answer, Absent) and not error.answer.relayed:
                raise SourceError(Absent(error.answer.why, authoritative=True)) from None
            raise

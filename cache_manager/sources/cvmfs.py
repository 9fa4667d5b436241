"""Image directories on CVMFS, asked through a child that may hang."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cache_manager.helper import Hangs, Helper
from cache_manager.outcome import Absent, Answer, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.sources.base import Sink, SourceError
from cache_manager.sources.stratum import PublishedRevisions
from cache_manager.status import HookStatus

PROBE_LIMIT_S: Final = 10.0
"""A repository that does not answer for so long hangs."""

CHILD: Final = Path(__file__).with_name("cvmfs_child.py")


@dataclass(frozen=True, slots=True)
class Cvmfs:
    """One CVMFS repository, mounted below `base`.

    It is the authority for its names while it is healthy, and the newest revision is mounted (`revisions`; None: that
    is not asked).
    """

    repository: str
    base: str
    helper: Helper
    revisions: PublishedRevisions | None = None
    limit_s: float = PROBE_LIMIT_S

    def locate(self, image: ImageReference) -> Answer:
        """Resolve a name to the directory of its digest, so that a retag does not move a running job."""
        answer = self._ask(image.published_name)
        state = answer.get("state")
        if state == "located":
            return Located(path=str(answer["path"]), sandbox=bool(answer["sandbox"]))
        if state == "absent":
            old = self.revisions.why_old(answer) if self.revisions else ""
            if old:
                return self._unwell(f"{image.published_name} is not in it, but {old}", one_image=True)
            return Absent(self._not_published(image.published_name, answer.get("similar")), authoritative=True)
        return self._unwell(str(answer.get("why", "no answer")), one_image=bool(answer.get("image")))

    def check(self) -> Unwell | None:
        """Ask a known object of the repository: None if it is healthy."""
        answer = self._ask("")
        return None if answer.get("state") == "healthy" else self._unwell(str(answer.get("why", "no answer")))

    def transfer(self, located: Located, sink: Sink) -> None:
        """Refuse: nothing is ever copied from CVMFS."""
        raise SourceError(self._unwell(f"{located.path} is not copied ({sink.size_bytes} bytes)"))

    def _ask(self, path: str) -> dict[str, object]:
        try:
            return self.helper.ask({"base": self.base, "repository": self.repository, "path": path}, self.limit_s)
        except Hangs:
            return {"state": "unwell", "why": f"hangs (no answer in {self.limit_s:.0f} s)"}

    def _unwell(self, why: str, *, one_image: bool = False) -> Unwell:
        what = f"CVMFS repository {self.repository}: {why}"
        return Unwell(HookStatus.CVMFS_UNAVAILABLE, what, everything=not one_image)

    def _not_published(self, name: str, names: object) -> str:
        known = [str(one) for one in names] if isinstance(names, list) else []
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        return f"not published in the CVMFS repository {self.repository}, which is healthy{hint}"

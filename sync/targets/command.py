"""SIFs by a command of the site's, e.g. `pelican object put {source} {destination}`: run once for each file.

In each of its words `{source}` is the path of a file here and `{destination}` the name below the tree. A command that
has `{action}` too (`put`, `delete`) also removes; one that has not leaves old SIFs to the site.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cache_manager.text import printable, without_secrets
from sync.targets.base import TargetError

_PLACE = re.compile(r"\{(action|source|destination)\}")

LIMIT_S: Final = 6 * 3600.0
"""How long one file may take: a command that hangs would keep the publisher's lock."""


class SifCommand:
    """See FileStore. What a name holds cannot be asked: the publisher's own record says which were used."""

    def __init__(self, words: Sequence[str], work: Path, limit_s: float = LIMIT_S) -> None:
        self._words = tuple(words)
        self._work = work
        self._limit_s = limit_s

    def begin(self) -> None:
        """See FileStore."""

    def versions(self, directory: str) -> set[str] | None:  # noqa: ARG002 - as every store
        """See FileStore: no command lists."""
        return None

    def add(self, path: str, source: Path, sha256: str) -> None:  # noqa: ARG002 - as every store
        """See FileStore."""
        self._run("put", str(source), path)

    def replace(self, path: str, content: bytes) -> None:
        """See FileStore. Whether readers never see a part is the command's to see to."""
        try:
            with tempfile.NamedTemporaryFile(dir=self._work) as file:
                file.write(content)
                file.flush()
                self._run("put", file.name, path)
        except OSError as error:
            raise TargetError(f"{path}: {error.strerror or error}") from None

    def remove(self, path: str) -> bool:
        """See FileStore."""
        if not any("{action}" in word for word in self._words):
            return False
        self._run("delete", "", path)
        return True

    def _run(self, action: str, source: str, destination: str) -> None:
        given = {"action": action, "source": source, "destination": destination}
        argv = [_PLACE.sub(lambda found: given[found[1]], word) for word in self._words]
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self._limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TargetError(f"{destination}: `{argv[0]}` took longer than {self._limit_s:.0f} s") from None
        except OSError as error:
            raise TargetError(f"{destination}: `{argv[0]}`: {error.strerror}", transient=False) from None
        if done.returncode != 0:
            said = " ".join(without_secrets(word) for word in done.stdout.decode(errors="replace").split())
            what = f"`{argv[0]}` ({action}) ended with {done.returncode}"
            raise TargetError(f"{destination}: {what}: {printable(said, 300)}")

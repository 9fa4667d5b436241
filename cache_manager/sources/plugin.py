"""HTCondor's own file-transfer plug-ins as a source: what brings ftp, dav and the like for jobs brings images too.

A plug-in is run as the manager's user in the image's staging directory, watched like an unpacking: what it writes
counts against the reservation, and its time grows with what came. It gets no secret of HTCondor's and no job's
credential; the URL stands in a file, and in its arguments only where it knows no other way (protocol 1).
"""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from cache_manager import disk, limited, plugin_next, removal, transferads
from cache_manager.limited import Limits
from cache_manager.outcome import Absent, Answer, Denied, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.sources.base import Sink, SourceError
from cache_manager.sources.exchange import Patience
from cache_manager.sources.refusals import shown
from cache_manager.status import HookStatus, StatusError
from cache_manager.text import human_bytes, printable, without_secrets
from cache_manager.transferads import AdError, Value

OWN: Final = "image_cache_plugin"
AHEAD_BYTES: Final = 64 * 2**20
"""Room is reserved so far ahead of what is there: a plug-in does not say how much will come."""

LONGEST_S: Final = 7 * 86400.0
PREALLOCATED: Final = 64 * 1024
KEPT_S: Final = 300.0
"""How long it is known what a plug-in says of itself; an update changes its file, and is seen at once."""

_PASSED_ON: Final = (
    "PATH",
    "CONDOR_CONFIG",
    *(f"{name}_proxy" for name in ("http", "https", "ftp", "no", "all")),
    *(f"{name}_PROXY" for name in ("HTTPS", "FTP", "NO", "ALL")),
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "X509_CERT_DIR",
)
_SLOW: Final = frozenset({"TooSlow", "TimedOut"})
_FULL: Final = frozenset({"NoSpace", "Quota"})


@dataclass(frozen=True, slots=True)
class TransferPlugin:
    """A plug-in of HTCondor's. `protocol` 1 is for one file, named by its arguments; 2 and 4 are for files of ads."""

    path: str
    methods: tuple[str, ...] = ()
    protocol: int = 2


class TransferPlugins:
    """The plug-ins of FILETRANSFER_PLUGINS but ours, as they describe themselves. Blocks; for several threads."""

    def __init__(self, configured: str = "") -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, float, TransferPlugin]] = {}
        self.configure(configured)

    def configure(self, configured: str) -> None:
        """Take the value of FILETRANSFER_PLUGINS."""
        self._paths = tuple(one for one in configured.replace(",", " ").split() if Path(one).name != OWN)

    def for_scheme(self, scheme: str) -> TransferPlugin | None:
        """Return the plug-in that brings a scheme's files, the last of them as with HTCondor; None if there is none."""
        with self._lock:
            found = [one for one in map(self._described, self._paths) if scheme in one.methods]
        return found[-1] if found else None

    def _described(self, path: str) -> TransferPlugin:
        try:
            changed_at = os.stat(path).st_mtime  # noqa: PTH116 - a number
        except OSError:
            return TransferPlugin(path)
        before = self._known.get(path)
        now = time.monotonic()
        if before is None or before[0] != changed_at or now - before[1] > KEPT_S:
            self._known[path] = before = (changed_at, now, _described(path, plugin_next.describe(path)))
        return before[2]


def _described(path: str, said: Mapping[str, Value]) -> TransferPlugin:
    version = said.get("protocolversion")
    newer = version if isinstance(version, int) and version > 1 else 2
    return TransferPlugin(path, plugin_next.methods_of(said), newer if said.get("multiplefilesupport") is True else 1)


@dataclass(frozen=True, slots=True)
class Plugin:
    """The job's own URL, brought by a transfer plug-in. Whatever it names now is known only once it is here."""

    plugins: TransferPlugins
    patience: Patience
    memory_bytes: int

    def locate(self, image: ImageReference) -> Answer:
        """Return the URL, if there is a plug-in for it here."""
        plugin = self.plugins.for_scheme(image.scheme)
        if plugin is None:
            what = f"no transfer plug-in here brings {image.scheme}:// (FILETRANSFER_PLUGINS)"
            return Unwell(HookStatus.NO_CONTAINER_RUNTIME, what)
        if plugin.protocol == 1 and image.has_secret:
            what = f"{Path(plugin.path).name} would show the credential in the URL to everybody here"
            return Unwell(HookStatus.NO_CONTAINER_RUNTIME, what)
        return Located(url=image.url)

    def confirm(self, located: Located) -> None:
        """Refuse what came with another user's credential: a plug-in cannot ask. Raises SourceError."""
        what = (
            f"{shown(located.url)}: came with another user's credential, and plug-ins cannot ask who else may have it"
        )
        raise SourceError(Unwell(HookStatus.NO_CONTAINER_RUNTIME, what))

    def transfer(self, located: Located, sink: Sink) -> None:
        """Have the plug-in bring the image. Raises SourceError, the sink's StatusError, OSError."""
        plugin = self.plugins.for_scheme(located.url.partition(":")[0].lower())
        if plugin is None:
            gone = f"{shown(located.url)}: its transfer plug-in is gone"
            raise SourceError(Unwell(HookStatus.NO_CONTAINER_RUNTIME, gone))
        work = sink.directory / "plugin"
        work.mkdir(mode=0o700)
        try:
            self._run(plugin, located.url, work, sink)
            sink.adopt(_image(work / "image", located.url))
        finally:
            removal.remove(work)

    def _run(self, plugin: TransferPlugin, url: str, work: Path, sink: Sink) -> None:
        watch = _Watch(url, work, sink, self.patience)
        watch.look()
        limits = Limits(self.memory_bytes, os.cpu_count() or 1, LONGEST_S, nice=0)
        argv = _prepared(plugin, url, work)
        ran = limited.run(argv, limits, _environment(work), str(work), watch.look)
        watch.look()
        said = {} if plugin.protocol == 1 else _result(work / "out")
        if ran.status != 0 or (plugin.protocol > 1 and said.get("transfersuccess") is not True):
            error = said.get("transfererror")
            last = " ".join(ran.said.split())[-300:] if plugin.protocol == 1 else ""
            words = str(error or last or f"exit status {ran.status}")
            why = f"{shown(url)}: {Path(plugin.path).name}: {printable(_without(url, words), 300)}"
            raise SourceError(answer_of(said.get("transfererrordata"), why))


def _prepared(plugin: TransferPlugin, url: str, work: Path) -> list[str]:
    """Write what a plug-in is told, and return its command."""
    target = str(work / "image")
    if plugin.protocol == 1:
        return [plugin.path, url, target]
    (work / "in").write_text(f"{transferads.render({'Url': url, 'LocalFileName': target})}\n", encoding="utf-8")
    (work / "out").write_bytes(b" " * PREALLOCATED)
    return [plugin.path, "-infile", str(work / "in"), "-outfile", str(work / "out")]


def _environment(work: Path) -> dict[str, str]:
    """Return what a plug-in may know: where to look for things, and no secret of HTCondor's."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return kept | {"LANG": "C.UTF-8", "HOME": str(work), "TMPDIR": str(work), "_CONDOR_SCRATCH_DIR": str(work)}


class _Watch:
    """What a plug-in has brought so far: held against the reservation, and against its time."""

    def __init__(self, url: str, work: Path, sink: Sink, patience: Patience) -> None:
        self._url = url
        self._work = work
        self._sink = sink
        self._patience = patience
        self._began = self._grew_at = time.monotonic()
        self._size = self._reserved = 0

    def look(self) -> None:
        """Reserve for what is there and what may come. Raises StatusError, SourceError."""
        size, _ = disk.measure(str(self._work))
        now = time.monotonic()
        if size != self._size:
            self._size, self._grew_at = size, now
        self._sink.reserve(0)  # it may not be wanted any more
        if size + AHEAD_BYTES // 2 > self._reserved:
            self._reserve(size)
        spent, budget = now - self._began, self._patience.budget_s(size)
        idle = now - self._grew_at
        if spent <= budget and idle <= self._patience.stall_s:
            return
        rate = f"{human_bytes(size)} in {spent:.0f} s, its time was {budget:.0f} s"
        what = f"too slow ({rate})" if spent > budget else f"no byte came for {idle:.0f} s"
        raise SourceError(Unwell(HookStatus.SOURCE_TOO_SLOW, f"{shown(self._url)}: {what}"))

    def _reserve(self, size: int) -> None:
        from_now = size + AHEAD_BYTES
        try:
            self._sink.reserve(from_now)
            self._reserved = from_now
        except StatusError:
            if size <= self._reserved:
                return  # there is room for what came, and perhaps for all of it
            self._sink.reserve(size)
            self._reserved = size


def _result(path: Path) -> dict[str, Value]:
    """Return a plug-in's result ad; empty if it wrote none."""
    try:
        ads = transferads.parse(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, AdError):
        return {}
    return ads[-1][1] if ads else {}


def _image(path: Path, url: str) -> Path:
    """Return what a plug-in brought, if it is a file of our own. Raises SourceError."""
    try:
        found = path.lstat()
    except OSError:
        found = None
    if found is None or not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
        what = f"{shown(url)}: the transfer plug-in says that it is done, and there is no file of its own"
        raise SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, what))
    return path


def _without(url: str, words: str) -> str:
    """Return what a plug-in says without what is secret in its URL."""
    rest = url.partition("://")[2]  # not urlsplit, to which some are none
    query, user = rest.partition("?")[2].partition("#")[0], re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")[0]
    password = user.partition(":")[2]
    for secret in (url, query, unquote(query), password, unquote(password), user, unquote(user)):
        words = words.replace(secret, without_secrets(url) if secret == url else "...") if secret else words
    return words


def answer_of(causes: Value, why: str) -> Absent | Denied | Unwell:
    """Return what a plug-in's TransferErrorData means: the last of its attempts tells. Anything else is "not now"."""
    last = next((one for one in reversed(causes if isinstance(causes, list) else []) if isinstance(one, dict)), {})
    kind, failure, retry = last.get("errortype"), last.get("failuretype"), last.get("retryable")
    after = float(retry) if type(retry) is int and retry > 0 else None
    if kind == "Specification":
        return Absent(why, authoritative=True)
    if kind == "Authorization":
        return Denied(why)
    status = HookStatus.SOURCE_UNREACHABLE
    if kind == "Parameter":
        status = HookStatus.NO_CONTAINER_RUNTIME
    elif kind == "Transfer" and failure in _SLOW:
        status = HookStatus.SOURCE_TOO_SLOW
    elif kind == "Transfer" and failure in _FULL:
        status = HookStatus.DISK_FULL
    return Unwell(status, why, retry_after_s=after)

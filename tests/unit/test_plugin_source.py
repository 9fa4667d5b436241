"""HTCondor's transfer plug-ins as a source: real processes of each protocol, watched, judged by what they report."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cache_manager.outcome import Absent, Answer, Denied, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.sources.base import SourceError
from cache_manager.sources.exchange import Patience
from cache_manager.sources.plugin import AHEAD_BYTES, Plugin, TransferPlugins, answer_of
from cache_manager.staging import Staging
from cache_manager.status import HookStatus, StatusError
from cache_manager.transferads import Value
from tests.unit.builders import sif_file
from tests.unit.test_limited import is_gone

PATIENCE = Patience(min_rate_bytes=1_000_000, stall_s=20.0)
DESCRIPTIONS = {
    1: 'PluginType = "FileTransfer"\nSupportedMethods = "ftp"\n',
    2: 'MultipleFileSupport = true\nSupportedMethods = "ftp,dav"\n',
    4: 'MultipleFileSupport = true\nProtocolVersion = 4\nSupportedMethods = "ftp"\n',
}
HEAD = """#!{python} -IS
# a double of a transfer plug-in, of protocol {protocol}
import json, os, re, sys, time
if sys.argv[1:] == ["-classad"]:
    print({description!r}, end="")
    sys.exit()
if {protocol} == 1:
    url, target = sys.argv[1:]
else:
    given, report = sys.argv[2], sys.argv[4]
    url, target = re.findall('"(.*?)"', open(given).read())
open({seen!r}, "w").write(json.dumps([sys.argv, sorted(os.environ), os.getcwd()]))
def bring(data):
    open(target, "wb").write(data)
def say(success, more=""):
    if {protocol} > 1:
        named = 'TransferUrl = "%s"; TransferFileName = "%s"' % (url, target)
        open(report, "r+").write("[ %s; TransferSuccess = %s; %s ]" % (named, success, more))
"""
BRINGS = f"bring({sif_file()!r}); say('true')\n"


class Bench:
    """A staging directory, a double of a plug-in, and the source that runs it."""

    def __init__(self, directory: Path) -> None:
        self.seen = directory / "seen"
        self.plugin = directory / "x_plugin"
        self.staging = Staging(directory / "staging", self._reserve)
        self.staging.directory.mkdir()
        self.reserved: list[int] = []
        self.limit = 2 * AHEAD_BYTES
        self.plugins = TransferPlugins(f"/nowhere/none, {self.plugin} /usr/bin/image_cache_plugin")

    def _reserve(self, total: int) -> None:
        if total > self.limit:
            raise StatusError(HookStatus.CACHE_FULL, f"no room for {total} bytes")
        self.reserved.append(total)

    def double(self, code: str, protocol: int = 2) -> None:
        """Make the plug-in."""
        head = HEAD.format(
            python=sys.executable, protocol=protocol, description=DESCRIPTIONS[protocol], seen=str(self.seen)
        )
        self.plugin.write_text(head + code)
        self.plugin.chmod(0o755)

    def transfer(self, url: str = "ftp://host/x.sif", patience: Patience = PATIENCE) -> None:
        """Bring what a URL names."""
        Plugin(self.plugins, patience, 300_000_000).transfer(Located(url=url), self.staging)

    def refused(self, url: str = "ftp://host/x.sif", patience: Patience = PATIENCE) -> Answer:
        """Return why nothing came; nothing of it is left."""
        with pytest.raises(SourceError) as error:
            self.transfer(url, patience)
        assert not list(self.staging.directory.iterdir())
        return error.value.answer

    def locate(self, url: str) -> Answer:
        """Say where an image is."""
        return Plugin(self.plugins, PATIENCE, 300_000_000).locate(ImageReference.parse(url))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return an empty bench."""
    return Bench(tmp_path)


@pytest.mark.parametrize("protocol", [1, 2, 4])
def test_a_plugin_of_each_protocol_brings_an_image(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    """In staging, without HTCondor's secrets, and with the URL in its arguments only where it knows no other way."""
    monkeypatch.setenv("CONDOR_PRIVATE_INHERIT", "secret")
    monkeypatch.setenv("https_proxy", "http://proxy.example")
    bench.double(BRINGS, protocol)
    bench.transfer()
    assert bench.staging.size_bytes == len(sif_file())
    assert bench.staging.read(0, 1000) == sif_file()[:1000]
    assert bench.staging.head == sif_file()[: len(bench.staging.head)]
    assert len(bench.staging.finish()) == 64
    argv, names, cwd = json.loads(bench.seen.read_text())
    assert ("ftp://host/x.sif" in argv) is (protocol == 1)
    assert "https_proxy" in names
    assert not [name for name in names if "PRIVATE" in name]
    assert cwd.startswith(str(bench.staging.directory))
    assert [path.name for path in bench.staging.directory.iterdir()] == ["image"]


@pytest.mark.parametrize(
    ("causes", "status"),
    [
        ('[ ErrorType = "Specification"; ErrorCode = 404 ]', HookStatus.IMAGE_NOT_PUBLISHED),
        ('[ ErrorType = "Authorization" ]', HookStatus.IMAGE_ACCESS_DENIED),
        ('[ ErrorType = "Resolution"; FailureType = "Definitive" ]', HookStatus.SOURCE_UNREACHABLE),
        ('[ ErrorType = "Contact" ]', HookStatus.SOURCE_UNREACHABLE),
        ('[ ErrorType = "Parameter"; PluginLaunched = true ]', HookStatus.NO_CONTAINER_RUNTIME),
        ('[ ErrorType = "Transfer"; FailureType = "TooSlow" ]', HookStatus.SOURCE_TOO_SLOW),
        ('[ ErrorType = "Transfer"; FailureType = "TimedOut" ]', HookStatus.SOURCE_TOO_SLOW),
        ('[ ErrorType = "Transfer"; FailureType = "NoSpace" ]', HookStatus.DISK_FULL),
        ('[ ErrorType = "Transfer"; FailureType = "Quota" ]', HookStatus.DISK_FULL),
        ('[ ErrorType = "Specification" ], [ ErrorType = "Contact" ]', HookStatus.SOURCE_UNREACHABLE),
        ('[ ErrorType = "What?" ]', HookStatus.SOURCE_UNREACHABLE),
        ("", HookStatus.SOURCE_UNREACHABLE),
    ],
)
def test_what_a_plugin_reports_becomes_a_status_of_ours(bench: Bench, causes: str, status: HookStatus) -> None:
    """The last of its attempts tells; what it does not say is no reason to hold a job."""
    bench.double(f"say('false', '''TransferError = \"it is so\"; TransferErrorData = {{ {causes} }}''')\nsys.exit(1)\n")
    answer = bench.refused()
    assert status_of(answer) is status
    assert not isinstance(answer, Located)
    assert answer.why == "ftp://host/x.sif: x_plugin: it is so"


def status_of(answer: Answer) -> HookStatus:
    """Return the status that an answer means for the job whose URL it is."""
    if isinstance(answer, Absent) and answer.authoritative:
        return HookStatus.IMAGE_NOT_PUBLISHED
    if isinstance(answer, Denied):
        return HookStatus.IMAGE_ACCESS_DENIED
    assert isinstance(answer, Unwell)
    return answer.status


@dataclass(frozen=True)
class Odd:
    """What a plug-in does, and what is said of it."""

    name: str
    code: str
    says: str
    protocol: int = 2


ODD = (
    Odd("reports nothing", f"bring({sif_file()!r})\n", "exit status 0"),
    Odd("reports no ads", "open(report, 'w').write('[ oops')\nsys.exit(3)\n", "exit status 3"),
    Odd("fails and says that it did not", "bring(b'x'); say('true'); sys.exit(7)\n", "exit status 7"),
    Odd("dies", "bring(b'x'); os.kill(os.getpid(), 6)\n", "exit status 134"),
    Odd("brings nothing", "say('true')\n", "no file of its own"),
    Odd("brings a link", "os.symlink('/etc/passwd', target); say('true')\n", "no file of its own"),
    Odd("brings a second name", "bring(b'x'); os.link(target, target + '2'); say('true')\n", "no file of its own"),
    Odd("brings a directory", "os.mkdir(target); say('true')\n", "no file of its own"),
    Odd("says why, of protocol 1", "print('no such file'); sys.exit(1)\n", "x_plugin: no such file", 1),
)


@pytest.mark.parametrize("case", ODD, ids=lambda case: case.name)
def test_what_is_no_image_of_its_own_is_not_taken(bench: Bench, case: Odd) -> None:
    """It is the plug-in's fault or the network's: the job goes back to idle."""
    bench.double(case.code, case.protocol)
    answer = bench.refused()
    assert isinstance(answer, Unwell)
    assert answer.status is HookStatus.SOURCE_UNREACHABLE
    assert case.says in answer.why


def test_a_plugin_that_outgrows_its_room_is_ended_with_what_it_started(bench: Bench, tmp_path: Path) -> None:
    """What it writes counts while it is written."""
    bench.limit = AHEAD_BYTES
    bench.double(
        "import subprocess\n"
        "child = subprocess.Popen(['/bin/sleep', '300'])\n"
        f"open('{tmp_path}/child', 'w').write(str(child.pid))\n"
        "with open(target, 'wb') as file:\n"
        "    while True:\n"
        "        file.write(bytes(1 << 20))\n"
    )
    with pytest.raises(StatusError) as error:
        bench.transfer()
    assert error.value.status is HookStatus.CACHE_FULL
    assert is_gone(int((tmp_path / "child").read_text()))
    assert not list(bench.staging.directory.iterdir())


def test_a_plugin_that_nobody_waits_for_any_more_is_ended(bench: Bench) -> None:
    """The fetcher says so in the middle of it."""
    bench.double("while True:\n    time.sleep(0.02)\n")
    bench.staging.stopped = StatusError(HookStatus.DEADLINE_EXCEEDED, "nobody waits")
    with pytest.raises(StatusError, match="nobody waits"):
        bench.transfer()


@pytest.mark.parametrize(
    ("patience", "says"),
    [
        (Patience(min_rate_bytes=1, stall_s=0.5), "no byte came for"),
        (Patience(min_rate_bytes=10**12, stall_s=0.5), "too slow"),
    ],
)
def test_a_plugin_that_stalls_or_is_slow_is_ended(bench: Bench, patience: Patience, says: str) -> None:
    """Its time grows with what came."""
    more = "    file.write(b'x'); file.flush()\n" if "slow" in says else ""
    bench.double(
        f"file = open(target, 'wb')\nfile.write(b'x'); file.flush()\nwhile True:\n    time.sleep(0.02)\n{more}"
    )
    answer = bench.refused(patience=patience)
    assert isinstance(answer, Unwell)
    assert answer.status is HookStatus.SOURCE_TOO_SLOW
    assert says in answer.why


def test_what_is_secret_in_a_url_is_not_in_what_is_said(bench: Bench) -> None:
    """Plug-ins like to repeat what they were told; one that shows it in its arguments is not run at all."""
    bench.double("say('false', 'TransferError = \"GET %s with wOrd failed\"' % url)\nsys.exit(1)\n")
    answer = bench.refused("ftp://me:wOrd@host/x.sif?sig=s3cr3t")
    assert isinstance(answer, Unwell)
    assert "wOrd" not in answer.why
    assert "s3cr3t" not in answer.why
    assert isinstance(bench.locate("ftp://me:wOrd@host/x.sif"), Located)
    bench.double(BRINGS, 1)
    told = bench.locate("ftp://me:wOrd@host/x.sif")
    assert isinstance(told, Unwell)
    assert told.status is HookStatus.NO_CONTAINER_RUNTIME


@pytest.mark.parametrize("url", ["ftp://me:w%4Frd@host/x.sif?sig=w%4Frd", "ftp://me:wOrd@[::1/x.sif"])
def test_a_secret_is_not_told_either_as_the_plugin_understood_it(bench: Bench, url: str) -> None:
    """It takes the percent signs of a URL away; and what is no URL to us may be one to a plug-in."""
    bench.double("say('false', 'TransferError = \"me:wOrd failed\"')\nsys.exit(1)\n")
    answer = bench.refused(url)
    assert isinstance(answer, Unwell)
    assert "wOrd" not in answer.why


def test_plugins_are_asked_again_what_they_bring_when_they_change(bench: Bench) -> None:
    """Of two for one scheme the last counts, as with HTCondor; ours is not among them."""
    bench.double(BRINGS, 2)
    assert bench.locate("dav://host/x.sif") == Located(url="dav://host/x.sif")
    bench.double(BRINGS, 4)
    os.utime(bench.plugin, (1, 1))
    missing = bench.locate("dav://host/x.sif")
    assert isinstance(missing, Unwell)
    assert missing.status is HookStatus.NO_CONTAINER_RUNTIME
    assert "no transfer plug-in here brings dav://" in missing.why


def test_a_plugin_that_says_when_to_come_again_is_left_alone_so_long() -> None:
    """`Retryable` is in seconds; 0 is no advice and -1 is never."""
    for retry, wanted in ((30, 30.0), (0, None), (-1, None), (True, None)):
        causes: Value = [{"errortype": "Transfer", "retryable": retry}]
        answer = answer_of(causes, "why")
        assert isinstance(answer, Unwell)
        assert answer.retry_after_s == wanted


def test_another_users_credential_is_not_asked_for(bench: Bench) -> None:
    """A plug-in can bring an image, and not ask whether somebody may have it."""
    source: Callable[[Located], None] = Plugin(bench.plugins, PATIENCE, 1).confirm
    with pytest.raises(SourceError) as error:
        source(Located(url="ftp://me:wOrd@host/x.sif"))
    assert isinstance(error.value.answer, Unwell)
    assert "wOrd" not in error.value.answer.why

"""A whole run with secrets everywhere, and then every byte that it wrote: none of them is there."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

import pytest

from cache_manager import client
from tests.contract import holders
from tests.contract.conftest import StartSite
from tests.contract.doubles import ARCH, HTML, cvmfs_ad, image_ad, job_ad, sif, tree, truncated_sif
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply
from tests.pool.processes import descendants

CANARY: Final = "CaNaRy7391"
ENVIRONMENT: Final = {
    "CONDOR_PRIVATE_INHERIT": f"12 <127.0.0.1:9618> 0 {CANARY}",
    "CONDOR_INHERIT": f"12 <127.0.0.1:9618> {CANARY}",
    "CONDOR_PRIVATE_SHARED_PORT_COOKIE": CANARY,
    "BEARER_TOKEN": CANARY,
    "X509_USER_PROXY": f"/{CANARY}",
    "AWS_SECRET_ACCESS_KEY": CANARY,
}
SECRETS: Final = (
    f'ClaimId = "<127.0.0.1:9618>#1#{CANARY}"',
    f'PublicClaimId = "{CANARY}"',
    f'Capability = "{CANARY}"',
    f'Environment = "TOKEN={CANARY}"',
    f'Arguments = "--password {CANARY}"',
    f'OAuthServicesNeeded = "{CANARY}"',
)
ERRORS: Final = (
    Reply(f"token {CANARY} expired".encode(), 401),
    Reply(f"<p>{CANARY}</p>".encode(), 403),
    Reply(CANARY.encode(), 404),
    Reply(CANARY.encode(), 500, headers={"X-Token": CANARY}),
    Reply(CANARY.encode(), 429, headers={"Retry-After": "1", "Set-Cookie": f"session={CANARY}"}),
    Reply(HTML + CANARY.encode()),
    Reply(truncated_sif()),
    Reply(sif(), cut=100),
    Reply(status=302, headers={"Location": f"https://u:{CANARY}@127.0.0.1:1/x?sig={CANARY}"}),
    Reply(status=302, headers={"Location": f"file:///etc/x?{CANARY}"}),
    Reply(status=302, headers={"Location": f"//u:{CANARY}@[::1/{CANARY}"}),
)


@contextmanager
def core_files_allowed() -> Iterator[None]:
    """Let what is started here leave core files, as an admin does who looks for a fault."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


class Watcher:
    """Reads the command lines of all processes below this one, again and again."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._ends.wait(0.02):
            for pid in descendants(os.getpid()):
                with suppress(OSError):
                    self.seen.add(Path(f"/proc/{pid}/cmdline").read_bytes())
        self.seen = {line for line in self.seen if b"prefetch" not in line}  # that is an admin's own

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()


def told_by(site: Site) -> list[str]:
    """Return the paths below the site that tell the secret, by their name or in them, but those of ours."""
    ours = [site.config, site.scratch / ".machine.ad", *site.directory.glob("starter*/ad")]
    return [
        str(path)
        for path in site.directory.rglob("*")
        if path not in ours
        and (CANARY in str(path) or (path.is_file() and not path.is_symlink() and CANARY.encode() in path.read_bytes()))
    ]


def ads(origin: Origin) -> Iterator[str]:
    """Yield the ads of jobs that are served, held and sent back, all of them with secrets."""
    port = origin.port
    for number in range(len(ERRORS)):
        yield image_ad(f"http://user:{CANARY}@127.0.0.1:{port}/{number}.sif?sig={CANARY}#{CANARY}")
    yield image_ad(f"http://user:{CANARY}@127.0.0.1:{port}/good.sif?X-Amz-Signature={CANARY}")
    for name in ("htc/a:1", "htc/absent:1", "htc/bad:1", "htc/b:1"):
        yield cvmfs_ad(name)
    yield image_ad("x.sif")
    yield image_ad(f"nonsense://{CANARY}@x/y?z={CANARY}")
    yield job_ad(f'SingularityImage = strcat("https://u:{CANARY}@h/x?s={CANARY}", 1 / 0)')
    pattern = f'regexp("(a*)*(a*)*(a*)*b", "{"a" * 2000}{CANARY}") is true'
    yield job_ad(f"A0 = {pattern}", f"SingularityImage = strcat({', '.join(['A0'] * 900)})")
    yield job_ad(f"GARBAGE {CANARY}", "SingularityImage = 1 + 1")
    yield job_ad()


def commands(site: Site, ad: Path) -> Iterator[str]:
    """Yield what the admin commands print, also about what is not there."""
    key = next(iter(site.names("entries")), "nothing")
    for words in (
        ("status",),
        ("status", "--json"),
        ("list",),
        ("list", "--json"),
        ("show", key),
        ("explain", ad),
        ("explain", "--json", ad),
        ("doctor",),
        ("metrics",),
        ("advertise",),
        ("verify",),
        ("prefetch", f"http://user:{CANARY}@127.0.0.1:1/x.sif?sig={CANARY}"),
        ("pin", "htc/a:1"),
        ("evict", "htc/absent:1"),
        ("cleanup", "--dry-run"),
        ("config",),
    ):
        done = site.command(*words)
        yield f"{words[0]}: {done.stdout}{done.stderr}"


def test_a_whole_run_tells_no_secret(make_site: StartSite, origin: Origin) -> None:
    """In no log, record, message, metric, command line or core file, whatever went wrong."""
    site = make_site(
        IMAGE_CACHE_SIF_SOURCES=f"http://user:{CANARY}@127.0.0.1:{origin.port}/v2",
        IMAGE_CACHE_CVMFS_BASE="/nonexistent",
        A_PASSWORD=CANARY,
    )
    site.environment = ENVIRONMENT
    for number, reply in enumerate(ERRORS):
        origin.routes[f"/{number}.sif"] = reply
    origin.routes["/good.sif"] = Reply(sif("good"))
    origin.serve(tree("htc/a:1", sif("a")) | tree("htc/bad:1", sif("bad"), sha256="0" * 64))
    origin.routes[f"/v2/{ARCH}/htc__b__1/latest.txt"] = Reply(HTML + CANARY.encode())
    said: list[str] = []
    with Watcher() as watcher, core_files_allowed():
        site.start()
        for ad, launcher in itertools.product(ads(origin), (True, False)):
            answer = site.run_hook(
                ad.replace("JobUniverse = 5\n", "JobUniverse = 5\n" + "\n".join(SECRETS) + "\n"),
                env=ENVIRONMENT | {"_CONDOR_CREDS": f"/{CANARY}"},
                machine_ad=f'ClaimId = "{CANARY}"\nCapability = "{CANARY}"\n',
                launcher=launcher,
            )
            said.append(f"{answer.attributes} {answer.stderr!r}")
        starter = holders.start(site, cvmfs_ad("htc/a:1"), args=("--degraded",))
        said.append(str(starter.answer().attributes))
        path = site.directory / "execute" / "explained.ad"
        path.write_text(next(ads(origin)))
        said += commands(site, path)
        path.unlink()
        said.append(site.reports(next(ads(origin))))
        site.reconfigure(IMAGE_CACHE_SIF_SOURCES=f"htps://user:{CANARY}@h/v2 user:{CANARY}@h/v3")
        site.reconfigure(IMAGE_CACHE_DEFAULT_IMAGE=f"docker://user:{CANARY}@h/v2?x={CANARY}")
        said += [client.ask(str(site.socket), verb).decode() for verb in ("status", "advertise")]
        assert not dumps_core(site, signal.SIGABRT)
        starter.end()
        for ad in ads(origin):
            said.append(str(site.run_hook(ad, "--degraded", env=ENVIRONMENT).attributes))
    for what in (*said, *(line.decode(errors="replace") for line in watcher.seen)):
        assert CANARY not in what, what
    assert told_by(site) == []
    assert [path.name for path in site.directory.rglob("core*")] == []


def dumps_core(site: Site, number: signal.Signals) -> bool:
    """End the manager by a signal that makes others leave a core file; whether it did."""
    assert site.manager is not None
    os.kill(site.manager.pid, number)
    _, status = os.waitpid(site.manager.pid, 0)
    site.manager.returncode = os.waitstatus_to_exitcode(status)
    return os.WCOREDUMP(status)


def test_neither_the_manager_nor_its_children_may_leave_a_core_file(site: Site) -> None:
    """What is in their memory is nobody else's."""
    site.run_hook(job_ad('SingularityImage = strcat("/cvmfs/x.example.org/", "y")'))
    family = [site.pid, *site.children()]
    assert len(family) > 1
    for pid in family:
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)


@pytest.mark.parametrize("verb", ["status", "list", "explain", "metrics", "nonsense", "prefetch"])
def test_what_goes_wrong_in_a_verb_is_said_without_its_arguments(shared_site: Site, verb: str) -> None:
    """They may hold a signed URL."""
    body = f'{{"refs": ["https://u:{CANARY}@h/x?sig={CANARY}", 7], "key": "{CANARY}", "x": '.encode()
    said = client.ask(str(shared_site.socket), verb, body).decode()
    assert CANARY not in said + shared_site.all_text()

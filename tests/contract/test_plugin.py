"""`image_cache_plugin` as HTCondor runs it, with a manager, and with another plug-in behind it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cache_manager import client, transferads
from tests.contract.doubles import job_ad, sif
from tests.contract.harness import CHECKOUT, Site
from tests.contract.origin import Origin, Reply

FORMER = """#!/bin/sh
# the plug-in that was there before: reports what stands in a file, and brings `former` where that is a success
[ "$1" = -classad ] && { cat %(here)s/former.classad; exit; }
cp "$2" %(here)s/former.in
printf '%%s ' "$@" >%(here)s/former.argv
target=$(sed -n 's/.*LocalFileName = "\\([^"]*\\)".*/\\1/p' "$2" | tail -n 1)
url=$(sed -n 's/.*Url = "\\([^"]*\\)".*/\\1/p' "$2" | tail -n 1)
[ ! -e %(here)s/former.brings ] || cat %(here)s/former.brings >"$target"
sed -e "s|@TARGET@|$target|" -e "s|@URL@|$url|" %(here)s/former.says >"$4"
exit "$(cat %(here)s/former.status)"
"""
SUCCESS = '[ TransferUrl = "@URL@"; TransferFileName = "@TARGET@"; TransferSuccess = true; TransferTotalBytes = 7 ]\n'
FAILURE = (
    '[ TransferUrl = "@URL@"; TransferFileName = "@TARGET@"; TransferSuccess = false; TransferError = "cannot";'
    ' TransferErrorData = { [ ErrorType = "Contact"; ErrorCode = 7 ] } ]\n'
)
BLANKS = 4096


class Transfer:
    """A job's scratch directory, and the plug-in that HTCondor runs in it."""

    def __init__(self, site: Site, origin: Origin) -> None:
        self.site = site
        self.origin = origin
        self.former = site.directory / "former_plugin"
        self.former.write_text(FORMER % {"here": site.directory})
        self.former.chmod(0o755)
        (site.directory / "former.classad").write_text('SupportedMethods = "http"\nProtocolVersion = 2\n')
        self.former_says(SUCCESS, brings="from the former plug-in")
        site.configure(IMAGE_CACHE_NEXT_PLUGIN=f"http={self.former}")

    def former_says(self, report: str, status: int = 0, brings: str = "") -> None:
        """Say what comes of the former plug-in."""
        here = self.site.directory
        (here / "former.says").write_text(report)
        (here / "former.status").write_text(str(status))
        (here / "former.brings").unlink(missing_ok=True)
        if brings:
            (here / "former.brings").write_text(brings)

    def url(self, name: str) -> str:
        """Return the URL of a file at the origin."""
        return self.origin.url + f"/{name}"

    def run(self, *names: str, ad: str = "", options: tuple[str, ...] = (), more: str = "") -> tuple[int, list[Any]]:
        """Transfer files of these names from the origin; return the exit status and the results, sorted by file."""
        scratch = self.site.scratch
        ads = [f'[ Url = "{self.url(name)}"; LocalFileName = "{scratch / name}" ]\n' for name in names]
        (scratch / ".in").write_text(more + "".join(ads))
        (scratch / ".out").write_bytes(b" " * BLANKS)
        (scratch / ".job.ad").write_text(ad or self.ad())
        env = self.site.env | {"_CONDOR_JOB_AD": str(scratch / ".job.ad"), "PYTHONPATH": str(CHECKOUT)}
        argv = [
            sys.executable,
            "-m",
            "cache_manager.plugin",
            "-infile",
            f"{scratch}/.in",
            "-outfile",
            f"{scratch}/.out",
        ]
        done = subprocess.run([*argv, *options], cwd=scratch, env=env, check=False, timeout=60)
        read = [found for _, found in transferads.parse((scratch / ".out").read_text())]
        return done.returncode, sorted(read, key=lambda one: str(one["transferfilename"]))

    def ad(self, name: str = "x.sif") -> str:
        """Return the ad of a job in the container universe whose image HTCondor transfers."""
        return job_ad(
            f'ContainerImage = "{name}"', f'ContainerImageFullPath = "{self.url(name)}"', "WantContainer = true"
        )

    @property
    def image(self) -> Path:
        """Where HTCondor wants the image."""
        return self.site.scratch / "x.sif"


@pytest.fixture
def transfer(tmp_path: Path) -> Iterator[Transfer]:
    """Run a site with a manager, and an origin that has an image."""
    with Origin() as origin, Site(tmp_path) as site:
        origin.routes["/x.sif"] = Reply(sif("x"))
        one = Transfer(site, origin)
        site.start()
        yield one


def test_the_image_is_a_link_into_the_cache_and_nothing_was_transferred(transfer: Transfer) -> None:
    """The lease is the parent's, who stands for the starter; the result file keeps its size."""
    status, results = transfer.run("x.sif")
    assert status == 0
    assert results[0]["transfersuccess"] is True
    assert results[0]["transfertotalbytes"] == 0
    assert transfer.image.is_symlink()
    assert transfer.image.read_bytes() == sif("x")
    assert (transfer.site.scratch / ".out").stat().st_size == BLANKS
    (lease,) = transfer.site.names("leases")
    assert lease.startswith(f"{os.getpid()}-")
    assert not (transfer.site.directory / "former.in").exists()


def test_a_file_that_is_no_image_is_the_former_plugins_with_all_arguments(transfer: Transfer) -> None:
    """It is run in our place: nothing of what it says is lost."""
    status, results = transfer.run("data", options=("-upload",))
    assert (status, results[0]["transfertotalbytes"]) == (0, 7)
    scratch = transfer.site.scratch
    said = (transfer.site.directory / "former.argv").read_text()
    assert said == f"-infile {scratch}/.in -outfile {scratch}/.out -upload "


def test_an_image_and_other_files_are_each_brought_by_their_own(transfer: Transfer) -> None:
    """Ads that are for no file are only for plug-ins that know them (protocol 4)."""
    status, results = transfer.run("data", "x.sif", more='[ Caches = "a" ]\n')
    assert status == 0
    assert [one["transfersuccess"] for one in results] == [True, True]
    assert transfer.image.is_symlink()
    assert (transfer.site.scratch / "data").read_text() == "from the former plug-in"
    given = (transfer.site.directory / "former.in").read_text()
    assert "Caches" not in given
    assert "x.sif" not in given
    (transfer.site.directory / "former.classad").write_text("ProtocolVersion = 4\n")
    transfer.run("data", "x.sif", more='[ Caches = "a" ]\n')
    assert "Caches" in (transfer.site.directory / "former.in").read_text()


@dataclass(frozen=True)
class Refusal:
    """What the origin says, and what becomes of the job where the former plug-in cannot help either."""

    name: str
    reply: Reply
    exit_status: int
    code: int
    kind: str


REFUSALS = (
    Refusal("is not there", Reply(status=404), 1, 120, "Specification"),
    Refusal("is refused", Reply(status=403), 1, 130, "Authorization"),
    Refusal("its server fails", Reply(status=503), 0, 610, "Contact"),
    Refusal("is throttled for a day", Reply(status=429, headers={"Retry-After": "86400"}), 0, 630, "Parameter"),
)


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.name)
def test_what_nobody_brings_holds_the_job_or_leaves_it_to_the_hook(transfer: Transfer, case: Refusal) -> None:
    """HTCondor holds a job for any exit status but 0; after a 0 the hook has the last word, and says the same."""
    transfer.origin.routes["/x.sif"] = case.reply
    transfer.former_says(FAILURE, 1, brings="half of it")
    status, (result,) = transfer.run("x.sif")
    assert status == case.exit_status
    assert result["transfersuccess"] is False
    assert result["transfererror"].startswith(f"image cache: {case.code}: ")
    assert result["transfererror"].endswith(": cannot]")
    ours, theirs = result["transfererrordata"]
    assert (ours["errortype"], ours["errorcode"]) == (case.kind, case.code)
    assert theirs == {"errortype": "Contact", "errorcode": 7}
    assert not transfer.image.exists()
    assert transfer.site.run_hook(transfer.ad()).code == case.code


def test_what_the_cache_refuses_the_former_plugin_may_bring(transfer: Transfer) -> None:
    """It may have what we do not: a credential, another way."""
    transfer.origin.routes["/x.sif"] = Reply(status=403)
    status, (result,) = transfer.run("x.sif")
    assert (status, result["transfersuccess"]) == (0, True)
    assert transfer.image.read_text() == "from the former plug-in"


def test_without_a_manager_the_former_plugin_brings_the_image(transfer: Transfer) -> None:
    """Also where a socket was left behind."""
    transfer.site.stop()
    status, (result,) = transfer.run("x.sif")
    assert (status, result["transfersuccess"]) == (0, True)
    assert not transfer.image.is_symlink()


def test_a_url_that_the_access_point_signed_is_not_what_the_job_names(transfer: Transfer) -> None:
    """It is another one for each job: the cache would keep one image under each."""
    ad = job_ad('ContainerImage = "x.sif"', 'ContainerImageFullPath = "s3://bucket/x.sif"')
    transfer.run("x.sif", ad=ad)
    assert not transfer.image.is_symlink()


def test_the_hook_takes_the_linked_image_by_the_name_that_the_job_gave(transfer: Transfer) -> None:
    """A link that a job's user put in its place is not believed: the answer is the image that the ad names."""
    other = transfer.site.root / "entries" / "other"
    transfer.run("x.sif")
    honest = transfer.image.readlink()
    transfer.image.unlink()
    transfer.image.symlink_to(other / "image")
    other.mkdir()
    (other / "image").write_bytes(sif("another"))
    answer = transfer.site.run_hook(transfer.ad())
    assert answer.runs(str(honest), sandbox=False)
    nameless = transfer.site.run_hook(job_ad('ContainerImage = "x.sif"', "WantContainer = true"))
    assert nameless.code == 360


def test_an_image_among_the_inputs_is_asked_for_by_its_url(transfer: Transfer) -> None:
    """`+SingularityImage = "x.sif"` with the URL in transfer_input_files."""
    ad = job_ad('SingularityImage = "x.sif"', f'TransferInput = "data,{transfer.url("x.sif")}"')
    transfer.run("x.sif", ad=ad)
    assert transfer.image.is_symlink()
    assert transfer.site.run_hook(ad).runs(str(transfer.image.readlink()), sandbox=False)


def test_a_transfer_and_its_hook_count_as_one_job(transfer: Transfer) -> None:
    """A miss, and then nothing: the hit ratio is that of jobs."""
    transfer.run("x.sif")
    transfer.site.run_hook(transfer.ad())
    status = transfer.site.ask("status")
    assert (status["misses"], status["hits"], status["answers"]) == (1, 0, {"0": 1})


def test_it_says_what_it_is_and_has_no_scheme_that_nobody_else_has(transfer: Transfer) -> None:
    """Where it could pass nothing on it takes nothing: HTCondor goes on with the plug-ins that there are."""

    def said() -> dict[str, Any]:
        argv = [sys.executable, "-m", "cache_manager.plugin", "-classad"]
        done = subprocess.run(argv, env=transfer.site.env, cwd=CHECKOUT, capture_output=True, text=True, check=True)
        return dict(transferads.parse_lines(done.stdout))

    shown = said()
    assert (shown["multiplefilesupport"], shown["plugintype"], shown["protocolversion"]) == (True, "FileTransfer", 4)
    assert shown["supportedmethods"] == "http"
    transfer.site.configure()
    assert said()["supportedmethods"] == ""


def test_the_transfer_of_something_that_is_no_url_is_refused(transfer: Transfer) -> None:
    """A key of the request is a stranger's word like all of it."""
    site = transfer.site
    body = transfer.ad().encode()
    for url in ("/etc/passwd", "x.sif", "", "file:///etc/passwd"):
        assert "HookStatusCode = 110\n" in ask(site, body, url)


def ask(site: Site, body: bytes, url: str) -> str:
    """Ask as the plug-in does."""
    return client.ask(str(site.socket), "prepare", body, job=len(body), left=20, url=url).decode()

"""Where SIFs do not run, a job gets a directory: unpacked once, within limits, by a runtime that is a script here."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from cache_manager import client
from tests.contract import holders
from tests.contract.block import Answer
from tests.contract.conftest import StartSite
from tests.contract.doubles import cvmfs_ad, digest, image_ad, sif, tree, write
from tests.contract.harness import Site
from tests.contract.origin import Origin
from tests.pool.processes import descendants

RUNTIME = """\
#!/bin/sh
here=$(dirname "$0")
case $2 in
exec)
    case $4 in *.sif) echo 'INFO:    Converting SIF file to temporary sandbox...' >&2 ;; esac
    exit 37 ;;
test)
    [ -d "$4" ] && grep -q . "$4/sif" ;;
build)
    echo "$5" >>"$here/builds"
    mkdir -m 700 "$4"
    while [ -e "$here/hold" ]; do sleep 0.02; done
    cp "$5" "$4/sif"
    chmod 4700 "$4/sif"
    if grep -q 'DOES NOT UNPACK' "$5"; then echo 'FATAL: bad superblock' >&2; exit 255; fi
    if grep -q 'IS HUGE' "$5"; then head -c 60000000 /dev/zero >"$4/huge"; sleep 60; fi ;;
esac
"""


@pytest.fixture
def ep(make_site: StartSite, origin: Origin, tmp_path: Path) -> Site:
    """Start a manager on an EP where each job would unpack its SIF."""
    runtime = tmp_path / "apptainer"
    runtime.write_text(RUNTIME, encoding="ascii")
    runtime.chmod(0o755)
    site = make_site(
        IMAGE_CACHE_SIF_SOURCES=f"{origin.url}/v2",
        IMAGE_CACHE_CVMFS_BASE="/nonexistent",
        IMAGE_CACHE_RUNTIME=str(runtime),
        IMAGE_CACHE_MAX_BYTES="40 MB",
    ).start()
    site.wait_for(lambda: site.ask("status")["abilities_tried"], "the trial")
    return site


def directory_of(site: Site, body: bytes) -> Path:
    """Return the path of what a SIF becomes."""
    return site.root / "entries" / f"{digest(body)}.sandbox" / "image"


def builds(site: Site) -> int:
    """Return how often the runtime unpacked something."""
    path = site.directory / "builds"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def test_what_was_seen_is_advertised_and_told(ep: Site) -> None:
    """The slots say so, and why."""
    said = client.ask(str(ep.socket), "advertise").decode()
    assert "ImageCacheCanUseSIF = false\n" in said
    assert "ImageCacheCanUseSandbox = true\n" in said
    assert "temporary sandbox" in ep.ask("status")["why_not"]
    assert "runs sandbox, tried by the manager (SIFs: " in ep.command("doctor").stdout.replace("\n", " ")


def test_ten_jobs_for_one_image_are_one_unpacking(ep: Site, origin: Origin) -> None:
    """Each gets the directory and a lease; the SIF is dropped, and nothing else is left."""
    body = sif("ten")
    origin.serve(tree("htc/ten:1", body))
    hold = ep.directory / "hold"
    hold.touch()
    starters = [holders.start(ep, cvmfs_ad("htc/ten:1")) for _ in range(10)]
    ep.wait_for(
        lambda: [(one["waiting"], one["unpacks"]) for one in ep.ask("status")["fetches"]] == [(10, True)], "ten"
    )
    assert "htc/ten:1 (unpacking)" in ep.command("status").stdout
    hold.unlink()
    place = directory_of(ep, body)
    for answer in [one.answer() for one in starters]:
        assert answer.runs(str(place), sandbox=True), answer.attributes
        assert "SIF fetched and unpacked from " in answer.message
    assert (place / "sif").read_bytes() == body
    assert {oct(path.stat().st_mode & 0o7777) for path in (place, place / "sif")} == {"0o755"}
    assert builds(ep) == origin.count(".sif") == 1
    assert len(ep.names("leases")) == 10
    assert ep.names("staging") == []
    assert ep.names("entries") == [f"{digest(body)}.sandbox"]
    for one in starters:
        one.end()


def test_the_next_job_is_a_hit_also_after_a_restart(ep: Site, origin: Origin) -> None:
    """The SIF's digest leads to the directory, from a tree as from a job's own URL."""
    body = sif("again")
    origin.serve(tree("htc/again:1", body))
    origin.serve({"own/again.sif": body}, "")
    for ad in (cvmfs_ad("htc/again:1"), image_ad(f"{origin.url}/own/again.sif")):
        assert ep.run_hook(ad).runs(str(directory_of(ep, body)), sandbox=True)
    ep.restart()
    ep.wait_for(lambda: ep.ask("status")["abilities_tried"], "the trial")
    for ad in (cvmfs_ad("htc/again:1"), image_ad(f"{origin.url}/own/again.sif")):
        answer = ep.run_hook(ad)
        assert answer.runs(str(directory_of(ep, body)), sandbox=True)
        assert "cached directory, unpacked from the SIF of " in answer.message
    (entry,) = ep.ask("list")["entries"]
    assert (entry["format"], entry["digest"]) == ("sandbox", f"sha256:{digest(body)}")


def test_an_unpacked_image_is_brought_in_pinned_and_read_back(ep: Site, origin: Origin) -> None:
    """A tree has no digest: its files and bytes are counted, and what differs is unpacked anew."""
    body = sif("counted")
    origin.serve(tree("htc/counted:1", body))
    assert ep.command("pin", "htc/counted:1").returncode == 0
    (one,) = json.loads(ep.command("show", "--json", "htc/counted:1").stdout)
    assert (one["format"], one["pins"]) == ("sandbox", ["htc/counted:1"])
    assert ep.command("verify").returncode == 0
    (directory_of(ep, body) / "sif").unlink()
    found = ep.command("verify", one["key"][:10])
    assert found.returncode == 1
    assert "QUARANTINED: 3 files are there, 4 were unpacked" in found.stdout
    assert ep.run_hook(cvmfs_ad("htc/counted:1")).runs(str(directory_of(ep, body)), sandbox=True)
    assert (directory_of(ep, body) / "sif").read_bytes() == body
    assert ep.command("verify").returncode == 0
    assert ep.ask("status")["pins"][0]["here"]


def test_explain_says_that_it_will_be_unpacked(ep: Site, origin: Origin) -> None:
    """Before anything is fetched, and afterwards where it is."""
    body = sif("explained")
    origin.serve(tree("htc/explained:1", body))
    ad = cvmfs_ad("htc/explained:1").encode()
    before = json.loads(client.ask(str(ep.socket), "explain", ad, job=len(ad)))
    assert "it would be fetched and unpacked, because SIFs do not run here" in str(before["steps"])
    assert f"{directory_of(ep, body)}" in before["ad"]
    assert "WantSandboxImage = true" in before["ad"]
    ep.run_hook(ad)
    assert json.loads(client.ask(str(ep.socket), "explain", ad, job=len(ad)))["ad"].count(".sandbox/image") == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (b"DOES NOT UNPACK", 450, "could not be unpacked here: apptainer: FATAL: bad superblock"),
        (b"IS HUGE", 320, "larger than this cache may hold"),
    ],
)
def test_what_cannot_be_unpacked_leaves_nothing(ep: Site, origin: Origin, words: bytes, code: int, said: str) -> None:
    """Neither a directory nor a process nor a reservation; the job goes to another EP."""
    origin.serve(tree("htc/bad:1", sif("bad") + words))
    answer = ep.run_hook(cvmfs_ad("htc/bad:1"))
    assert (answer.code, said in answer.message) == (code, True), answer.message
    assert ep.names("staging") == ep.names("entries") == []
    ep.wait_for(lambda: ep.ask("status")["used_bytes"] == 0, "the end of the reservation")
    assert running(ep) == []


def running(site: Site) -> list[int]:
    """Return the processes below the manager, apart from its helper for CVMFS."""
    return [pid for pid in descendants(site.pid) if b"cvmfs_child" not in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_manager_that_is_killed_leaves_nobody_who_writes(ep: Site, origin: Origin) -> None:
    """The next one finds an empty staging, and unpacks it for the job that still waits."""
    body = sif("killed")
    origin.serve(tree("htc/killed:1", body))
    hold = ep.directory / "hold"
    hold.touch()
    starter = holders.start(ep, cvmfs_ad("htc/killed:1"))
    ep.wait_for(lambda: builds(ep) == 1, "the unpacking")
    family = running(ep)
    assert len(family) >= 2
    ep.stop(signal.SIGKILL)
    ep.wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), "the end of the unpacking")
    hold.unlink()
    ep.start()
    answer: Answer = starter.answer()
    # asked again at once, before the new manager knows what runs here, it may be answered with the SIF
    assert answer.code == 0
    assert answer.image.startswith(str(ep.root / "entries" / digest(body)))
    starter.end()


def test_a_sif_of_the_jobs_own_goes_to_another_ep(ep: Site) -> None:
    """It is never taken into the cache; a directory runs where it is."""
    write(ep.scratch, {"own.sif": sif("own"), "directory/bin/sh": b""})
    answer = ep.run_hook(image_ad("own.sif"))
    assert answer.code == 310
    assert "own.sif: is a SIF, and this EP cannot run SIF files" in answer.message
    assert ep.run_hook(image_ad("directory/")).runs(str(ep.scratch / "directory"), sandbox=True)

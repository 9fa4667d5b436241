"""The commands with which an admin brings images in, keeps them, gives them up and reads them back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.contract.conftest import StartSite
from tests.contract.doubles import cvmfs_ad, digest, image_ad, sif, tree
from tests.contract.harness import CHECKOUT, Site
from tests.contract.origin import Origin, Reply

SIZE = 300_000
NAMES = ("htc/a:1", "htc/b:1", "htc/c:1")


@pytest.fixture
def stocked(make_site: StartSite, origin: Origin) -> Site:
    """Start a manager with room for two of the three images of a tree; the knob keeps the scrub away."""
    for name in NAMES:
        origin.serve(tree(name, sif(name, SIZE)))
    knobs = {
        "IMAGE_CACHE_SIF_SOURCES": f"{origin.url}/v2",
        "IMAGE_CACHE_CVMFS_BASE": "/nonexistent",
        "IMAGE_CACHE_MAX_BYTES": "820 KB",
        "IMAGE_CACHE_TAG_TTL": "0s",
        "IMAGE_CACHE_SCRUB_RATE": "0",
    }
    return make_site(**knobs).start()


def done(site: Site, *words: str, status: int = 0) -> Any:  # noqa: ANN401 - whatever the command says
    """Return what a command says in JSON."""
    process = site.command(*words, "--json")
    assert process.returncode == status, process.stderr
    return json.loads(process.stdout)


def names(site: Site) -> set[str]:
    """Return the names of the images in the cache."""
    return {one["name"] for one in done(site, "list")}


def key_of(name: str) -> str:
    """Return the key of an image of the tree."""
    return f"{digest(sif(name, SIZE))}.sif"


def image_of(site: Site, name: str) -> Path:
    """Return the path of an image in the cache."""
    return site.root / "entries" / key_of(name) / "image"


def flip_a_bit(image: Path) -> None:
    """Change what only a full reading finds: one bit, and neither size nor time."""
    before = image.stat()
    image.chmod(0o644)
    body = bytearray(image.read_bytes())
    body[SIZE // 2] ^= 1
    image.write_bytes(body)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_images_are_brought_in_before_jobs_ask(stocked: Site, origin: Origin) -> None:
    """All at once, each on its own: one that fails keeps none of the others, and makes the exit status 1."""
    process = stocked.command("prefetch", "htc/a:1", "htc/no:1", "htc/b:1", "docker://alpine", "htc/../x")
    assert process.returncode == 1
    assert "htc/a:1" in process.stdout
    assert "htc/no:1: " in process.stderr
    assert "docker://alpine: " in process.stderr
    assert "`..` is not allowed" in process.stderr
    assert "htc/no" not in process.stdout
    assert names(stocked) == {"htc/a:1", "htc/b:1"}
    again = done(stocked, "prefetch", "htc/a:1", key_of("htc/b:1")[:12])
    assert [(one["done"], one["hit"]) for one in again] == [(True, True)] * 2
    assert stocked.run_hook(cvmfs_ad("htc/a:1")).code == 0
    assert origin.count(".sif") == 2


def test_a_fetch_for_an_admin_goes_on_when_the_admin_leaves(stocked: Site, origin: Origin) -> None:
    """And it can be seen by others meanwhile."""
    gate = Event()
    path = next(path for path in origin.routes if path.endswith(".sif") and "a__1" in path)
    origin.routes[path] = Reply(sif("htc/a:1", SIZE), gate=gate)
    argv = [sys.executable, "-m", "cache_manager", "prefetch", "htc/a:1"]
    admin = stocked.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    stocked.wait_for(lambda: stocked.ask("status")["fetches"], "the fetch")
    assert "is being fetched now" in stocked.command("evict", "htc/a:1").stderr
    table = stocked.command("status").stdout
    assert "fetching" in table
    assert "300.0 kB" in table
    admin.send_signal(signal.SIGINT)
    assert admin.communicate() == (b"", b"condor_image_cache: interrupted\n")
    assert admin.returncode == 1
    gate.set()
    stocked.wait_for(lambda: names(stocked) == {"htc/a:1"}, "the image")


def test_a_pinned_image_stays_whatever_jobs_want(stocked: Site) -> None:
    """Fetched by the pin itself; over a kill of the manager; and shown everywhere."""
    (pin,) = done(stocked, "pin", "htc/a:1")
    assert (pin["reference"], pin["key"]) == ("htc/a:1", key_of("htc/a:1"))
    for number in (1, 2):
        for name in ("htc/b:1", "htc/c:1"):
            assert stocked.ask("status")["leases"] == 0
            done(stocked, "prefetch", name)
            assert "htc/a:1" in names(stocked)
        if number == 1:
            stocked.restart(signal.SIGKILL)
    state = done(stocked, "status")
    assert [(one["reference"], one["here"]) for one in state["pins"]] == [("htc/a:1", True)]
    (shown,) = done(stocked, "show", "htc/a:1")
    assert shown["pins"] == ["htc/a:1"]
    assert "pinned" in [event["what"] for event in shown["history"]]
    assert "pin" in stocked.command("list").stdout
    refused = stocked.command("evict", "htc/a:1")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "held by pin htc/a:1" in refused.stderr
    done(stocked, "pin", "htc/c:1")
    full = stocked.run_hook(cvmfs_ad("htc/b:1"))
    assert full.code == 420
    assert "0 B in use, 622.6 kB pinned, 0 B being fetched" in full.message
    assert "wanted 300.0 kB, freed 0 B" in full.message
    done(stocked, "unpin", "htc/a:1")
    assert stocked.run_hook(cvmfs_ad("htc/b:1")).code == 0
    assert names(stocked) == {"htc/b:1", "htc/c:1"}
    assert stocked.command("unpin", "htc/a:1").returncode == 1


def test_a_pin_follows_its_name_to_the_next_version(stocked: Site, origin: Origin) -> None:
    """A job brings it in; the former version is then an image like any other."""
    done(stocked, "pin", "htc/a:1")
    origin.serve(tree("htc/a:1", sif("newer", SIZE), version="20270101T000000Z.sif"))
    assert stocked.run_hook(cvmfs_ad("htc/a:1")).code == 0
    (pin,) = done(stocked, "status")["pins"]
    assert pin["key"] == f"{digest(sif('newer', SIZE))}.sif"
    assert [bool(one["pins"]) for one in done(stocked, "show", "htc/a:1")] == [True, False]
    done(stocked, "prefetch", "htc/b:1")
    assert {one["key"] for one in done(stocked, "list")} == {pin["key"], key_of("htc/b:1")}


def test_an_image_in_use_is_given_up_only_by_force(stocked: Site) -> None:
    """And then it is said who loses it."""
    assert stocked.run_hook(cvmfs_ad("htc/a:1")).code == 0
    done(stocked, "prefetch", "htc/b:1")
    refused = done(stocked, "evict", "htc/a:1", "htc/b:1", status=1)
    assert [(one["name"], one["done"]) for one in refused] == [("htc/a:1", False), ("htc/b:1", True)]
    assert refused[0]["holders"] == [f"job 12.3 (pid {os.getpid()})"]
    assert names(stocked) == {"htc/a:1"}
    forced = stocked.command("evict", "--force", "htc/a:1")
    assert forced.returncode == 0
    assert f"job 12.3 (pid {os.getpid()})" in forced.stdout
    assert names(stocked) == set()
    assert stocked.run_hook(cvmfs_ad("htc/a:1")).code == 0


@pytest.mark.parametrize("command", ["show", "evict", "unpin", "verify", "pin"])
@pytest.mark.parametrize("ref", ["htc/no:1", "deadbeef", "0" * 64 + ".sif", "gopher://x/y", "a\nb"])
def test_a_ref_that_means_nothing_is_told(shared_site: Site, command: str, ref: str) -> None:
    """Exit status 1, nothing on stdout, one clear line on stderr."""
    process = shared_site.command(command, ref)
    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr.startswith("condor_image_cache: ")
    assert process.stderr.count("\n") == 1
    assert "Traceback" not in process.stderr


def test_one_image_is_shown_with_its_origin_and_history(stocked: Site, origin: Origin) -> None:
    """For people and for programs."""
    assert stocked.run_hook(cvmfs_ad("htc/a:1")).code == 0
    (one,) = done(stocked, "show", key_of("htc/a:1")[:8])
    assert one["origin"].startswith(origin.url)
    assert one["path"] == str(image_of(stocked, "htc/a:1"))
    assert one["leases"] == ["12.3"]
    what = " / ".join(event["what"] for event in one["history"])
    assert f"fetched from {one['origin']}" in what
    assert f"job 12.3 (pid {os.getpid()}) began to use it" in what
    table = stocked.command("show", "htc/a:1").stdout
    assert key_of("htc/a:1") in table
    assert "not since the start" in table


@pytest.mark.parametrize("refs", [[], ["htc/a:1"]])
def test_verify_finds_a_flipped_bit(stocked: Site, origin: Origin, refs: list[str]) -> None:
    """It goes into quarantine, is counted, and the next job fetches the image again."""
    done(stocked, "prefetch", "htc/a:1", "htc/b:1")
    assert stocked.command("verify").returncode == 0
    flip_a_bit(image_of(stocked, "htc/a:1"))
    assert stocked.run_hook(cvmfs_ad("htc/a:1")).code == 0  # a glance cannot see it
    process = stocked.command("verify", *refs)
    assert process.returncode == 1
    assert "QUARANTINED: sha256 " in process.stdout
    assert f"{2 if not refs else 1} image" in process.stdout
    state = done(stocked, "status")
    assert [one["name"] for one in state["in_quarantine"]] == ["htc/a:1"]
    assert state["quarantined"] == 1
    assert "in quarantine: sha256 " in stocked.command("show", key_of("htc/a:1")).stderr
    assert names(stocked) == {"htc/b:1"}
    assert stocked.run_hook(cvmfs_ad("htc/a:1")).code == 0
    assert origin.count("0Z.sif") == 3


def test_the_scrub_finds_a_flipped_bit_by_itself(stocked: Site) -> None:
    """Where its knob allows it; the finding is in status and metrics."""
    done(stocked, "prefetch", "htc/a:1", "htc/b:1")
    flip_a_bit(image_of(stocked, "htc/b:1"))
    stocked.reconfigure(IMAGE_CACHE_SCRUB_RATE="100 MB")
    stocked.wait_for(lambda: stocked.ask("status")["in_quarantine"], "the finding")
    stocked.wait_for(lambda: stocked.ask("status")["scrub"]["unread"] == 0, "the other image")
    scrub = stocked.ask("status")["scrub"]
    assert (scrub["findings"], scrub["read_bytes"]) == (1, 2 * SIZE)
    assert "1 FOUND TO DIFFER" in stocked.command("status").stdout
    assert "htcondor_image_cache_scrub_findings_total 1.0" in stocked.command("metrics").stdout


def test_a_hit_on_a_damaged_image_costs_a_fetch_and_no_job(stocked: Site, origin: Origin) -> None:
    """Size and header are looked at each time; what differs is kept for an admin."""
    assert stocked.run_hook(cvmfs_ad("htc/a:1")).code == 0
    image = image_of(stocked, "htc/a:1")
    image.chmod(0o644)
    with image.open("r+b") as file:
        file.write(bytes(4096))
    answer = stocked.run_hook(cvmfs_ad("htc/a:1"))
    assert answer.code == 0
    assert "SIF fetched" in answer.message
    assert image.read_bytes() == sif("htc/a:1", SIZE)
    assert origin.count(".sif") == 2
    (bad,) = done(stocked, "status")["in_quarantine"]
    assert bad["why"].startswith("no SIF: zeros (")
    assert (stocked.root / "quarantine" / bad["key"] / "image").exists()


def test_metrics_are_prometheus_text(stocked: Site) -> None:
    """Also without a manager: then it says that."""
    done(stocked, "prefetch", "htc/a:1")
    assert stocked.run_hook(cvmfs_ad("htc/a:1")).code == 0
    assert stocked.run_hook(image_ad("/nonexistent/x.sif")).code == 360
    families = {one.name: one for one in text_string_to_metric_families(stocked.command("metrics").stdout)}
    samples = {
        (sample.name, *sample.labels.values()): sample.value for one in families.values() for sample in one.samples
    }
    prefix = "htcondor_image_cache"
    assert samples[f"{prefix}_up",] == samples[f"{prefix}_entries",] == samples[f"{prefix}_leases",] == 1
    assert samples[f"{prefix}_fetched_bytes_total",] == SIZE
    assert samples[f"{prefix}_answers_total", "0"] == samples[f"{prefix}_answers_total", "360"] == 1
    assert all(one.documentation for one in families.values())
    assert not [name for name, *_ in samples if name.endswith("_created")]
    stocked.stop()
    down = stocked.command("metrics")
    assert down.returncode == 1
    assert "\nhtcondor_image_cache_up 0.0\n" in down.stdout


_AS_ANOTHER = """
import json, os, sys
from cache_manager import client
uid = int(sys.argv[2])
os.chdir(sys.argv[1])
if uid != os.getuid():
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
said = {}
for verb in sys.argv[3:]:
    try:
        *_, answer = client.work("socket", verb, refs=["htc/a:1"]) if verb not in ("status", "list", "show") else [
            client.report("socket", verb, refs=["htc/a:1"])]
        said[verb] = ""
    except client.Refused as error:
        said[verb] = str(error)
print(json.dumps(said))
"""


def test_only_root_and_the_managers_user_may_change_anything(stocked: Site) -> None:
    """The kernel says who asks. Everybody may look. Only root can be somebody else for this test."""
    uid = 65534 if os.geteuid() == 0 else os.geteuid()
    done(stocked, "prefetch", "htc/a:1")
    verbs = ["status", "list", "show", "prefetch", "pin", "unpin", "verify", "cleanup", "evict"]
    argv = [sys.executable, "-c", _AS_ANOTHER, str(stocked.root), str(uid), *verbs]
    said = json.loads(subprocess.run(argv, cwd=CHECKOUT, capture_output=True, check=True).stdout)
    assert [said[verb] for verb in verbs[:3]] == [""] * 3
    for verb in verbs[3:]:
        expected = f"{verb}: only root and the manager's user (uid {os.geteuid()}) may do that, you are uid {uid}"
        assert said[verb] == (expected if uid != os.geteuid() else "")
    assert (names(stocked) == {"htc/a:1"}) == (uid != os.geteuid())


def test_without_a_manager_what_needs_one_says_so(make_site: StartSite) -> None:
    """Exit status 1, nothing on stdout."""
    site = make_site()
    for command in ("show", "prefetch", "pin", "unpin", "evict", "verify"):
        process = site.command(command, "htc/a:1")
        assert (process.returncode, process.stdout) == (1, "")
        assert f"{site.socket}: No such file or directory" in process.stderr


def test_a_private_image_is_named_to_admins_and_its_credential_to_nobody(site: Site, origin: Origin) -> None:
    """What came with a credential has a name for who may have it, and its key serves to evict it."""
    origin.routes["/secret-project.sif?token=s3cr3t"] = Reply(sif())
    assert site.run_hook(image_ad(f"{origin.url}/secret-project.sif?token=s3cr3t")).code == 0
    key = f"{digest(sif())}.sif"
    site.command("pin", key)
    for words in (("status", "--json"), ("list", "--json"), ("list",), ("show", key), ("show", key, "--json")):
        process = site.command(*words)
        assert process.returncode == 0
        assert "s3cr3t" not in process.stdout
    assert f"{origin.url}/secret-project.sif" in site.command("list").stdout
    assert site.command("evict", "--force", key).returncode == 0

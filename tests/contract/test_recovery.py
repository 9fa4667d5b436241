"""A manager starts over whatever a crash left, and serves."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from tests.contract.conftest import StartSite
from tests.contract.doubles import cvmfs_ad, digest, image_ad, sif, tree, write
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply

RECORD = {
    "key": f"{digest(sif('a'))}.sif",
    "name": "htc/a:1",
    "origin": "http://localhost/a.sif",
    "size_bytes": 4096,
    "disk_bytes": 8192,
    "inodes": 3,
    "created_at": 1.0,
    "architecture": "",
    "public": True,
}

DAMAGED = (
    ("nothing", ""),
    ("half a record", json.dumps(RECORD)[:50]),
    ("NULs", "\0" * 200),
    ("a list", "[]"),
    ("a number", "5"),
    ("a key that is a number", json.dumps(RECORD | {"key": 5})),
    ("a key that is nothing", json.dumps(RECORD | {"key": None})),
    ("a name that is nothing", json.dumps(RECORD | {"name": None})),
    ("a size that is a text", json.dumps(RECORD | {"size_bytes": "4096"})),
    ("a time that is infinite", json.dumps(RECORD | {"created_at": float("inf")})),
    ("a missing size", json.dumps({name: value for name, value in RECORD.items() if name != "size_bytes"})),
    ("ten thousand brackets", "[" * 10_000),
)

LEASES = (
    ("nothing", ""),
    ("NULs", "\0" * 200),
    ("a list", "[]"),
    (
        "a pid that is infinite",
        '{"pid": 1e999, "start_ticks": 1, "keys": [], "boot_id": "", "host": "", "taken_at": 1}',
    ),
    ("keys that are a number", '{"pid": 5, "start_ticks": 1, "keys": 7, "boot_id": "", "host": "", "taken_at": 1}'),
    ("ten thousand brackets", "[" * 10_000),
)


def strays(root: Path) -> None:
    """Put things where they do not belong."""
    write(root, {"entries/file": b"x", "staging/file": b"x", "trash/file": b"x", "quarantine/file": b"x"})
    for directory in ("entries/stray", "leases/stray", "objects/stray", "staging/stray/deep", "trash/stray/deep"):
        (root / directory).mkdir(parents=True)
    for directory in ("staging", "entries", "trash", "leases"):
        (root / directory / "link").symlink_to("/etc")


def closed_directories(root: Path) -> None:
    """Leave a directory in the trash that forbids its own removal."""
    inner = root / "trash" / "x" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").write_bytes(b"")
    inner.chmod(0)


@pytest.mark.parametrize("leave", [strays, closed_directories])
def test_a_manager_starts_over_what_does_not_belong_there(site: Site, leave: Callable[[Path], None]) -> None:
    """And removes it."""
    site.stop()
    leave(site.root)
    site.start()
    assert [site.names(name) for name in ("entries", "staging", "trash")] == [[], [], []]
    assert site.ask("status")["healthy"]
    assert Path("/etc/passwd").exists()


@pytest.mark.parametrize(("name", "text"), DAMAGED, ids=[row[0] for row in DAMAGED])
def test_a_damaged_record_costs_its_entry_and_no_more(make_site: StartSite, name: str, text: str) -> None:
    """The entry is dropped, and the manager serves."""
    site = make_site()
    write(site.root, {f"entries/{RECORD['key']}/image": sif("a"), f"entries/{RECORD['key']}/entry.json": text.encode()})
    site.start()
    assert site.ask("list")["entries"] == [], name
    assert site.names("entries") == []
    assert site.command("advertise").stdout.startswith("ImageCacheHealthy = true\n")


@pytest.mark.parametrize(("name", "text"), LEASES, ids=[row[0] for row in LEASES])
def test_a_damaged_lease_holds_nothing(make_site: StartSite, name: str, text: str) -> None:
    """The manager starts without it."""
    site = make_site()
    write(site.root, {"leases/5-1.json": text.encode()})
    site.start()
    assert site.names("leases") == [], name


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[",
        b"[" * 10_000,
        b'{"url": 5}',
        b'{"url": "x", "kind": "pointer", "target": 7, "digest": [], "size_bytes": "many"}',
        b'{"url": "x", "kind": "pointer", "size_bytes": 1e999}',
    ],
    ids=range(6),
)
def test_a_damaged_record_of_an_object_costs_a_request_and_no_more(
    make_site: StartSite, origin: Origin, record: bytes
) -> None:
    """Whatever is in it."""
    site = make_site(IMAGE_CACHE_SIF_SOURCES=f"{origin.url}/v2", IMAGE_CACHE_CVMFS_BASE="/nonexistent").start()
    origin.serve(tree("htc/a:1", sif("a")))
    assert site.run_hook(cvmfs_ad("htc/a:1")).code == 0
    site.stop()
    for path in (site.root / "objects").iterdir():
        path.write_bytes(record)
    site.start()
    assert site.run_hook(cvmfs_ad("htc/a:1")).code == 0


@pytest.mark.parametrize("size", [0, 1, 4095, 4097])
def test_a_truncated_image_is_dropped_at_the_start_and_fetched_again(site: Site, origin: Origin, size: int) -> None:
    """A power loss may leave fewer bytes than the record says."""
    origin.routes["/a.sif"] = Reply(sif("a"))
    image = Path(site.run_hook(image_ad(f"{origin.url}/a.sif")).image)
    site.stop()
    image.chmod(0o644)
    os.truncate(image, size)
    site.start()
    assert site.names("entries") == []
    assert Path(site.run_hook(image_ad(f"{origin.url}/a.sif")).image).read_bytes() == sif("a")


def test_a_truncated_image_is_dropped_when_it_is_asked_for(site: Site, origin: Origin) -> None:
    """It may happen under a running manager too."""
    origin.routes["/a.sif"] = Reply(sif("a"))
    image = Path(site.run_hook(image_ad(f"{origin.url}/a.sif")).image)
    image.chmod(0o644)
    os.truncate(image, 100)
    assert Path(site.run_hook(image_ad(f"{origin.url}/a.sif")).image).read_bytes() == sif("a")


def test_a_truncated_image_is_not_served_under_another_url(site: Site, origin: Origin) -> None:
    """What was fetched just now replaces what is broken."""
    origin.routes |= {"/a.sif": Reply(sif("a")), "/b.sif": Reply(sif("a"))}
    image = Path(site.run_hook(image_ad(f"{origin.url}/a.sif")).image)
    image.chmod(0o644)
    os.truncate(image, 100)
    answer = site.run_hook(image_ad(f"{origin.url}/b.sif"))
    assert answer.code == 0
    assert Path(answer.image).read_bytes() == sif("a")


@pytest.mark.parametrize("lost", ["entry.json", "image"])
def test_an_entry_that_somebody_damaged_is_fetched_again(site: Site, origin: Origin, lost: str) -> None:
    """A job must not suffer for ever from a file that is missing."""
    origin.routes["/a.sif"] = Reply(sif("a"))
    image = Path(site.run_hook(image_ad(f"{origin.url}/a.sif")).image)
    used = site.ask("list")["entries"][0]["last_used_at"]
    (image.parent / lost).unlink()
    site.wait_for(lambda: site.clock() - used > 1.1, "the moment in which a use is taken down again")
    answer = site.run_hook(image_ad(f"{origin.url}/a.sif"))
    assert answer.code == 0, answer.message
    assert Path(answer.image).read_bytes() == sif("a")


@pytest.mark.parametrize("lost", ["staging", "leases", "."])
def test_a_root_that_became_unusable_says_so(site: Site, origin: Origin, lost: str) -> None:
    """340 and not 399, for what is fetched and for what is there; a file in a directory's place stands for read-only."""
    origin.routes |= {"/a.sif": Reply(sif("a")), "/b.sif": Reply(sif("b"))}
    assert site.run_hook(image_ad(f"{origin.url}/a.sif")).code == 0
    (site.root / lost).rename(site.directory / "lost")
    if lost != ".":
        (site.root / lost).write_bytes(b"")
    for name in "ab":
        env = {"CONDOR_STARTER_PID": "1"}
        answer = site.run_hook(image_ad(f"{origin.url}/{name}.sif"), env=env)
        # what is there runs where its holder's lease is written already
        assert answer.code in ({340, 410} if lost == "." else {340} | ({0} if name == "a" else set())), answer.message


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_what_was_being_fetched_is_gone_after_a_restart(site: Site, origin: Origin, number: signal.Signals) -> None:
    """Its room too."""
    origin.routes["/a.sif"] = Reply(sif("a", 1_000_000), gate=Event())
    hook = site.start_hook(image_ad(f"{origin.url}/a.sif"))
    site.wait_for(lambda: [path for path in site.root.glob("staging/*/image") if path.stat().st_size], "some bytes")
    hook.process.kill()
    site.restart(number)
    assert site.names("staging") == []
    assert site.ask("status")["used_bytes"] == 0

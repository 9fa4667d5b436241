"""A manager starts over whatever a crash left, and serves."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path
from threading import Event

import pytest

from tests.contract import holders
from tests.contract.conftest import StartSite
from tests.contract.doubles import cvmfs_ad, digest, image_ad, sif, tree, write
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply

RECORD: dict[str, object] = {
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

DAMAGED: dict[str, str | dict[str, object]] = {
    "nothing": "",
    "half a record": json.dumps(RECORD)[:50],
    "NULs": "\0" * 200,
    "a list": "[]",
    "a number": "5",
    "a key that is a number": {"key": 5},
    "a key that is nothing": {"key": None},
    "another's key": {"key": f"{'0' * 64}.sif"},
    "a name that is nothing": {"name": None},
    "a size that is a text": {"size_bytes": "4096"},
    "a size that is negative": {"size_bytes": -1},
    "a size that is not the image's": {"size_bytes": 4097},
    "a time that is infinite": {"created_at": float("inf")},
    "a time that is none": {"created_at": float("nan")},
    "ten thousand brackets": "[" * 10_000,
}

NO_CVMFS = {"IMAGE_CACHE_CVMFS_BASE": "/nonexistent"}

LEASES = {
    "nothing": "",
    "NULs": "\0" * 200,
    "a list": "[]",
    "a pid that is infinite": '{"pid": 1e999, "start_ticks": 1, "keys": [], "boot_id": "", "host": "", "taken_at": 1}',
    "keys that are a number": '{"pid": 5, "start_ticks": 1, "keys": 7, "boot_id": "", "host": "", "taken_at": 1}',
    "ten thousand brackets": "[" * 10_000,
}

OBJECTS = (
    b"",
    b"[",
    b"[" * 10_000,
    b'{"url": 5}',
    b'{"url": "x", "kind": "pointer", "target": 7, "digest": [], "size_bytes": "many"}',
    b'{"url": "x", "kind": "pointer", "size_bytes": 1e999}',
    b'{"url": "x", "kind": "pointer"}',
    b'{"url": "x", "kind": "object", "fetched_at": null}',
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


def test_a_manager_starts_over_what_does_not_belong_there(site: Site) -> None:
    """And removes it."""
    site.stop()
    strays(site.root)
    closed_directories(site.root)
    site.start()
    assert [site.names(name) for name in ("entries", "leases", "staging", "trash")] == [[], [], [], []]
    assert site.ask("status")["healthy"]
    assert Path("/etc/passwd").exists()


def test_damaged_records_cost_their_entries_and_no_more(make_site: StartSite) -> None:
    """They are dropped, a good one is kept, and the manager serves."""
    site = make_site()
    write(site.root, {f"entries/{RECORD['key']}/image": sif("a")})
    (site.root / "entries" / str(RECORD["key"]) / "entry.json").write_text(json.dumps(RECORD), encoding="utf-8")
    for name, damage in DAMAGED.items():
        key = f"{hashlib.sha256(name.encode()).hexdigest()}.sif"
        text = damage if isinstance(damage, str) else json.dumps(RECORD | {"key": key} | damage)
        write(site.root, {f"entries/{key}/image": sif("a"), f"entries/{key}/entry.json": text.encode()})
    site.start()
    assert [entry["key"] for entry in site.ask("list")["entries"]] == [RECORD["key"]]
    assert site.names("entries") == [RECORD["key"]]
    assert 'ImageCacheImages = "htc/a:1"\n' in site.command("advertise").stdout


def test_damaged_leases_hold_nothing(make_site: StartSite) -> None:
    """The manager starts without them."""
    site = make_site()
    write(site.root, {f"leases/{number}-1.json": text.encode() for number, text in enumerate(LEASES.values())})
    site.start()
    assert site.names("leases") == []
    assert site.ask("status")["leases"] == 0


def test_damaged_records_of_objects_cost_requests_and_no_more(make_site: StartSite, origin: Origin) -> None:
    """Whatever is in them, of pointers and of URLs."""
    knobs = NO_CVMFS | {"IMAGE_CACHE_SIF_SOURCES": f"{origin.url}/v2"}
    site = make_site(**knobs).start()
    ads = []
    for number in range(len(OBJECTS)):
        origin.serve(tree(f"htc/a:{number}", sif(f"{number}"), manifest=False))
        origin.routes[f"/{number}.sif"] = Reply(sif(f"{number}"), head=403)
        ads += [cvmfs_ad(f"htc/a:{number}"), image_ad(f"{origin.url}/{number}.sif")]
    assert {site.run_hook(ad).code for ad in ads} == {0}
    site.stop()
    paths = sorted((site.root / "objects").iterdir(), key=lambda path: path.read_text(encoding="utf-8"))
    assert len(paths) >= 2 * len(OBJECTS)
    for number, path in enumerate(paths):
        known = json.loads(path.read_text(encoding="utf-8")).get("digest", "")
        path.write_bytes(OBJECTS[number % len(OBJECTS)].replace(b'"object"', f'"object", "digest": "{known}"'.encode()))
    site.start()
    assert {site.run_hook(ad).code for ad in ads} == {0}


def test_truncated_images_are_dropped_at_the_start_and_fetched_again(site: Site, origin: Origin) -> None:
    """A power loss may leave fewer bytes than the record says, or more."""
    sizes = (0, 1, 4095, 4097)
    origin.routes |= {f"/{size}.sif": Reply(sif(f"{size}")) for size in sizes}
    images = [Path(site.run_hook(image_ad(f"{origin.url}/{size}.sif")).image) for size in sizes]
    site.stop()
    for image, size in zip(images, sizes, strict=True):
        image.chmod(0o644)
        os.truncate(image, size)
    site.start()
    assert site.names("entries") == []
    for size in sizes:
        image = Path(site.run_hook(image_ad(f"{origin.url}/{size}.sif")).image)
        assert image.read_bytes() == sif(f"{size}")


@pytest.mark.parametrize("again", ["same", "other"])
def test_a_truncated_image_is_replaced_when_it_is_asked_for(shared_site: Site, origin: Origin, again: str) -> None:
    """It may happen under a running manager too; what was fetched just now replaces what is broken."""
    body = sif(f"truncated {again}")
    origin.routes |= {"/same.sif": Reply(body), "/other.sif": Reply(body)}
    image = Path(shared_site.run_hook(image_ad(f"{origin.url}/same.sif")).image)
    image.chmod(0o644)
    os.truncate(image, 100)
    answer = shared_site.run_hook(image_ad(f"{origin.url}/{again}.sif"))
    assert answer.code == 0
    assert Path(answer.image).read_bytes() == body


def test_entries_that_somebody_damaged_are_fetched_again(shared_site: Site, origin: Origin) -> None:
    """A job must not suffer for ever from a file that is missing."""
    site = shared_site
    for lost in ("entry.json", "image"):
        origin.routes[f"/{lost}.sif"] = Reply(sif(lost))
        image = Path(site.run_hook(image_ad(f"{origin.url}/{lost}.sif")).image)
        (image.parent / lost).unlink()
    last = max(entry["last_used_at"] for entry in site.ask("list")["entries"])
    site.wait_for(lambda: site.clock() - last > 1.1, "the moment in which a use is taken down again")
    for lost in ("entry.json", "image"):
        answer = site.run_hook(image_ad(f"{origin.url}/{lost}.sif"))
        assert answer.code == 0, answer.message
        assert Path(answer.image).read_bytes() == sif(lost)


@pytest.mark.parametrize("lost", ["staging", "leases", "."])
def test_a_root_that_became_unusable_says_so(site: Site, origin: Origin, lost: str) -> None:
    """340 and not 399, for what is fetched and for what is there.

    A file in a directory's place stands for a file system that became read-only.
    """
    origin.routes |= {"/a.sif": Reply(sif("a")), "/b.sif": Reply(sif("b"))}
    assert site.run_hook(image_ad(f"{origin.url}/a.sif")).code == 0
    (site.root / lost).rename(site.directory / "lost")
    if lost != ".":
        (site.root / lost).write_bytes(b"")
    for name in "ab":
        answer = holders.start(site, image_ad(f"{origin.url}/{name}.sif")).answer()
        assert answer.code == (410 if lost == "." else 340), answer.message


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


@pytest.mark.parametrize("lost", ["socket", "everything"])
def test_what_somebody_removed_by_hand_is_made_again(site: Site, origin: Origin, lost: str) -> None:
    """Under a running manager: the socket, or all that lies in the root."""
    origin.routes["/a.sif"] = Reply(sif("a"))
    ad = image_ad(f"{origin.url}/a.sif")
    assert site.run_hook(ad).code == 0
    for path in [site.socket] if lost == "socket" else list(site.root.iterdir()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    site.wait_for(site.socket.exists, "the socket")
    answer = site.run_hook(ad)
    assert answer.code == 0, answer.message
    assert Path(answer.image).read_bytes() == sif("a")
    assert "Traceback" not in site.log_text()

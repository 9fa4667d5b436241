"""The admin's cleanup: with a running manager and without one, on a dry run and in earnest."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import StartSite
from tests.contract.doubles import cvmfs_ad, digest, sif, tree, write
from tests.contract.harness import Site
from tests.contract.origin import Origin

SIZE = 100_000
NAMES = ("htc/old:1", "htc/new:1", "htc/pinned:1", "htc/used:1")
DAY = 86400.0


def key_of(name: str) -> str:
    """Return the key of an image of the tree."""
    return f"{digest(sif(name, SIZE))}.sif"


def age(path: Path, days: float) -> None:
    """Make a file look so old."""
    os.utime(path, (time.time() - days * DAY,) * 2)


@pytest.fixture
def messy(make_site: StartSite, origin: Origin) -> Site:
    """Return a site whose manager ended: four images, all old but one, and what crashes left."""
    for name in NAMES:
        origin.serve(tree(name, sif(name, SIZE)))
    knobs = {"IMAGE_CACHE_SIF_SOURCES": f"{origin.url}/v2", "IMAGE_CACHE_CVMFS_BASE": "/nonexistent"}
    site = make_site(**knobs).start()
    assert site.command("prefetch", *NAMES[:2]).returncode == 0
    assert site.command("pin", "htc/pinned:1").returncode == 0
    assert site.run_hook(cvmfs_ad("htc/used:1")).code == 0
    site.stop()
    for name in ("htc/old:1", "htc/pinned:1", "htc/used:1"):
        age(site.root / "entries" / key_of(name) / "entry.json", 9)
    return site


def leave_a_mess(root: Path) -> None:
    """Put down what crashes leave."""
    write(
        root, {"staging/1-1/image": b"x" * 50_000, "entries/stray/image": b"x" * 20_000, "quarantine/bad/image": b"x"}
    )
    for place in ("staging/1-1", "entries/stray"):
        age(root / place, 1)


def cleanup(site: Site, *words: str, status: int = 0) -> dict[str, Any]:
    """Return what the command says in JSON."""
    process = site.command("cleanup", "--json", *words)
    assert process.returncode == status, process.stderr
    answer: dict[str, Any] = json.loads(process.stdout)
    return answer


def whats(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what each item is."""
    return [(one["kind"], one["what"].partition(" ")[0]) for one in answer["items"]]


LEFT = [
    ("partial fetch", "staging/1-1"),
    ("orphan", "entries/stray"),
    ("quarantine", "?"),
]


@pytest.mark.parametrize("with_manager", [True, False])
def test_cleanup_frees_what_its_dry_run_says(messy: Site, *, with_manager: bool) -> None:
    """Partial fetches, orphans, quarantine and old images; never one that is in use or pinned."""
    write(messy.root, {"quarantine/bad/image": b"x"})
    if with_manager:
        messy.start()
    leave_a_mess(messy.root)
    before = {path for path in messy.root.rglob("*") if path.name not in {"lock", "socket"}}
    planned = cleanup(messy, "--dry-run", "--older-than", "7d")
    assert {path for path in messy.root.rglob("*") if path.name not in {"lock", "socket"}} == before
    assert sorted(whats(planned)) == sorted([*LEFT, ("image", "htc/old:1")])
    assert planned["by"].startswith("the running manager" if with_manager else "this command (no manager")
    freed = cleanup(messy, "--older-than", "7d")
    assert freed["items"] == planned["items"]
    assert freed["freed_bytes"] == planned["freed_bytes"] == sum(one["bytes"] for one in planned["items"])
    assert freed["freed_bytes"] >= 50_000 + 20_000 + SIZE
    assert messy.names("entries") == sorted(key_of(name) for name in NAMES[1:])
    assert (messy.names("staging"), messy.names("quarantine")) == ([], [])
    messy.wait_for(lambda: not messy.names("trash"), "the removals")
    assert cleanup(messy, "--older-than", "7d")["items"] == []
    if not with_manager:
        messy.start()
    listed = messy.ask("list")["entries"]
    assert {one["name"] for one in listed} == set(NAMES[1:])
    assert messy.ask("status")["pins"][0]["here"]


@pytest.mark.parametrize("with_manager", [True, False])
def test_a_size_that_cannot_be_reached_is_told(messy: Site, *, with_manager: bool) -> None:
    """Exit status 1, and what holds the rest."""
    if with_manager:
        messy.start()
    answer = cleanup(messy, "--to-bytes", "150 KB", status=1)
    assert answer["short_bytes"] > 0
    assert messy.names("entries") == sorted(key_of(name) for name in NAMES[2:])
    said = messy.command("cleanup", "--to-bytes", "0").stderr
    assert "wanted 221.2 kB, freed 0 B; " in said
    assert "110.6 kB in use, 110.6 kB pinned" in said


def test_cleanup_says_when_a_manager_holds_the_cache_and_does_not_answer(messy: Site) -> None:
    """Nothing is touched then."""
    messy.start()
    messy.tell(signal.SIGSTOP)  # it would make its socket again
    messy.socket.unlink()
    leave_a_mess(messy.root)
    process = messy.command("cleanup", "--older-than", "0s")
    messy.tell(signal.SIGCONT)
    assert (process.returncode, process.stdout) == (1, "")
    assert "its manager holds the lock, and does not answer" in process.stderr
    assert "1-1" in messy.names("staging")
    assert len(messy.names("entries")) == 5


def test_where_nothing_is_there_is_nothing_to_free(make_site: StartSite) -> None:
    """A root that does not exist yet is no error, and is not made."""
    site = make_site()
    process = site.command("cleanup")
    assert process.returncode == 0
    assert process.stdout.startswith("freed 0 B in 0 files (0 items)")
    assert not site.root.exists()


@pytest.mark.parametrize("words", [("--older-than", "soon"), ("--to-bytes", "much"), ("--stale-pilots",)])
def test_wrong_words_are_wrong_usage(shared_site: Site, words: tuple[str, ...]) -> None:
    """Exit status 2, with the reader's own words."""
    process = shared_site.command("cleanup", *words)
    assert (process.returncode, process.stdout) == (2, "")
    assert "usage:" in process.stderr


@pytest.mark.parametrize("own_runs", [True, False])
def test_caches_of_dead_pilots_are_found_and_removed(make_site: StartSite, tmp_path: Path, *, own_runs: bool) -> None:
    """One that was killed goes; one that runs, and this EP's own, stay."""
    own, living, dead = make_site(), make_site().start(), make_site().start()
    own.start()
    if not own_runs:
        own.stop(signal.SIGKILL)
    dead.stop(signal.SIGKILL)
    words = ("--stale-pilots", str(tmp_path))
    planned = cleanup(own, "--dry-run", *words)
    assert {one["what"]: one["done"] for one in planned["items"]} == {str(living.root): False, str(dead.root): True}
    assert dead.root.exists()
    table = own.command("cleanup", *words)
    assert table.returncode == 0
    assert str(dead.root) in table.stdout
    assert f"stays: its manager runs (pid {living.pid})" in table.stdout
    assert not dead.root.exists()
    assert dead.config.exists()
    assert living.ask("status")["healthy"]
    assert own.root.exists()
    assert [one["what"] for one in cleanup(own, *words)["items"]] == [str(living.root)]


def test_a_directory_of_pilots_that_cannot_be_searched_is_told(make_site: StartSite) -> None:
    """Exit status 1, and nothing else is done either."""
    process = make_site().command("cleanup", "--stale-pilots", "/nonexistent")
    assert (process.returncode, process.stdout) == (1, "")
    assert "/nonexistent: No such file or directory" in process.stderr


def test_a_root_says_which_manager_has_it(site: Site) -> None:
    """Written at each start; it is how a dead pilot's cache is known."""
    marker = site.root / "manager.json"
    first = json.loads(marker.read_text())
    assert (first["pid"], first["host"]) == (site.pid, os.uname().nodename)
    site.restart(signal.SIGKILL)
    assert json.loads(marker.read_text())["pid"] == site.pid
    site.stop()
    assert json.loads(marker.read_text())["kind"] == "htcondor-image-cache"


def test_root_cleans_up_as_the_caches_owner() -> None:
    """Without a manager too: nothing in the cache may become root's. Only root can be another user here."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        with Site(Path(directory)) as site:
            write(site.root, {"staging/1-1/image": b"x" * 50_000})
            owner = 65534 if os.geteuid() == 0 else os.geteuid()
            for path in (site.root, site.root / "staging", *(site.root / "staging").rglob("*")):
                os.chown(path, owner, -1)
            assert whats(cleanup(site)) == [LEFT[0]]
            assert {path.stat().st_uid for path in (site.root, *site.root.rglob("*"))} == {owner}

"""Disks that are full, read-only, somebody else's or gone while a manager runs, and what it does when they are well."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Final

import pytest

from tests.contract.doubles import sif
from tests.contract.origin import Origin, Reply
from tests.pool.alone import Alone
from tests.pool.harness import poll
from tests.pool.processes import make_directory

MB: Final = 1_000_000
SECONDS: Final = 15
"""A repair is seen within seconds."""


def mount(*options: str | Path) -> None:
    """Mount."""
    subprocess.run(["mount", *options], check=True)


def unmount(place: Path) -> None:
    """Unmount, whoever has files open there."""
    subprocess.run(["umount", "-l", place], check=True)


@dataclass
class Disk:
    """A file system of its own below a directory, and a manager whose root is on it. The socket is elsewhere."""

    origin: Origin
    site: Alone
    place: Path
    options: str
    gates: list[Event] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """The root."""
        return self.site.root

    def url(self, name: str, size: int = 4096, *, told: bool = True, gated: bool = False) -> str:
        """Serve an image; its size is told or not, and its last byte waits for a gate or not."""
        gate = Event() if gated else None
        if gate:
            self.gates.append(gate)
        self.origin.routes[f"/{name}.sif"] = Reply(sif(name, size), length=None if told else -1, gate=gate)
        return f"{self.origin.url}/{name}.sif"

    def fill(self) -> None:
        """Have somebody else write until the disk is full."""
        subprocess.run(["dd", "if=/dev/zero", f"of={self.place}/others", "bs=64k"], check=False, capture_output=True)

    def open_gates(self) -> None:
        """Send the last bytes of all images."""
        for gate in self.gates:
            gate.set()

    def mount(self) -> None:
        """Mount a fresh file system."""
        mount("-t", "tmpfs", "-o", self.options, "disk", self.place)
        make_directory(self.root, "joe")

    def free_bytes(self) -> int:
        """Return what is free."""
        found = os.statvfs(self.place)
        return found.f_bavail * found.f_frsize

    def comes_in(self) -> bool:
        """Whether some bytes of an image are on the disk."""
        return any(path.stat().st_size for path in self.root.glob("staging/*/image"))


@pytest.fixture
def make_disk() -> Iterator[Callable[..., Disk]]:
    """Return a function that mounts a disk with options and starts a manager on it."""
    with ExitStack() as stack:
        origin = stack.enter_context(Origin())

        def make(options: str = "size=64m", *, socket_in_root: bool = False, **knobs: str) -> Disk:
            place = make_directory(Path(f"/pool/disks/{len(list(Path('/pool').glob('disks/*')))}"), None)
            given = {"IMAGE_CACHE_DIR": str(place / "cache"), **knobs}
            if not socket_in_root:
                given["IMAGE_CACHE_SOCKET"] = str(make_directory(place.with_name(f"{place.name}.s"), "joe") / "socket")
            disk = Disk(origin, Alone(given), place, f"mode=755,{options}")
            disk.mount()
            stack.callback(disk.open_gates)
            stack.enter_context(disk.site)
            return disk

        yield make


MakeDisk = Callable[..., Disk]


def closes(disk: Disk) -> str:
    """Wait until the EP takes no more container jobs, and return the reason."""
    poll(lambda: disk.site.advertised()["ImageCacheHealthy"] == "false", "ImageCacheHealthy = false", SECONDS)
    return disk.site.advertised()["ImageCacheReason"]


def opens(disk: Disk) -> None:
    """Wait until the EP takes container jobs again."""
    poll(lambda: disk.site.advertised()["ImageCacheHealthy"] == "true", "ImageCacheHealthy = true", SECONDS)
    assert not disk.site.advertised()["ImageCacheReason"]


def serves_what_needs_no_root(disk: Disk) -> bool:
    """Whether jobs with images elsewhere still run."""
    image = disk.site.directory / "local.sif"
    image.write_bytes(sif("local"))
    sandbox = disk.site.directory / "cvmfs" / "singularity.opensciencegrid.org" / "htc" / "rocky:9"
    (sandbox / ".singularity.d").mkdir(parents=True, exist_ok=True)
    path = "/cvmfs/singularity.opensciencegrid.org/htc/rocky:9"
    return [disk.site.status(one)[0] for one in (str(image), path)] == [0, 0]


# --- full --------------------------------------------------------------------------------------------------------


def test_an_image_of_unknown_size_that_fills_the_disk_ends_before_it_is_full(make_disk: MakeDisk) -> None:
    """430, with what is left free left free; what fits is fetched."""
    disk = make_disk(IMAGE_CACHE_MIN_FREE_BYTES="8 MB", IMAGE_CACHE_MAX_BYTES="1 GB")
    status, message = disk.site.status(disk.url("large", 80 * MB, told=False))
    assert status == 430, message
    assert "large.sif: the file system of the cache is full (wanted " in message
    assert disk.free_bytes() >= 64 * 2**20 - MB
    assert disk.site.names("staging") == []
    assert disk.site.status(disk.url("fits", 40 * MB, told=False))[0] == 0


def test_a_disk_that_others_fill_during_a_fetch(make_disk: MakeDisk) -> None:
    """430 with numbers and path; three such images of two owners close the EP, and it opens when there is room."""
    disk = make_disk(IMAGE_CACHE_MIN_FREE_BYTES="2 MB", IMAGE_CACHE_MAX_BYTES="1 GB")
    small = disk.url("small")
    kept = disk.site.start_job(small)
    assert kept.status == 0
    hook = disk.site.start_job(disk.url("coming", 30 * MB, gated=True))
    poll(disk.comes_in, "some bytes")
    disk.fill()
    disk.gates[0].set()
    assert hook.status == 430, hook.message
    assert f"cache directory {disk.root}: No space left on device (0 B" in hook.message
    poll(lambda: disk.site.names("staging") == [], "nothing left behind")
    disk.fill()
    for number, owner in enumerate(("amy", "joe")):
        status, message = disk.site.status(disk.url(f"more{number}", 5 * MB), owner)
        assert status == 430, message
    assert "3 images of 2 owners failed here" in closes(disk)
    assert "430 DISK_FULL" in closes(disk)
    # whoever may run from CVMFS still does; here only what the disk fails is asked for
    (disk.place / "others").unlink()
    opens(disk)
    assert disk.site.status(small)[0] == 0
    assert disk.site.status(disk.url("coming", 30 * MB))[0] == 0


def test_a_disk_that_others_fill_gets_room_from_images_that_nobody_uses(make_disk: MakeDisk) -> None:
    """In the background, least recently used first, and no more than that."""
    disk = make_disk(IMAGE_CACHE_MIN_FREE_BYTES="20 MB", IMAGE_CACHE_MAX_BYTES="1 GB")
    used = disk.site.start_job(disk.url("used", 8 * MB))
    assert used.status == 0
    for name in ("second", "third", "fourth"):
        assert disk.site.status(disk.url(name, 8 * MB))[0] == 0
    poll(lambda: disk.site.ask("status")["leases"] == 1, "the end of the others' leases")
    with (disk.place / "others").open("wb") as others:
        os.posix_fallocate(others.fileno(), 0, disk.free_bytes() - 10 * MB)
    poll(lambda: disk.free_bytes() >= 20 * MB, "room on the disk", SECONDS)
    names = {Path(one["name"]).stem for one in disk.site.ask("list")["entries"]}
    assert names == {"used", "fourth"}
    assert serves_what_needs_no_root(disk)


def test_a_disk_without_inodes(make_disk: MakeDisk) -> None:
    """430 with numbers and path, for what is fetched and for what is there; and images that nobody uses make room."""
    disk = make_disk("size=64m,nr_inodes=500")
    small = disk.url("small")
    assert disk.site.status(small)[0] == 0
    poll(lambda: not disk.site.ask("status")["leases"], "the end of the lease")
    others = disk.place / "others"
    others.mkdir()
    while os.statvfs(disk.place).f_favail:
        (others / f"{len(list(others.iterdir()))}").touch()
    for number, owner in enumerate(("amy", "joe", "amy")):
        status, message = disk.site.status(disk.url(f"{number}"), owner)
        assert status == 430, message
        assert f"the file system of {disk.root} has no inodes left (wanted 3, " in message
    status, message = disk.site.status(small)
    assert status == 430, message
    assert f"cache directory {disk.root}: No space left on device (" in message
    assert "0 inodes free" in message
    assert "430 DISK_FULL" in closes(disk)
    assert disk.site.names("staging") == []
    assert serves_what_needs_no_root(disk)
    shutil.rmtree(others)
    opens(disk)
    assert disk.site.status(small)[0] == 0
    assert disk.site.status(disk.url("0"))[0] == 0


def test_a_manager_that_starts_on_a_full_disk_serves_what_is_there(make_disk: MakeDisk) -> None:
    """It is healthy until jobs fail, and says what is wrong to whoever needs room."""
    disk = make_disk()
    job = disk.site.start_job(disk.url("small"))
    assert job.status == 0
    disk.site.stop()
    disk.fill()
    disk.site.start()
    assert disk.site.ask("status")["healthy"]
    assert (disk.site.ask("status")["entries"], disk.site.ask("status")["leases"]) == (1, 1)
    assert disk.site.status(disk.url("other"))[0] == 430


# --- not to be used ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Damage:
    """How a root becomes unusable, what is said of it, and how it is repaired."""

    name: str
    break_it: Callable[[Disk], None]
    said: str
    mend: Callable[[Disk], None]


def _read_only(disk: Disk) -> None:
    # a remount is refused while our files are open for writing: a disk with errors is not asked
    mount("--bind", disk.place, disk.place)
    mount("-o", "remount,bind,ro", disk.place)


def _move_away(disk: Disk) -> None:
    disk.root.rename(disk.place / "elsewhere")


def _move_back(disk: Disk) -> None:
    (disk.place / "elsewhere").rename(disk.root)


def _unmount(disk: Disk) -> None:
    kept = make_directory(disk.place.with_name(f"{disk.place.name}.kept"), None)
    mount("--bind", disk.place, kept)
    unmount(disk.place)
    make_directory(disk.root, "joe")  # what lies below a mount point looks inviting


def _mount_again(disk: Disk) -> None:
    disk.root.rmdir()
    mount("--bind", disk.place.with_name(f"{disk.place.name}.kept"), disk.place)


DAMAGES: Final = (
    Damage("read-only", _read_only, "its file system is read-only", lambda disk: unmount(disk.place)),
    Damage(
        "somebody else's",
        lambda disk: shutil.chown(disk.root, "amy"),
        "belongs to another user (uid 1001, manager 1000)",
        lambda disk: shutil.chown(disk.root, "joe"),
    ),
    Damage(
        "writable by everybody",
        lambda disk: disk.root.chmod(0o777),
        "is writable by others (mode 0777)",
        lambda disk: disk.root.chmod(0o755),
    ),
    Damage(
        "closed to its owner",
        lambda disk: (disk.root / "leases").chmod(0o555),
        "the manager may not write to it (mode 0555)",
        lambda disk: (disk.root / "leases").chmod(0o755),
    ),
    Damage("moved away", _move_away, "is gone (moved away or removed)", _move_back),
    Damage("unmounted", _unmount, "its file system is not mounted", _mount_again),
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_a_root_that_cannot_be_used_closes_the_ep_until_it_can(make_disk: MakeDisk, damage: Damage) -> None:
    """340 with the reason, for what is fetched and for what is there; and all that was there is found again."""
    disk = make_disk()
    image = disk.url("here")
    job = disk.site.start_job(image)
    assert job.status == 0
    ended = disk.site.start_job(disk.url("too", 8192))
    assert ended.status == 0
    damage.break_it(disk)
    assert damage.said in closes(disk)
    for url in (image, disk.url("other")):
        status, message = disk.site.status(url)
        assert status == 340, message
        assert f"cache directory {disk.root}" in message
        assert damage.said in message
    assert serves_what_needs_no_root(disk)
    assert damage.said in closes(disk)
    ended.kill()
    damage.mend(disk)
    opens(disk)
    poll(lambda: disk.site.ask("status")["leases"] == 1, "the lease of the living, and no other")
    (lease,) = disk.site.names("leases")
    assert lease.startswith(f"{job.process.pid}-")
    assert disk.site.status(image)[0] == 0
    assert disk.site.status(disk.url("other"))[0] == 0
    assert disk.origin.count("here.sif") == 1
    assert disk.site.names("staging") == []
    assert "Traceback" not in disk.site.log()


def test_a_root_that_cannot_be_used_is_found_out_without_a_job(make_disk: MakeDisk) -> None:
    """Else the first job of each EP pays for it."""
    disk = make_disk()
    disk.root.chmod(0o777)
    assert f"cache directory {disk.root}: is writable by others" in closes(disk)
    disk.root.chmod(0o755)
    opens(disk)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_a_root_that_breaks_during_a_fetch(make_disk: MakeDisk, damage: Damage) -> None:
    """The job goes back to idle with the reason, or gets its image; nothing partial is left once the root is back."""
    disk = make_disk()
    url = disk.url("coming", 5 * MB, gated=True)
    hook = disk.site.start_job(url)
    poll(disk.comes_in, "some bytes")
    damage.break_it(disk)
    closes(disk)
    disk.gates[0].set()
    status = hook.status
    assert status in {0, 340}, hook.message
    assert status == 340 or damage.name in {"somebody else's", "writable by everybody", "closed to its owner"}
    damage.mend(disk)
    opens(disk)
    assert disk.site.status(url)[0] == 0
    poll(lambda: disk.site.names("staging") == [], "nothing left behind")
    assert len(disk.site.names("entries")) == 1
    assert "Traceback" not in disk.site.log()


def test_a_fetch_under_way_outlives_a_root_that_is_away_for_a_moment(make_disk: MakeDisk) -> None:
    """What is read again is not swept away: its bytes are being written."""
    disk = make_disk()
    hook = disk.site.start_job(disk.url("coming", 5 * MB, gated=True))
    poll(disk.comes_in, "some bytes")
    _move_away(disk)
    closes(disk)
    _move_back(disk)
    opens(disk)
    disk.gates[0].set()
    assert hook.status == 0, hook.message


@pytest.mark.parametrize("how", ["moved", "emptied", "another disk"])
def test_a_socket_that_vanishes_with_its_root_is_made_again(make_disk: MakeDisk, how: str) -> None:
    """On whatever lies there then; hooks that come meanwhile send their jobs elsewhere."""
    disk = make_disk(socket_in_root=True)
    image = disk.url("here")
    assert disk.site.status(image)[0] == 0
    if how == "moved":
        _move_away(disk)
        assert disk.site.status(image)[0] == 410
        _move_back(disk)
    elif how == "emptied":
        for path in disk.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    else:
        unmount(disk.place)
        disk.mount()
    poll(disk.site.answers, "the socket", SECONDS)
    poll(lambda: disk.site.ask("status")["healthy"], "its health", SECONDS)
    assert disk.site.status(image)[0] == 0
    assert disk.origin.count("here.sif") == (1 if how == "moved" else 2)


def test_a_root_that_another_manager_took_meanwhile_is_left_to_it(make_disk: MakeDisk) -> None:
    """Two managers on one root would evict each other's images."""
    disk = make_disk()
    _move_away(disk)
    closes(disk)
    knobs = {"IMAGE_CACHE_DIR": str(disk.root), "IMAGE_CACHE_SOCKET": str(disk.site.directory / "another")}
    make_directory(disk.root, "joe")
    with Alone(knobs) as another:
        poll(lambda: "another manager has it" in closes(disk), "the reason", SECONDS)
        assert another.ask("status")["healthy"]
        assert disk.site.status(disk.url("here"))[0] == 340
    opens(disk)

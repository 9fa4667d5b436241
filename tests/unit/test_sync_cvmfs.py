"""One CVMFS transaction for many images, and never an end to somebody else's; cvmfs_server is a double (a script)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cache_manager.disk import Room
from sync.targets.base import Needed, NoRoom, TargetError
from sync.targets.cvmfs import CvmfsRepository
from tests.unit.publications import REPOSITORY, Server, converted, is_image

LITTLE = Needed(1000, 10)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """Give a machine with an empty repository."""
    one = Server(tmp_path / "server")
    subprocess.run([one.command, "mkfs", REPOSITORY], check=True)
    (one.directory / "asked").unlink()
    return one


def test_many_images_are_published_in_one_transaction(server: Server, tmp_path: Path) -> None:
    """Readers see them all at once, by links as the existing repositories have them."""
    images = {f"ns/image:{number}": converted(tmp_path / "work", f"ns/image:{number}") for number in range(5)}
    with server.repository().writing(LITTLE) as target:
        for name, one in images.items():
            target.link(name, target.add(one))
        assert not (server.client / "ns").exists()
    assert server.asked() == ["transaction", "publish"]
    for name, one in images.items():
        digest = one.variant.digest.removeprefix("sha256:")
        link = server.client / name
        assert str(link.readlink()) == f"/cvmfs/{REPOSITORY}/.images/{digest[:2]}/{digest[2:]}"
        assert is_image(server.resolve(name), name)
    assert not server.record.exists()


def test_each_image_gets_a_catalog_of_its_own(server: Server) -> None:
    """Unless somebody decided otherwise."""
    with server.repository().writing(LITTLE):
        pass
    assert (server.client / ".cvmfsdirtab").read_text() == "/.images/*/*\n"
    with server.repository().writing(LITTLE) as target:
        (target.root / ".cvmfsdirtab").write_text("/mine\n")
    with server.repository().writing(LITTLE):
        pass
    assert (server.client / ".cvmfsdirtab").read_text() == "/mine\n"


def test_what_goes_wrong_within_aborts_the_transaction(server: Server, tmp_path: Path) -> None:
    """Readers have what they had."""
    one = converted(tmp_path / "work", "ns/image:1")
    with pytest.raises(ZeroDivisionError), server.repository().writing(LITTLE) as target:
        target.link("ns/image:1", target.add(one) * (1 // 0))
    assert server.asked() == ["transaction", "abort"]
    assert not (server.client / "ns").exists()
    assert not server.lock.exists()
    assert not server.record.exists()


def test_a_transaction_of_somebody_else_is_reported_and_left_alone(server: Server) -> None:
    """With what to do about it; both at the start and right before the own one."""
    subprocess.run([server.command, "transaction", REPOSITORY], check=True)
    (server.place.root / "half-written").touch()
    with pytest.raises(TargetError, match=r"did not open.*abort images\.example\.org"):
        server.repository().begin()
    with pytest.raises(TargetError, match="did not open"), server.repository().writing(LITTLE):
        pass
    assert server.lock.exists()
    assert (server.place.root / "half-written").exists()


def test_a_transaction_that_was_opened_after_ours_ended_is_not_ours(server: Server) -> None:
    """The record of a killed publisher is no licence for what an admin does later."""
    with pytest.raises(TargetError), server.repository().writing(LITTLE):
        (server.directory / "full").touch()
    assert not server.record.exists()
    server.record.write_text(json.dumps({"repository": REPOSITORY, "mark": [1, 1], "pid": 1}))
    subprocess.run([server.command, "transaction", REPOSITORY], check=True)
    with pytest.raises(TargetError, match="did not open"):
        server.repository().begin()
    assert server.lock.exists()


PUBLISHER = """
import sys
from pathlib import Path
from cache_manager.disk import Room
from sync.targets.base import Needed
from tests.unit.publications import Server, converted
server = Server(Path(sys.argv[1]))
with server.repository().writing(Needed(1000, 10)) as target:
    target.link("ns/image:1", target.add(converted(Path(sys.argv[2]), "ns/image:1")))
    if sys.argv[3] == "within":
        print("within", flush=True)
        sys.stdin.read()
"""


NEXT_ONE = """
import sys
from pathlib import Path
from tests.unit.publications import Server
print(repr(Server(Path(sys.argv[1])).repository().begin()))
"""


def killed(server: Server, work: Path, when: str, ready: Callable[[subprocess.Popen[str]], object]) -> int:
    """Have a real publisher killed at a moment; return its pid."""
    argv = [sys.executable, "-c", PUBLISHER, str(server.directory), str(work), when]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        ready(process)
        process.kill()
    return process.pid


def test_the_transaction_of_a_killed_publisher_is_known_for_its_own_and_aborted(server: Server, tmp_path: Path) -> None:
    """Readers have what they had, and the next run publishes."""

    def within(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stdout.readline() == "within\n"

    pid = killed(server, tmp_path / "work", "within", within)
    assert server.lock.exists()
    assert f"pid {pid}" in server.repository().begin()
    assert not server.lock.exists()
    assert not (server.client / "ns").exists()
    with server.repository().writing(LITTLE) as target:
        target.link("ns/image:1", target.add(converted(tmp_path / "work", "ns/image:1")))
    assert is_image(server.resolve("ns/image:1"), "ns/image:1")


def test_a_publication_that_goes_on_without_its_publisher_is_waited_for(server: Server, tmp_path: Path) -> None:
    """It is not cut off in the middle, and what it published stays."""
    (server.directory / "hold").touch()
    publishing = server.place.area / "is_publishing.lock"

    def until_it_publishes(_: subprocess.Popen[str]) -> None:
        while not publishing.exists() or '"publishing": [0,' in server.record.read_text():
            os.sched_yield()

    killed(server, tmp_path / "work", "publish", until_it_publishes)
    argv = [
        sys.executable,
        "-c",
        NEXT_ONE,
        str(server.directory),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as next_one:
        (server.directory / "hold").unlink()
        assert next_one.communicate(timeout=30)[0] == "''\n"
    assert server.asked() == ["transaction", "publish"]
    assert is_image(server.resolve("ns/image:1"), "ns/image:1")
    assert not server.record.exists()


def test_a_publication_ends_before_who_is_interrupted_aborts(server: Server, tmp_path: Path) -> None:
    """A Ctrl-C at the terminal: what readers get is whole, and no transaction is left."""
    (server.directory / "hold").touch()
    argv = [sys.executable, "-c", PUBLISHER, str(server.directory), str(tmp_path / "work"), "publish"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=environment) as process:
        while not (server.place.area / "is_publishing.lock").exists():
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):  # longer than Python waits for a child by itself
            process.wait(timeout=1)
        assert server.asked() == ["transaction", "publish"]
        (server.directory / "hold").unlink()
        assert "KeyboardInterrupt" in process.communicate(timeout=30)[1]
    assert is_image(server.resolve("ns/image:1"), "ns/image:1")
    assert server.repository().begin() == ""
    assert not server.lock.exists()


def test_too_little_room_is_found_out_before_the_transaction(server: Server) -> None:
    """In bytes and in files, with both numbers."""
    poor = CvmfsRepository(server.place, server.record, lambda _: Room(1_000_000, 50))
    for needed, what in (
        (Needed(2_000_000, 1), "too little room: 2.2 MB needed, 1.0 MB free"),
        (Needed(1, 60), "60 needed, 50 free"),
    ):
        with pytest.raises(NoRoom, match=what), poor.writing(needed):
            pass
    assert not (server.directory / "asked").exists()


def test_a_disk_that_is_full_while_it_is_published_leaves_no_transaction(server: Server, tmp_path: Path) -> None:
    """What cvmfs_server says is passed on."""
    (server.directory / "full").touch()
    with (
        pytest.raises(NoRoom, match=r"publish.*No space left on device"),
        server.repository().writing(LITTLE) as target,
    ):
        target.add(converted(tmp_path / "work", "ns/image:1"))
    assert server.asked() == ["transaction", "publish", "abort"]
    assert not server.lock.exists()


def test_a_machine_without_cvmfs_server_says_so(server: Server) -> None:
    """And there is nothing to try again."""
    server.command.unlink()
    with pytest.raises(TargetError, match="cvmfs_server: No such file") as failed, server.repository().writing(LITTLE):
        pass
    assert not failed.value.transient


def test_a_repository_that_is_not_here_is_told_before_anything_is_converted(server: Server) -> None:
    """A run begins with it; with its name, where it was looked for, and nothing to try again."""
    shutil.rmtree(server.place.area)
    with pytest.raises(TargetError, match=f"{REPOSITORY}: is not published on this machine: no .*/spool/") as failed:
        server.repository().begin()
    assert not failed.value.transient


def test_nothing_is_written_outside_of_a_transaction(server: Server) -> None:
    """The double would notice."""
    with server.repository().writing(LITTLE) as target:
        target.write_missing({})
    assert server.repository().readable().links() == {}
    assert server.repository().begin() == ""
    with server.repository().writing(LITTLE):
        pass
    (server.client / "written").touch()
    with pytest.raises(TargetError, match="written to outside"), server.repository().writing(LITTLE):
        pass

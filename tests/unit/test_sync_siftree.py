"""SIFs in a tree: immutable, whole, never led to before they are there; in a directory, on a server, by a command."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import crc32c
import pytest

from sync.targets.base import FileStore, NoRoom, TargetError
from sync.targets.command import SifCommand
from sync.targets.dav import SifServer
from sync.targets.directory import SifDirectory
from sync.targets.siftree import SifTree, is_version, next_version, time_of
from tests.unit.dav import Dav
from tests.unit.publications import converted

VERSION = "20261125T000000Z"
WHERE = "x86_64/ns__image__1"

COMMAND = """
import pathlib, shutil, sys
action, source, destination = sys.argv[2:]
path = pathlib.Path(sys.argv[1]) / destination
if action == "delete":
    path.unlink()
else:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, path)
"""


@pytest.fixture
def dav() -> Iterator[Dav]:
    """Give a WebDAV server."""
    one = Dav()
    yield one
    one.close()


@pytest.fixture(params=["directory", "server", "command"])
def store(request: pytest.FixtureRequest, tmp_path: Path, dav: Dav) -> FileStore:
    """Give each kind of store, empty."""
    words = [sys.executable, "-c", COMMAND, str(tmp_path / "tree"), "{action}", "{source}", "{destination}"]
    stores: dict[str, FileStore] = {
        "directory": SifDirectory(tmp_path / "tree"),
        "server": SifServer(dav.base),
        "command": SifCommand(words, tmp_path),
    }
    one = stores[request.param]
    one.begin()
    return one


@pytest.fixture
def files(store: FileStore, tmp_path: Path, dav: Dav) -> Files:
    """Read what a store has."""
    return Files(dav if isinstance(store, SifServer) else None, tmp_path / "tree")


class Files:
    """What a store has."""

    def __init__(self, dav: Dav | None, directory: Path) -> None:
        self._dav = dav
        self._directory = directory

    def names(self) -> list[str]:
        """Return the files' paths."""
        if self._dav is not None:
            return sorted(self._dav.files)
        paths = (path for path in self._directory.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self._directory)) for path in paths)

    def read(self, name: str) -> bytes:
        """Return what a file holds."""
        return self._dav.files[name] if self._dav is not None else (self._directory / name).read_bytes()


def test_an_image_is_published_with_its_manifest_and_pointer(store: FileStore, files: Files, tmp_path: Path) -> None:
    """Then the catalog."""
    one = converted(tmp_path / "work", "ns/image:1")
    tree = SifTree(store)
    tree.publish(one, VERSION, b"{}")
    tree.publish_catalog(b"all")
    assert files.names() == ["catalog.json", f"{WHERE}/{VERSION}.json", f"{WHERE}/{VERSION}.sif", f"{WHERE}/latest.txt"]
    assert hashlib.sha256(files.read(f"{WHERE}/{VERSION}.sif")).hexdigest() == one.sha256
    assert files.read(f"{WHERE}/latest.txt") == f"{VERSION}.sif\n".encode()
    assert (files.read(f"{WHERE}/{VERSION}.json"), files.read("catalog.json")) == (b"{}", b"all")


def test_a_newer_version_is_led_to_and_the_older_one_stays(store: FileStore, files: Files, tmp_path: Path) -> None:
    """Until it is retired: SIF and manifest."""
    tree, newer = SifTree(store), "20261125T000001Z"
    tree.publish(converted(tmp_path / "work", "ns/image:1", "old"), VERSION, b"1")
    tree.publish(converted(tmp_path / "work", "ns/image:1", "new"), newer, b"2")
    assert files.read(f"{WHERE}/latest.txt") == f"{newer}.sif\n".encode()
    assert f"{WHERE}/{VERSION}.sif" in files.names()
    assert tree.remove("x86_64", "ns/image:1", VERSION)
    assert files.names() == [f"{WHERE}/{newer}.json", f"{WHERE}/{newer}.sif", f"{WHERE}/latest.txt"]
    assert tree.withdraw("x86_64", "ns/image:1")
    assert files.names() == [f"{WHERE}/{newer}.json", f"{WHERE}/{newer}.sif"]


def test_a_version_that_is_there_is_never_overwritten(tmp_path: Path, dav: Dav) -> None:
    """Caches mix old and new bytes of one name."""
    for tree in (SifTree(SifDirectory(tmp_path / "tree")), SifTree(SifServer(dav.base))):
        tree.publish(converted(tmp_path / "work", "ns/image:1", "old"), VERSION, b"1")
        with pytest.raises(TargetError, match=r"(?i)exists|is there already"):
            tree.publish(converted(tmp_path / "work", "ns/image:1", "new"), VERSION, b"2")
    assert (tmp_path / "tree" / WHERE / f"{VERSION}.sif").read_bytes() == b"old" * 1000
    assert dav.files[f"{WHERE}/{VERSION}.sif"] == b"old" * 1000


def test_a_sif_that_changed_since_its_conversion_is_not_published(tmp_path: Path, dav: Dav) -> None:
    """A bad disk under the work directory is found out."""
    one = replace(converted(tmp_path / "work", "ns/image:1"), sha256="0" * 64)
    for tree in (SifTree(SifDirectory(tmp_path / "tree")), SifTree(SifServer(dav.base))):
        with pytest.raises(TargetError, match="its sha256 is"):
            tree.publish(one, VERSION, b"{}")
    assert [path for path in (tmp_path / "tree").rglob("*") if path.is_file()] == []
    assert dav.files == {}


def test_published_files_can_be_read_by_everybody_whatever_the_umask(tmp_path: Path) -> None:
    """An origin runs as another user."""
    SifTree(SifDirectory(tmp_path / "tree")).publish(converted(tmp_path / "work", "ns/image:1"), VERSION, b"{}")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "tree").rglob("*") if path.is_file()}
    assert modes == {0o644}


def test_a_start_removes_what_a_killed_publisher_left(tmp_path: Path) -> None:
    """Files that are not whole have names of their own."""
    left = tmp_path / "tree" / WHERE / ".new-0123"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    SifDirectory(tmp_path / "tree").begin()
    assert not left.exists()


@pytest.mark.parametrize(
    ("now", "known", "expected"),
    [
        (time_of(VERSION), [], VERSION),
        (time_of(VERSION) + 0.9, [], VERSION),
        (time_of(VERSION), [VERSION], "20261125T000001Z"),
        (time_of(VERSION), ["20261231T235959Z", VERSION], "20270101T000000Z"),
        (time_of(VERSION), ["latest", "20261399T000000Z"], VERSION),
    ],
)
def test_a_version_is_later_than_all_that_are_known(now: float, known: list[str], expected: str) -> None:
    """Also if the clock goes back, or two come in one second."""
    assert next_version(now, known) == expected
    assert is_version(expected)


def test_a_server_gets_files_beside_their_place_and_directories_where_they_are_needed(tmp_path: Path, dav: Dav) -> None:
    """No reader ever sees a part of one."""
    SifTree(SifServer(dav.base)).publish(converted(tmp_path / "work", "ns/image:1"), VERSION, b"{}")
    puts = [one for one in dav.asked if one.startswith("PUT")]
    assert all("/.new-" in one for one in puts)
    assert [one for one in dav.asked if one.startswith("MKCOL")] == ["MKCOL x86_64/", f"MKCOL {WHERE}/"]
    assert [one for one in dav.asked if one.startswith("MOVE")][-1] == f"MOVE {WHERE}/.new-latest.txt"


@pytest.mark.parametrize("status", [405, 501])
def test_a_server_that_cannot_move_gets_files_at_their_place_the_pointer_last(
    tmp_path: Path, dav: Dav, status: int
) -> None:
    """And nothing else is left there."""
    dav.answers["MOVE"] = status
    SifTree(SifServer(dav.base)).publish(converted(tmp_path / "work", "ns/image:1"), VERSION, b"{}")
    assert sorted(dav.files) == [f"{WHERE}/{VERSION}.json", f"{WHERE}/{VERSION}.sif", f"{WHERE}/latest.txt"]
    puts = [one for one in dav.asked if one.startswith("PUT") and "/.new-" not in one]
    assert [one.rpartition("/")[2] for one in puts] == [f"{VERSION}.sif", f"{VERSION}.json", "latest.txt"]


def test_what_the_server_has_is_compared_with_what_was_sent(tmp_path: Path, dav: Dav) -> None:
    """By size, and by a digest in whatever way it is told; the pointer stays where it was."""
    one = converted(tmp_path / "work", "ns/image:1")
    crc = crc32c.crc32c(Path(one.sif_path).read_bytes())
    right = [
        f"crc32c={crc:08x}",
        f"CRC32C={crc:x}",
        f"crc32c={base64.b64encode(crc.to_bytes(4, 'big')).decode()}",
        f"sha-256={base64.b64encode(bytes.fromhex(one.sha256)).decode()}",
        "md5=x, sha-256=!, crc32c=zz, nonsense",
    ]
    for number, told in enumerate(right):
        dav.digest = told
        SifTree(SifServer(dav.base)).publish(one, f"2026112{number}T000000Z", b"{}")
    for told in ("crc32c=00000001", f"sha-256={base64.b64encode(bytes(32)).decode()}"):
        dav.digest = told
        with pytest.raises(TargetError, match="another"):
            SifTree(SifServer(dav.base)).publish(one, VERSION, b"{}")
        dav.files.pop(f"{WHERE}/{VERSION}.sif")
    dav.digest, dav.loses = "", 1
    with pytest.raises(TargetError, match="the server has 9999 bytes of 10000"):
        SifTree(SifServer(dav.base)).publish(one, VERSION, b"{}")
    assert dav.files[f"{WHERE}/latest.txt"] == b"20261124T000000Z.sif\n"


@pytest.mark.parametrize(("status", "transient"), [(401, False), (403, False), (500, True), (503, True), (507, True)])
def test_a_server_that_refuses_is_named_with_what_it_said(
    tmp_path: Path, dav: Dav, status: int, *, transient: bool
) -> None:
    """Trying again helps against some of it."""
    dav.answers["PUT"] = status
    with pytest.raises(
        TargetError, match=rf"{WHERE}/.new-{VERSION}\.sif: PUT was answered with HTTP {status}"
    ) as failed:
        SifTree(SifServer(dav.base)).publish(converted(tmp_path / "work", "ns/image:1"), VERSION, b"{}")
    assert failed.value.transient is transient
    assert isinstance(failed.value, NoRoom) is (status == 507)


def test_a_server_that_is_down_is_named(tmp_path: Path, dav: Dav) -> None:
    """And it is tried again at the next run."""
    dav.close()
    with pytest.raises(TargetError, match=dav.base) as failed:
        SifTree(SifServer(dav.base)).publish(converted(tmp_path / "work", "ns/image:1"), VERSION, b"{}")
    assert failed.value.transient


@pytest.mark.parametrize(
    ("content", "expected"),
    [("joe:very secret", "Basic am9lOnZlcnkgc2VjcmV0"), ("eyJhbGciOi.x.y\n", "Bearer eyJhbGciOi.x.y")],
)
def test_credentials_come_from_a_file_and_go_to_the_server_alone(
    tmp_path: Path, dav: Dav, content: str, expected: str
) -> None:
    """A password or a token; a message never has them."""
    path = tmp_path / "credentials"
    path.write_text(content)
    path.chmod(0o600)
    server = SifServer(dav.base, str(path))
    server.begin()
    SifTree(server).publish(converted(tmp_path / "work", "ns/image:1"), VERSION, b"{}")
    assert set(dav.credentials) == {expected}
    dav.answers["PUT"] = 403
    with pytest.raises(TargetError) as failed:
        SifTree(server).publish_catalog(b"{}")
    assert "secret" not in str(failed.value)
    assert "eyJ" not in str(failed.value)


def test_credentials_that_others_may_read_are_not_used(tmp_path: Path, dav: Dav) -> None:
    """The message names the file, and not what is in it."""
    path = tmp_path / "credentials"
    path.write_text("joe:secret")
    path.chmod(0o644)
    with pytest.raises(TargetError, match="0600") as failed:
        SifServer(dav.base, str(path)).begin()
    assert str(path) in str(failed.value)
    assert "secret" not in str(failed.value)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["/nowhere/put", "{source}"], "No such file"),
        (
            ["/bin/sh", "-c", "echo cannot reach http://joe:secret@host/x; exit 3"],
            r"ended with 3: cannot reach http://host",
        ),
        (["/bin/sh", "-c", "exec sleep 60"], "took longer than"),
    ],
)
def test_a_command_that_fails_or_hangs_is_told_with_what_it_said(tmp_path: Path, words: list[str], what: str) -> None:
    """Without the passwords in it."""
    with pytest.raises(TargetError, match=what) as failed:
        SifTree(SifCommand(words, tmp_path, limit_s=0.2)).publish_catalog(b"{}")
    assert "secret" not in str(failed.value)


def test_a_command_gets_each_value_as_it_is(tmp_path: Path) -> None:
    """No shell looks at it, and a value's braces mean nothing."""
    words = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:])); sys.exit(1)"]
    odd = tmp_path / "{destination} $(x)"
    odd.write_bytes(b"1")
    with pytest.raises(TargetError) as failed:
        SifCommand([*words, "{source}", "osdf:///ns/{destination}"], tmp_path).add("a b.sif", odd, "")
    assert json.loads(str(failed.value).partition("ended with 1: ")[2]) == [str(odd), "osdf:///ns/a b.sif"]


def test_a_command_that_only_puts_leaves_old_sifs_to_the_site(tmp_path: Path) -> None:
    """It says so, and the publisher goes on knowing of them."""
    assert not SifTree(SifCommand(["/bin/true", "{source}", "{destination}"], tmp_path)).remove("x", "y", VERSION)

"""SIFs published on real servers: nginx with WebDAV, and XRootD, which is what an OSDF origin is."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import crc32c
import pytest
import requests

from sync.targets.base import TargetError
from sync.targets.dav import SifServer
from sync.targets.siftree import SifTree
from tests.pool.dav import PASSWORD, DavServer
from tests.pool.xrootd import XrootdServer
from tests.unit.publications import converted

OLD, NEW = "20261125T000000Z", "20261125T000001Z"
WHERE = "x86_64/ns__image__1"


@dataclass(frozen=True)
class Served:
    """A tree on a server, and where its files lie there."""

    tree: SifTree
    root: Path

    def files(self) -> list[str]:
        """Return the files' paths."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


def credentials(directory: Path, text: str = PASSWORD) -> str:
    """Write a credentials file."""
    path = directory / "credentials"
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def nginx(stack: ExitStack, directory: Path) -> Served:
    """Start nginx."""
    server = stack.enter_context(DavServer(directory / "nginx"))
    return Served(SifTree(SifServer(server.url, credentials(directory))), server.root)


def nginx_without_move(stack: ExitStack, directory: Path) -> Served:
    """Start an nginx that knows no MOVE."""
    server = stack.enter_context(DavServer(directory / "nginx", "PUT DELETE MKCOL"))
    return Served(SifTree(SifServer(server.url, credentials(directory))), server.root)


def xrootd(stack: ExitStack, directory: Path) -> Served:
    """Start XRootD."""
    server = stack.enter_context(XrootdServer(directory / "xrootd", "/ns"))
    return Served(SifTree(SifServer(f"{server.url}/ns/v2")), directory / "xrootd" / "data" / "ns" / "v2")


def xrootd_with_sums(stack: ExitStack, directory: Path) -> Served:
    """Start an XRootD that tells checksums, as OSDF's origins do."""
    one = XrootdServer(directory / "xrootd", "/ns")
    with (directory / "xrootd" / "config").open("a") as config:
        config.write("xrootd.chksum max 2 crc32c\n")
    stack.enter_context(one)
    return Served(SifTree(SifServer(f"{one.url}/ns/v2")), directory / "xrootd" / "data" / "ns" / "v2")


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory which the servers' user reaches: pytest's own is closed."""
    with tempfile.TemporaryDirectory(dir="/pool") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(params=[nginx, nginx_without_move, xrootd, xrootd_with_sums], ids=lambda one: one.__name__)
def served(request: pytest.FixtureRequest, place: Path) -> Iterator[Served]:
    """Give each server, empty."""
    start: Callable[[ExitStack, Path], Served] = request.param
    with ExitStack() as stack:
        one = start(stack, place)
        one.tree.store.begin()
        yield one


def test_two_versions_and_the_catalog_are_published_and_the_old_one_is_retired(served: Served, tmp_path: Path) -> None:
    """Nothing else is left on the server."""
    old, new = (converted(tmp_path / "work", "ns/image:1", text) for text in ("old", "new"))
    served.tree.publish(old, OLD, b"1")
    served.tree.publish(new, NEW, b"2")
    served.tree.publish_catalog(b"{}")
    both = [f"{WHERE}/{version}{suffix}" for version in (OLD, NEW) for suffix in (".json", ".sif")]
    assert served.files() == ["catalog.json", *both, f"{WHERE}/latest.txt"]
    assert (served.root / WHERE / "latest.txt").read_text() == f"{NEW}.sif\n"
    assert (served.root / WHERE / f"{NEW}.sif").read_bytes() == Path(new.sif_path).read_bytes()
    assert served.tree.remove("x86_64", "ns/image:1", OLD)
    assert served.files() == ["catalog.json", *both[2:], f"{WHERE}/latest.txt"]
    assert served.tree.withdraw("x86_64", "ns/image:1")
    assert not (served.root / WHERE / "latest.txt").exists()


def test_a_name_that_was_used_is_not_overwritten(served: Served, tmp_path: Path) -> None:
    """Caches of the federation would mix the bytes."""
    served.tree.publish(converted(tmp_path / "work", "ns/image:1", "old"), OLD, b"1")
    with pytest.raises(TargetError, match="is there already"):
        served.tree.publish(converted(tmp_path / "work", "ns/image:1", "new"), OLD, b"2")
    assert (served.root / WHERE / f"{OLD}.sif").read_bytes() == b"old" * 1000


def test_a_wrong_password_is_refused_and_not_told(place: Path) -> None:
    """The message names the server and what it said."""
    with DavServer(place / "nginx") as server:
        store = SifServer(server.url, credentials(place, "joe:guessed"))
        store.begin()
        with pytest.raises(TargetError, match=r"HTTP 401 Unauthorized") as failed:
            SifTree(store).publish(converted(place / "work", "ns/image:1"), OLD, b"1")
    assert not failed.value.transient
    assert "guessed" not in str(failed.value)


def test_an_origins_own_checksum_is_compared_with_what_was_sent(place: Path) -> None:
    """What the server computed of what it has."""
    with ExitStack() as stack:
        served = xrootd_with_sums(stack, place)
        one = converted(place / "work", "ns/image:1")
        served.tree.publish(one, OLD, b"1")
        store = served.tree.store
        assert isinstance(store, SifServer)
        url = f"{store.base}/{WHERE}/{OLD}.sif"
        told = requests.head(url, headers={"Want-Digest": "crc32c"}, timeout=30).headers["Digest"]
        assert told == f"crc32c={crc32c.crc32c(Path(one.sif_path).read_bytes()):08x}"

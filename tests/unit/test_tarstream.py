"""Archives as they are made: in each form the same members; what is damaged is no archive."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync import unpack
from sync.tarheader import TarError
from sync.tarstream import Kind, TarStream
from sync.tree import Bounds, Tree, UnpackError
from tests.layers import Entry, tar

FORMS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
NAMES = st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name and not name.endswith(b"/"))
_TYPES = {Kind.FILE: tarfile.REGTYPE, Kind.DIRECTORY: tarfile.DIRTYPE, Kind.SYMLINK: tarfile.SYMTYPE}


def blocks(archive: bytes, size: int) -> Iterator[bytes]:
    return (archive[at : at + size] for at in range(0, len(archive), size))


def members(archive: bytes, size: int = 700) -> list[tuple[object, ...]]:
    """Return what is in an archive that comes in blocks of a size."""
    stream = TarStream(blocks(archive, size))
    return [
        (one.name, one.kind, one.mode, one.mtime_ns, one.size, one.link, b"".join(stream.content())) for one in stream
    ]


@st.composite
def an_archive(draw: st.DrawFn) -> tuple[bytes, list[tuple[object, ...]]]:
    """Return an archive that Python wrote, and what is in it."""
    form = draw(st.sampled_from(FORMS[1:]))
    raw = io.BytesIO()
    wanted: list[tuple[object, ...]] = []
    with tarfile.open(fileobj=raw, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for _ in range(draw(st.integers(0, 5))):
            name, kind = draw(NAMES), draw(st.sampled_from(sorted(_TYPES, key=str)))
            body = draw(st.binary(max_size=2000)) if kind is Kind.FILE else b""
            link = draw(NAMES) if kind is Kind.SYMLINK else b""
            info = tarfile.TarInfo(os.fsdecode(name))
            info.type, info.linkname, info.size = _TYPES[kind], os.fsdecode(link), len(body)
            info.mode, info.mtime = draw(st.integers(0, 0o7777)), draw(st.integers(0, 2**32))
            archive.addfile(info, io.BytesIO(body))
            said = name + b"/" if kind is Kind.DIRECTORY else name
            wanted.append((said, kind, info.mode, info.mtime * 10**9, len(body), link, body))
    return raw.getvalue(), wanted


@given(an_archive(), st.integers(1, 3000))
def test_members_are_those_that_python_wrote(archive: tuple[bytes, list[tuple[object, ...]]], size: int) -> None:
    """In whatever blocks they come."""
    assert members(archive[0], size) == archive[1]


@pytest.mark.parametrize("form", FORMS)
def test_the_old_form_splits_long_names(form: int) -> None:
    """A prefix and a name."""
    name = "/".join(["d" * 80] * 2)
    assert members(tar([Entry(name, body="x")], form))[0][0] == name.encode()


SPARSE = {
    "gnu": ["--format=gnu"],
    "pax 0.0": ["--format=pax", "--sparse-version=0.0"],
    "pax 0.1": ["--format=pax", "--sparse-version=0.1"],
    "pax 1.0": ["--format=pax", "--sparse-version=1.0"],
}


@pytest.mark.parametrize("form", SPARSE)
@pytest.mark.parametrize("parts", [0, 1, 3, 60])
def test_sparse_files_are_read_in_every_form_that_tar_writes(tmp_path: Path, form: str, parts: int) -> None:
    """With more parts than fit into one header; holes stay holes."""
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        for part in range(parts):
            file.seek(part * 2**20)
            file.write(b"%d" % part * 5000)
        file.truncate(parts * 2**20 + 12345)
    (source / "z").write_text("what follows", encoding="utf-8")
    argv = ["tar", "--sparse", *SPARSE[form], "-C", str(source), "-cf", "-", "sparse", "z"]
    archive = subprocess.run(argv, capture_output=True, check=True).stdout
    with Tree(tmp_path / "tree", Bounds()) as tree:
        unpack.add_layer(tree, blocks(archive, 1000))
    whole = tmp_path / "tree" / "sparse"
    assert whole.read_bytes() == (source / "sparse").read_bytes()
    assert (tmp_path / "tree" / "z").read_text(encoding="utf-8") == "what follows"
    assert whole.stat().st_blocks * 512 < 2**20 * max(1, parts)


def test_a_file_of_holes_counts_with_all_its_bytes(tmp_path: Path) -> None:
    """An archive of kilobytes says that it holds terabytes: that is a bomb, whatever the disk thinks of holes."""
    with (tmp_path / "bomb").open("wb") as file:
        file.truncate(2**42)
    argv = ["tar", "--sparse", "-C", str(tmp_path), "-cf", "-", "bomb"]
    archive = subprocess.run(argv, capture_output=True, check=True).stdout
    with Tree(tmp_path / "tree", Bounds(max_bytes=2**30)) as tree, pytest.raises(UnpackError, match="bomb: with it"):
        unpack.add_layer(tree, blocks(archive, 1000))


def damaged(archive: bytes, at: int, bytes_: bytes, *, mend: bool = True) -> bytes:
    """Return an archive with other bytes somewhere in its first header, and the checksum that fits."""
    changed = bytearray(archive)
    changed[at : at + len(bytes_)] = bytes_
    if mend:
        changed[148:156] = b" " * 8
        changed[148:156] = b"%06o\0 " % sum(changed[:512])
    return bytes(changed)


ONE = tar([Entry("a", body="x")], tarfile.USTAR_FORMAT)
PAX = tar([Entry("a", body="x", xattrs={"user.a": "b"})])
DAMAGED = {
    "another checksum": (damaged(ONE, 0, b"b", mend=False), "its checksum is"),
    "a size that is no number": (damaged(ONE, 124, b"size"), "is no number"),
    "a size below zero": (damaged(ONE, 124, b"\xff" * 12), "a size of -1"),
    "a size beyond all": (damaged(ONE, 124, b"\x80" + b"\x7f" * 11), "a size of"),
    "a type of no layer": (damaged(ONE, 156, b"V"), "a member of type b'V'"),
    "a record that is no record": (PAX.replace(b"SCHILY.xattr.user.a=", b"SCHILY.xattr.user.a:"), "a pax record at 0"),
    "a record of another length": (PAX.replace(b"25 SCHILY", b"99 SCHILY"), "a pax record at 0"),
    "an extension of a gigabyte": (damaged(PAX, 124, b"10000000000\0"), "an extension of 1073741824 bytes"),
    "an extension of nothing": (PAX[:1024] + bytes(1024), "the next one is the last"),
    "zeros between members": (ONE[:1024] + bytes(512) + ONE, "zeros between two members"),
    "text": (b"<html>" * 200, "is no number"),
    "less than a header": (ONE[:500], "a header has 500 of 512 bytes"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_damaged_is_no_archive(what: str) -> None:
    """And says what is wrong with it."""
    archive, why = DAMAGED[what]
    with pytest.raises(TarError, match=why):
        members(archive)


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(1024), bytes(10240), bytes(1024) + b"what follows"])
def test_an_archive_ends_as_any_tool_ends_it(end: bytes) -> None:
    """With two blocks of zeros, one, none, or with more behind them."""
    assert len(members(ONE[:1024] + end)) == 1


def test_a_long_name_that_is_cut_at_a_slash_is_still_that_of_a_file() -> None:
    """Its header holds as much of it as fits, which may look like a directory's name."""
    name = "deep/" * 40 + "x"
    assert members(tar([Entry(name, body="text")]))[0][:2] == (name.encode(), Kind.FILE)


def extended(kind: bytes, records: dict[bytes, bytes]) -> bytes:
    """Return an extended header with records."""
    body = b""
    for key, value in records.items():
        rest = b" %s=%s\n" % (key, value)
        size = next(one for one in range(len(rest), len(rest) + 9) if one == len(b"%d" % one) + len(rest))
        body += b"%d%s" % (size, rest)
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)


@pytest.mark.parametrize(
    "records",
    [
        {b"path": b"a\0b"},
        {b"SCHILY.xattr.user.a\0b": b"x"},
        {b"GNU.sparse.name": b"a\0b", b"GNU.sparse.realsize": b"0", b"GNU.sparse.map": b""},
    ],
    ids=["path", "attribute", "sparse"],
)
def test_a_zero_byte_in_a_name_is_no_archive_wherever_the_name_stands(records: dict[bytes, bytes]) -> None:
    """The kernel takes none, and Python says so with an error of its own."""
    with pytest.raises(TarError, match="zero byte"):
        members(extended(b"x", records) + tar([Entry("a")]))


def test_what_is_said_of_all_members_that_follow_is_bounded(tmp_path: Path) -> None:
    """Each header is small; all of them would be remembered."""
    headers = (extended(b"g", {b"SCHILY.xattr.user.%d" % number: bytes(2**18)}) for number in range(100))
    with Tree(tmp_path / "tree", Bounds()) as tree, pytest.raises(TarError, match="too much"):
        unpack.add_layer(tree, headers)

"""The SIF format: header, descriptors, and where the objects lie."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.sif import DESCRIPTOR_BYTES, HEADER_BYTES, SifError, SifHeader, parse, parse_header
from tests.unit.builders import sif_file, sif_header, sif_object, squashfs

WHOLE = sif_file(squashfs(100))
FILE_SYSTEM, JSON, OCI_INDEX = 0x4004, 0x4006, 0x400A
BIG = 2**63 - 1


def parse_bytes(data: bytes) -> SifHeader:
    """Read a file that is these bytes."""
    return parse(lambda at, length: data[at : at + length], len(data))


def image(*objects: bytes, size: int = 2000) -> bytes:
    """Return a file of `size` bytes with these descriptors; zeros follow."""
    table_bytes = len(objects) * DESCRIPTOR_BYTES
    header = sif_header(total=len(objects), table_bytes=table_bytes, data_at=128 + table_bytes, data_bytes=0)
    return (header + b"".join(objects)).ljust(size, b"\x00")


@pytest.mark.parametrize(
    ("code", "architecture"),
    [
        (b"01", "i686"),
        (b"02", "x86_64"),
        (b"04", "aarch64"),
        (b"06", "ppc64le"),
        (b"11", "s390x"),
        (b"12", "riscv64"),
        (b"00", ""),
        (b"99", ""),
    ],
)
def test_the_header_names_the_architecture_as_uname_does(code: bytes, architecture: str) -> None:
    """An architecture that nobody knows is left to the runtime."""
    assert parse_header(sif_header(code), 813).architecture == architecture


def test_a_whole_sif_ends_where_its_data_end() -> None:
    """The end is what a truncated file lacks."""
    assert parse_header(WHOLE[:HEADER_BYTES], len(WHOLE)).end_bytes == parse_bytes(WHOLE).end_bytes == len(WHOLE) == 813


def test_a_sif_may_be_larger_than_its_data() -> None:
    """Signatures and padding follow; the runtime takes them."""
    assert parse_header(WHOLE, 10_000).end_bytes == parse_bytes(WHOLE + bytes(1000)).end_bytes == 813


@pytest.mark.parametrize("size", [713, 716, 812])
def test_an_object_that_is_cut_is_named_with_both_ends(size: int) -> None:
    """Such a file passes every other check, and then fails as a bad superblock."""
    what = rf"truncated SIF: object 1 \(file system\) ends at 813, the file at {size}"
    with pytest.raises(SifError, match=what):
        parse_bytes(WHOLE[:size])
    with pytest.raises(SifError, match=what):
        parse_header(WHOLE, size)


@pytest.mark.parametrize("size", range(HEADER_BYTES, 713, 73))
def test_a_table_of_descriptors_beyond_the_end_is_a_truncated_sif(size: int) -> None:
    """The table counts as well as the data."""
    with pytest.raises(SifError, match=f"truncated SIF: its descriptors end at 713, the file at {size}"):
        parse_bytes(WHOLE[:size])
    with pytest.raises(SifError, match=f"truncated SIF: its descriptors end at 713, the file at {size}"):
        parse_header(WHOLE[:HEADER_BYTES], size)


def test_data_beyond_the_end_are_missed_also_without_their_descriptors() -> None:
    """A head of 4 KiB, as the hook sends it, often ends before the table."""
    with pytest.raises(SifError, match=r"truncated SIF \(812 of 813 bytes\)"):
        parse_header(WHOLE[:HEADER_BYTES], 812)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"<!DOCTYPE html><html><body>502 Bad Gateway", "an HTML page"),
        (b"\r\n  <HTML>", "an HTML page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "an XML document"),
        (b"<Error><Code>NoSuchKey</Code></Error>", "an XML document"),
        (b'{"status":"error","msg":"no source"}', "a JSON document"),
        (b"hsqs\x00\x00", "a squashfs without a SIF header"),
        (b"\x1f\x8b\x08", "gzip data"),
        (b"\x7fELF\x02\x01", "a program"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"\x00" * HEADER_BYTES, "zeros"),
        (b"\x00" * 10, "its magic is missing"),
    ],
)
def test_what_servers_send_instead_of_an_image_is_named(head: bytes, what: str) -> None:
    """The message says what came, so that a user sees an error page for what it is."""
    padded = head.ljust(HEADER_BYTES, b" ")
    with pytest.raises(SifError, match=rf"no SIF: {what}.* \(5000 bytes\)"):
        parse_header(padded, 5000)


def test_an_empty_file_is_named_as_such() -> None:
    """The most common broken image."""
    for parser in (parse_bytes, lambda data: parse_header(data, 0)):
        with pytest.raises(SifError, match=r"empty \(0 bytes\)"):
            parser(b"")


@pytest.mark.parametrize(
    ("length", "what"),
    [(1, "magic is missing"), (41, "magic is missing"), (42, "truncated SIF"), (HEADER_BYTES - 1, "truncated SIF")],
)
def test_a_file_shorter_than_the_header_is_no_sif(length: int, what: str) -> None:
    """Even if it begins as one."""
    with pytest.raises(SifError, match=what):
        parse_header(WHOLE[:length], length)
    with pytest.raises(SifError, match=what):
        parse_bytes(WHOLE[:length])


@pytest.mark.parametrize(
    "head",
    [
        sif_header(data_at=-1),
        sif_header(data_bytes=-300),
        sif_header(table_at=-5),
        sif_header(total=-1),
        sif_header(total=BIG, table_bytes=BIG),
        sif_header(total=1001, table_bytes=BIG),
        sif_header(total=2),
        sif_header(table_at=127),
        sif_header(table_at=0),
    ],
)
def test_numbers_that_cannot_be_are_a_damaged_header(head: bytes) -> None:
    """They must not add up to a size that fits, nor make anybody read for hours."""
    for parser in (parse_bytes, lambda data: parse_header(data, 5000)):
        with pytest.raises(SifError, match="damaged SIF header"):
            parser(head + bytes(5000 - len(head)))


@pytest.mark.parametrize(
    ("objects", "what"),
    [
        ([sif_object(at=-1)], "object 1 .* at -1"),
        ([sif_object(at=-BIG)], "object 1"),
        ([sif_object(size=-1)], "-1 bytes long"),
        ([sif_object(at=0)], "at 0"),
        ([sif_object(at=BIG, size=BIG)], "truncated SIF: object 1"),
        ([sif_object(size=BIG)], "truncated SIF: object 1"),
        ([sif_object(at=200)], "lies over the descriptors"),
        ([sif_object(at=712)], "lies over the descriptors"),
        (
            [sif_object(JSON, 1300, 10), sif_object(at=1990, size=11, number=2)],
            r"object 2 \(file system\) ends at 2001",
        ),
        ([sif_object(-7, 1300, 1000, number=9)], r"object 9 \(type -7\) ends at 2300"),
        ([sif_object()], "is no squashfs"),
        ([sif_object(size=3)], "is no squashfs"),
        ([sif_object(JSON)], "without a file system"),
        ([bytes(DESCRIPTOR_BYTES)], "without a file system"),
        ([], "without a file system"),
    ],
)
def test_an_object_that_cannot_be_is_named(objects: list[bytes], what: str) -> None:
    """The publisher sees where to look."""
    with pytest.raises(SifError, match=what):
        parse_bytes(image(*objects))


@pytest.mark.parametrize(
    "objects",
    [
        [sif_object(form=2)],
        [sif_object(form=5)],
        [sif_object(OCI_INDEX)],
        [sif_object(JSON, 1900, 0), sif_object(form=2, at=1300)],
        [sif_object(JSON, 1900, 100), sif_object(form=2, at=1900, size=100)],
        [bytes(DESCRIPTOR_BYTES)] * 2 + [sif_object(form=4, at=1900)],
    ],
    ids=["ext3", "encrypted", "OCI", "an empty object", "two names for the same bytes", "unused rows"],
)
def test_what_a_runtime_may_run_is_left_to_it(objects: list[bytes]) -> None:
    """Only what no EP could run is refused."""
    parse_bytes(image(*objects))


def test_a_file_system_that_was_cut_before_is_told() -> None:
    """The SIF is whole, and what it holds is not; other versions say their size elsewhere."""
    with pytest.raises(SifError, match=r"object 1 \(file system\) has 100 of the 101 bytes of its squashfs"):
        parse_bytes(sif_file(squashfs(100, packed=101)))
    parse_bytes(sif_file(squashfs(100, packed=101, version=3)))
    parse_bytes(sif_file(squashfs(100, packed=99)))


@given(st.binary(max_size=300), st.integers(0, 2**63))
def test_any_bytes_are_a_header_or_no_sif(head: bytes, size: int) -> None:
    """The first bytes come from users and from the network."""
    with suppress(SifError):
        assert parse_header(head, size).end_bytes <= size


@given(st.binary(min_size=5 * 8, max_size=5 * 8), st.integers(1, 2**63))
def test_any_numbers_in_a_header_are_judged_by_the_files_size(numbers: bytes, size: int) -> None:
    """No numbers make a header of more data than there are bytes."""
    head = WHOLE[: HEADER_BYTES - len(numbers)] + numbers
    for parser in (parse_bytes, lambda data: parse_header(data, size)):
        try:
            found = parser(head)
        except SifError:
            continue
        assert 0 <= found.end_bytes <= size


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), BIG), st.integers(-(2**63), BIG))
def test_any_numbers_in_a_descriptor_are_judged_by_the_files_size(kind: int, at: int, size: int) -> None:
    """Nothing else is raised, and nothing is read that is not there."""
    data = image(struct.pack("<i?IIIqq", kind, True, 1, 0, 0, at, size).ljust(DESCRIPTOR_BYTES, b"\x01"))  # noqa: FBT003
    with suppress(SifError):
        parse_bytes(data)

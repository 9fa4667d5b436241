"""The SIF global header."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.sif import HEADER_BYTES, SifError, parse_header
from tests.unit.builders import sif_file, sif_header

WHOLE = sif_file(b"x" * 100)


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
    assert parse_header(sif_header(code), 300).architecture == architecture


def test_a_whole_sif_ends_where_its_data_end() -> None:
    """The end is what a truncated file lacks."""
    assert parse_header(WHOLE[:HEADER_BYTES], len(WHOLE)).end_bytes == len(WHOLE) == 300


def test_a_sif_may_be_larger_than_its_data() -> None:
    """Signatures and padding follow; the runtime takes them."""
    assert parse_header(WHOLE, 10_000).end_bytes == 300


@pytest.mark.parametrize("size", [HEADER_BYTES, 200, 299])
def test_a_truncated_sif_is_told_with_both_sizes(size: int) -> None:
    """Such a file passes every other check, and then fails as a bad superblock."""
    with pytest.raises(SifError, match=rf"truncated SIF \({size} of 300 bytes\)"):
        parse_header(WHOLE, size)


def test_a_table_of_descriptors_beyond_the_end_is_a_truncated_sif() -> None:
    """The table counts as well as the data."""
    with pytest.raises(SifError, match=r"truncated SIF \(300 of 1100 bytes\)"):
        parse_header(sif_header(table_at=1000, table_bytes=100), 300)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"<!DOCTYPE html><html><body>502 Bad Gateway", "an HTML page"),
        (b"\r\n  <HTML>", "an HTML page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "an XML document"),
        (b"<Error><Code>NoSuchKey</Code></Error>", "an XML document"),
        (b'{"status":"error","msg":"no source"}', "a JSON document"),
        (b"hsqs\x00\x00", "its magic is missing"),
        (b"\x1f\x8b\x08", "its magic is missing"),
        (b"\x00" * 10, "its magic is missing"),
    ],
)
def test_what_servers_send_instead_of_an_image_is_named(head: bytes, what: str) -> None:
    """The message says what came, so that a user sees an error page for what it is."""
    padded = head.ljust(HEADER_BYTES, b" ")
    with pytest.raises(SifError, match=rf"no SIF: {what} \(5000 bytes\)"):
        parse_header(padded, 5000)


def test_an_empty_file_is_named_as_such() -> None:
    """The most common broken image."""
    with pytest.raises(SifError, match=r"empty \(0 bytes\)"):
        parse_header(b"", 0)


@pytest.mark.parametrize(
    ("length", "what"),
    [(1, "magic is missing"), (41, "magic is missing"), (42, "truncated SIF"), (HEADER_BYTES - 1, "truncated SIF")],
)
def test_a_file_shorter_than_the_header_is_no_sif(length: int, what: str) -> None:
    """Even if it begins as one."""
    with pytest.raises(SifError, match=what):
        parse_header(WHOLE[:length], length)


@pytest.mark.parametrize(
    "head",
    [sif_header(data_at=-1), sif_header(data_bytes=-300), sif_header(table_at=-5), sif_header(total=-1)],
)
def test_negative_numbers_are_a_damaged_header(head: bytes) -> None:
    """They must not add up to a size that fits."""
    with pytest.raises(SifError, match="damaged SIF header"):
        parse_header(head, 300)


@given(st.binary(max_size=300), st.integers(0, 2**63))
def test_any_bytes_are_a_header_or_no_sif(head: bytes, size: int) -> None:
    """The first bytes come from users and from the network."""
    with suppress(SifError):
        assert parse_header(head, size).end_bytes <= size


@given(st.binary(min_size=8 * 8, max_size=8 * 8), st.integers(1, 2**63))
def test_any_numbers_in_a_header_are_judged_by_the_files_size(numbers: bytes, size: int) -> None:
    """No numbers make a header of more data than there are bytes."""
    head = WHOLE[: HEADER_BYTES - len(numbers)] + numbers
    try:
        found = parse_header(head, size)
    except SifError:
        return
    assert 0 <= found.end_bytes <= size

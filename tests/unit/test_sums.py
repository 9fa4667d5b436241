"""Sums in the headers of servers, in each form in which they write them, and what is none."""

from __future__ import annotations

import pytest

from cache_manager.sources.sums import Sum, best_sum, sum_of

CHECK = b"123456789"
CRC32C = bytes.fromhex("e3069283")
MD5 = bytes.fromhex("25f9e794323b453885f5181f1b624d0b")
SHA = bytes.fromhex("f7c3bc1d808e04732adf679965ccc34ca7ae3441")
SHA256 = bytes.fromhex("15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("crc32c=e3069283", Sum("crc32c", CRC32C)),
        ("crc32c=E3069283", Sum("crc32c", CRC32C)),
        ("CRC32C=4waSgw==", Sum("crc32c", CRC32C)),
        ("crc32c=a1b2c3d", Sum("crc32c", bytes.fromhex("0a1b2c3d"))),
        ("crc32c=0", Sum("crc32c", bytes(4))),
        ("md5=JfnnlDI7RTiF9RgfG2JNCw==", Sum("md5", MD5)),
        ("md5=JfnnlDI7RTiF9RgfG2JNCw", Sum("md5", MD5)),
        (f"md5={MD5.hex()}", Sum("md5", MD5)),
        ("sha=98O8HYCOBHMq32eZZczDTKeuNEE=", Sum("sha", SHA)),
        ("SHA-256=FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=", Sum("sha-256", SHA256)),
        ("adler32=91e01de", Sum("adler32", bytes.fromhex("091e01de"))),
        ("md5=JfnnlDI7RTiF9RgfG2JNCw==, crc32c=e3069283", Sum("crc32c", CRC32C)),
        ("unixsum=30637, md5=JfnnlDI7RTiF9RgfG2JNCw==", Sum("md5", MD5)),
        (f"crc32c={MD5.hex()}", None),
        ("crc32c=e30692831", None),
        ("crc32c=", None),
        ("crc32c", None),
        ("crc32c=JfnnlDI7RTiF9RgfG2JNCw==", None),
        ("md5=e3069283", None),
        ("md5=not base64!", None),
        ("sha-512=AAAA", None),
        ("\u00b2=\u00b2, ,=,", None),
        ("", None),
    ],
)
def test_a_sum_is_read_as_it_is_meant_and_what_is_not_well_formed_says_nothing(
    header: str, expected: Sum | None
) -> None:
    """An MD5 under the name of a CRC must not make a good image a bad one."""
    assert best_sum({"Digest": header}) == expected


def test_both_headers_are_read() -> None:
    """RFC 9530 puts its values between colons."""
    assert best_sum({"Repr-Digest": "sha-256=:FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=:"}) == Sum("sha-256", SHA256)
    assert best_sum({}) is None


@pytest.mark.parametrize(
    "known",
    [
        Sum("crc32c", CRC32C),
        Sum("md5", MD5),
        Sum("sha", SHA),
        Sum("sha-256", SHA256),
        Sum("adler32", bytes.fromhex("091e01de")),
    ],
    ids=lambda known: known.algorithm,
)
def test_a_sum_does_not_depend_on_how_the_bytes_come(known: Sum) -> None:
    """Piece by piece."""
    assert sum_of(known.algorithm, [CHECK]) == sum_of(known.algorithm, [CHECK[:4], b"", CHECK[4:]]) == known

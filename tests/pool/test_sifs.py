"""SIFs as Apptainer builds them: whole they are taken, cut anywhere they are not."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from cache_manager import sif
from tests.pool.world import SIFS

HEAD_BYTES: Final = 4096
"""What the hook sends of a file that came with the job."""

_TABLE: Final = struct.Struct("<qqq")
_TABLE_AT: Final = 88
_OBJECT: Final = struct.Struct("<i?IIIqq")
_ROW_BYTES: Final = 585


def objects(image: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each object begins and ends, as the format says it."""
    count, table_at, _ = _TABLE.unpack_from(image, _TABLE_AT)
    for number in range(count):
        _, used, _, _, _, at, size = _OBJECT.unpack_from(image, table_at + number * _ROW_BYTES)
        if used:
            yield at, at + size


def boundaries(image: bytes) -> list[int]:
    """Return where something begins or ends: the header, each descriptor, the table, each object, the file."""
    count, table_at, table_bytes = _TABLE.unpack_from(image, _TABLE_AT)
    rows = [table_at + number * _ROW_BYTES for number in range(count + 1)]
    ends = [end for one in objects(image) for end in one]
    return sorted({sif.HEADER_BYTES, *rows, table_at + table_bytes, *ends, len(image)})


def refusals(path: Path, size: int) -> list[str]:
    """Return why a file is refused: by the check after a fetch, and by that of what the hook sends."""
    why = []
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            sif.parse(lambda at, length: os.pread(descriptor, length, at), size)
        except sif.SifError as error:
            why.append(str(error))
        try:
            sif.parse_header(os.pread(descriptor, HEAD_BYTES, 0), size)
        except sif.SifError as error:
            why.append(str(error))
    finally:
        os.close(descriptor)
    return why


@pytest.mark.parametrize("name", sorted(path.name for path in SIFS.glob("*.sif")) or ["none"])
def test_a_real_sif_is_taken_whole_and_refused_when_it_is_cut_anywhere(tmp_path: Path, name: str) -> None:
    """At every boundary, and one byte before it."""
    image = (SIFS / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(image)
    assert refusals(path, len(image)) == []
    cuts = {cut - less for cut in boundaries(image) for less in (0, 1)} - {len(image)}
    assert len(cuts) > 100
    for cut in sorted(cuts, reverse=True):
        os.truncate(path, cut)
        found = refusals(path, cut)
        assert len(found) == 2, f"{name}, cut to {cut} of {len(image)} bytes: {found}"
        assert all("truncated SIF" in why for why in found), found

"""Conversion, with a runtime that is a script: what it is told, what it leaves, and what it may take."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cache_manager.archive import Archive
from cache_manager.converter import Converter
from cache_manager.runtime import Runtime
from cache_manager.staging import Staging
from cache_manager.status import HookStatus, StatusError
from tests.unit.builders import knobs, sif_file
from tests.unit.test_unpacker import Reservation

LAYERS = b"layers " * 1000
OCI = Archive("oci-archive", "")
SIF = sif_file(b"converted")
HELP = '[ "$2" = --help ] && { echo "      --mksquashfs-args string   extra arguments"; exit 0; }\n'
MAKES = 'echo "$@" >"$HOME/../../told"; env >"$HOME/../../environment"; cp "${0%/*}/made.sif" "$6"\n'


def convert(
    tmp_path: Path, script: str, *, sandbox: bool = False, room: Reservation | None = None
) -> tuple[Staging, str]:
    """Have a script convert an archive; return the staging, and the digest."""
    room = room or Reservation()
    path = tmp_path / "apptainer"
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)
    (tmp_path / "made.sif").write_bytes(SIF)
    directory = tmp_path / "staging"
    directory.mkdir()
    staging = Staging(directory, room.grow)
    staging.write(LAYERS)
    staging.finish()
    converter = Converter(Runtime(lambda: str(path), "", str(tmp_path)), knobs)
    return staging, converter.convert(staging, OCI, "docker://htc/rocky:9", room.grow, sandbox=sandbox)


def test_the_sif_takes_the_place_of_the_archive(tmp_path: Path) -> None:
    """With its own digest, size and mode, and nothing beside it."""
    staging, digest = convert(tmp_path, HELP + MAKES)
    assert [path.name for path in staging.directory.iterdir()] == ["image"]
    image = staging.directory / "image"
    assert image.read_bytes() == SIF
    assert image.stat().st_mode & 0o777 == 0o444
    assert (digest, staging.size_bytes) == (hashlib.sha256(SIF).hexdigest(), len(SIF))
    assert staging.head == SIF[: len(staging.head)]


def test_the_runtime_is_told_how_to_pack_and_where_to_keep_what(tmp_path: Path) -> None:
    """Fast, in little memory, without its cache, and without anything of ours in its environment."""
    convert(tmp_path, HELP + MAKES)
    told = (tmp_path / "told").read_text()
    place = tmp_path / "staging"
    assert told.startswith("-s build --disable-cache --mksquashfs-args -comp zstd -Xcompression-level 3 -mem 128M")
    assert told.endswith(f" {place}/made oci-archive:{place}/image\n")
    seen = dict(line.partition("=")[::2] for line in (tmp_path / "environment").read_text().splitlines())
    assert seen["APPTAINER_CACHEDIR"] == seen["APPTAINER_TMPDIR"] == seen["HOME"] == f"{place}/work"
    assert not any(name.startswith(("CONDOR", "_CONDOR")) or "PASSWORD" in name for name in seen)


def test_an_old_runtime_packs_as_it_always_did(tmp_path: Path) -> None:
    """It knows no other way."""
    _, digest = convert(tmp_path, '[ "$1" = build ] && exit 1\ncp "${0%/*}/made.sif" "$4"\n')
    assert digest == hashlib.sha256(SIF).hexdigest()


def test_where_sifs_do_not_run_a_directory_is_made(tmp_path: Path) -> None:
    """Everybody may read it, nobody but us may write it."""
    script = '[ "$4" = --sandbox ] && mkdir -p "$5/bin" && chmod 700 "$5/bin"\n'
    staging, digest = convert(tmp_path, script, sandbox=True)
    assert digest == ""
    assert (staging.directory / "image" / "bin").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'FATAL: no such layer' >&2; exit 255", "FATAL: no such layer"),
        ("printf 'INFO: %400s FATAL: %s/x exists' . $HOME >&2; exit 255", "converted here: FATAL: work/x exists$"),
        ("exit 0", "exit status 0"),
        ('ln -s / "$4"', "exit status 0"),
        ('mkdir "$4"', "exit status 0"),
    ],
    ids=["says why", "says much before it says why", "makes nothing", "makes a link", "makes a directory"],
)
def test_a_runtime_that_makes_no_image_has_failed(tmp_path: Path, script: str, words: str) -> None:
    """The image's name and the runtime's last words are told."""
    with pytest.raises(StatusError, match=words) as found:
        convert(tmp_path, script)
    assert found.value.status is HookStatus.IMAGE_UNPACK_FAILED
    assert found.value.message.startswith("docker://htc/rocky:9: could not be converted here: ")


def test_who_outgrows_what_is_reserved_is_ended(tmp_path: Path) -> None:
    """Layers may hold any amount of zeros."""
    script = 'i=0; while [ $i -lt 200 ]; do i=$((i + 1)); head -c 1000000 /dev/zero >"$HOME/$i"; sleep 0.02; done\n'
    with pytest.raises(StatusError, match="no room"):
        convert(tmp_path, script, room=Reservation(20_000_000))
    assert len(list((tmp_path / "staging" / "work").iterdir())) < 150


def test_the_layers_are_known_to_take_room_twice(tmp_path: Path) -> None:
    """The archive is there until the image is."""
    with pytest.raises(StatusError, match="no room"):
        convert(tmp_path, "exit 0", room=Reservation(2 * len(LAYERS) - 1))

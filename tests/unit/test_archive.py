"""Archives of layers: what kind they are, for which machine, and what is none."""

from __future__ import annotations

import io
import json
import struct
import tarfile

import pytest

from cache_manager import archive
from cache_manager.archive import Archive, ArchiveError
from cache_manager.registry import manifest as manifests
from cache_manager.registry import packing
from cache_manager.registry.manifest import Manifest
from tests.contract.archives import tar_of
from tests.unit.registry_server import digest_of, manifest

CONFIG = json.dumps({"architecture": "arm64", "os": "linux"}).encode()
LISTED = json.dumps([{"Config": "c.json", "Layers": ["l.tar"]}]).encode()
FILES = {"l.tar": b"layer" * 1000, "c.json": CONFIG, "manifest.json": LISTED}
FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def look(body: bytes) -> Archive:
    """Look into an archive."""
    return archive.look(lambda at, length: body[at : at + length], len(body))


def packed(layers: tuple[bytes, ...], config: bytes = CONFIG) -> bytes:
    """Return the archive of an image of a registry."""
    found = manifests.parse(manifest(config, *layers))
    assert isinstance(found, Manifest)
    blobs = {digest_of(blob): blob for blob in (config, *layers)}
    parts = packing.parts_of(found)
    body = b"".join(part.before + (blobs[part.blob.digest] if part.blob else b"") + part.after for part in parts)
    assert len(body) == sum(part.size_bytes for part in parts)
    return body


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_docker_saves_is_told_by_its_list(form: int) -> None:
    """In each form of a tar, and wherever the list is in it."""
    assert look(tar_of(FILES, form)) == Archive("docker-archive", "aarch64")
    assert look(tar_of(dict(reversed(FILES.items())), form)) == Archive("docker-archive", "aarch64")


def test_an_image_of_a_registry_is_packed_as_one_archive() -> None:
    """Which is a tar that everybody reads, each blob once, and always the same."""
    body = packed((b"lower", b"upper" * 1000, b"lower"))
    assert look(body) == Archive("oci-archive", "aarch64")
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        assert sum(name.startswith("blobs/sha256/") for name in tar.getnames()) == 4
        for member in tar.getmembers():
            content = tar.extractfile(member)
            if content and member.name.startswith("blobs/"):
                assert digest_of(content.read()) == f"sha256:{member.name.rpartition('/')[2]}"
    assert body == packed((b"lower", b"upper" * 1000, b"lower"))


def test_a_file_beyond_eight_gigabytes_is_skipped() -> None:
    """Its size is told in the bytes themselves, or in a header of its own."""
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        info = tarfile.TarInfo("huge.tar")
        info.size = 9 * 2**30
        head = info.tobuf(form)
        rest = tar_of(FILES)

        def read(at: int, length: int, head: bytes = head, rest: bytes = rest) -> bytes:
            begin = len(head) + 9 * 2**30
            if at >= begin:
                return rest[at - begin : at - begin + length]
            return (head + bytes(length))[at : at + length]

        found = archive.look(read, len(head) + 9 * 2**30 + len(rest))
        assert found == Archive("docker-archive", "aarch64")


def listed(*images: object) -> bytes:
    """Return an archive with this list."""
    return tar_of(FILES | {"manifest.json": json.dumps(images).encode()})


def with_number(at: int, field: bytes) -> bytes:
    """Return an archive with another number in its first header, and the right sum."""
    body = bytearray(tar_of(FILES))
    body[at : at + len(field)] = field
    body[148:156] = b" " * 8
    body[148:156] = f"{sum(body[:512]):06o}".encode() + b"\0 "
    return bytes(body)


WRONG = {
    "no image": (tar_of({"a": b"b"}), "no image"),
    "two images": (listed({"Config": "c.json"}, {"Config": "c.json"}), "holds 2 images"),
    "no list": (tar_of(FILES | {"manifest.json": b"{}"}), "holds 0 images"),
    "a list of nonsense": (listed(7), "its index is none"),
    "a list of nothing": (tar_of(FILES | {"manifest.json": b"7"}), "its index is none"),
    "a list that is no JSON": (tar_of(FILES | {"manifest.json": b"<html>"}), "no JSON"),
    "a list without an end": (tar_of(FILES | {"manifest.json": b"[" * 100_000}), "no JSON"),
    "a large list": (tar_of(FILES | {"manifest.json": b" " * (archive.MAX_JSON_BYTES + 1)}), "4194305 bytes"),
    "a configuration that is missing": (listed({"Config": "../../etc/passwd"}), "has no '../../etc/passwd'"),
    "half": (tar_of(FILES)[:3000], "ends early"),
    "cut within a header": (tar_of(FILES)[:700], "ends early"),
    "without its end": (tar_of(FILES).rstrip(b"\0"), "ends early"),
    "damaged": (tar_of(FILES)[:512] + b"x" * 10_000, "ends early|damaged"),
    "a size that is none": (with_number(124, b"0000zzzzzz\0"), "damaged"),
    "a size that cannot be meant": (with_number(124, b"\x80" + b"\xff" * 11), "damaged|ends early"),
    "an OCI layout without an index": (tar_of({"oci-layout": b"{}"}), "has no 'index.json'"),
    "an index of an index": (
        tar_of(
            {
                "oci-layout": b"{}",
                "index.json": json.dumps({"manifests": [{"digest": "sha256:a"}]}).encode(),
                "blobs/sha256/a": b'{"manifests": []}',
            }
        ),
        "holds an index",
    ),
}


@pytest.mark.parametrize(("body", "words"), WRONG.values(), ids=WRONG)
def test_what_is_no_archive_of_one_image_is_refused(body: bytes, words: str) -> None:
    """With what is wrong with it."""
    with pytest.raises(ArchiveError, match=words):
        look(body)


def test_files_without_number_end() -> None:
    """Each costs a read."""
    one = tar_of({"a": b""})[:512]
    with pytest.raises(ArchiveError, match="more than 10000 files"):
        archive.look(lambda *_: one, 2**60)


@pytest.mark.parametrize("head", [b"", b"x" * 511, b"x" * 512, b"SIF_MAGIC" * 100, bytes(512), struct.pack("512x")])
def test_what_does_not_begin_as_a_tar_is_none(head: bytes) -> None:
    """A SIF above all."""
    assert not archive.is_archive(head)
    assert archive.is_archive(tar_of(FILES))

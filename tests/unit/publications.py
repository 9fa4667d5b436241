"""What the publisher's tests publish: images as a conversion hands them on, of a few files."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Final

from sync.targets.cvmfs import CvmfsRepository, Place
from sync.values import Converted, Variant

REPOSITORY: Final = "images.example.org"
DOUBLE: Final = Path(__file__).resolve().parents[1] / "pool" / "cvmfs_server"
FILES: Final = {"bin/sh": b"#!" * 500, "etc/passwd": b"root\n", "IMAGE_ID": b""}
"""What each image has; the last one says which it is."""


def digest_of(text: str) -> str:
    """Return a digest as registries have them."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def make_tree(top: Path, text: str) -> tuple[int, int]:
    """Make an image's tree, and return its bytes and files."""
    for name, content in FILES.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content or text.encode())
    (top / "bin" / "bash").symlink_to("sh")
    (top / "bin" / "sh").chmod(0o4755)
    return sum(map(len, FILES.values())) + len(text), 1 + sum(1 for _ in top.rglob("*"))


def converted(work: Path, name: str, text: str = "", arch: str = "x86_64") -> Converted:
    """Make both forms of an image in a work directory; `text` tells its versions apart, `name` alone by default."""
    text = text or name
    place = work / digest_of(f"{text} {arch}")[7:19]
    tree, sif = place / "tree", place / "image.sif"
    if not tree.is_dir():
        tree.mkdir(parents=True)
        make_tree(tree, text)
    size, inodes = sum(path.lstat().st_size for path in tree.rglob("*") if path.is_file()), 1
    inodes += sum(1 for _ in tree.rglob("*"))
    sif.write_bytes(text.encode() * 1000)
    sha256 = hashlib.sha256(sif.read_bytes()).hexdigest()
    variant = Variant(arch, digest_of(f"{text} {arch}"), 1000)
    return Converted(
        name=name,
        source=f"docker.io/{name}",
        index_digest=digest_of(text),
        variant=variant,
        tree_path=str(tree),
        tree_digest=hashlib.sha256(text.encode()).hexdigest(),
        tree_bytes=size,
        tree_inodes=inodes,
        sif_path=str(sif),
        sha256=sha256,
        size_bytes=sif.stat().st_size,
        tools={"test": "1"},
    )


def is_image(top: Path, text: str) -> bool:
    """Whether a directory holds all of an image."""
    found = {name: (top / name).read_bytes() for name in FILES if (top / name).is_file()}
    return found == {name: content or text.encode() for name, content in FILES.items()}


class Server:
    """A machine with a CVMFS repository: the double of cvmfs_server, and what publishers and readers see."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.command = directory / "cvmfs_server"
        shutil.copy(DOUBLE, self.command)
        self.place = Place(REPOSITORY, directory / "cvmfs", directory / "spool", str(self.command))
        self.record = directory / "state" / "transaction.json"
        self.client = directory / "client" / REPOSITORY

    @property
    def lock(self) -> Path:
        """What is there during a transaction."""
        return self.place.area / "in_transaction.lock"

    def repository(self) -> CvmfsRepository:
        """Return the driver, as a new process has it."""
        return CvmfsRepository(self.place, self.record)

    def asked(self) -> list[str]:
        """Return what the double was asked to do."""
        return [line.split()[0] for line in (self.directory / "asked").read_text().splitlines()]

    def resolve(self, name: str) -> Path:
        """Return where a name leads readers, whose links say /cvmfs."""
        target = str((self.client / name).readlink())
        return self.client / target.removeprefix(f"/cvmfs/{REPOSITORY}/")

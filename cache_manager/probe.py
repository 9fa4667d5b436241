"""The smallest images there are, put together byte by byte: to be run is the only proof that images run here. Pure.

An execution point has no compiler and perhaps no mksquashfs, and HTCondor's own probe images are not packaged
everywhere. Written from the formats' descriptions: ELF (System V ABI), squashfs 4.0 (kernel documentation), SIF 1.
"""

from __future__ import annotations

import struct
from typing import Final

from cache_manager import sifwriter

STATUS: Final = 37
"""How the program ends, like HTCondor's own: by chance nothing else does."""

PROGRAM: Final = "exit_37"
"""The program's name, at the top of the image."""

DIRECTORIES: Final = ("dev", "etc", "home", "proc", "root", "sys", "tmp", "var")
"""What the runtime mounts something on."""

_ELF: Final = {  # machine, then: put 37 into the first argument, exit's number into its register, and call the kernel
    "x86_64": (62, bytes.fromhex("bf25000000 b83c000000 0f05")),
    "aarch64": (183, bytes.fromhex("a00480d2 a80b80d2 010000d4")),
}
_LOAD_AT: Final = 0x400000
_PAGE_BYTES: Final = 0x10000
_ELF_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")

_BLOCK_BYTES: Final = 131072
_SUPERBLOCK: Final = struct.Struct("<4sIIIIHHHHHHQQQQQQQQ")
_NONE: Final = 2**64 - 1
_NO_FRAGMENT: Final = 2**32 - 1
_STORED: Final = 0x8000
"""A metadata block that is not compressed."""
_FLAGS: Final = 0x0001 | 0x0002 | 0x0008 | 0x0010 | 0x0200 | 0x0800
"""Nothing is compressed; no fragments, no extended attributes."""
_DIRECTORY, _FILE = 1, 2

_ALIGNMENT: Final = 4096


def is_known(architecture: str) -> bool:
    """Whether there is a probe for an architecture, named as `uname -m` does."""
    return architecture in _ELF


def program(architecture: str) -> bytes:
    """Return a static program that ends with STATUS. Raises KeyError for an unknown architecture."""
    machine, code = _ELF[architecture]
    code_at = _ELF_HEADER.size + _SEGMENT.size
    identity = b"\x7fELF" + bytes((2, 1, 1))  # 64 bits, little-endian, version 1
    header = _ELF_HEADER.pack(
        *(identity, 2, machine, 1, _LOAD_AT + code_at, _ELF_HEADER.size, 0, 0),
        *(_ELF_HEADER.size, _SEGMENT.size, 1, 0, 0, 0),
    )
    size = code_at + len(code)
    return header + _SEGMENT.pack(1, 5, 0, _LOAD_AT, _LOAD_AT, size, size, _PAGE_BYTES) + code


def squashfs(architecture: str) -> bytes:
    """Return a file system that holds the program and empty DIRECTORIES. Raises KeyError."""
    body = program(architecture)
    names = sorted((*DIRECTORIES, PROGRAM))
    root_number = len(names) + 1
    inodes, listing = b"", b""
    for number, name in enumerate(names, 1):
        kind = _FILE if name == PROGRAM else _DIRECTORY
        # each entry's header would do for 256 of them: here the first says it all
        if not listing:
            listing = struct.pack("<III", len(names) - 1, 0, 1)
        listing += struct.pack("<HhHH", len(inodes), number - 1, kind, len(name) - 1) + name.encode()
        inodes += _inode(kind, number)
        if kind == _FILE:
            stored = len(body) | 1 << 24
            inodes += struct.pack("<IIIII", _SUPERBLOCK.size, _NO_FRAGMENT, 0, len(body), stored)
        else:
            inodes += struct.pack("<IIHHI", 0, 2, 3, 0, root_number)
    root_at = len(inodes)
    inodes += _inode(_DIRECTORY, root_number)
    inodes += struct.pack("<IIHHI", 0, 2 + len(DIRECTORIES), len(listing) + 3, 0, root_number + 1)
    inode_table_at = _SUPERBLOCK.size + len(body)
    listing_at = inode_table_at + 2 + len(inodes)
    ids_at = listing_at + 2 + len(listing)
    index_at = ids_at + 2 + 4
    tail = _block(inodes) + _block(listing) + _block(bytes(4)) + struct.pack("<Q", ids_at)
    superblock = _SUPERBLOCK.pack(
        *(b"hsqs", root_number, 0, _BLOCK_BYTES, 0, 1, 17, _FLAGS, 1, 4, 0),
        *(root_at, index_at + 8, index_at, _NONE, inode_table_at, listing_at, _NONE, _NONE),
    )
    return _padded(superblock + body + tail)


def sif(architecture: str) -> bytes:
    """Return an image file that holds the program. Raises KeyError."""
    return wrapped(squashfs(architecture), architecture)


def wrapped(data: bytes, architecture: str) -> bytes:
    """Return an image file of a squashfs. Raises KeyError."""
    at = sifwriter.DATA_AT + -sifwriter.DATA_AT % _ALIGNMENT
    place = sifwriter.Part(sifwriter.Kind.FILE_SYSTEM, "probe", at, len(data))
    return _padded(sifwriter.front([place], architecture, b"image cache prob")) + data


def _inode(kind: int, number: int) -> bytes:
    return struct.pack("<HHHHII", kind, 0o755, 0, 0, 0, number)


def _block(data: bytes) -> bytes:
    return struct.pack("<H", len(data) | _STORED) + data


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)

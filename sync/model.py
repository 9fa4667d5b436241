"""A tree as it stands while layers are put into it: what is where, and what a layer's names mean there. Pure.

The model is the only thing that is asked: no symbolic link on the disk is ever followed, so none can lead out.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator
from typing import Final

MAX_LINKS: Final = 40
"""As many as the kernel follows for one name."""

MAX_PATH_BYTES: Final = 3000
"""Of a path in the tree: less than the kernel's limit, as readers put a directory before it."""

MAX_DEPTH: Final = 200
"""Of directories in each other: whoever removes a tree holds them all open, one below the other."""

MAX_NAME_BYTES: Final = 255


class ModelError(ValueError):
    """A name that cannot be in a tree; the text says why."""


class Form(enum.IntEnum):
    """What a node is; the value is its letter in the tree digest."""

    DIRECTORY = ord("d")
    FILE = ord("f")
    SYMLINK = ord("l")


class Node:
    """What has a name: a file, a directory or a symbolic link.

    `layer` is the number of the layer that stated it last; of a directory also that of the last one which put something
    below it. `digest` is the binary sha256 of a file, `target` is a link's. `names` has one number that the nodes of a
    file with several names share: how many it has.
    """

    __slots__ = ("children", "digest", "form", "layer", "mode", "mtime_ns", "names", "size", "target")

    def __init__(self, form: Form, mode: int, layer: int, mtime_ns: int = 0) -> None:
        self.form = form
        self.mode = mode
        self.layer = layer
        self.mtime_ns = mtime_ns
        self.size = 0
        self.digest = b""
        self.target = b""
        self.names: list[int] | None = None
        self.children: dict[bytes, Node] = {} if form is Form.DIRECTORY else _NO_CHILDREN

    @property
    def is_directory(self) -> bool:
        """Whether there may be something below it."""
        return self.form is Form.DIRECTORY

    def linked(self, layer: int) -> Node:
        """Return the node of one more name of this file, which a layer states."""
        self.names = self.names or [1]
        self.names[0] += 1
        other = Node(self.form, self.mode, layer, self.mtime_ns)
        other.size, other.digest, other.target, other.names = self.size, self.digest, self.target, self.names
        return other

    def unlinked(self) -> bool:
        """Take one name away; return whether it was the last one."""
        if self.names is None:
            return True
        self.names[0] -= 1
        return self.names[0] == 0


_NO_CHILDREN: Final[dict[bytes, Node]] = {}


def words_of(path: bytes) -> list[bytes]:
    """Take a path apart: without what means nothing, `..` kept. Raises ModelError for what no kernel takes."""
    if len(path) > MAX_PATH_BYTES:
        raise ModelError(f"a name of {len(path)} bytes")
    words = [word for word in path.split(b"/") if word not in (b"", b".")]
    if any(len(word) > MAX_NAME_BYTES for word in words):
        raise ModelError(f"a name with a part of more than {MAX_NAME_BYTES} bytes")
    if len(words) > MAX_DEPTH:
        raise ModelError(f"{len(words)} directories in each other")
    return words


def real_path(root: Node, words: list[bytes]) -> list[bytes]:
    """Return where a directory's path leads, with `root` as its `/`: links are followed, `..` ends at the root.

    What does not exist is taken as it is written. Raises ModelError for links without end and for what is below a file.
    """
    ahead, followed = list(reversed(words)), 0
    done: list[bytes] = []
    nodes: list[Node | None] = [root]
    while ahead:
        word = ahead.pop()
        if word == b"..":
            if done:
                done.pop()
                nodes.pop()
            continue
        here = nodes[-1]
        found = here.children.get(word) if here is not None else None
        if found is not None and found.form is Form.SYMLINK:
            followed += 1
            if followed > MAX_LINKS:
                raise ModelError(f"more than {MAX_LINKS} symbolic links on the way")
            if found.target.startswith(b"/"):
                done, nodes = [], [root]
            ahead += reversed(words_of(found.target))
            continue
        if found is not None and not found.is_directory:
            raise ModelError(f"{shown(b'/'.join([*done, word]))} is no directory, and something is to be below it")
        done.append(word)
        nodes.append(found)
    if len(done) > MAX_DEPTH or sum(map(len, done)) + len(done) > MAX_PATH_BYTES:
        raise ModelError("a path that is too long once its links are followed")
    return done


def at(root: Node, words: list[bytes]) -> Node | None:
    """Return what is at a path in which nothing is followed, None if nothing is."""
    node: Node | None = root
    for word in words:
        node = node.children.get(word) if node is not None else None
    return node


def walk(root: Node) -> Iterator[tuple[bytes, Node]]:
    """Yield every path and its node, a directory before what is in it, names in the order of their bytes.

    The root's path is empty.
    """
    yield b"", root
    way = [(b"", root, iter(sorted(root.children)))]
    while way:  # one path at a time is made whole: there may be a million with a long way to them
        prefix, here, names = way[-1]
        name = next(names, None)
        if name is None:
            way.pop()
            continue
        path, node = prefix + name, here.children[name]
        yield path, node
        if node.is_directory:
            way.append((path + b"/", node, iter(sorted(node.children))))


def record(path: bytes, node: Node) -> bytes:
    """Return what the tree digest says of one path: `form mode size sha256 path target`, names with their lengths.

    Size and sha256 are of files only; a symbolic link's mode is 777. `-` stands for what there is not.
    """
    is_file = node.form is Form.FILE
    mode = 0o777 if node.form is Form.SYMLINK else node.mode
    digest = node.digest.hex() if is_file else "-"
    head = f"{chr(node.form)} {mode:o} {node.size if is_file else 0} {digest} {len(path)}:".encode()
    return b"%s%s %d:%s\n" % (head, path, len(node.target), node.target)


def tree_digest(root: Node) -> str:
    """Return the tree digest: the hexadecimal sha256 of all records, in the order of `walk`.

    Owners, times, hard links and extended attributes are not in it: they differ between publishers and copies.
    """
    whole = hashlib.sha256()
    for path, node in walk(root):
        whole.update(record(path, node))
    return whole.hexdigest()


def shown(name: bytes) -> str:
    """Return a name as text for people, bytes that are no text as hexadecimal numbers."""
    return repr(name[:200].decode("utf-8", "backslashreplace"))[1:-1]

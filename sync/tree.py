"""A directory on the disk that becomes an image, together with the model of what is in it.

Ownership is not kept: all belongs to the publisher, and gets u+rwX. Devices and FIFOs are left out and counted, and so
are extended attributes that may not be set. Nobody else may be able to write to the directory.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sync import handle, model
from sync.handle import Directory
from sync.model import Form, ModelError, Node
from sync.tarstream import Member

_KEPT_OPEN: Final = 64
_MAX_TARGET_BYTES: Final = 4095
"""As much as the kernel takes."""


class UnpackError(ValueError):
    """Something that cannot be put into the tree; the text says what, and why."""


@dataclass(slots=True)
class Counts:
    """What a tree takes, and what was left out of it.

    `names` are all, also where one file has several; `text_bytes` is what they and the targets of links consist of.
    """

    size_bytes: int = 0
    inodes: int = 1
    names: int = 1
    text_bytes: int = 0
    specials: int = 0
    xattrs: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What ends a bomb. `check` is called now and then, and raises whatever ends the work.

    `max_inodes` and `max_text_bytes` bound what the model takes in memory: about 400 bytes for a name, and its text.
    """

    max_bytes: int = 2**62
    max_inodes: int = 2**62
    check: Callable[[], None] = lambda: None
    max_text_bytes: int = 64 << 20

    @property
    def max_layer_bytes(self) -> int:
        """What one layer may be once it is uncompressed: its files, and what stands between them, with room."""
        return 2 * self.max_bytes + 2**30


class Tree:
    """The directory, made new, as a context manager. Paths are lists of names; links in them lead within the tree.

    Methods raise UnpackError, ModelError and OSError; after that the tree is of no use.
    """

    def __init__(self, directory: Path, bounds: Bounds) -> None:
        self.counts = Counts()
        self.root = Node(Form.DIRECTORY, 0o755, 0)
        self.layer = 0
        self.bounds = bounds
        self._directory = directory
        self._known: OrderedDict[bytes, Directory] = OrderedDict()

    def __enter__(self) -> Self:
        self._directory.mkdir(mode=0o755)
        self._directory.chmod(0o755)
        self._top = handle.open_top(os.fsencode(self._directory), self.root)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._known.clear()
        del self._top

    def begin_layer(self) -> None:
        """Begin to put another layer over what is there."""
        self.layer += 1
        self._known.clear()

    def finish(self) -> None:
        """Give directories their times, which change while something is put into them."""
        self._known.clear()
        way = [(self._top, _directories(self._top.node))]
        while way:  # no more of them are open than are in each other: there may be thousands side by side
            here, names = way[-1]
            name = next(names, None)
            if name is None:
                os.utime(here.fd, ns=(here.node.mtime_ns, here.node.mtime_ns))
                way.pop()
            else:
                inner = here.open(name)
                way.append((inner, _directories(inner.node)))

    # --- directories --------------------------------------------------------------------------------------------------

    def existing(self, words: list[bytes]) -> Directory | None:
        """Return a directory, None if there is none."""
        try:
            real = model.real_path(self.root, words)
        except ModelError:
            return None
        here = self._top
        for word in real:
            if word not in here.node.children:
                return None
            here = here.open(word)
        return here

    def parent(self, words: list[bytes]) -> Directory:
        """Return a directory in which the layer puts something; it is made if it is missing."""
        known = self._known.get(b"/".join(words))
        if known is not None:
            return known
        real = model.real_path(self.root, words)
        here = self._top
        for word in real:
            if word not in here.node.children:
                self.make_directory(here, word, Member(word, 0o755))
            here = here.open(word)
            here.node.layer = self.layer
        self._known[b"/".join(real)] = here
        if len(self._known) > _KEPT_OPEN:
            self._known.popitem(last=False)
        return here

    def has(self, words: list[bytes]) -> bool:
        """Whether the image has something by this name, be it a link that leads nowhere."""
        parent = self.existing(words[:-1])
        return parent is not None and words[-1] in parent.node.children

    # --- what is made -------------------------------------------------------------------------------------------------

    def state_root(self, member: Member) -> None:
        """Take over the mode of the image's top; others have to get through it, whatever it says."""
        self.root.mode, self.root.mtime_ns = member.mode | 0o755, member.mtime_ns
        os.fchmod(self._top.fd, self.root.mode)

    def make_directory(self, parent: Directory, name: bytes, member: Member) -> None:
        """Make a directory, or give the one that is there its mode."""
        mode = member.mode | 0o700
        node = parent.node.children.get(name)
        if node is None or not node.is_directory:
            self._make_room(parent, name)
            os.mkdir(name, dir_fd=parent.fd)
            node = parent.node.children[name] = Node(Form.DIRECTORY, 0, self.layer)
        if node.mode != mode:
            os.chmod(name, mode, dir_fd=parent.fd)
        node.mode, node.mtime_ns, node.layer = mode, member.mtime_ns, self.layer
        if member.xattrs:
            self.counts.xattrs += handle.set_xattrs(parent.open(name).fd, member.xattrs)

    def make_symlink(self, parent: Directory, name: bytes, member: Member) -> None:
        """Make a symbolic link, whatever it leads to."""
        if not 0 < len(member.link) <= _MAX_TARGET_BYTES:
            raise UnpackError(f"a symbolic link to a name of {len(member.link)} bytes")
        self._make_room(parent, name, len(member.link))
        os.symlink(member.link, name, dir_fd=parent.fd)
        os.utime(name, ns=(member.mtime_ns, member.mtime_ns), dir_fd=parent.fd, follow_symlinks=False)
        node = parent.node.children[name] = Node(Form.SYMLINK, 0o777, self.layer, member.mtime_ns)
        node.target = member.link

    def make_link(self, parent: Directory, name: bytes, member: Member) -> None:
        """Give a file of the tree, of whatever layer, one more name."""
        words = model.words_of(member.link)
        target = self.existing(words[:-1]) if words else None
        node = target.node.children.get(words[-1]) if target is not None else None
        if target is None or node is None or node.is_directory:
            what = "a directory" if node is not None else "not in the image"
            raise UnpackError(f"a hard link to {model.shown(member.link)}, which is {what}")
        if node is parent.node.children.get(name):
            return
        self._make_room(parent, name)
        os.link(words[-1], name, src_dir_fd=target.fd, dst_dir_fd=parent.fd, follow_symlinks=False)
        self.counts.inodes -= 1
        parent.node.children[name] = node.linked(self.layer)

    def make_file(self, parent: Directory, name: bytes, member: Member, content: Iterator[memoryview]) -> None:
        """Make a file of what is stored of it."""
        self._make_room(parent, name)
        self.counts.size_bytes += member.size
        if self.counts.size_bytes > self.bounds.max_bytes:
            raise UnpackError(f"with it the image unpacks to more than {self.bounds.max_bytes} bytes")
        fd = parent.create(name)
        try:
            mode = member.mode | (0o700 if member.mode & 0o111 else 0o600)
            node = parent.node.children[name] = Node(Form.FILE, mode, self.layer, member.mtime_ns)
            node.size = member.size
            if member.parts is None:
                node.digest = handle.write(fd, content)
            else:
                node.digest = handle.write_sparse(fd, member.size, member.parts, content, self.bounds.check)
            if member.xattrs:
                self.counts.xattrs += handle.set_xattrs(fd, member.xattrs)
            os.fchmod(fd, mode)  # after the bytes: writing takes a set-uid bit away
            os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
        finally:
            os.close(fd)

    # --- what goes ----------------------------------------------------------------------------------------------------

    def hide(self, parent: Directory, name: bytes) -> None:
        """Remove what lower layers have by a name; what this one has stays."""
        node = parent.node.children[name]
        if node.layer < self.layer:
            self.remove(parent, name)
        elif node.is_directory:
            inner = parent.open(name)
            for one in list(node.children):
                self.hide(inner, one)

    def remove(self, parent: Directory, name: bytes) -> None:
        """Remove a name, and all below it."""
        node = parent.node.children[name]
        if node.is_directory:
            self._known.clear()  # one of them may be below it
            inner = parent.open(name)
            for one in list(node.children):
                self.remove(inner, one)
            os.rmdir(name, dir_fd=parent.fd)
        else:
            os.unlink(name, dir_fd=parent.fd)
        del parent.node.children[name]
        self.counts.names -= 1
        self.counts.text_bytes -= len(name)
        if node.unlinked():
            self.counts.text_bytes -= len(node.target)
            self.counts.inodes -= 1
            self.counts.size_bytes -= node.size

    def _make_room(self, parent: Directory, name: bytes, target_bytes: int = 0) -> None:
        """Remove what has the name, and count what comes."""
        if name in parent.node.children:
            self.remove(parent, name)
        counts, bounds = self.counts, self.bounds
        counts.inodes += 1
        counts.names += 1
        counts.text_bytes += len(name) + target_bytes
        if counts.names > bounds.max_inodes:  # a file's other names are no inodes, and take memory as well
            raise UnpackError(f"with it the image has more than {bounds.max_inodes} files")
        if counts.text_bytes > bounds.max_text_bytes:
            raise UnpackError(f"with it the names in the image take more than {bounds.max_text_bytes} bytes")


def _directories(node: Node) -> Iterator[bytes]:
    return (name for name, child in node.children.items() if child.is_directory)

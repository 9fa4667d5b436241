"""Put a layer over a tree, as OCI says: whiteouts, opaque directories, links, and what replaces what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from sync import model
from sync.model import ModelError
from sync.tarheader import TarError
from sync.tarstream import Kind, Member, TarStream
from sync.tree import Tree, UnpackError

WHITEOUT: Final = b".wh."
OPAQUE: Final = b".wh..wh..opq"
_AUFS: Final = b".wh..wh."
"""How the names begin of what an old file system put beside its whiteouts."""


def add_layer(tree: Tree, blocks: Iterator[bytes], check: Callable[[], None] = lambda: None) -> None:
    """Put one layer, uncompressed, over what is there.

    Raises UnpackError and TarError, whose texts name the member, OSError, what `check` and the blocks' iterator raise.
    """
    tree.begin_layer()
    stream = TarStream(_bounded(blocks, tree.bounds.max_layer_bytes, check))
    for member in stream:
        check()
        try:
            add(tree, member, stream.content())
        except (ModelError, UnpackError, TarError) as error:
            kind = type(error) if not isinstance(error, ModelError) else UnpackError
            raise kind(f"{model.shown(member.name)}: {error}") from None
        except OSError as error:
            error.filename, error.filename2 = model.shown(member.name), None
            raise


def _bounded(blocks: Iterator[bytes], most: int, check: Callable[[], None]) -> Iterator[bytes]:
    """Hand the blocks on, up to a limit: what is skipped, or stands behind the last member, is no file's size."""
    left = most
    for block in blocks:
        check()
        left -= len(block)
        if left < 0:
            raise TarError(f"a bomb: it unpacks to more than {most} bytes")
        yield block


def add(tree: Tree, member: Member, content: Iterator[memoryview]) -> None:
    """Put one member over what is there. Raises UnpackError, ModelError, OSError."""
    words = model.words_of(member.name)
    if b".." in words:  # it may stand anywhere, and means what it means on the disk
        words = [*model.real_path(tree.root, words[:-1]), words[-1]]
        words = words if words[-1] != b".." else words[:-2]
    if not words:
        if member.kind is Kind.DIRECTORY:
            tree.state_root(member)
    elif words[-1].startswith(WHITEOUT) or any(word.startswith(_AUFS) for word in words):
        _white_out(tree, words)
    elif member.kind is Kind.SPECIAL:
        _leave_out(tree, words)
    else:
        _make(tree, words, member, content)


def _make(tree: Tree, words: list[bytes], member: Member, content: Iterator[memoryview]) -> None:
    parent, name = tree.parent(words[:-1]), words[-1]
    if member.kind is Kind.DIRECTORY:
        tree.make_directory(parent, name, member)
    elif member.kind is Kind.SYMLINK:
        tree.make_symlink(parent, name, member)
    elif member.kind is Kind.HARDLINK:
        tree.make_link(parent, name, member)
    else:
        tree.make_file(parent, name, member, content)


def _leave_out(tree: Tree, words: list[bytes]) -> None:
    """Make no device or FIFO; what it replaces goes."""
    tree.counts.specials += 1
    parent = tree.existing(words[:-1])
    if parent is not None and words[-1] in parent.node.children:
        tree.remove(parent, words[-1])


def _white_out(tree: Tree, words: list[bytes]) -> None:
    """Hide what lower layers have: a name, or all that is in a directory. What this layer has stays."""
    name = words[-1]
    parent = tree.existing(words[:-1])
    if name == OPAQUE:
        hidden = list(parent.node.children) if parent is not None else []
    elif any(word.startswith(_AUFS) for word in words):
        hidden = []
    else:
        hidden = [name.removeprefix(WHITEOUT)]
        if hidden[0] in (b"", b".", b".."):
            raise UnpackError("a whiteout of no name")
    for one in hidden:
        if parent is not None and one in parent.node.children:
            tree.hide(parent, one)

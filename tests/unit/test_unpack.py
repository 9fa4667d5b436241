"""What layers mean, and what hostile ones come to: a table of layers and of the tree that they leave."""

from __future__ import annotations

import os
import resource
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sync import model, readback, unpack
from sync.model import Form
from sync.tarheader import TarError
from sync.tree import Bounds, Tree, UnpackError
from tests.layers import MTIME, Entry, tar

UNDECODABLE = b"caf\xe9".decode("utf-8", "surrogateescape")


def described(root: model.Node) -> dict[str, str]:
    """Return what is where: `dir 755`, `file 644 text`, `-> target`."""
    found = {}
    for path, node in model.walk(root):
        name = os.fsdecode(path)
        if node.form is Form.SYMLINK:
            found[name] = f"-> {os.fsdecode(node.target)}"
        elif node.is_directory:
            found[name] = f"dir {node.mode:o}"
        else:
            found[name] = f"file {node.mode:o} {node.size}"
    found.pop("")
    return found


def apply(directory: Path, *layers: list[Entry] | bytes, bounds: Bounds = Bounds()) -> Tree:  # noqa: B008 - immutable
    """Put layers over each other, and hold the model against what is on the disk."""
    with Tree(directory / "tree", bounds) as tree:
        for layer in layers:
            unpack.add_layer(tree, blocks(layer if isinstance(layer, bytes) else tar(layer)), bounds.check)
        tree.finish()
    on_disk = readback.tree_of(directory / "tree")
    assert described(on_disk) == described(tree.root)
    assert model.tree_digest(on_disk) == model.tree_digest(tree.root)
    assert tree.counts.inodes == len({os.lstat(path).st_ino for path in paths(directory / "tree")})
    return tree


def paths(top: Path) -> Iterator[bytes]:
    """Yield all paths, the top included."""
    yield os.fsencode(top)
    for here, directories, files in os.walk(os.fsencode(top)):
        yield from (here + b"/" + name for name in (*directories, *files))


def blocks(archive: bytes, size: int = 1000) -> Iterator[bytes]:
    """Cut an archive where nobody expects it."""
    return (archive[at : at + size] for at in range(0, len(archive), size))


LAYERS: dict[str, tuple[list[list[Entry]], dict[str, str]]] = {
    "a whiteout hides what lower layers have": (
        [[Entry("a/x"), Entry("a/y")], [Entry("a/.wh.x"), Entry("a/.wh.missing"), Entry("nowhere/.wh.x")]],
        {"a": "dir 755", "a/y": "file 644 0"},
    ),
    "a whiteout hides nothing of its own layer, before it or after it": (
        [[Entry("a/x", body="old")], [Entry("a/x", body="newer"), Entry("a/.wh.x")], [Entry(".wh.b"), Entry("b")]],
        {"a": "dir 755", "a/x": "file 644 5", "b": "file 644 0"},
    ),
    "a whiteout of a directory keeps what its own layer puts there": (
        [[Entry("a/x"), Entry("a/deep/y"), Entry("b/z")], [Entry("a/deep/new"), Entry(".wh.a"), Entry(".wh.b")]],
        {"a": "dir 755", "a/deep": "dir 755", "a/deep/new": "file 644 0"},
    ),
    "an opaque directory hides all that lower layers have in it": (
        [[Entry("a/x"), Entry("a/d/y")], [Entry("a/new"), Entry("a/.wh..wh..opq"), Entry("a/d", "dir")]],
        {"a": "dir 755", "a/d": "dir 755", "a/new": "file 644 0"},
    ),
    "what aufs kept beside its whiteouts is nothing": (
        [[Entry(".wh..wh.plnk", "dir"), Entry(".wh..wh.plnk/1.2"), Entry(".wh..wh.aufs"), Entry("a")]],
        {"a": "file 644 0"},
    ),
    "a hard link to a file of a lower layer, whose own name goes then": (
        [[Entry("a", body="text")], [Entry("b", "hard", "a"), Entry(".wh.a")]],
        {"b": "file 644 4"},
    ),
    "a hard link to itself, and over another file": (
        [[Entry("a", body="1"), Entry("a", "hard", "a"), Entry("b", body="22"), Entry("b", "hard", "/a")]],
        {"a": "file 644 1", "b": "file 644 1"},
    ),
    "a file that replaces one with several names leaves the others alone": (
        [[Entry("a", body="old"), Entry("b", "hard", "a")], [Entry("a", body="newer")]],
        {"a": "file 644 5", "b": "file 644 3"},
    ),
    "a file where a directory was, and the other way round": (
        [[Entry("a/x"), Entry("b")], [Entry("a", body="1"), Entry("b", "dir"), Entry("b/y")]],
        {"a": "file 644 1", "b": "dir 755", "b/y": "file 644 0"},
    ),
    "a directory replaces a link, a link a directory": (
        [
            [Entry("r/x"), Entry("l", "link", "r"), Entry("d/y")],
            [Entry("l", "dir", mode=0o750), Entry("d", "link", "r")],
        ],
        {"d": "-> r", "l": "dir 750", "r": "dir 755", "r/x": "file 644 0"},
    ),
    "a name twice in one layer: the last counts": (
        [
            [
                Entry("a", body="first"),
                Entry("a", body="2"),
                Entry("d", "dir", mode=0o700),
                Entry("d", "dir", mode=0o711),
            ]
        ],
        {"a": "file 644 1", "d": "dir 711"},
    ),
    "what is below a link goes where it leads within the tree": (
        [[Entry("usr/lib/x"), Entry("lib", "link", "usr/lib")], [Entry("lib/y"), Entry("lib/.wh.x")]],
        {"lib": "-> usr/lib", "usr": "dir 755", "usr/lib": "dir 755", "usr/lib/y": "file 644 0"},
    ),
    "modes: readable and writable by the owner, set-uid bits and the sticky bit kept": (
        [
            [
                *(Entry("suid", mode=0o4755), Entry("none", mode=0), Entry("run", mode=0o111)),
                *(Entry("t", "dir", mode=0o1777), Entry("closed", "dir", mode=0), Entry("closed/x")),
            ]
        ],
        {
            "closed": "dir 700",
            "closed/x": "file 644 0",
            "none": "file 600 0",
            "run": "file 711 0",
            "suid": "file 4755 0",
            "t": "dir 1777",
        },
    ),
    "names with blanks, newlines, and bytes that are no text": (
        [[Entry("a b"), Entry("c\nd"), Entry(UNDECODABLE), Entry("l", "link", UNDECODABLE), Entry("n" * 255)]],
        {"a b": "file 644 0", "c\nd": "file 644 0", UNDECODABLE: "file 644 0", "l": f"-> {UNDECODABLE}"}
        | {"n" * 255: "file 644 0"},
    ),
    "devices and FIFOs are left out, and what they replace is gone": (
        [[Entry("a"), Entry("b")], [Entry("a", "char"), Entry("b", "fifo"), Entry("c", "block"), Entry("x/d", "fifo")]],
        {},
    ),
    "`..` and absolute names stay within the tree": (
        [[Entry("../../a"), Entry("/b"), Entry("c/../../d"), Entry("e/../f", "dir"), Entry("g/..", "dir")]],
        {"a": "file 644 0", "b": "file 644 0", "d": "file 644 0", "f": "dir 755"},
    ),
    "links that lead out are kept, and not followed": (
        [
            [Entry("up", "link", "../../../../../../outside"), Entry("abs", "link", "/outside")],
            [Entry("up/x"), Entry("abs/y"), Entry("hard", "hard", "up")],
        ],
        {
            "abs": "-> /outside",
            "hard": "-> ../../../../../../outside",
            "up": "-> ../../../../../../outside",
            "outside": "dir 755",
            "outside/x": "file 644 0",
            "outside/y": "file 644 0",
        },
    ),
    "a link in place of a directory that was open, and a file through it": (
        [[Entry("d/a"), Entry("d", "link", "/outside"), Entry("d/b")]],
        {"d": "-> /outside", "outside": "dir 755", "outside/b": "file 644 0"},
    ),
    "the top's mode, which others have to get through": (
        [[Entry("./", "dir", mode=0o700), Entry("a")]],
        {"a": "file 644 0"},
    ),
}


@pytest.mark.parametrize("what", LAYERS)
def test_layers_leave_the_tree_that_oci_says(tmp_path: Path, what: str) -> None:
    """And nothing beside it."""
    layers, wanted = LAYERS[what]
    (tmp_path / "outside").mkdir()
    apply(tmp_path, *layers)
    assert described(readback.tree_of(tmp_path / "tree")) == dict(sorted(wanted.items()))
    assert {path.name for path in tmp_path.iterdir()} == {"tree", "outside"}
    assert not list((tmp_path / "outside").iterdir())
    assert stat.S_IMODE((tmp_path / "tree").stat().st_mode) == 0o755


REFUSED: dict[str, tuple[list[Entry], str]] = {
    "a hard link to what is not there": ([Entry("a", "hard", "/etc/passwd")], "which is not in the image"),
    "a hard link out": ([Entry("a", "hard", "../../outside")], "which is not in the image"),
    "a hard link to a directory": ([Entry("d", "dir"), Entry("a", "hard", "d")], "which is a directory"),
    "a whiteout of `..`": ([Entry("a/.wh...")], "a whiteout of no name"),
    "a whiteout of nothing": ([Entry("a/b"), Entry("a/.wh.")], "a whiteout of no name"),
    "a file below a file": ([Entry("a"), Entry("a/b")], "is no directory"),
    "links without end": ([Entry("a", "link", "b"), Entry("b", "link", "a"), Entry("a/c")], "more than 40"),
    "a name that no kernel takes": ([Entry("n" * 256)], "more than 255 bytes"),
    "a path that no kernel takes": ([Entry("/".join(["d" * 100] * 40))], "a name of"),
    "a thousand directories in each other": ([Entry("d/" * 1000)], "1000 directories in each other"),
    "a link to nothing": ([Entry("a", "link", "")], "a symbolic link to a name of 0 bytes"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_layer_that_cannot_be_meant_is_refused_by_the_name_of_what_is_wrong(tmp_path: Path, what: str) -> None:
    """Nothing lands beside the tree."""
    entries, why = REFUSED[what]
    (tmp_path / "outside").write_text("untouched", encoding="utf-8")
    with pytest.raises(UnpackError, match=why) as caught:
        apply(tmp_path, entries)
    assert str(caught.value).startswith(model.shown(entries[-1].name.encode().rstrip(b"/"))[:50])
    assert (tmp_path / "outside").read_text(encoding="utf-8") == "untouched"
    assert {path.name for path in tmp_path.iterdir()} == {"tree", "outside"}


@pytest.mark.parametrize(
    ("bounds", "why"),
    [(Bounds(max_bytes=2999), "more than 2999 bytes"), (Bounds(max_inodes=3), "more than 3 files")],
)
def test_a_layer_that_grows_beyond_what_is_allowed_is_ended(tmp_path: Path, bounds: Bounds, why: str) -> None:
    """Replaced files do not count twice."""
    apply(tmp_path, [Entry("a", body=b"1" * 2000)], [Entry("a", body=b"2" * 2000)], bounds=bounds)
    (tmp_path / "again").mkdir()
    with pytest.raises(UnpackError, match=why):
        apply(tmp_path / "again", [Entry(name, body=b"1" * 1000) for name in "abc"], bounds=bounds)


def test_a_layer_of_nothing_but_names_is_ended_before_it_takes_the_memory(tmp_path: Path) -> None:
    """More names of one file are no inodes, and a link's target may be long; what is replaced does not count twice."""
    links = [Entry(f"l{number}", "link", "t" * 1000) for number in range(3)]
    names = [Entry("a"), *(Entry(f"a{number}", "hard", "a") for number in range(3))]
    cases = {
        "more than 4 files": (names, Bounds(max_inodes=4)),
        "the names in the image take more than 2900 bytes": (links, Bounds(max_text_bytes=2900)),
    }
    for number, (why, (entries, bounds)) in enumerate(cases.items()):
        directory = tmp_path / str(number)
        directory.mkdir()
        with pytest.raises(UnpackError, match=why):
            apply(directory, entries, bounds=bounds)
    (tmp_path / "twice").mkdir()
    fits = Bounds(max_inodes=8, max_text_bytes=3100)
    tree = apply(tmp_path / "twice", [*links, *names], [*links, *names], bounds=fits)
    assert tree.counts.names == len(links) + len(names) + 1


def test_times_are_those_of_the_layers_and_directories_have_theirs_too(tmp_path: Path) -> None:
    """Compiled Python modules are valid only with their source's time."""
    apply(tmp_path, [Entry("d", "dir"), Entry("d/a"), Entry("l", "link", "a")], [Entry("d/b")])
    for name in ("d", "d/a", "l"):
        assert os.lstat(tmp_path / "tree" / name).st_mtime == MTIME, name


def test_extended_attributes_are_set_or_counted(tmp_path: Path) -> None:
    """Those of a user can be set by anybody; a host's own are nobody's business."""
    entry = Entry("a", xattrs={"user.note": "x", "security.selinux": "y", "trusted.overlay.opaque": "y"})
    tree = apply(tmp_path, [entry])
    names = os.listxattr(tmp_path / "tree" / "a")
    assert ("user.note" in names) == (tree.counts.xattrs == 0)
    assert "trusted.overlay.opaque" not in names


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_hard_links_are_links_whatever_the_archive_form(tmp_path: Path, form: int) -> None:
    """Their names may be long."""
    long = "/".join(["d" * 60] * 3)
    layer = tar([Entry(f"{long}/a", body="text"), Entry("b", "hard", f"{long}/a")][: 2 if form != 0 else 1], form)
    tree = apply(tmp_path, layer)
    names = [name for name in described(tree.root) if name.endswith(("a", "b"))]
    inodes = {os.lstat(tmp_path / "tree" / name).st_ino for name in names}
    assert len(inodes) == 1


def test_the_digest_tells_trees_apart_that_differ_in_anything_but_times_and_owners(tmp_path: Path) -> None:
    """Names and contents cannot be shifted into each other."""
    variants: list[list[Entry]] = [
        [Entry("a", body="x")],
        [Entry("a", body="y")],
        [Entry("a", body="x", mode=0o755)],
        [Entry("b", body="x")],
        [Entry("a", "link", "x")],
        [Entry("a", "link", "y")],
        [Entry("a", "dir")],
        [Entry("a", body="x"), Entry("b")],
        [Entry("a\nf 644 0 - 1:b")],
    ]
    digests = set()
    for number, entries in enumerate(variants):
        (tmp_path / str(number)).mkdir()
        digests.add(model.tree_digest(apply(tmp_path / str(number), entries).root))
    assert len(digests) == len(variants)


def test_a_cut_archive_is_no_layer(tmp_path: Path) -> None:
    """Wherever it is cut, but for between two members, where an end may be missing."""
    whole = tar([Entry("a", body="x" * 700), Entry("b")])
    for cut in (100, 512 + 700, 512 + 1024 + 511):
        (tmp_path / str(cut)).mkdir()
        with pytest.raises(TarError, match="truncated"):
            apply(tmp_path / str(cut), whole[:cut])


def test_thousands_of_directories_beside_each_other_are_no_thousands_of_open_files(tmp_path: Path) -> None:
    """As `usr/share/doc` of a large image has them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        apply(tmp_path, [Entry(f"usr/share/doc/package{number}", "dir") for number in range(600)])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_bomb_of_bytes_that_are_no_files_is_refused(tmp_path: Path) -> None:
    """Zeros behind the last member, and the bytes of a whiteout, are in no file's size."""
    bounds = Bounds(max_bytes=0)
    zeros = (bytes(2**20) for _ in range(2000))
    with Tree(tmp_path / "tree", bounds) as tree, pytest.raises(TarError, match="a bomb"):
        unpack.add_layer(tree, zeros)


def test_time_is_looked_at_while_bytes_are_skipped(tmp_path: Path) -> None:
    """A layer without any member ends in time as well."""

    def check() -> None:
        raise TimeoutError

    with Tree(tmp_path / "tree", Bounds()) as tree, pytest.raises(TimeoutError):
        unpack.add_layer(tree, iter([bytes(2**20)]), check)

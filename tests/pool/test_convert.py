"""Both forms of an image: held against what `apptainer build --sandbox` makes of it, file by file, and run."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from cache_manager import sif, sifwriter
from sync import readback
from sync.engine.local import LocalEngine
from sync.request import Request
from sync.values import Converted, Failure, Variant
from tests.layers import Entry, config, layer
from tests.pool.processes import run_as
from tests.pool.registry import DockerRegistry

BUSYBOX: Final = Path("/usr/bin/busybox")
APPLETS: Final = ("sh", "env", "ls", "cat", "true", "echo", "id")
UNDECODABLE: Final = b"caf\xe9".decode("utf-8", "surrogateescape")
CONFIG: Final = config(
    Env=["PATH=/opt/x/bin:/bin", "FOO=a b\"c$HOME\\n'q'", "LD_LIBRARY_PATH=/opt/lib", "EMPTY=", "no.name=1"],
    Entrypoint=["/bin/sh", "-c", 'echo "$0" "$1" \'x\''],
    Cmd=["a b", "c'd\"e$HOME"],
    Labels={"org.example": 'quote"d'},
)
BASE: Final = layer(
    *(Entry("bin", "dir"), Entry("bin/busybox", body=BUSYBOX.read_bytes(), mode=0o755)),
    *(Entry(f"bin/{name}", "link", "busybox") for name in APPLETS),
    *(
        Entry("etc", "dir"),
        Entry("etc/passwd", body="root:x:0:0::/root:/bin/sh\n"),
        Entry("etc/group", body="root:x:0:\n"),
    ),
    *(Entry("usr/lib/a", body="a"), Entry("lib", "link", "usr/lib"), Entry("var/run", "link", "/run")),
    *(Entry("gone/x"), Entry("opaque/x"), Entry("file"), Entry("directory/x"), Entry("was-link", "link", "etc")),
)
ODD: Final = layer(
    *(Entry("suid", body="s", mode=0o4755), Entry("sgid", body="s", mode=0o2711), Entry("none", body="n", mode=0)),
    *(Entry("run-only", body="r", mode=0o111), Entry("group-only", body="g", mode=0o040)),
    *(Entry("closed", "dir", mode=0), Entry("closed/x"), Entry("ro", "dir", mode=0o555), Entry("ro/x", mode=0o444)),
    *(Entry("sticky", "dir", mode=0o1777), Entry("setgid", "dir", mode=0o2775)),
    *(Entry("a b"), Entry("new\nline"), Entry(UNDECODABLE), Entry("n" * 255), Entry("/".join(["deep"] * 60) + "/x")),
    *(Entry("hard", "hard", "usr/lib/a"), Entry("hard2", "hard", "suid"), Entry("lib/through", body="t")),
    *(
        Entry("abs", "link", "/etc/passwd"),
        Entry("esc", "link", "../../../../outside/x"),
        Entry("esc-dir", "link", "/out"),
    ),
    *(Entry("esc-dir/in", body="i"), Entry("dangling", "link", "nowhere")),
    *(Entry(".wh.gone"), Entry("opaque/.wh..wh..opq"), Entry("opaque/y"), Entry("file", "dir"), Entry("file/x")),
    *(Entry("directory", body="d"), Entry("was-link", "dir", mode=0o750), Entry("was-link/x")),
    *(Entry("fifo", "fifo"), Entry("null", "char")),
)

OURS: Final = {
    "srv": "where OSPool's pilots mount a job's directory",
    "cvmfs": "where CVMFS is mounted",
}
THEIRS: Final = {
    "fifo": "FIFOs are left out: CVMFS has none",
    "null": "devices are left out; Apptainer puts an empty file in their place",
    ".singularity.d/env/01-base.sh": "has nothing but a comment",
    ".singularity.d/env/94-appsbase.sh": "empty",
    ".singularity.d/env/95-apps.sh": "SCIF apps, which images of registries do not have",
}
TIMES: Final = {
    "etc/hosts": "made so that something can be mounted on it: with the image's time here, that of the build there",
    "etc/resolv.conf": "the same",
}
MADE: Final = "directories that no layer states: their mode is the tool's own choice"
WRITTEN: Final = ".singularity.d/"
"""Files of these names are our own words for the same: what they do is tested below."""


def described(top: Path) -> dict[str, tuple[object, ...]]:
    """Return type, mode, size, digest and target of every path; of what is written by the tools only type and mode."""
    found: dict[str, tuple[object, ...]] = {}
    for here, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = Path(here, name)
            one = path.lstat()
            relative = str(path.relative_to(top))
            mode = stat.S_IMODE(one.st_mode)
            if stat.S_ISLNK(one.st_mode):
                found[relative] = ("link", str(path.readlink()))
            elif stat.S_ISDIR(one.st_mode):
                found[relative] = ("directory", mode)
            elif stat.S_ISREG(one.st_mode) and not relative.startswith(WRITTEN):
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                found[relative] = ("file", mode, one.st_size, digest, one.st_nlink, int(one.st_mtime))
            else:
                found[relative] = (stat.S_IFMT(one.st_mode), mode)
    return found


def owned(what: tuple[object, ...]) -> tuple[object, ...]:
    """Return what a path is once its owner may read and write it."""
    kind, mode, *rest = what
    if kind == "link" or not isinstance(mode, int):
        return what
    more = 0o700 if kind == "directory" or mode & 0o111 else 0o600
    return (kind, mode | more, *rest)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """Give a registry that has the image."""
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as one:
        yield one


@pytest.fixture(scope="module", params=["root", "joe"])
def user(request: pytest.FixtureRequest) -> str:
    """Name who publishes."""
    return str(request.param)


@pytest.fixture(scope="module")
def converted(registry: DockerRegistry, user: str) -> Converted:
    """Convert the image as root, and as an ordinary user."""
    digest = registry.push("htc/odd:1", CONFIG, BASE, ODD)
    request = Request("htc/odd:1", f"{registry.host}/htc/odd:1", digest, Variant("x86_64", digest))
    work = Path(f"/pool/convert-{user}")
    work.mkdir()
    os.chown(work, *((0, 0) if user == "root" else (1000, 1000)))
    code = (
        "import sys; from pathlib import Path; from sync.engine.local import LocalEngine; from sync.request import *\n"
        "for one in LocalEngine(Path(sys.argv[1]), 2).run([Request.from_json(sys.argv[2])], lambda *_: None):"
        " print(result_to_json(one))"
    )
    argv = ["python3", "-c", code, str(work), request.to_json()]
    said = run_as(None if user == "root" else user, argv).stdout
    assert stat.S_IMODE((work / "images").stat().st_mode) == 0o700  # others' set-uid programs are in there
    (work / "images").chmod(0o755)
    values = json.loads(said)
    assert "converted" in values, said
    return Converted(**(values["converted"] | {"variant": Variant(**values["converted"]["variant"])}))


@pytest.fixture(scope="module")
def theirs(registry: DockerRegistry, converted: Converted) -> Path:
    """Have Apptainer build the same image, as an ordinary user."""
    target = Path("/pool") / f"apptainer-{converted.tree_digest[:8]}-{os.urandom(2).hex()}"
    target.mkdir()
    os.chown(target, 1000, 1000)
    argv = ["apptainer", "-q", "build", "--sandbox", str(target / "sandbox"), f"docker://{registry.host}/htc/odd:1"]
    run_as("joe", argv, env={"APPTAINER_NOHTTPS": "1"})
    return target / "sandbox"


def test_the_sandbox_is_the_one_that_apptainer_builds(converted: Converted, theirs: Path) -> None:
    """Type, mode, size, digest, target, number of names and time; each difference has its reason."""
    ours, wanted = described(Path(converted.tree_path)), described(theirs)
    made = {
        path for path in wanted if path.split("/")[-1] == "deep" or path in {"usr", "usr/lib", "var", "out", "opaque"}
    }
    for path in made & set(ours):
        assert ours.pop(path)[0] == wanted.pop(path)[0] == "directory", f"{path}: {MADE}"
    for path in OURS:
        assert ours.pop(path)[0] == "directory", path
    for path in TIMES:
        assert ours.pop(path)[:-1] == wanted.pop(path)[:-1], path
    for path in THEIRS:
        wanted.pop(path, None)
        assert path not in ours
    assert ours == {path: owned(what) for path, what in wanted.items()}


def test_the_tree_digest_is_that_of_what_lies_there(converted: Converted) -> None:
    """Computed while it was unpacked, it can be computed again, by anybody."""
    assert readback.digest_of(Path(converted.tree_path)) == converted.tree_digest


def test_the_digests_are_the_same_whoever_publishes(registry: DockerRegistry, tmp_path: Path) -> None:
    """An image that is converted twice is the same image, byte for byte."""
    digest = registry.push("htc/odd:1", CONFIG, BASE, ODD)
    request = Request("htc/odd:1", f"{registry.host}/htc/odd:1", digest, Variant("x86_64", digest))
    found = set()
    for name in ("one", "two"):
        (result,) = LocalEngine(tmp_path / name, 1).run([request], lambda *_: None)
        assert isinstance(result, Converted), result
        found.add((result.tree_digest, result.sha256))
        assert hashlib.sha256(Path(result.sif_path).read_bytes()).hexdigest() == result.sha256
    assert len(found) == 1


WAYS: Final = {
    "environment": (["exec"], ["env"], "FOO=a b\"c$HOME\\n'q'\n"),
    "path": (["exec"], ["env"], "PATH=/opt/x/bin:/bin"),
    "libraries": (["exec"], ["env"], "LD_LIBRARY_PATH=/opt/lib:/.singularity.d/libs\n"),
    "entry point and command": (["run"], [], "a b c'd\"e$HOME x\n"),
    "arguments in place of the command": (["run"], ["1", "$HOME"], "1 /home/joe x\n"),
}


@pytest.mark.parametrize("form", ["tree", "sif"])
@pytest.mark.parametrize("way", WAYS)
def test_jobs_find_what_they_rely_on(converted: Converted, form: str, way: str) -> None:
    """In both forms, whoever published them."""
    image = converted.tree_path if form == "tree" else converted.sif_path
    before, after, wanted = WAYS[way]
    done = run_as("joe", ["apptainer", "-q", before[0], image, *after])
    assert wanted in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("form", ["tree", "sif"])
def test_the_test_that_htcondor_runs_before_a_job_passes(converted: Converted, form: str) -> None:
    """The status is what counts; older runtimes start the script in the tree."""
    image = converted.tree_path if form == "tree" else converted.sif_path
    assert run_as("joe", ["apptainer", "-q", "test", image]).returncode == 0
    for action in ("test", "exec", "run"):
        argv = ["apptainer", "-q", "exec", image, f"/.singularity.d/actions/{action}", "/bin/true"]
        assert run_as("joe", argv).returncode == 0, action


def test_apptainer_reads_what_a_sif_says_of_itself(converted: Converted) -> None:
    """List, header, labels, definition, runscript."""
    listed = run_as("joe", ["apptainer", "sif", "list", converted.sif_path]).stdout
    assert "FS (Squashfs/*System/amd64)" in listed
    assert "JSON.Generic" in listed
    said = json.loads(run_as("joe", ["apptainer", "inspect", "--json", "-l", "-d", "-r", converted.sif_path]).stdout)
    attributes = said["data"]["attributes"]
    assert attributes["labels"]["org.example"] == 'quote"d'
    assert attributes["deffile"].endswith(f"/htc/odd:1@{converted.index_digest}")
    assert attributes["runscript"].startswith("#!/bin/sh")


@pytest.mark.parametrize("compression", [("gzip", None), ("zstd", 1)])
def test_the_compression_is_what_is_configured(
    registry: DockerRegistry, tmp_path: Path, compression: tuple[str, int | None]
) -> None:
    """A knob for runtimes and kernels without zstd."""
    digest = registry.push("htc/small:1", CONFIG, BASE)
    variant = Variant("x86_64", digest)
    source = f"{registry.host}/htc/small:1"
    request = Request("htc/small:1", source, digest, variant, compression=compression[0], level=compression[1])
    (result,) = LocalEngine(tmp_path, 1).run([request], lambda *_: None)
    assert isinstance(result, Converted), result
    with Path(result.sif_path).open("rb") as file:
        part = sif.root_squashfs(file.read(2**16)[sifwriter.TABLE_AT :])
    assert part is not None
    argv = ["unsquashfs", "-s", "-o", str(part.offset), result.sif_path]
    assert f"Compression {compression[0]}" in subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_a_full_disk_is_one_images_failure_and_leaves_it_as_it_was(registry: DockerRegistry, tmp_path: Path) -> None:
    """While it unpacks, and while it packs."""
    digest = registry.push("htc/odd:1", CONFIG, BASE, ODD)
    request = Request("htc/odd:1", f"{registry.host}/htc/odd:1", digest, Variant("x86_64", digest))
    for size in ("2m", "4m"):
        work = tmp_path / size
        work.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", work], check=True)
        try:
            (result,) = LocalEngine(work, 1).run([request], lambda *_: None)
            assert isinstance(result, Failure), size
            assert result.why.startswith("htc/odd:1 (x86_64): "), result
            assert "No space left on device" in result.why or "mksquashfs" in result.why, result
            assert result.transient
            assert not [path for path in work.rglob("*") if path.name != "images"]
        finally:
            subprocess.run(["umount", work], check=True)

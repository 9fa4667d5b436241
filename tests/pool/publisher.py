"""A publisher's machine: a real registry with images of Debian's files, a double of CVMFS, a tree of SIFs, the sync.

The images share their lower layers, as those of a community do. CVMFS is a double, as it is in no registry of packages:
a script that behaves like `cvmfs_server`, and a FUSE file system that shows to readers what was published.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from gzip import compress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests import layers
from tests.pool.processes import environment_of, make_directory, poll, run_as, start_as
from tests.pool.registry import DockerRegistry, digest_of
from tests.pool.world import SANDBOXES

REPOSITORY: Final = "images.example.org"
DOUBLE: Final = Path(__file__).with_name("cvmfs_server")
PROGRAMS: Final = ("bash", "ls", "sort", "sha256sum")
"""Of Debian's coreutils and bash, with the libraries that they need."""
_OF_APPTAINER: Final = {".singularity.d", "IMAGE_ID", "singularity", "environment", ".exec", ".run", ".shell", ".test"}
"""What the sandbox has of its own: no registry's image has it, and `apptainer build` takes none that does."""


class PublisherMachine:
    """Everything below `directory`, as a context manager. SIFs are published below `sifs`."""

    def __init__(self, directory: Path, sifs: Path, repository: str = REPOSITORY) -> None:
        self.directory = directory
        self.sifs = sifs
        self.repository = repository
        self.registry = DockerRegistry(directory / "registry")
        self.cvmfs = directory / "cvmfs"
        self.config = directory / "sync.yaml"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._stack.enter_context(self.registry)
        self._make_repository()
        self.write_list()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        for path in (Path("/cvmfs") / self.repository, Path("/var/spool/cvmfs") / self.repository):
            path.unlink(missing_ok=True)

    def _make_repository(self) -> None:
        """Make the repository, seen where CVMFS has it."""
        self.cvmfs.mkdir(exist_ok=True)
        shutil.copy(DOUBLE, self.cvmfs / "cvmfs_server")
        subprocess.run([self.cvmfs / "cvmfs_server", "mkfs", self.repository], check=True)
        Path("/var/spool/cvmfs").mkdir(parents=True, exist_ok=True)
        (Path("/cvmfs") / self.repository).symlink_to(self.cvmfs / "cvmfs" / self.repository)
        (Path("/var/spool/cvmfs") / self.repository).symlink_to(self.cvmfs / "spool" / self.repository)

    @property
    def area(self) -> Path:
        """The repository's spool."""
        return self.cvmfs / "spool" / self.repository

    @property
    def client(self) -> Path:
        """What readers of the repository see."""
        return self.cvmfs / "client" / self.repository

    @property
    def environment(self) -> dict[str, str]:
        """Where the publisher finds cvmfs_server."""
        return {"PATH": f"{self.cvmfs}:{environment_of(None)['PATH']}"}

    def write_list(self, *images: str, options: str = "") -> None:
        """Write the list, as a community does, and the configuration."""
        lines = "".join(f"{self.registry.host}/{one}\n" for one in images)
        (self.directory / "images.txt").write_text(f"# Examples\n\n{lines}")
        self.config.write_text(
            f"image_list: {self.directory}/images.txt\n"
            f"cvmfs: {{repository: {self.repository}}}\n"
            f"sif: {{directory: {self.sifs}}}\n"
            f"registries: {{'{self.registry.host}': {{insecure: true}}}}\n"
            f"state_directory: {self.directory}/state\n"
            f"work_directory: {self.directory}/work\n{options}"
        )

    def sync(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run condor_image_sync to its end."""
        argv = ["condor_image_sync", words[0], "--config", str(self.config), *words[1:]]
        return run_as(None, argv, env=self.environment, timeout=300, check=check)

    def start_sync(self, *words: str) -> subprocess.Popen[bytes]:
        """Start condor_image_sync."""
        argv = ["condor_image_sync", words[0], "--config", str(self.config), *words[1:]]
        return start_as(None, argv, output=self.directory / "sync.log", env=self.environment)

    def asked(self) -> list[str]:
        """Return what cvmfs_server was asked to do."""
        return [line.split()[0] for line in (self.cvmfs / "asked").read_text().splitlines()]

    def place(self, name: str) -> str:
        """Return where a name leads readers, below the repository."""
        return str((self.client / name).readlink()).removeprefix(f"/cvmfs/{self.repository}/")


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a registry has: what each image has in /IMAGE_ID, and the digests of all layers."""

    texts: Mapping[str, str]
    layers: frozenset[str]


def push_images(registry: DockerRegistry) -> Pushed:
    """Push images that share layers."""
    base, tools = base_layer(), tools_layer()
    texts = {name: f"{name} of the demo" for name in ("htc/base:1", "htc/tools:1", "htc/tools:2")}
    digests = set()
    for name, text in texts.items():
        mine = layers.layer(layers.Entry("IMAGE_ID", body=f"{text}\n"))
        all_of_it = [base, mine] if name == "htc/base:1" else [base, tools, mine]
        registry.push(name, layers.config(Cmd=["/bin/sh"], Env=["PATH=/usr/bin:/bin"]), *all_of_it)
        digests |= set(map(digest_of, all_of_it))
    return Pushed(texts, frozenset(digests))


def base_layer() -> bytes:
    """Return Debian's busybox with all its names, and the directories that a system has."""
    return _packed((path, f"./{path.relative_to(SANDBOXES / 'rocky9')}") for path in _system())


def _system() -> Iterable[Path]:
    top = SANDBOXES / "rocky9"
    for path in sorted(top.rglob("*")):
        parts = path.relative_to(top).parts
        if parts[0] not in _OF_APPTAINER:
            yield path


def tools_layer() -> bytes:
    """Return programs of Debian's packages with their libraries, as they lie here."""
    files = {Path("/usr/bin") / name for name in PROGRAMS}
    for program in sorted(files):
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        files |= {Path(word) for line in said.splitlines() for word in line.split() if word.startswith("/")}
    return _packed((path.resolve(), f".{path}") for path in sorted(files))


def _packed(members: Iterable[tuple[Path, str]]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for path, name in members:
            archive.add(path, name, recursive=False)
    return compress(raw.getvalue(), 1, mtime=0)


class MountedRepository:
    """The repository as an execution point mounts it: FUSE, below a base of its own; a context manager."""

    def __init__(self, machine: PublisherMachine, directory: Path) -> None:
        self.directory = make_directory(Path(tempfile.mkdtemp(prefix="mount-", dir=directory)), None)
        self.directory.chmod(0o755)
        self.base = self.directory / "cvmfs"
        self.top = self.base / machine.repository
        self._shown = machine.client
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.top.mkdir(parents=True)
        faults = self.directory / "faults"
        faults.write_text("{}")
        library = next(Path("/usr/lib").glob("*/libfuse3.so.4"))
        argv = ["python3", "-m", "tests.pool.cvmfs_fuse", str(self._shown), str(self.top), str(faults)]
        environment = environment_of(None, {"FUSE_LIBRARY_PATH": str(library)})
        self._server = subprocess.Popen(argv, cwd="/src", env=environment)
        poll(lambda: os.path.ismount(self.top), "the mount of the repository")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unmount()

    def unmount(self) -> None:
        """Have CVMFS gone from the machine."""
        if self._server is not None:
            subprocess.run(["umount", "-l", self.top], check=False, capture_output=True)
            self._server.kill()
            self._server.wait()
            self._server = None

    @property
    def knobs(self) -> Mapping[str, str]:
        """What the cache's configuration says of it."""
        return {"IMAGE_CACHE_CVMFS_BASE": str(self.base), "IMAGE_CACHE_CVMFS_REPOSITORIES": self.top.name}

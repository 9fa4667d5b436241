"""The little world of the demo and of the pool tests: publishers' trees, a CVMFS double, and pools with the cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.pool.harness import Pool, run_as
from tests.pool.origin import CvmfsTree, Origin, SifTree

IMAGES: Final = Path("/srv/images")
SANDBOXES: Final = IMAGES / "sandbox"
SIFS: Final = IMAGES / "sif"
CVMFS_REPOSITORY: Final = "/cvmfs/singularity.opensciencegrid.org"
VERSION: Final = "20260101T000000Z"


class World:
    """A web server with a SIF tree below /v2, and a repository of sandboxes at /cvmfs, as a context manager."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.origin = Origin(directory / "origin", directory / "www", user="www-data")
        self.tree = SifTree(directory / "www" / "v2")
        self.cvmfs = CvmfsTree()

    def __enter__(self) -> Self:
        self.origin.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.origin.stop()

    @property
    def sif_source(self) -> str:
        """The base URL of the SIF tree."""
        return f"{self.origin.url}/v2"

    def object_path(self, name: str, file: str = f"{VERSION}.sif") -> str:
        """Return the request path of a published image's file."""
        return "/v2" + self.tree.path_of(name, file)

    def pool(self, name: str, knobs: Mapping[str, str] | None = None, *, user: str | None = "joe") -> Pool:
        """Return a pool, not yet started, with the cache installed as an admin does it: by `config`."""
        pool = Pool(self.directory / name, user=user, name=name, config="STARTER_DEBUG = D_FULLDEBUG D_SUB_SECOND\n")
        install(pool, {"IMAGE_CACHE_SIF_SOURCES": self.sif_source, **(knobs or {})})
        return pool


def install(pool: Pool, knobs: Mapping[str, str]) -> None:
    """Put the site's knobs and our drop-in configuration into a pool's config.d."""
    small = {
        "IMAGE_CACHE_MAX_BYTES": "200 MB",
        "IMAGE_CACHE_MIN_FREE_BYTES": "10 MB",
        "IMAGE_CACHE_FEDERATION": "http://127.0.0.1:1",
    }
    lines = "".join(f"{name} = {value}\n" for name, value in {**small, **knobs}.items())
    pool.write_config("40-site.conf", lines)
    options = ["--prepare"] if pool.user is None else ["--pilot"]
    pool.write_main_config()
    printed = run_as(pool.user, ["condor_image_cache", "config", *options], env=pool.environment).stdout
    pool.write_config("50-image-cache.conf", printed)


def image_name(name: str) -> str:
    """Return what a job writes for a published image: its path on CVMFS, quoted."""
    return f'"{CVMFS_REPOSITORY}/{name}"'

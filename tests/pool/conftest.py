"""One world for all tests: an EP with CVMFS and a default image, and one with neither; both with the cache."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.pool.demo import BARE_KNOBS, MOUNTED_KNOBS, Demo, publish
from tests.pool.harness import Pool
from tests.pool.world import SIFS, VERSION, World, image_name


@pytest.fixture(scope="session")
def demo() -> Iterator[Demo]:
    """Return the demo, with its jobs ended; its pools go on for other tests."""
    with ExitStack() as stack:
        world = stack.enter_context(World(Path("/pool/world")))
        publish(world)
        pools = (world.pool("ep-with-cvmfs", MOUNTED_KNOBS), world.pool("ep-without-cvmfs", BARE_KNOBS))
        with ThreadPoolExecutor() as threads:
            mounted, bare = threads.map(stack.enter_context, pools)
        one = Demo(world, mounted, bare)
        try:
            one.submit_all()
            one.watch()
        except (TimeoutError, RuntimeError) as error:
            mounted.dump(str(error))
            bare.dump(str(error))
            raise
        yield one


@pytest.fixture(scope="session")
def world(demo: Demo) -> World:
    """Return the publishers' places."""
    return demo.world


@pytest.fixture(scope="session")
def mounted(demo: Demo) -> Pool:
    """Return the EP with CVMFS."""
    return demo.mounted


@pytest.fixture(scope="session")
def bare(demo: Demo) -> Pool:
    """Return the EP without CVMFS."""
    return demo.bare


@pytest.fixture(scope="session")
def root_pool(world: World) -> Iterator[Pool]:
    """Return a pool that root started: daemons as condor, jobs as their owners, the manager as its own user.

    It says that it has Docker, which is a program that fails: what is left to Docker can be seen.
    """
    docker = {"HasDocker": "True", "DOCKER": "/bin/false", "STARTD_ATTRS": "$(STARTD_ATTRS) HasDocker"}
    with world.pool("ep-of-root", BARE_KNOBS | docker, user=None) as pool:
        yield pool


@pytest.fixture(scope="session")
def publisher() -> Iterator[World]:
    """Serve a tree with two images, and two that take a key."""
    with World(Path("/pool/hostile")) as world:
        for name, sif in (("htc/rocky:9", "rocky9"), ("htc/cold:1", "cold")):
            world.tree.publish(name, SIFS / f"{sif}.sif", VERSION)
        for name in ("web", "alma9"):
            shutil.copyfile(SIFS / f"{name}.sif", world.directory / "www" / f"{name}.sif")
        yield world


@pytest.fixture(scope="session")
def ep(publisher: World) -> Iterator[Pool]:
    """Run an execution point of root's, with one image in its cache."""
    with publisher.pool("ep-of-strangers", BARE_KNOBS, user=None) as pool:
        job = pool.submit({"+SingularityImage": image_name("htc/rocky:9")}, user="amy")[0]
        job.wait()
        assert job.stdout == "htc/rocky:9 SIF\n"
        yield pool

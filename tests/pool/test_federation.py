"""Images in OSDF on a real pool: real XRootD servers, HTCondor's own credentials, and a director that is a double.

What stands for the federation's protected part is a double: it looks at tokens as strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.federation import FederationDouble, Namespace, ObjectsDouble
from tests.pool.demo import BARE_KNOBS
from tests.pool.harness import Job, Pool, wait_for
from tests.pool.processes import make_directory
from tests.pool.relay import Relay
from tests.pool.world import SIFS, World
from tests.pool.xrootd import XrootdServer

DEAD: Final = "http://127.0.0.1:1"
OPEN: Final = "/ospool/web.sif"
LARGE: Final = "/ospool/rocky9.sif"
BY_PLUGIN: Final = "/ospool/by-plugin.sif"
CLOSED: Final = "/igwn/alma9.sif"
JOES: Final = "eyJhbGciOi.CaNaRy7391.joe"
AMYS: Final = "eyJhbGciOi.CaNaRy7391.amy"
SECURE: Final = "SEC_DEFAULT_ENCRYPTION = REQUIRED\nSEC_DEFAULT_INTEGRITY = REQUIRED\n"
"""Else HTCondor sends no credential to a job."""
FAILING: Final = Path("/pool/osdf/failing_plugin")
FAILING_PLUGIN: Final = """#!/bin/sh
# a double of a site's transfer plug-in for OSDF, which brings nothing
[ "$1" = -classad ] || exit 1
printf 'MultipleFileSupport = true\\nPluginType = "FileTransfer"\\nSupportedMethods = "osdf,stash,pelican"\\n'
"""


@dataclass
class Osdf:
    """A federation, and an execution point of root's that knows it."""

    director: FederationDouble
    origin: XrootdServer
    cache: XrootdServer
    igwn: ObjectsDouble
    pool: Pool

    def give(self, owner: str, name: str, token: str) -> None:
        """Put a credential where HTCondor's credential daemon would have put it."""
        place = self.pool.directory / "cred_dir" / owner
        make_directory(place, None, 0o700)
        (place / f"{name}.use").write_text(token)
        (place / f"{name}.use").chmod(0o600)

    def submit(
        self, image: str, owner: str, count: int = 1, credential: str = "", *, transfer: bool = False
    ) -> list[Job]:
        """Submit container jobs that read what image they are in; `transfer`: as users write them."""
        lines = {"universe": "container", "container_image": image}
        if not transfer:
            lines["transfer_container"] = "false"
        if credential:
            lines["+OAuthServicesNeeded"] = f'"{credential}"'
        return self.pool.submit(lines, count=count, user=owner, guard=2)


@pytest.fixture(scope="module")
def osdf() -> Iterator[Osdf]:
    """Start it all."""
    with ExitStack() as stack:
        world = stack.enter_context(World(Path("/pool/osdf")))
        origin = stack.enter_context(XrootdServer(Path("/pool/osdf/xrootd-origin"), "/ospool"))
        cache = stack.enter_context(XrootdServer(Path("/pool/osdf/xrootd-cache"), "/ospool", origin))
        origin.publish(OPEN, SIFS / "web.sif")
        origin.publish(BY_PLUGIN, SIFS / "rocky9.sif")
        igwn = ObjectsDouble({CLOSED: (SIFS / "alma9.sif").read_bytes()}, frozenset({JOES, AMYS}))
        stack.enter_context(igwn)
        namespaces = (
            Namespace("/ospool", [DEAD, cache.url, DEAD], origin.url),
            Namespace("/igwn", [igwn.url], igwn.url, needs_token=True),
        )
        director = stack.enter_context(FederationDouble(*namespaces))
        knobs = BARE_KNOBS | {"IMAGE_CACHE_FEDERATION": director.url, "FILETRANSFER_PLUGINS": str(FAILING)}
        FAILING.write_text(FAILING_PLUGIN)
        FAILING.chmod(0o755)
        pool = world.pool("ep-in-osdf", knobs, user=None)
        pool.write_config("60-secure.conf", SECURE)
        yield Osdf(director, origin, cache, igwn, stack.enter_context(pool))


def test_ten_jobs_of_two_owners_cost_one_get(osdf: Osdf) -> None:
    """With half of the caches dead; all ways to write the object are one, and nothing is charged to the jobs' disk."""
    host = osdf.director.url.removeprefix("http://")
    jobs = [job for owner in ("joe", "amy") for job in osdf.submit(f"osdf://{OPEN}", owner, 4)]
    jobs += osdf.submit(f"stash:{OPEN}", "joe") + osdf.submit(f"pelican://{host}{OPEN}", "amy")
    wait_for(jobs)
    assert {job.stdout for job in jobs} == {"web SIF\n"}
    assert osdf.cache.count("GET", OPEN) == 1
    assert osdf.origin.count("GET", OPEN) == 0  # the cache speaks its own protocol
    assert all(job.ad()["DiskUsage"] * 1024 < (SIFS / "web.sif").stat().st_size for job in jobs)


def test_a_connection_that_breaks_costs_no_byte_twice(osdf: Osdf) -> None:
    """XRootD says no ETag with the bytes: the job's image goes on where it was cut all the same."""
    osdf.origin.publish(LARGE, SIFS / "rocky9.sif")
    size = (SIFS / "rocky9.sif").stat().st_size
    caches = osdf.director.namespaces[0].caches
    with Relay(osdf.cache.port, cuts=3, after=size // 5) as relay:
        osdf.director.namespaces[0].caches = [relay.url]
        (job,) = osdf.submit(f"osdf://{LARGE}", "joe")
        job.wait()
        assert relay.cuts_left == 0
    osdf.director.namespaces[0].caches = caches
    assert job.stdout == "htc/rocky:9 SIF\n"
    assert osdf.cache.count("GET", LARGE) == 4
    firsts = [int(first) for first in re.findall(r"Range: bytes=([0-9]+)-", osdf.cache.log)]
    assert len(firsts) == 3
    assert firsts == sorted(firsts)
    assert firsts[0] > 0


def test_a_protected_image_is_for_the_owner_whose_token_is_accepted(osdf: Osdf) -> None:
    """HTCondor brings the tokens, the hook reads them as the owner; one GET for both, nothing for who has none."""
    image = f"igwn+osdf://{CLOSED}"
    osdf.give("joe", "igwn", JOES)
    (joes,) = osdf.submit(image, "joe", credential="igwn")
    joes.wait()
    assert joes.stdout == "htc/almalinux:9 SIF\n"
    (amys,) = osdf.submit(image, "amy")
    amys.wait("held")
    assert amys.hold is not None
    assert amys.hold.subcode == 130
    assert "the job has no credential 'igwn'" in amys.hold.reason
    osdf.give("amy", "igwn", AMYS)
    (again,) = osdf.submit(image, "amy", credential="igwn")
    again.wait()
    assert again.stdout == "htc/almalinux:9 SIF\n"
    assert osdf.igwn.count("GET") == 1
    logs = "".join(path.read_text(errors="replace") for path in osdf.pool.log_directory.glob("ImageCache*"))
    assert "CaNaRy" not in logs


def test_as_users_write_it_the_transfer_plugin_links_the_image(osdf: Osdf) -> None:
    """An access point as it comes transfers the image: ten jobs of two owners cost one GET, and none of their disk."""
    jobs = [job for owner in ("joe", "amy") for job in osdf.submit(f"osdf://{BY_PLUGIN}", owner, 5, transfer=True)]
    wait_for(jobs)
    assert {job.stdout for job in jobs} == {"htc/rocky:9 SIF\n"}
    assert osdf.cache.count("GET", BY_PLUGIN) == 1
    size = (SIFS / "rocky9.sif").stat().st_size
    assert all(job.ad()["BytesRecvd"] < size and job.ad()["DiskUsage_RAW"] * 1024 < size for job in jobs)


def test_the_transfer_plugin_shows_the_jobs_own_credential(osdf: Osdf) -> None:
    """What HTCondor gave the job for its transfers is what the manager may use for this job."""
    osdf.give("joe", "igwn", JOES)
    (job,) = osdf.submit(f"igwn+osdf://{CLOSED}", "joe", credential="igwn", transfer=True)
    job.wait()
    assert job.stdout == "htc/almalinux:9 SIF\n"
    assert "alma9.sif: cached SIF of" in job.message()
    assert osdf.pool.log("ImageCacheLog").count(f"answer {job.id} ") == 2  # the plug-in's, and the hook's

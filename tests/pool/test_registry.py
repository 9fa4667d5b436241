"""Images in registries on a real pool: docker-registry with and without passwords and TLS, and two owners."""

from __future__ import annotations

import base64
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.pool.demo import BARE_KNOBS
from tests.pool.harness import Job, Pool, poll, wait_for
from tests.pool.layers import docker_archive, image_that_says, layer_of_zeros
from tests.pool.processes import make_directory
from tests.pool.registry import DockerRegistry
from tests.pool.world import SIFS, World

MACHINE: Final = platform.machine()
DIRECTORY: Final = Path("/pool/registries")
JOES: Final = "joes-password"
AMYS: Final = "amys-password"
USERS: Final = (
    "joe:$2b$04$abcdefghijklmnopqrstuuAg5aiA4Rd.N4quHoHpvB4I2IYkkKjkC\n"
    "amy:$2b$04$abcdefghijklmnopqrstuushNvtQ3.uwQcJPawCnuBuRbpvasBx0K\n"
)
SECURE: Final = "SEC_DEFAULT_ENCRYPTION = REQUIRED\nSEC_DEFAULT_INTEGRITY = REQUIRED\n"
"""Else HTCondor sends no credential to a job."""
SIF_LAYER: Final = "application/vnd.sylabs.sif.layer.v1.sif"
TAG_TTL_S: Final = 5


@dataclass
class Registries:
    """A registry for everybody, one with TLS for two users, and an execution point of root's that caches for Docker."""

    world: World
    open: DockerRegistry
    closed: DockerRegistry
    pool: Pool

    def give(self, owner: str, password: str) -> None:
        """Put what `docker login` wrote where HTCondor's credential daemon would have put it."""
        place = self.pool.directory / "cred_dir" / owner
        make_directory(place, None, 0o700)
        auth = base64.b64encode(f"{owner}:{password}".encode()).decode()
        (place / "docker.use").write_text(json.dumps({"auths": {self.closed.host: {"auth": auth}}}))
        (place / "docker.use").chmod(0o600)

    def submit(self, image: str, owner: str = "joe", count: int = 1, *, credential: bool = False) -> list[Job]:
        """Submit container jobs that read what image they are in."""
        lines = {"universe": "container", "container_image": image, "transfer_container": "false"}
        if credential:
            lines["+OAuthServicesNeeded"] = '"docker"'
        return self.pool.submit(lines, count=count, user=owner, guard=2)

    def run(self, image: str, owner: str = "joe") -> Job:
        """Run a job to its end."""
        (job,) = self.submit(image, owner)
        job.wait()
        return job

    def conversions(self, name: str) -> int:
        """Return how often layers of an image were made into one."""
        return self.pool.log("ImageCacheLog").count(f"converted docker://{name}: ")


@pytest.fixture(scope="module")
def site() -> Iterator[Registries]:
    """Start it all."""
    with ExitStack() as stack:
        world = stack.enter_context(World(DIRECTORY))
        certificate = own_certificate(DIRECTORY / "own.pem")
        opened = stack.enter_context(DockerRegistry(DIRECTORY / "open"))
        closed = DockerRegistry(DIRECTORY / "closed", users=USERS, certificate=certificate)
        closed.password = f"joe:{JOES}"
        stack.enter_context(closed)
        docker = {"HasDocker": "True", "DOCKER": "/bin/false", "STARTD_ATTRS": "$(STARTD_ATTRS) HasDocker"}
        knobs = {"IMAGE_CACHE_DOCKER": "cache", "IMAGE_CACHE_TAG_TTL": f"{TAG_TTL_S}s"}
        trust = {"IMAGE_CACHE_MANAGER_ENVIRONMENT": f'"REQUESTS_CA_BUNDLE={certificate}"'}
        pool = world.pool("ep-with-docker", BARE_KNOBS | docker | knobs | trust, user=None)
        pool.write_config("60-secure.conf", SECURE)
        yield Registries(world, opened, closed, stack.enter_context(pool))


def own_certificate(path: Path) -> Path:
    """Make a certificate for this machine that nobody but its owner signed."""
    names = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(path), "-days", "30")
    made = subprocess.run(["openssl", "req", "-x509", *key, *names], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + made.stdout)
    path.chmod(0o644)
    return path


def test_jobs_of_two_owners_cost_one_conversion_and_one_head(site: Registries) -> None:
    """Each layer is fetched once; a tag that means the same image costs nothing more; nothing is left behind."""
    digest = site.open.push("htc/python:3.12", *image_that_says("python 3.12", MACHINE))
    image = f"docker://{site.open.host}/htc/python:3.12"
    jobs = [job for owner in ("joe", "amy") for job in site.submit(image, owner, 5)]
    wait_for(jobs)
    assert {job.stdout for job in jobs} == {"python 3.12\n"}
    assert site.conversions(f"{site.open.host}/htc/python:3.12") == 1
    assert site.open.count("HEAD", "/manifests/3.12") == 1
    assert len(site.open.fetched()) == len(set(site.open.fetched())) + 1  # the configuration tells for which machine
    by_digest = site.run(f"docker://{site.open.host}/htc/python@{digest}")
    assert f"cached SIF of docker://{site.open.host}/htc/python@{digest}" in by_digest.message()
    staging = site.pool.directory / "image_cache" / "staging"
    poll(lambda: os.listdir(staging) == [], "an empty staging")  # noqa: PTH208 - names


def test_an_index_gives_the_image_for_this_machine(site: Registries) -> None:
    """And where there is none for it, the job goes to another execution point."""
    other = {"x86_64": "aarch64"}.get(MACHINE, "x86_64")
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    here = site.open.push("htc/many:here", *image_that_says("for here", MACHINE))
    there = site.open.push("htc/many:there", *image_that_says("for elsewhere", other))
    site.open.push_index("htc/many:1", **{names[MACHINE]: here, names[other]: there})
    site.open.push_index("htc/many:2", **{names[other]: there})
    assert site.run(f"docker://{site.open.host}/htc/many:1").stdout == "for here\n"
    jobs = [
        *site.submit(f"docker://{site.open.host}/htc/many:2"),
        *site.submit(f"docker://{site.open.host}/htc/many:there"),
    ]
    for job in jobs:
        poll(job.hook_runs, "an answer")
        assert job.hook_runs()[0].status == 330
        assert f"not for {MACHINE}; there is: " in job.message()
        assert not job.hold


def test_a_private_image_is_for_the_owner_whose_credential_is_accepted(site: Registries) -> None:
    """Over TLS; the hook reads what HTCondor brought, as the owner; one conversion, and nothing for who has none."""
    site.closed.push("secret/tool:1", *image_that_says("a secret tool", MACHINE))
    image = f"docker://{site.closed.host}/secret/tool:1"
    site.give("joe", JOES)
    (joes,) = site.submit(image, "joe", credential=True)
    joes.wait()
    assert joes.stdout == "a secret tool\n"
    (amys,) = site.submit(image, "amy")
    amys.wait("held")
    assert amys.hold is not None
    assert amys.hold.subcode == 130
    assert "the job has no credential 'docker'" in amys.hold.reason
    site.give("amy", "not hers")
    (refused,) = site.submit(image, "amy", credential=True)
    refused.wait("held")
    assert "HTTP 401" in refused.message()
    site.give("amy", AMYS)
    (again,) = site.submit(image, "amy", credential=True)
    again.wait()
    assert again.stdout == "a secret tool\n"
    assert site.conversions(f"{site.closed.host}/secret/tool:1") == 1
    said = "".join(path.read_text(errors="replace") for path in site.pool.log_directory.iterdir() if path.is_file())
    assert not [word for word in (JOES, AMYS, base64.b64encode(f"joe:{JOES}".encode()).decode()) if word in said]
    shown = site.pool.tool("condor_image_cache", "list", user="www-data").stdout
    assert "secret" not in shown


def test_a_tag_that_moves_is_followed_after_its_time(site: Registries) -> None:
    """The old image stays for whoever names its digest."""
    image = f"docker://{site.open.host}/htc/moving:1"
    before = site.open.push("htc/moving:1", *image_that_says("before", MACHINE))
    assert site.run(image).stdout == "before\n"
    site.open.push("htc/moving:1", *image_that_says("after", MACHINE))
    poll(lambda: site.run(image).stdout == "after\n", "the new image", 60)
    assert site.run(f"docker://{site.open.host}/htc/moving@{before}").stdout == "before\n"


def test_while_a_registry_is_gone_its_tags_are_what_they_were(site: Registries) -> None:
    """For images that are here; the others wait for it, idle."""
    image = f"docker://{site.open.host}/htc/kept:1"
    site.open.push("htc/kept:1", *image_that_says("kept", MACHINE))
    assert site.run(image).stdout == "kept\n"
    site.open.stop()
    try:
        messages: list[str] = []

        def says_so() -> bool:
            messages.append(site.run(image, "amy").message())
            return "could not look for a newer version" in messages[-1]

        poll(says_so, "a look that failed", 60)
        (unknown,) = site.submit(f"docker://{site.open.host}/htc/unknown:1")
        poll(unknown.hook_runs, "an answer")
        assert unknown.hook_runs()[0].status == 610
    finally:
        site.open.__enter__()


def test_what_a_registry_does_not_have_is_held(site: Registries) -> None:
    """It is the authority for its own names."""
    (job,) = site.submit(f"docker://{site.open.host}/htc/nothing:1")
    job.wait("held")
    assert job.hold is not None
    assert job.hold.subcode == 120
    assert f"docker://{site.open.host}/htc/nothing:1: " in job.hold.reason
    assert "HTTP 404" in job.hold.reason


def test_a_sif_in_a_registry_is_fetched_as_it_is(site: Registries) -> None:
    """As `apptainer push` leaves it: nothing is converted."""
    site.open.push("htc/alma:sif", b"{}", (SIFS / "alma9.sif").read_bytes(), layer_type=SIF_LAYER)
    image = f"oras://{site.open.host}/htc/alma:sif"
    job = site.run(image)
    assert job.stdout == "htc/almalinux:9 SIF\n"
    assert "SIF fetched from docker://" in job.message()


def test_an_archive_at_a_url_is_converted(site: Registries) -> None:
    """As `docker save` writes it; told by its content, whatever it is called."""
    docker_archive(DIRECTORY / "www" / "saved.sif", "saved", MACHINE)
    jobs = site.submit(f"{site.world.origin.url}/saved.sif", count=2)
    wait_for(jobs)
    assert {job.stdout for job in jobs} == {"saved\n"}
    assert site.pool.log("ImageCacheLog").count("saved.sif: ") >= 1


def test_layers_that_become_larger_than_the_cache_are_ended(site: Registries) -> None:
    """A megabyte that becomes a gigabyte; what was written is gone, and other images are not affected."""
    config, base, _ = image_that_says("a bomb", MACHINE)
    site.open.push("htc/bomb:1", config, base, layer_of_zeros(10**9))
    (job,) = site.submit(f"docker://{site.open.host}/htc/bomb:1")
    poll(job.hook_runs, "an answer", 120)
    assert job.hook_runs()[0].status in {320, 420}
    staging = site.pool.directory / "image_cache" / "staging"
    poll(lambda: os.listdir(staging) == [], "an empty staging")  # noqa: PTH208 - names
    site.open.push("htc/after:1", *image_that_says("after the bomb", MACHINE))
    assert site.run(f"docker://{site.open.host}/htc/after:1").stdout == "after the bomb\n"


def test_explain_and_prefetch_know_registries(site: Registries) -> None:
    """An admin brings an image in before jobs ask."""
    site.open.push("htc/early:1", *image_that_says("early", MACHINE))
    image = f"docker://{site.open.host}/htc/early:1"
    ad = site.pool.directory / "early.ad"
    ad.write_text(f'JobUniverse = 5\nClusterId = 1\nProcId = 0\nOwner = "joe"\nContainerImage = "{image}"\n')
    explained = site.pool.tool("condor_image_cache", "explain", ad).stdout
    assert "fetched and converted to a SIF" in " ".join(explained.split())
    site.pool.tool("condor_image_cache", "prefetch", image)
    job = site.run(image)
    assert job.stdout == "early\n"
    assert "cached SIF of docker://" in job.message()

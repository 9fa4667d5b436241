"""Jobs with images of a Singularity library, which is a double: what its API says, by rows that a test changes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.contract.conftest import StartSite
from tests.contract.doubles import ARCH, digest, image_ad, sif
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply

NAME = "library://e/c/x:1"
AD = image_ad(NAME)
NO_CVMFS = {"IMAGE_CACHE_CVMFS_BASE": "/nonexistent"}
JOBS = 8
ASKED = f"?arch={ {'x86_64': 'amd64', 'aarch64': 'arm64'}[ARCH] }"


def push(origin: Origin, image: bytes, delivered: Reply | None = None) -> None:
    """Have the tag name an image."""
    named = f"sha256.{digest(image)}"
    said = json.dumps({"data": {"hash": named, "size": len(image)}}).encode()
    file = f"/v1/imagefile/e/c/x:{named}{ASKED}"
    origin.routes |= {f"/v1/images/e/c/x:1{ASKED}": Reply(said), file: delivered or Reply(image)}


def asked(origin: Origin) -> list[str]:
    """Return which parts of the API were asked."""
    return [path.split("/")[2] for _, path in origin.requests]


def start(make_site: StartSite, origin: Origin, ttl: str) -> Site:
    """Start a manager whose library this is."""
    return make_site(**NO_CVMFS, IMAGE_CACHE_LIBRARY=origin.url, IMAGE_CACHE_TAG_TTL=ttl).start()


def test_many_jobs_cost_one_question_and_one_transfer(make_site: StartSite, origin: Origin) -> None:
    """All of them run from the same file."""
    push(origin, sif("library"))
    site = start(make_site, origin, "1h")
    with ThreadPoolExecutor(JOBS) as pool:
        answers = list(pool.map(lambda _: site.run_hook(AD), range(JOBS)))
    assert {(answer.code, answer.image) for answer in answers} == {(0, answers[0].image)}
    assert Path(answers[0].image).read_bytes() == sif("library")
    assert sorted(asked(origin)) == ["imagefile", "images"]


def test_a_tag_that_moved_brings_the_new_image(make_site: StartSite, origin: Origin) -> None:
    """When it is looked for again; what is here already by its hash is not fetched again."""
    site = start(make_site, origin, "0")
    for name in ("old", "new", "old"):
        push(origin, sif(name))
        assert Path(site.run_hook(AD).image).read_bytes() == sif(name)
    assert asked(origin).count("imagefile") == 2


def test_what_a_tag_last_named_outlives_library_and_manager(make_site: StartSite) -> None:
    """The library's address answers nobody, also after a restart; what was never seen is not there."""
    with Origin() as origin:
        push(origin, sif("library"))
        site = start(make_site, origin, "0")
        assert site.run_hook(AD).code == 0
    for _ in range(2):
        answer = site.run_hook(AD)
        assert answer.code == 0, answer.message
        assert "could not look for a newer version" in answer.message
        assert site.run_hook(image_ad("library://e/c/never_seen")).code == 610
        site.restart()


def test_a_tag_that_a_library_took_back_is_gone(make_site: StartSite, origin: Origin) -> None:
    """It answers, and that is its word."""
    push(origin, sif("library"))
    site = start(make_site, origin, "0")
    assert site.run_hook(AD).code == 0
    origin.routes.clear()
    assert site.run_hook(AD).code == 120


def test_a_library_that_names_anothers_image_by_its_hash_does_not_open_it(make_site: StartSite, origin: Origin) -> None:
    """What a library says of bytes that it does not deliver is worth nothing, although the bytes are here."""
    origin.routes["/own/private.sif"] = Reply(sif("private"))
    site = start(make_site, origin, "0")
    assert site.run_hook(image_ad(f"{origin.url}/own/private.sif")).code == 0
    push(origin, sif("private"), Reply(status=404))
    answer = site.run_hook(AD)
    assert answer.code == 610, answer.message
    assert "although the library names it" in answer.message

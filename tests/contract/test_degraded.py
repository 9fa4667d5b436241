"""What runs without a manager: never a job without the image that it names, never a path that nothing holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.contract.block import Answer
from tests.contract.conftest import StartSite
from tests.contract.doubles import image_ad, job_ad, sif, write
from tests.contract.harness import Site

DEGRADED: Final = ("--degraded=*",)


@dataclass(frozen=True)
class Case:
    """A job without a manager. `runs` is what it runs from; `@HERE@` stands for the site's directory."""

    name: str
    ad: str
    code: int
    args: tuple[str, ...] = ()
    runs: str = ""


def untouched(name: str, *lines: str, args: tuple[str, ...] = ()) -> Case:
    """Return the case of a job that runs as it is."""
    return Case(name, job_ad(*lines), 0, args)


CASES: Final = (
    untouched("no image", args=()),
    untouched("no image, and no default", args=("--default-image=", "--degraded=*")),
    untouched("an undefined image", "SingularityImage = undefined"),
    untouched("a Docker-universe job", "WantDocker = true", 'DockerImage = "busybox"'),
    Case("no image, but a default", job_ad(), 410, ("--default-image",)),
    Case("no image, but a default by its name", job_ad(), 410, ("--default-image=htc/rocky:9", *DEGRADED)),
    Case("a container without an image", job_ad("WantContainer = true"), 410),
    Case("a published image", image_ad("/cvmfs/nowhere.example.org/x:1"), 410, DEGRADED),
    Case("a URL", image_ad("https://localhost/x.sif"), 410, DEGRADED),
    Case("a file of the job that did not come", image_ad("job.sif"), 410, DEGRADED),
    Case("a file of the job", image_ad("mine.sif"), 0, DEGRADED, "sif @HERE@/execute/dir_1/scratch/mine.sif"),
    Case("a file of the job that leads into the cache", image_ad("linked.sif"), 410, DEGRADED),
    Case("a relative path with two dots", image_ad("../scratch/mine.sif"), 410, DEGRADED),
    Case("an expression", job_ad('SingularityImage = strcat("@HERE@", "/local/image")'), 410, DEGRADED),
    Case("a directory here", image_ad("@HERE@/local/image"), 0, DEGRADED, "sandbox @HERE@/local/image"),
    Case("a directory here, with a slash", image_ad("@HERE@/local/image/"), 0, DEGRADED, "sandbox @HERE@/local/image"),
    Case("a SIF here", image_ad("@HERE@/local/image.sif"), 0, DEGRADED, "sif @HERE@/local/image.sif"),
    Case("a SIF here, by a link", image_ad("@HERE@/local/link"), 0, DEGRADED, "sif @HERE@/local/image.sif"),
    Case(
        "the same, as ContainerImage",
        job_ad('ContainerImage = "@HERE@/local/image.sif"'),
        0,
        DEGRADED,
        "sif @HERE@/local/image.sif",
    ),
    Case("a directory here, but not so configured", image_ad("@HERE@/local/image"), 410),
    Case("a SIF here, but not so configured", image_ad("@HERE@/local/image.sif"), 410, ("--degraded=",)),
    Case("a SIF here, and an allow list", image_ad("@HERE@/local/image.sif"), 410, ("--degraded=htc/*",)),
    Case("a text here", image_ad("@HERE@/local/text.sif"), 410, DEGRADED),
    Case("an empty directory here", image_ad("@HERE@/local/empty"), 410, DEGRADED),
    Case("a FIFO here", image_ad("@HERE@/local/fifo"), 410, DEGRADED),
    Case("nothing here", image_ad("@HERE@/local/nothing"), 410, DEGRADED),
    Case("two dots", image_ad("@HERE@/local/../local/image"), 410, DEGRADED),
    Case("two dots at the end", image_ad("@HERE@/local/image/.."), 410, DEGRADED),
    Case("a quote in the path", image_ad(r"@HERE@/local/a\"b.sif"), 410, DEGRADED),
    Case("a path in the cache", image_ad("@HERE@/image_cache/entries/k/image"), 410, DEGRADED),
    Case("the same, with a doubled slash", image_ad("/@HERE@/image_cache/entries/k/image"), 410, DEGRADED),
    Case("the same, with a doubled slash inside", image_ad("@HERE@//image_cache/entries/k/image"), 410, DEGRADED),
    Case("the same, with a dot", image_ad("@HERE@/./image_cache/entries/k/image"), 410, DEGRADED),
    Case("the same, by a link", image_ad("@HERE@/local/into_cache"), 410, DEGRADED),
    Case("an ad with a bad line", job_ad("this is no attribute"), 399),
    Case("an ad with a bad line where the image is", job_ad('SingularityImage "/x"'), 399),
    Case("an empty ad", "", 399),
    Case("a text with an equals sign", "\x01\x02 = \x03\n\x04\n", 399),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Make an EP with images on its own disk and in its cache, and without a manager."""
    with Site(tmp_path_factory.mktemp("degraded")) as one:
        _fill(one)
        yield one


def _fill(one: Site) -> None:
    local = one.directory / "local"
    write(local, {"image.sif": sif("local"), "image/bin/sh": b"", "text.sif": b"text", 'a"b.sif': sif()})
    (local / "empty").mkdir()
    os.mkfifo(local / "fifo")
    (local / "link").symlink_to("image.sif")
    write(one.root, {"entries/k/image": sif("cached")})
    write(one.scratch, {"mine.sif": sif("mine")})
    (one.scratch / "linked.sif").symlink_to(one.root / "entries" / "k" / "image")
    (local / "into_cache").symlink_to(one.root / "entries" / "k" / "image")


def ask(site: Site, ad: str, *args: str) -> Answer:
    """Run the hook without a manager, with the cache root told as `config` tells it."""
    ad = ad.replace("@HERE@", str(site.directory))
    return site.run_hook(ad, "--root", str(site.root), *args)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_without_a_manager_a_job_gets_what_is_safe(site: Site, case: Case) -> None:
    """0 for what needs no manager, 410 for the rest, 399 for what cannot be read."""
    answer = ask(site, case.ad, *case.args)
    assert answer.code == case.code, answer.message
    if case.runs:
        kind, _, path = case.runs.replace("@HERE@", str(site.directory)).partition(" ")
        assert answer.runs(path, sandbox=kind == "sandbox")
        assert "manager is down" in answer.message
    elif case.code == 0:
        assert answer.is_untouched


def test_a_path_that_cannot_be_opened_is_not_run(site: Site) -> None:
    """A loop of links stands for what fails otherwise than by being absent."""
    (site.directory / "local" / "loop").symlink_to("loop")
    assert ask(site, image_ad("@HERE@/local/loop"), *DEGRADED).code == 410


def test_a_path_that_is_no_text_is_not_run(site: Site) -> None:
    """A name in another encoding."""
    path = os.fsencode(site.directory) + b"/local/\xff.sif"
    Path(os.fsdecode(path)).write_bytes(sif())
    ad = b'SingularityImage = "' + path + b'"\n'
    assert site.run_hook(ad, *DEGRADED).code >= 300


def test_the_cache_is_recognised_by_its_socket_where_no_root_is_told(make_site: StartSite) -> None:
    """The socket lies in the root unless configured otherwise."""
    site = make_site()
    write(site.root, {"entries/k/image": sif("cached")})
    assert site.run_hook(image_ad(f"{site.root}/entries/k/image"), *DEGRADED).code == 410

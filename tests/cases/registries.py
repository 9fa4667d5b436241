"""Rows of images in registries and libraries, on an EP that can convert them, and of archives of layers."""

from __future__ import annotations

from typing import Final

from tests.cases.case import Case, url
from tests.contract.doubles import image_ad, job_ad
from tests.contract.library_routes import GOOD_HASH
from tests.contract.worlds import WITH_LIBRARY, WITH_RUNTIME

_HOST: Final = "127.0.0.1:@PORT@"
_DIGEST: Final = "sha256:" + "0" * 64
_DOCKER: Final = (
    "WantContainer = true",
    "WantDockerImage = true",
    f'ContainerImage = "docker://{_HOST}/reg/good:1"',
)
_CACHES: Final = WITH_RUNTIME | {"IMAGE_CACHE_DOCKER": "cache"}


def row(code: int, name: str, image: str, asks: str = "", said: str = "") -> Case:
    """Return the row of a job with an image of the test's registry."""
    runs = "" if code else "entry converted"
    return Case(code, name, image_ad(image.replace("HOST", _HOST)), asks, runs, said, knobs=WITH_RUNTIME)


def library(code: int, name: str, image: str, asks: str = "", said: str = "") -> Case:
    """Return the row of a job with an image of the test's library; for 0, `asks` is what it runs from."""
    ad = image_ad(f"library://{image.replace('HOST', _HOST)}")
    if code:
        return Case(code, name, ad, asks, said=said, knobs=WITH_LIBRARY)
    return Case(code, name, ad, "library has it", asks, knobs=WITH_LIBRARY)


REGISTRIES: Final = (
    row(0, "a registry's image, converted", "docker://HOST/reg/good:1", "registry has it"),
    row(0, "a registry's image without its slashes", "docker:HOST/reg/good:1", "registry has it"),
    row(0, "a registry's image in an index", "docker://HOST/reg/many:1", "registry has it"),
    row(110, "a registry's image in upper case", "docker://HOST/reg/Good:1", said="lower case"),
    row(110, "a registry's image by half a digest", "docker://HOST/reg/good@sha256:abc", said="is no digest"),
    row(110, "a registry's image with a query", "docker://HOST/reg/good:1?x=1", said="takes no user"),
    row(110, "a registry's image with a password", "docker://joe:secret@HOST/reg/good:1", said="'docker'"),
    row(110, "a registry's image with a bad tag", "docker://HOST/reg/good:*", said="is no tag"),
    row(120, "a registry that lacks it", "docker://HOST/reg/nothing:1", "registry lacks it", "HTTP 404"),
    row(120, "a registry that lacks a digest", f"docker://HOST/reg/good@{_DIGEST}", "registry lacks it", "HTTP 404"),
    row(
        130, "a registry that wants a password", "docker://HOST/reg/closed:1", "registry refuses", "use_oauth_services"
    ),
    row(130, "a registry that forbids it", "docker://HOST/reg/forbidden:1", "registry refuses", "HTTP 403"),
    row(320, "layers too large", "docker://HOST/reg/large:1", "registry has it too large", "1.0 TB"),
    row(
        330, "an index without this architecture", "docker://HOST/reg/foreign:1", "registry is for others", "there is:"
    ),
    row(330, "a registry's image for others", "docker://HOST/reg/other:1", "registry is for others", "there is:"),
    row(
        450,
        "a registry's image that does not start",
        "docker://HOST/reg/dead:1",
        "registry has it, and it does not start",
    ),
    row(510, "a registry that delivers another digest", "docker://HOST/reg/lies:1", "registry describes it wrongly"),
    row(510, "a registry that delivers a page", "docker://HOST/reg/html:1", "registry describes it wrongly", "no JSON"),
    row(610, "a registry that is not well", "docker://HOST/reg/ill:1", "registry is not well", "HTTP 503"),
    row(610, "a registry that nobody runs", "docker://127.0.0.1:1/reg/x:1", "registry is down"),
    row(610, "an oras:// image of a registry that nobody runs", "oras://127.0.0.1:1/reg/x:1", "registry is down"),
    row(630, "a registry that has enough", "docker://HOST/reg/busy:1", "registry has enough of us"),
)

DOCKERS: Final = (
    Case(0, "an EP with Docker that leaves it", job_ad(*_DOCKER), machine="HasDocker = true\n", knobs=WITH_RUNTIME),
    Case(
        0,
        "an EP with Docker that caches",
        job_ad(*_DOCKER),
        "registry has it",
        "entry converted",
        machine="HasDocker = true\n",
        knobs=_CACHES,
    ),
    Case(
        0,
        "a Docker-universe job on an EP that caches",
        job_ad("WantDocker = true", 'DockerImage = "busybox"'),
        machine="HasDocker = true\n",
        knobs=_CACHES,
    ),
    Case(
        0,
        "what only Docker understands, on an EP that caches",
        job_ad("WantContainer = true", "WantDockerImage = true", 'DockerImage = "a b"'),
        machine="HasDocker = true\n",
        knobs=_CACHES,
    ),
)

ARCHIVES: Final = (
    Case(0, "an archive of layers at a URL", url("saved.tar"), "URL has it", "entry converted", knobs=WITH_RUNTIME),
    Case(150, "a tar that is no image", url("plain.tar"), "URL delivers no image", said="no image", knobs=WITH_RUNTIME),
    Case(150, "half of an archive", url("half.tar"), "URL delivers no image", said="ends early", knobs=WITH_RUNTIME),
    Case(
        330,
        "an archive for another machine",
        url("other.tar"),
        "URL has it for another machine",
        said="the image is for",
        knobs=WITH_RUNTIME,
    ),
)

LIBRARIES: Final = (
    library(0, "a library's image", "e/c/good", "entry library"),
    library(0, "a library's image by its host", "HOST/e/c/good:latest", "entry library"),
    library(0, "a library's image by its hash", f"e/c/good:{GOOD_HASH}", "entry library"),
    library(0, "a library's image by the library's defaults", "short", "entry library"),
    library(0, "a library whose images lie elsewhere", "e/c/moved", "entry library"),
    library(0, "a library with hashes of its own", "e/c/uuid", "entry library_uuid"),
    library(110, "a library's image with a password", "joe:secret@HOST/e/c/good", said="takes no user"),
    library(110, "a library's image with five parts", "HOST/e/c/d/good", said="has 4 parts"),
    library(120, "a library that lacks it", "e/c/nothing", "library lacks it", "HTTP 404"),
    library(130, "a library's private image", "e/c/closed", "library refuses", "only public images"),
    library(150, "a library's image that is none", "e/c/page", "library delivers no image", "SIF"),
    library(330, "a library that has it for others", "e/c/foreign", "library is for others", "there is:"),
    library(330, "a library that gives what is for others", "e/c/other", "library is for others", "there is:"),
    library(510, "a library's image of another hash", "e/c/lies", "library delivers something else", "sha-256"),
    library(510, "a library's image of another size", "e/c/size", "library delivers something else", "promised"),
    library(510, "a library that names no hash", "e/c/hashless", "library describes it wrongly", "names no hash"),
    library(510, "a library that says a page", "e/c/html", "library describes it wrongly", "no JSON"),
    library(610, "a library that is not well", "e/c/ill", "library is not well", "HTTP 503"),
    library(610, "a library that has lost the SIF", "e/c/lost", "library cannot deliver it", "the library names it"),
    library(610, "a library that nobody runs", "127.0.0.1:1/e/c/x", "library is down"),
    library(630, "a library that has enough", "e/c/busy", "library has enough of us"),
    Case(310, "a library:// image without a library", image_ad("library://lolcow"), said="IMAGE_CACHE_LIBRARY"),
    Case(310, "a shub:// image", image_ad("shub://a/b"), said="nothing here brings shub://"),
)

ROWS: Final = (*REGISTRIES, *DOCKERS, *ARCHIVES, *LIBRARIES)

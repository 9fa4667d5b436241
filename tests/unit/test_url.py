"""A SIF at a URL that the job names itself."""

from __future__ import annotations

import pytest

from cache_manager.outcome import Absent, Denied, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.sources.base import SourceError
from cache_manager.sources.transport import Patience
from cache_manager.sources.url import Url
from tests.unit.origin import MemorySink, Origin, Reply

SOURCE = Url(Patience(10**6, 20.0))


def image_at(origin: Origin, path: str = "/x.sif") -> ImageReference:
    """Return the reference of an image on the server."""
    return ImageReference.parse(f"{origin.base}{path}")


def test_the_version_of_an_object_belongs_to_what_it_is(origin: Origin) -> None:
    """A file that was overwritten is another object: it is fetched again."""
    seen = []
    for etag in ('"1"', '"2"', '"2"'):
        origin.replies["/x.sif"] = Reply(b"image", headers={"ETag": etag})
        seen.append(SOURCE.locate(image_at(origin)))
    assert seen[0] != seen[1] == seen[2]


@pytest.mark.parametrize(
    ("headers", "version"),
    [({"ETag": '"abc"', "Last-Modified": "Mon"}, '"abc"'), ({"Last-Modified": "Mon"}, "Mon 5"), ({}, "")],
)
def test_a_server_says_which_version_it_has(origin: Origin, headers: dict[str, str], version: str) -> None:
    """The ETag if there is one, else the time and the size; without any, the URL alone does not tell."""
    origin.replies["/x.sif"] = Reply(b"12345", headers=headers)
    located = SOURCE.locate(image_at(origin))
    assert isinstance(located, Located)
    assert located.version == version
    assert origin.asked == ["HEAD /x.sif"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 501])
def test_a_server_that_does_not_answer_head_still_serves(origin: Origin, status: int) -> None:
    """Signed URLs are for one method, and some servers know only GET: the image is fetched, without a version."""
    origin.replies["HEAD /x.sif?sig=1"] = Reply(status=status)
    origin.replies["/x.sif?sig=1"] = Reply(b"image")
    located, sink = SOURCE.locate(image_at(origin, "/x.sif?sig=1")), MemorySink()
    assert isinstance(located, Located)
    assert (located.url, located.version) == (f"{origin.base}/x.sif?sig=1", "")
    SOURCE.transfer(located, sink)
    assert sink.data == b"image"


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_in_trouble_says_nothing_of_the_image(origin: Origin, status: int) -> None:
    """The job goes back to idle, and is not held."""
    origin.replies["/x.sif"] = Reply(status=status)
    answer = SOURCE.locate(image_at(origin))
    if isinstance(answer, Located):
        with pytest.raises(SourceError) as caught:
            SOURCE.transfer(answer, MemorySink())
        answer = caught.value.answer
    assert isinstance(answer, Unwell)
    assert not answer.status.holds


@pytest.mark.parametrize("status", [404, 410])
def test_the_jobs_own_server_is_the_authority_for_it(origin: Origin, status: int) -> None:
    """What it says is not there is nowhere: the job is held, and its owner mends the URL."""
    origin.replies["/x.sif"] = Reply(status=status)
    with pytest.raises(SourceError) as caught:
        SOURCE.transfer(Located(url=f"{origin.base}/x.sif"), MemorySink())
    assert isinstance(caught.value.answer, Absent)
    assert caught.value.answer.authoritative


@pytest.mark.parametrize("status", [404, 410])
def test_what_a_proxy_may_have_said_holds_no_job(origin: Origin, status: int) -> None:
    """Another EP has another proxy."""
    origin.replies["/x.sif"] = Reply(status=status, headers={"Via": "1.1 squid"})
    with pytest.raises(SourceError) as caught:
        SOURCE.transfer(Located(url=f"{origin.base}/x.sif"), MemorySink())
    assert isinstance(caught.value.answer, Absent)
    assert not caught.value.answer.authoritative


@pytest.mark.parametrize("status", [401, 403])
def test_the_servers_refusal_is_a_denial(origin: Origin, status: int) -> None:
    """Nobody else could read it either, with what this job has."""
    origin.replies["/x.sif"] = Reply(status=status)
    with pytest.raises(SourceError) as caught:
        SOURCE.transfer(Located(url=f"{origin.base}/x.sif"), MemorySink())
    assert isinstance(caught.value.answer, Denied)


def test_a_credentials_name_in_front_of_the_scheme_is_no_part_of_the_url(origin: Origin) -> None:
    """HTCondor writes `token+https://`: the rest is what a server is asked for, and no message has the query."""
    origin.replies["/x.sif?sig=s3cr3t"] = Reply(b"image")
    answer = SOURCE.locate(ImageReference.parse(f"box+{origin.base}/x.sif?sig=s3cr3t"))
    assert "s3cr3t" not in getattr(answer, "why", "")
    assert isinstance(answer, Located)
    assert answer.url == f"{origin.base}/x.sif?sig=s3cr3t"

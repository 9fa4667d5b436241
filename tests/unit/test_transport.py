"""Reading http(s) and file URLs: every failure is an answer, and none of them tells a secret."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests import Response

from cache_manager.outcome import Absent, Answer, Denied, Unwell
from cache_manager.sources import refusals, transport
from cache_manager.sources.base import SourceError
from cache_manager.sources.transport import SMALL_BYTES, Patience, Route
from cache_manager.status import HookStatus
from tests.unit.origin import MemorySink, Origin, Reply

PATIENCE = Patience(min_rate_bytes=10**6, stall_s=20.0)
HASTY = Patience(min_rate_bytes=10**6, stall_s=0.2)
IMAGE = bytes(range(256)) * 4096


def failed(url: str, patience: Patience = PATIENCE) -> list[Absent | Denied | Unwell]:
    """Return how reading an index and an image fails; nothing else may be raised."""
    ways: list[Callable[[], object]] = [
        lambda: transport.read_small(url, patience),
        lambda: transport.transfer([Route(url)], MemorySink(), patience),
    ]
    answers = []
    for way in ways:
        with pytest.raises(SourceError) as caught:
            way()
        answers.append(caught.value.answer)
    return answers


def kind_of(answer: Answer) -> type[Answer] | HookStatus:
    """Return what an answer says, in one word."""
    return answer.status if isinstance(answer, Unwell) else type(answer)


@pytest.mark.parametrize("length", [None, ""], ids=["with its length", "without"])
def test_an_image_comes_whole_with_its_size_told_before(origin: Origin, length: str | None) -> None:
    """The sink can refuse before the first byte."""
    origin.replies["/x.sif"] = Reply(IMAGE, length=length)
    sink = MemorySink()
    transport.transfer([Route(f"{origin.base}/x.sif")], sink, PATIENCE)
    assert sink.data == IMAGE
    assert sink.expected == [len(IMAGE) if length is None else None]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(status=404), Absent),
        (Reply(status=410), Absent),
        (Reply(status=401), Denied),
        (Reply(status=403), Denied),
        (Reply(status=429, headers={"Retry-After": "120"}), HookStatus.SOURCE_THROTTLED),
        (Reply(status=429), HookStatus.SOURCE_THROTTLED),
        (Reply(status=500), HookStatus.SOURCE_UNREACHABLE),
        (Reply(status=502), HookStatus.SOURCE_UNREACHABLE),
        (Reply(status=503, headers={"Retry-After": "1671729995"}), HookStatus.SOURCE_UNREACHABLE),
        (Reply(status=204), HookStatus.SOURCE_UNREACHABLE),
        (Reply(status=206), HookStatus.SOURCE_UNREACHABLE),
        (Reply(status=300), HookStatus.SOURCE_UNREACHABLE),
        (
            Reply(status=403, headers={"X-Squid-Error": "ERR_ACCESS_DENIED 0", "Via": "1.1 squid"}),
            HookStatus.SOURCE_UNREACHABLE,
        ),
        (Reply(status=302, headers={"Location": "/x.sif"}), HookStatus.SOURCE_UNREACHABLE),
        (Reply(status=302, headers={"Location": "file:///etc/passwd"}), HookStatus.SOURCE_UNREACHABLE),
        (Reply(status=302, headers={"Location": "http://[bad/x.sif"}), HookStatus.SOURCE_UNREACHABLE),
        (Reply(status=302, headers={"Location": "http://host.example:port/"}), HookStatus.SOURCE_UNREACHABLE),
    ],
)
def test_what_a_server_says_is_the_answer_that_it_means(
    origin: Origin, reply: Reply, expected: type[Answer] | HookStatus
) -> None:
    """Only the end server's refusal is a denial; a 404 is "not here"; the rest says nothing of the image."""
    origin.replies["/x.sif"] = reply
    for answer in failed(f"{origin.base}/x.sif"):
        assert kind_of(answer) == expected
        assert answer.why.startswith(f"{origin.base}/x.sif: ")
        if reply.status == 429:
            assert f"Retry-After: {reply.headers.get('Retry-After', 'not said')}" in answer.why


@pytest.mark.parametrize(
    ("reply", "wait_s"),
    [
        (Reply(status=429, headers={"Retry-After": "120"}), 120),
        (Reply(status=429, headers={"Retry-After": "soon"}), None),
        (Reply(status=429), None),
        (Reply(status=503, headers={"Retry-After": "120"}), 120),
        (Reply(status=503), None),
    ],
)
def test_a_server_says_how_long_to_leave_it_alone(origin: Origin, reply: Reply, wait_s: float | None) -> None:
    """Both with "too many requests" and with "not now"."""
    origin.replies["/x.sif"] = reply
    for answer in failed(f"{origin.base}/x.sif"):
        assert isinstance(answer, Unwell)
        assert answer.retry_after_s == wait_s


@pytest.mark.parametrize(
    ("url", "headers", "relayed"),
    [
        ("http://one.example/x", {"Via": "1.1 squid"}, True),
        ("http://one.example/x", {}, False),
        ("https://one.example/x", {"Via": "1.1 varnish"}, False),
        ("https://one.example/x", {"Proxy-Status": "a"}, True),
    ],
)
def test_through_tls_no_proxy_of_the_site_speaks(url: str, headers: dict[str, str], *, relayed: bool) -> None:
    """A Via there is of the server's own making: what it says of the image counts."""
    response = Response()
    response.url, response.status_code = url, 404
    response.headers.update(headers)
    with pytest.raises(SourceError) as caught:
        refusals.refuse(response, "x: ")
    assert caught.value.answer == Absent("x: HTTP 404", relayed=relayed)


def test_an_answer_that_is_none_says_nothing_of_the_servers_other_objects() -> None:
    """It was there, and may have the rest."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.sif"

        def close_at_once() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=close_at_once)
        thread.start()
        with pytest.raises(SourceError) as caught:
            transport.read_small(url, PATIENCE)
        thread.join()
    assert isinstance(caught.value.answer, Unwell)
    assert not caught.value.answer.everything


def test_an_image_that_ends_early_is_no_image(origin: Origin) -> None:
    """Truncated transfers have passed for images before."""
    origin.replies["/x.sif"] = Reply(IMAGE, cut=len(IMAGE) // 2)
    with pytest.raises(SourceError) as caught:
        transport.transfer([Route(f"{origin.base}/x.sif")], MemorySink(), PATIENCE)
    assert kind_of(caught.value.answer) is HookStatus.SOURCE_UNREACHABLE


@pytest.mark.parametrize("length", ["\u00b2", "-5", "5, 6", "0x10", "1_0", "many"])
def test_a_length_that_is_none_ends_in_an_answer(origin: Origin, length: str) -> None:
    """Headers are text from anybody."""
    origin.replies["/x.sif"] = Reply(b"12345", length=length)
    for way in (
        lambda url: transport.transfer([Route(url)], MemorySink(), PATIENCE),
        lambda url: transport.read_small(url, PATIENCE),
    ):
        try:
            way(f"{origin.base}/x.sif")
        except SourceError as error:
            assert isinstance(error.answer, Unwell)  # noqa: PT017 - reading it anyway is fine as well


def test_a_server_that_stalls_is_left(origin: Origin) -> None:
    """No bytes for IMAGE_CACHE_STALL_TIMEOUT end a transfer, before its answer and in the middle of it."""
    origin.replies["/x.sif"] = Reply(IMAGE, cut=1000, stalls=True)
    sink = MemorySink()
    with pytest.raises(SourceError) as caught:
        transport.transfer([Route(f"{origin.base}/x.sif")], sink, HASTY)
    assert kind_of(caught.value.answer) is HookStatus.SOURCE_TOO_SLOW
    assert f"no byte for 0.2 s after 1000 of {len(IMAGE)} bytes" in caught.value.answer.why
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for answer in failed(f"http://127.0.0.1:{silent.getsockname()[1]}/x.sif", HASTY):
            assert kind_of(answer) is HookStatus.SOURCE_UNREACHABLE
            assert "no answer in 0.2 s" in answer.why


def test_a_server_that_drips_spends_its_budget(origin: Origin) -> None:
    """Each byte comes in time, and the image never does; the message says how fast it was."""
    origin.replies["/x.sif"] = Reply(IMAGE)
    moments = itertools.count(0.0, 21.0)
    with pytest.raises(SourceError) as caught:
        transport.transfer([Route(f"{origin.base}/x.sif")], MemorySink(), PATIENCE, clock=lambda: next(moments))
    assert kind_of(caught.value.answer) is HookStatus.SOURCE_TOO_SLOW
    assert "too slow (" in caught.value.answer.why


@pytest.mark.parametrize(("size", "seconds"), [(None, 20.0), (0, 20.0), (10**9, 1020.0)])
def test_the_budget_grows_with_the_image(size: int | None, seconds: float) -> None:
    """A fixed limit cuts large images, or waits too long for small ones."""
    assert PATIENCE.budget_s(size) == seconds
    assert Patience(0, 1.0).budget_s(100) == 101.0


def test_nobody_there_is_an_answer() -> None:
    """A port where nobody listens, a name that does not resolve."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/x.sif", "http://does-not-exist.invalid/x.sif"):
        for answer in failed(url):
            assert kind_of(answer) is HookStatus.SOURCE_UNREACHABLE
            assert isinstance(answer, Unwell)
            assert answer.everything


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1/x.sif",
        "http:///x.sif",
        "http://host.example:99999/x",
        "http://host.example:port/x",
        "http://a..b/x",
        "nonsense://h/x",
        "http://" + "a" * 70 + ".example/x",
        "http://%zz/x",
        "file:///a%00b",
        "file:///" + "a" * 5000,
    ],
)
def test_a_url_that_is_none_is_an_answer(url: str) -> None:
    """It came from a job, a redirect or the configuration."""
    assert all(isinstance(answer, (Absent, Unwell)) for answer in failed(url))


def test_a_proxys_refusal_is_not_the_servers(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image may be readable for everybody; the site's Squid is what the admin has to look at."""
    monkeypatch.setenv("http_proxy", origin.base)
    url = "http://images.example/x.sif"
    origin.replies[url] = Reply(status=403, headers={"X-Squid-Error": "ERR_ACCESS_DENIED 0"})
    for answer in failed(url):
        assert kind_of(answer) is HookStatus.SOURCE_UNREACHABLE
    assert origin.asked == [f"GET {url}", f"GET {url}"]


def test_an_index_is_small(origin: Origin) -> None:
    """A latest.txt of a gigabyte is none, and is not read to its end."""
    origin.replies["/fits"] = Reply(b"x" * SMALL_BYTES)
    origin.replies["/large"] = Reply(b"x" * (SMALL_BYTES + 1))
    assert transport.read_small(f"{origin.base}/fits", PATIENCE) == b"x" * SMALL_BYTES
    with pytest.raises(SourceError, match="larger than 65536 bytes, so no index"):
        transport.read_small(f"{origin.base}/large", PATIENCE)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://user:s3cr3t@host.example:8443/a/x.sif?sig=s3cr3t#s3cr3t", "https://host.example:8443/a/x.sif"),
        ("https://s3cr3t@host.example/x.sif", "https://host.example/x.sif"),
        ("https://u:a@s3cr3t@host.example/x.sif", "https://host.example/x.sif"),
        ("file:///srv/v2/x.sif", "file:///srv/v2/x.sif"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, told: str) -> None:
    """It goes into messages, logs and records."""
    assert transport.shown(url) == told


@given(st.text(max_size=60) | st.text("htps:/[]@?#.%x1", max_size=30).map(lambda rest: f"http://{rest}"))
def test_anything_can_be_shown(url: str) -> None:
    """Showing is what happens when something else has gone wrong already."""
    assert len(transport.shown(url).splitlines()) <= 1


def test_a_failure_tells_no_secret(origin: Origin) -> None:
    """What the HTTP library says has the whole URL in it."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    bad = f"http://user:s3cr3t@127.0.0.1:{port}/x.sif?sig=s3cr3t"
    loop = origin.base.replace("//", "//user:s3cr3t@") + "/loop?sig=s3cr3t"
    origin.replies["/loop?sig=s3cr3t"] = Reply(status=302, headers={"Location": "/loop?sig=s3cr3t"})
    origin.replies["/odd"] = Reply(status=302, headers={"Location": "s3://user:s3cr3t@h/x?sig=s3cr3t"})
    for url in (bad, loop, f"{origin.base}/odd", "http://user:s3cr3t@host.example:port/x", "http://user:s3cr3t@/x"):
        assert not any("s3cr3t" in answer.why for answer in failed(url))


def test_a_file_is_read_as_a_server_would_give_it(tmp_path: Path) -> None:
    """Blanks and percent signs in its path are encoded in its URL."""
    path = tmp_path / "a b%41.sif"
    path.write_bytes(IMAGE)
    url = f"file://{tmp_path}/a%20b%2541.sif"
    sink = MemorySink()
    transport.transfer([Route(url)], sink, PATIENCE)
    assert (sink.data, sink.expected) == (IMAGE, [len(IMAGE)])
    path.write_bytes(b"latest")
    assert transport.read_small(url, PATIENCE) == b"latest"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:///does/not/exist.sif", Absent),
        ("file:///etc", HookStatus.SOURCE_UNREACHABLE),
        ("file:///dev/null", HookStatus.SOURCE_UNREACHABLE),
        ("file:///proc/self/mem", HookStatus.SOURCE_UNREACHABLE),
    ],
    ids=["missing", "directory", "device", "unreadable in the middle"],
)
def test_a_file_that_cannot_be_read_is_an_answer(url: str, expected: type[Answer] | HookStatus) -> None:
    """As with a server; an error of the source's disk is not one of the cache's."""
    ways: list[Callable[[], object]] = [
        lambda: transport.read_small(url, PATIENCE),
        lambda: transport.transfer([Route(url)], MemorySink(), PATIENCE),
    ]
    for way in ways:
        with pytest.raises(SourceError) as caught:
            way()
        assert kind_of(caught.value.answer) == expected

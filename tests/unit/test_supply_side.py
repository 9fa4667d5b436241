"""What a server between us and a publisher may do: where its redirects lead, and whether it is the one it says."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

import pytest
import requests

from cache_manager.outcome import Unwell
from cache_manager.sources import transport
from cache_manager.sources.base import SourceError
from cache_manager.status import HookStatus
from cache_manager.web import Watch, cause, is_near, session
from tests.unit.origin import MemorySink, Origin, Reply

PATIENCE: Final = transport.Patience(1_000_000, 5.0)
OWN_SERVER: Final = Path(__file__).with_name("data") / "own_server.pem"
"""A key and a certificate for 127.0.0.1 that its owner signed; they protect nothing."""

NEAR: Final = (
    "127.0.0.1",
    "127.9.9.9",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0.0.0.0",  # noqa: S104 - not bound to
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "169.254.169.254",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "100.100.100.200",
    "localhost",
    "LOCALHOST.",
    "metadata.localhost",
)
ELSEWHERE: Final = (
    "192.0.2.1",
    "10.0.0.1",
    "192.168.1.1",
    "2001:db8::1",
    "fd00::1",
    "::ffff:10.0.0.1",
    "one.example",
    "localhost.one.example",
    "127.0.0.1.one.example",
    "",
    "x" * 300,
)


@pytest.mark.parametrize(("host", "near"), [*((one, True) for one in NEAR), *((one, False) for one in ELSEWHERE)])
def test_what_answers_only_this_machine_is_told_from_what_is_elsewhere(host: str, *, near: bool) -> None:
    """In every way in which an address may be written."""
    assert is_near(host) is near


@pytest.mark.parametrize("first", ["192.0.2.1", "10.0.0.1", "images.example"])
def test_no_byte_is_sent_to_loopback_when_a_remote_server_redirects_there(origin: Origin, first: str) -> None:
    """The connection's own address counts: the name in the redirect may resolve to anything."""
    with Watch() as watch, session() as one:
        watch.begin(first)
        watch.redirect("harmless.example")
        with pytest.raises(requests.ConnectionError, match=r"127\.0\.0\.1 is this machine's own"):
            one.get(f"{origin.base}/x.sif")
    assert origin.asked == []


@pytest.mark.parametrize("near", NEAR)
def test_a_redirect_that_says_itself_that_it_leads_to_this_machine_is_refused(near: str) -> None:
    """Also where a proxy would connect for us, and its address is all that we see."""
    with Watch() as watch:
        watch.begin("images.example")
        with pytest.raises(OSError, match="not followed"):
            watch.redirect(near)


def test_a_server_on_this_machine_may_redirect_on_it(origin: Origin) -> None:
    """A site's own mirror, and these tests."""
    origin.replies["/a"] = Reply(status=302, headers={"Location": f"{origin.base}/b"})
    origin.replies["/b"] = Reply(b"here")
    assert transport.read_small(f"{origin.base}/a", PATIENCE) == b"here"


def test_the_passwords_of_the_managers_user_go_to_nobody(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ~/.netrc would open what no job may have; the URL's own password does its work."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login admin password s3cr3t\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    origin.replies["/x"] = Reply(b"x")
    transport.read_small(f"{origin.base}/x", PATIENCE)
    transport.read_small(f"http://joe:own@{origin.base.removeprefix('http://')}/x", PATIENCE)
    assert origin.passwords == ["", "Basic am9lOm93bg=="]


@contextmanager
def serving(host: str) -> Iterator[str]:
    """Serve these tests' data over TLS, with a certificate that nobody but its owner signed; give the URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(OWN_SERVER)

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:  # noqa: ANN401 - those of the base class
            super().__init__(*args, directory=str(OWN_SERVER.parent))

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(HTTPServer):
        def handle_error(self, *_: object) -> None:
            """Say nothing: a client that hangs up is what is tested."""

    server = Server((host, 0), Quiet)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"https://{host}:{server.server_port}/{OWN_SERVER.name}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def secure() -> Iterator[str]:
    """Give the URL of a server that is the one its certificate names."""
    with serving("127.0.0.1") as url:
        yield url


def test_a_server_whose_certificate_nobody_vouches_for_is_not_believed(secure: str) -> None:
    """No image comes from it, and the message says what is wrong."""
    sink = MemorySink()
    with pytest.raises(SourceError, match="certificate") as caught:
        transport.transfer([transport.Route(secure)], sink, PATIENCE)
    assert isinstance(caught.value.answer, Unwell)
    assert caught.value.answer.status is HookStatus.SOURCE_UNREACHABLE
    assert sink.data == b""


def test_a_sites_own_authority_is_believed_where_admins_name_it(secure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQUESTS_CA_BUNDLE in the manager's environment, as for every program with requests."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(OWN_SERVER))
    sink = MemorySink()
    transport.transfer([transport.Route(secure)], sink, PATIENCE)
    assert sink.data == OWN_SERVER.read_bytes()


def test_a_certificate_for_another_name_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although its authority is."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(OWN_SERVER))
    with serving("127.0.0.2") as url, pytest.raises(SourceError, match="certificate"):
        transport.read_small(url, PATIENCE)


def test_what_a_server_says_instead_of_an_answer_is_told_without_urls_however_long_it_is() -> None:
    """A line as long as HTTP allows took a regular expression minutes, while all other jobs waited."""
    said = cause(ValueError(f"{'a' * 1_000_000} https://h/x?sig=CaNaRy user:CaNaRy@h was said"))
    assert said.startswith("aaa")
    assert said.endswith("a ... ... was said")

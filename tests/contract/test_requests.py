"""Any user may connect to the manager's socket, and say anything."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from cache_manager import protocol
from tests.contract.block import read_block
from tests.contract.doubles import image_ad, job_ad
from tests.contract.harness import Site

SOON = ("--deadline", "8s")


@pytest.mark.parametrize("attack", ["silence", "half a header", "half a body", "followers"])
def test_connections_that_say_nothing_keep_no_job_waiting(shared_site: Site, attack: str) -> None:
    """Any user may connect."""
    site = shared_site
    said = {
        "silence": b"",
        "half a header": b"IMGC/1 5",
        "half a body": b"IMGC/1 100 job=100\nClusterId = 1\n",
        "followers": b"IMGC/1 0 verb=advertise follow=1\n",
    }[attack]
    with ExitStack() as stack:
        for _ in range(300):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            site.connect(connection)
            connection.sendall(said)
        assert site.run_hook(job_ad(), *SOON).is_untouched
    assert site.run_hook(job_ad(), *SOON).is_untouched


@pytest.mark.parametrize(
    "request_",
    [
        b"\n",
        b"IMGC/1\n",
        b"IMGC/1 x\n",
        b"IMGC/1 -1\n",
        b"IMGC/1 99999999999999999999\n",
        b"IMGC/1 1048577\n",
        b"IMGC/1 0 novalue\n",
        b"IMGC/1 0 job=nan left=inf starter=1e400\n",
        b"IMGC/1 0 job=-5 left=-5 starter=-5\n",
        b"IMGC/1 3 job=1e11\nabc",
        b"IMGC/1 0 verb=nonsense\n",
        b"IMGC/1 0 verb=explain\n",
        b"IMGC/1 3 verb=explain job=2\n\xff\xfe\n",
        b"IMGC/1 0 verb=prepare scratch=%ff%00 slot=%0a\n",
        b"IMGC/1 0 \xff=\xff\n",
        b"x" * (protocol.MAX_HEADER_BYTES + 1) + b"\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=range(17),
)
def test_no_request_makes_the_manager_stumble(shared_site: Site, request_: bytes) -> None:
    """It answers with a frame, or closes; without a traceback."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(8)
        shared_site.connect(connection)
        connection.sendall(request_)
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    header = protocol.parse_header(reply.partition(b"\n")[0] + b"\n")
    assert header.length == len(reply.partition(b"\n")[2])
    assert shared_site.run_hook(job_ad()).is_untouched
    assert "Traceback" not in shared_site.log_text()


def test_a_probe_that_is_never_answered_is_given_up(site: Site) -> None:
    """A hook that was asked and says nothing, lies, or goes away."""
    ad = image_ad("x.sif").encode()
    for said in (
        b"",
        b"nonsense\n",
        b"IMGC/1 99999999\n",
        b"IMGC/1 0 kind=file size=-5\n",
        b"IMGC/1 0 kind=nonsense\n",
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            site.connect(connection)
            connection.sendall(protocol.frame(ad, job=len(ad), left=3, scratch="/nonexistent"))
            assert b"ask=probe" in connection.recv(65536)
            connection.sendall(said)
            if said:
                block = connection.recv(65536).partition(b"\n")[2]
                assert read_block(block)["HookStatusCode"] != 0
    assert site.run_hook(job_ad()).is_untouched
    assert "Traceback" not in site.log_text()

"""A manager that is restarted, or killed, in the middle of a large image: the next one goes on where it was."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.contract.conftest import StartSite
from tests.contract.doubles import VERSION, cvmfs_ad, sif, tree
from tests.contract.harness import Site
from tests.contract.raw_server import End, RawServer, answer

SIZE = 4 << 20
HALF = SIZE // 2
IMAGE = sif("resumed", SIZE)
ETAG = {"ETag": '"one"'}
PART = ETAG | {"Content-Range": f"bytes {HALF}-{SIZE - 1}/{SIZE}"}


@pytest.fixture
def server() -> RawServer:
    """Serve an image that first stops in its middle."""
    server = RawServer()
    server.serve(tree("htc/large:1", IMAGE))
    path = next(path for path in server.routes if path.endswith(VERSION))
    begin = (answer(body=IMAGE[:HALF], headers=ETAG, length=str(SIZE)), End.STALL)
    server.routes[path] = [begin, (answer("206 Partial Content", IMAGE[HALF:], PART),)]
    return server


def image_here(site: Site) -> list[Path]:
    """Return what is here of images that come in."""
    return [path for path in (site.root / "staging").glob("*/image") if path.stat().st_size == HALF]


def asked_for(server: RawServer) -> list[str]:
    """Return which part of the image each request was for."""
    heads = [head for _, path, head in server.heard if path.endswith(VERSION)]
    return [next((line for line in head.split("\r\n") if line.startswith("Range")), "all") for head in heads]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_fetch_goes_on_under_the_next_manager(
    make_site: StartSite, server: RawServer, number: signal.Signals
) -> None:
    """The job that waits notices nothing; no byte is fetched twice, and nothing is left of it."""
    with server:
        site = make_site(IMAGE_CACHE_CVMFS_BASE="/nonexistent", IMAGE_CACHE_SIF_SOURCES=f"{server.url}/v2").start()
        hook = site.start_hook(cvmfs_ad("htc/large:1"))
        site.wait_for(lambda: image_here(site), "half of the image")
        site.restart(number)
        found = hook.finish()
        assert found.code == 0, found.message
        assert asked_for(server) == ["all", f"Range: bytes={HALF}-"]
        assert site.names("staging") == []
        status = site.ask("status")
        assert status["reserved_bytes"] == 0
        assert SIZE < status["used_bytes"] < SIZE + 32768


@pytest.mark.parametrize(
    "damage",
    [
        {"boot_id": "00000000-0000-0000-0000-000000000000"},
        {"of_bytes": HALF - 1},
        {"of_bytes": "many"},
        {"name": 5},
        {"etag": None},
    ],
    ids=str,
)
def test_what_cannot_be_trusted_is_not_gone_on_with(
    make_site: StartSite, server: RawServer, damage: dict[str, object]
) -> None:
    """After a start of the machine a file may be longer than what was written to it."""
    with server:
        site = make_site(IMAGE_CACHE_CVMFS_BASE="/nonexistent", IMAGE_CACHE_SIF_SOURCES=f"{server.url}/v2").start()
        hook = site.start_hook(cvmfs_ad("htc/large:1"))
        site.wait_for(lambda: image_here(site), "half of the image")
        site.stop(signal.SIGKILL)
        hook.process.kill()
        (record,) = (site.root / "staging").glob("*/partial.json")
        record.write_text(json.dumps(json.loads(record.read_text()) | damage))
        path = next(path for path in server.routes if path.endswith(VERSION))
        server.routes[path] = (answer(body=IMAGE, headers=ETAG),)
        site.start()
        assert site.names("staging") == []
        assert site.run_hook(cvmfs_ad("htc/large:1")).code == 0
        assert asked_for(server) == ["all", "all"]

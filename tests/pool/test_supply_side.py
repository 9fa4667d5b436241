"""A publisher's server that is not on this machine sends us to one that is: with a real address, and real names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.contract.doubles import image_ad, sif
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply
from tests.pool.harness import run_as

PUBLISHER: Final = "198.51.100.7"
NAMES: Final = f"{PUBLISHER} publisher.example\n127.0.0.1 rebound.example\n::1 rebound6.example\n"


@pytest.fixture(scope="module")
def publisher() -> Iterator[Origin]:
    """Serve on an address that is not loopback; the names of others' servers lead to this machine."""
    run_as(None, ["ip", "address", "add", f"{PUBLISHER}/32", "dev", "lo"])
    hosts = Path("/etc/hosts")
    before = hosts.read_text()
    hosts.write_text(before + NAMES)
    with Origin(PUBLISHER) as one:
        yield one
    hosts.write_text(before)
    run_as(None, ["ip", "address", "del", f"{PUBLISHER}/32", "dev", "lo"])


@pytest.mark.parametrize("host", ["127.0.0.1", "rebound.example", "localhost", "2130706433", "0.0.0.0", "127.0.0.1."])  # noqa: S104
def test_a_remote_servers_redirect_reaches_nothing_on_this_machine(
    publisher: Origin, tmp_path: Path, host: str
) -> None:
    """Not a byte, whatever the name is that leads here; the publisher's own redirects are followed."""
    with Origin() as inside, Site(tmp_path) as site:
        site.start()
        inside.routes["/secret.sif"] = Reply(sif("secret"))
        publisher.routes["/moved.sif"] = Reply(
            status=302, headers={"Location": f"http://{host}:{inside.port}/secret.sif"}
        )
        publisher.routes["/near.sif"] = Reply(status=302, headers={"Location": "/moved.sif"})
        publisher.routes["/ok.sif"] = Reply(
            status=302, headers={"Location": f"http://publisher.example:{publisher.port}/x"}
        )
        publisher.routes["/x"] = Reply(sif("x"))
        for name in ("moved.sif", "near.sif"):
            answer = site.run_hook(image_ad(f"{publisher.url}/{name}"))
            assert answer.code == 610, answer.message
            assert "this machine's own or its link's, which is not followed" in answer.message
        assert inside.requests == []
        assert site.run_hook(image_ad(f"{publisher.url}/ok.sif")).code == 0

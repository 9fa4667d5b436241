"""A manager that is killed costs no job: its hooks ask the next one."""

from __future__ import annotations

import signal
from threading import Event

from tests.contract.doubles import image_ad, sif
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply

HOOKS = 50


def test_fifty_hooks_that_wait_get_their_image_from_the_next_manager(site: Site, origin: Origin) -> None:
    """None is held, none goes back to idle, and the image is fetched once more and not fifty times."""
    gate = Event()
    origin.routes["/a.sif"] = Reply(sif("a", 1_000_000), gate=gate)
    hooks = [site.start_hook(image_ad(f"{origin.url}/a.sif")) for _ in range(HOOKS)]

    def all_wait() -> bool:
        fetches = site.ask("status")["fetches"]
        return bool(fetches) and fetches[0]["waiting"] == HOOKS

    site.wait_for(all_wait, "fifty waiting hooks")
    site.restart(signal.SIGKILL)
    gate.set()
    answers = [hook.finish() for hook in hooks]
    assert {answer.code for answer in answers} == {0}
    assert len({answer.image for answer in answers}) == 1
    assert origin.count("/a.sif", "GET") == 2

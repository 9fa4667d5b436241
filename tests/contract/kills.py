"""A manager under load, killed at a random moment, again and again; and what must be true each time it is back."""

from __future__ import annotations

import hashlib
import random
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cache_manager import disk
from cache_manager.status import HookStatus
from tests.contract import holders
from tests.contract.doubles import cvmfs_ad, digest, image_ad, sif, tree
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply

IMAGES: Final = 12
SIZE: Final = 60_000
JOBS: Final = 5
STAY: Final = 2
"""So many jobs outlive a kill."""

LATEST_S: Final = 0.25
KNOBS: Final = {
    "IMAGE_CACHE_MAX_BYTES": "800 KB",
    "IMAGE_CACHE_MIN_AGE": "0s",
    "IMAGE_CACHE_CVMFS_BASE": "/nonexistent",
}
"""Half of the images fit, and all that the jobs at one time may hold."""


def serve(origin: Origin) -> None:
    """Offer the images, half of them in a tree, half of them at URLs."""
    for number in range(IMAGES):
        body = sif(f"{number}", SIZE)
        if number % 2:
            origin.serve(tree(f"htc/image:{number}", body))
        else:
            origin.routes[f"/{number}.sif"] = Reply(body)


@dataclass
class Siege:
    """A site whose manager is killed. `jobs` are the living starters, and which image each of them has."""

    site: Site
    origin: Origin
    jobs: list[tuple[holders.Starter, int]] = field(default_factory=list)
    kills: int = 0
    answered: int = 0

    def ad(self, number: int) -> str:
        """Return the ad of a job for an image."""
        if number % 2:
            return cvmfs_ad(f"htc/image:{number}")
        return image_ad(f"{self.origin.url}/{number}.sif")

    def round(self, seed: int) -> None:
        """Send jobs, kill the manager meanwhile, start it again, and look: all by this seed."""
        dice = random.Random(seed)  # noqa: S311 - it has to come again
        where = f"seed {seed}"
        while len(self.jobs) > STAY:
            starter, _ = self.jobs.pop(dice.randrange(len(self.jobs)))
            dice.choice((starter.end, starter.kill))()
        for number in dice.choices(range(IMAGES), k=JOBS):
            self.jobs.append((holders.start(self.site, self.ad(number)), number))
        self._wait(dice.uniform(0, LATEST_S))
        self.site.restart(signal.SIGKILL)
        self.kills += 1
        self.jobs = [job for job in self.jobs if self._has_its_image(*job, where)]
        self._judge(where)

    def _has_its_image(self, starter: holders.Starter, number: int, where: str) -> bool:
        """Whether a job runs. One that began while nobody listened has gone elsewhere; any other has its image."""
        answer = starter.answer()
        if answer.code == HookStatus.CACHE_MANAGER_DOWN.code:
            starter.end()
            return False
        assert answer.code == 0, f"{where}: {answer.message}"
        content = Path(answer.image).read_bytes()
        assert digest(content) == digest(sif(f"{number}", SIZE)), f"{where}: a job has another image"
        self.answered += 1
        return True

    def _wait(self, seconds: float) -> None:
        ends = self.site.clock() + seconds
        self.site.wait_for(lambda: self.site.clock() >= ends, "the moment of the kill")

    def _judge(self, where: str) -> None:
        site = self.site
        site.wait_for(lambda: not site.names("staging") and not site.names("trash"), f"{where}: nothing left behind")
        listed: list[dict[str, Any]] = site.ask("list")["entries"]
        for one in listed:
            content = (site.root / "entries" / one["key"] / "image").read_bytes()
            assert f"sha256:{hashlib.sha256(content).hexdigest()}" == one["digest"], f"{where}: not whole"
        assert site.names("entries") == sorted(one["key"] for one in listed), f"{where}: an orphan"
        status = site.ask("status")
        assert status["used_bytes"] == sum(one["disk_bytes"] for one in listed), f"{where}: accounting"
        assert status["used_bytes"] <= status["max_bytes"], f"{where}: over the cap"
        assert disk.measure(str(site.root / "entries"))[0] <= status["used_bytes"] + 4096, f"{where}: more on disk"
        site.wait_for(lambda: self._leases() == self._expected(), f"{where}: a lease for each job, and no other")

    def _leases(self) -> set[str]:
        return {name.partition("-")[0] for name in self.site.names("leases")}

    def _expected(self) -> set[str]:
        return {str(starter.pid) for starter, _ in self.jobs}

"""A manager under load, killed at a random moment, again and again; and what must be true each time it is back."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cache_manager import disk, protocol
from cache_manager.status import HookStatus
from tests.contract import holders
from tests.contract.doubles import cvmfs_ad, digest, image_ad, sif, tree
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply

IMAGES: Final = 18
SIZE: Final = 60_000
JOBS: Final = 5
STAY: Final = 2
"""So many jobs outlive a kill."""

LATEST_S: Final = 0.25
KNOBS: Final = {
    "IMAGE_CACHE_MAX_BYTES": "1100 KB",
    "IMAGE_CACHE_MIN_AGE": "0s",
    "IMAGE_CACHE_CVMFS_BASE": "/nonexistent",
}
"""Half of the images fit, and all that the jobs and pins may hold at one time."""

SANDBOX_KNOBS: Final = {"IMAGE_CACHE_MAX_BYTES": "2000 KB"}
"""Unpacked they take more."""

PINS: Final = 2
OFFLINE: Final = 0.2
"""In so many rounds the admin cleans up while no manager runs."""

RUNTIME: Final = """\
#!/bin/sh
case $2 in
exec)
    case $4 in *.sif) echo 'INFO:    Converting SIF file to temporary sandbox...' >&2 ;; esac
    exit 37 ;;
test)
    [ -f "$4" ] || [ -f "$4/sif" ] ;;
build)
    mkdir -m 700 "$4" "$4/bin"
    cp "$5" "$4/sif"
    for number in 1 2 3 4 5; do echo $number >"$4/bin/$number"; done ;;
esac
"""
"""A container runtime that would unpack a SIF for each job: images have to become directories."""


def write_runtime(directory: Path) -> str:
    """Install the runtime, and return its path."""
    path = directory / "apptainer"
    path.write_text(RUNTIME, encoding="ascii")
    path.chmod(0o755)
    return str(path)


def serve(origin: Origin) -> None:
    """Offer the images, half of them in a tree, half of them at URLs."""
    for number in range(IMAGES):
        body = sif(f"{number}", SIZE)
        if number % 2:
            origin.serve(tree(f"htc/image:{number}", body))
        else:
            origin.routes[f"/{number}.sif"] = Reply(body)


@dataclass
class Errand:
    """What an admin asked for, and perhaps got no answer to."""

    verb: str
    ref: str
    connection: socket.socket

    def done(self) -> bool:
        """Whether the manager said that it was done, before it was killed."""
        said = b""
        with self.connection as connection:
            try:
                while data := connection.recv(65536):
                    said += data
            except ConnectionResetError:
                pass
        while b"\n" in said:
            line, _, rest = said.partition(b"\n")
            length = protocol.parse_header(line + b"\n").length
            answer, said = rest[:length], rest[length:]
            if len(answer) == length and json.loads(answer).get("done"):
                return all(one.get("done") for one in json.loads(answer).get("results", ()))
        return False


@dataclass
class Siege:
    """A site whose manager is killed. `jobs` are the living starters, and which image each of them has.

    `pins` are the references that are pinned for certain, and whether their image was seen to be there.
    """

    site: Site
    origin: Origin
    jobs: list[tuple[holders.Starter, int]] = field(default_factory=list)
    pins: dict[str, bool] = field(default_factory=dict)
    kills: int = 0
    answered: int = 0
    errands: int = 0
    """So many were done before the kill."""
    directories: int = 0
    """So many jobs got an unpacked image."""

    def ad(self, number: int) -> str:
        """Return the ad of a job for an image."""
        return (cvmfs_ad if number % 2 else image_ad)(self.ref(number))

    def ref(self, number: int) -> str:
        """Return how an admin names an image."""
        return f"htc/image:{number}" if number % 2 else f"{self.origin.url}/{number}.sif"

    def round(self, seed: int) -> None:
        """Send jobs, kill the manager meanwhile, start it again, and look: all by this seed."""
        dice = random.Random(seed)  # noqa: S311 - it has to come again
        where = f"seed {seed}"
        while len(self.jobs) > STAY:
            starter, _ = self.jobs.pop(dice.randrange(len(self.jobs)))
            dice.choice((starter.end, starter.kill))()
        for number in dice.choices(range(IMAGES), k=JOBS):
            self.jobs.append((holders.start(self.site, self.ad(number)), number))
        errands = [self._pin_or_unpin(dice), self._evict(dice)]
        self._wait(dice.uniform(0, LATEST_S))
        self.site.stop(signal.SIGKILL)
        self.kills += 1
        if dice.random() < OFFLINE:
            cleaned = self.site.command("cleanup", "--older-than", "0s")
            assert cleaned.returncode == 0, f"{where}: {cleaned.stderr}"
        self.site.start()
        self._judge_pins(errands, where)
        self.jobs = [job for job in self.jobs if self._has_its_image(*job, where)]
        self._judge(where)

    def _ask(self, verb: str, ref: str, **wishes: object) -> Errand:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.site.connect(connection)
        connection.sendall(protocol.frame(json.dumps({"refs": [ref]} | wishes).encode(), verb=verb))
        return Errand(verb, ref, connection)

    def _pin_or_unpin(self, dice: random.Random) -> Errand:
        if len(self.pins) < PINS:
            return self._ask("pin", self.ref(dice.randrange(IMAGES)))
        return self._ask("unpin", dice.choice(sorted(self.pins)))

    def _evict(self, dice: random.Random) -> Errand:
        if dice.random() < 0.5:
            return self._ask("evict", self.ref(dice.randrange(IMAGES)))
        return self._ask("cleanup", "", older_than_s=0.0)

    def _judge_pins(self, errands: list[Errand], where: str) -> None:
        """No pin is lost that was confirmed, none is back; what a pin holds is still there."""
        found = {one["reference"]: one["here"] for one in self.site.ask("status")["pins"]}
        maybe = set()
        for one in errands:
            done = one.done()
            self.errands += done
            if one.verb == "pin":
                self.pins |= {one.ref: done} if done else {}
                maybe |= set() if done else {one.ref}
            elif one.verb == "unpin":
                self.pins.pop(one.ref)
                maybe |= set() if done else {one.ref}
        assert set(self.pins) - maybe <= set(found) <= set(self.pins) | maybe, f"{where}: pins"
        assert all(found[ref] for ref, here in self.pins.items() if here), f"{where}: a pinned image is lost"
        self.pins = found

    def _has_its_image(self, starter: holders.Starter, number: int, where: str) -> bool:
        """Whether a job runs. One that began while nobody listened has gone elsewhere; any other has its image."""
        answer = starter.answer()
        if answer.code == HookStatus.CACHE_MANAGER_DOWN.code:
            starter.end()
            return False
        assert answer.code == 0, f"{where}: {answer.message}"
        image = Path(answer.image)
        assert digest(content_of(image)) == digest(sif(f"{number}", SIZE)), f"{where}: a job has another image"
        self.answered += 1
        self.directories += image.is_dir()
        return True

    def _wait(self, seconds: float) -> None:
        ends = self.site.clock() + seconds
        self.site.wait_for(lambda: self.site.clock() >= ends, "the moment of the kill")

    def _judge(self, where: str) -> None:
        site = self.site
        site.wait_for(lambda: not site.names("staging") and not site.names("trash"), f"{where}: nothing left behind")
        listed: list[dict[str, Any]] = site.ask("list")["entries"]
        for one in listed:
            content = content_of(site.root / "entries" / one["key"] / "image")
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


def content_of(image: Path) -> bytes:
    """Return the SIF that an image is or was; one that was unpacked has to have all that the runtime put into it."""
    if not image.is_dir():
        return image.read_bytes()
    assert sorted(path.name for path in (image / "bin").iterdir()) == ["1", "2", "3", "4", "5"]
    return (image / "sif").read_bytes()

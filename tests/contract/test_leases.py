"""What a job runs from stays as long as its starter's process, and not longer; the rest goes when room is needed."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.contract import holders
from tests.contract.conftest import StartSite
from tests.contract.doubles import image_ad, sif
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply

SIZE = 60_000
CAP = {"IMAGE_CACHE_MAX_BYTES": "240 KB", "IMAGE_CACHE_MIN_AGE": "0"}
"""Room for two images of that size, and not for three."""


def publish(origin: Origin, *names: str) -> list[str]:
    """Serve images by their names and return the ads of jobs that want them."""
    for name in names:
        origin.routes[f"/{name}.sif"] = Reply(sif(name, SIZE), headers={"ETag": f'"{name}"'})
    return [image_ad(f"{origin.url}/{name}.sif") for name in names]


def names(site: Site) -> set[str]:
    """Return the names of the images in the cache."""
    return {Path(one["name"]).stem for one in site.ask("list")["entries"]}


def test_a_lease_names_its_starter_and_ends_with_it(site: Site, origin: Origin) -> None:
    """Not with the hook, whose process is gone long before."""
    (ad,) = publish(origin, "a")
    starter = holders.start(site, ad)
    image = starter.answer().image
    (name,) = site.names("leases")
    lease = json.loads((site.root / "leases" / name).read_text(encoding="utf-8"))
    assert lease["pid"] == starter.pid
    assert lease["keys"] == [Path(image).parent.name]
    assert lease["job_id"] == "12.3"
    starter.end()
    site.wait_for(lambda: not site.names("leases"), "the end of the lease")
    assert site.ask("status")["leases"] == 0


def test_a_lease_ends_with_a_starter_that_is_killed(site: Site, origin: Origin) -> None:
    """Kill -9 leaves nothing that could say goodbye."""
    (ad,) = publish(origin, "a")
    starter = holders.start(site, ad)
    assert starter.answer().code == 0
    assert len(site.names("leases")) == 1
    starter.kill()
    site.wait_for(lambda: not site.names("leases"), "the end of the lease")


@pytest.mark.parametrize("killed", [False, True], ids=["ends", "is killed"])
def test_a_kernel_that_cannot_watch_a_process_is_asked_from_time_to_time(
    make_site: StartSite, origin: Origin, *, killed: bool
) -> None:
    """Before Linux 5.3; also for what a restart takes up again."""
    site = make_site()
    site.below = (sys.executable, "-m", "tests.contract.old_kernel")
    site.start()
    first, second = publish(origin, "first", "second")
    stays, goes = holders.start(site, first), holders.start(site, second)
    assert [stays.answer().code, goes.answer().code] == [0, 0]
    links = [str(path.readlink()) for path in Path(f"/proc/{site.pid}/fd").iterdir()]
    assert not [link for link in links if "pidfd" in link]
    goes.kill() if killed else goes.end()
    site.wait_for(lambda: len(site.names("leases")) == 1, "the end of one lease")
    site.restart(signal.SIGKILL)
    assert site.ask("status")["leases"] == 1
    stays.kill() if killed else stays.end()
    site.wait_for(lambda: not site.names("leases"), "the end of the other lease")


def test_a_starter_that_is_not_stated_is_found(site: Site, origin: Origin) -> None:
    """The launcher is no starter: its lease would end before the job begins."""
    (ad,) = publish(origin, "a")
    starter = holders.start(site, ad, stated=False)
    assert starter.answer().code == 0
    assert [name.partition("-")[0] for name in site.names("leases")] == [str(starter.pid)]


@pytest.mark.parametrize("stated", ["1", "{other}"])
def test_a_lease_is_never_on_a_process_that_only_was_stated(site: Site, origin: Origin, stated: str) -> None:
    """Who states another's pid would keep an image for as long as that one runs."""
    assert site.manager is not None
    (ad,) = publish(origin, "a")
    pid = stated.format(other=site.manager.pid)
    assert site.run_hook(ad, env={"CONDOR_STARTER_PID": pid}).code == 0
    assert all(not name.startswith(f"{pid}-") for name in site.names("leases"))


def test_the_least_recently_used_image_goes_first(make_site: StartSite, origin: Origin) -> None:
    """A use counts, not the fetch."""
    site = make_site(**CAP).start()
    first, second, third = publish(origin, "first", "second", "third")
    for ad in (first, second):
        starter = holders.start(site, ad)
        assert starter.answer().code == 0
        starter.end()
    site.wait_for(lambda: not site.ask("status")["leases"], "the end of the leases")
    used = {Path(one["name"]).stem: one["last_used_at"] for one in site.ask("list")["entries"]}
    record = next(site.root.glob("entries/*/entry.json"))
    assert record.stat().st_mtime > 0
    oldest = min(used, key=lambda name: used[name])
    assert oldest == "first"
    starter = holders.start(site, third)
    assert starter.answer().code == 0
    assert names(site) == {"second", "third"}
    assert site.ask("status")["evictions"] == 1


def test_an_image_in_use_stays_and_another_goes(make_site: StartSite, origin: Origin) -> None:
    """Though it was used longer ago."""
    site = make_site(**CAP).start()
    first, second, third, fourth = publish(origin, "first", "second", "third", "fourth")
    holder = holders.start(site, first)
    image = Path(holder.answer().image)
    for ad in (second, third, fourth):
        other = holders.start(site, ad)
        assert other.answer().code == 0
        other.end()
        site.wait_for(lambda: site.ask("status")["leases"] == 1, "the end of the other's lease")
    assert names(site) == {"first", "fourth"}
    assert image.read_bytes() == sif("first", SIZE)


def test_a_full_cache_takes_a_job_as_soon_as_another_has_ended(make_site: StartSite, origin: Origin) -> None:
    """420 is not remembered."""
    site = make_site(**CAP).start()
    first, second, third = publish(origin, "first", "second", "third")
    holders_ = [holders.start(site, ad) for ad in (first, second)]
    assert [one.answer().code for one in holders_] == [0, 0]
    refused = site.run_hook(third)
    assert refused.code == 420
    assert "freed 0 B" in refused.message
    assert names(site) == {"first", "second"}
    holders_[0].end()
    site.wait_for(lambda: site.ask("status")["leases"] == 1, "the end of the lease")
    assert site.run_hook(third).code == 0
    assert names(site) == {"second", "third"}


def test_a_fetch_under_way_keeps_its_room(make_site: StartSite, origin: Origin) -> None:
    """Reservations and entries stay below the cap, whatever comes in at the same time."""
    site = make_site(**CAP).start()
    ads = publish(origin, *"abcdef")
    starters = [holders.start(site, ad) for ad in ads]
    codes = sorted(one.answer().code for one in starters)
    status = site.ask("status")
    assert status["used_bytes"] <= status["max_bytes"]
    assert set(codes) <= {0, 420}
    assert codes.count(0) == 2


def test_the_file_system_is_left_its_room(make_site: StartSite, origin: Origin) -> None:
    """Nothing is evicted for what would not fit anyhow."""
    site = make_site(**CAP).start()
    first, second = publish(origin, "first", "second")
    assert site.run_hook(first).code == 0
    site.reconfigure(IMAGE_CACHE_MIN_FREE_BYTES="900 TB")
    assert site.run_hook(second).code == 430
    assert names(site) == {"first"}
    assert site.run_hook(first).code == 0


def test_leases_and_images_outlive_the_manager(site: Site, origin: Origin) -> None:
    """And what ended meanwhile is let go at the next start."""
    first, second = publish(origin, "first", "second")
    stays, goes = holders.start(site, first), holders.start(site, second)
    images = [stays.answer().image, goes.answer().image]
    before = {one["name"]: one["last_used_at"] for one in site.ask("list")["entries"]}
    site.stop(signal.SIGKILL)
    goes.kill()
    site.start()
    assert [name.partition("-")[0] for name in site.names("leases")] == [str(stays.pid)]
    entries = site.ask("list")["entries"]
    assert {one["name"]: one["last_used_at"] for one in entries} == pytest.approx(before, abs=1)
    assert all(Path(image).exists() for image in images)
    assert site.run_hook(first).code == 0
    assert (origin.count("first.sif"), site.ask("status")["hits"]) == (1, 1)
    stays.end()
    site.wait_for(lambda: f"{stays.pid}" not in str(site.names("leases")), "the end of the lease")


def test_a_pid_that_was_used_again_holds_nothing(site: Site, origin: Origin) -> None:
    """A pid with another start time is another process, and another boot has no processes of ours."""
    (ad,) = publish(origin, "a")
    assert site.run_hook(ad).code == 0
    site.stop()
    (name,) = site.names("leases")
    lease = json.loads((site.root / "leases" / name).read_text(encoding="utf-8"))
    older = lease | {"start_ticks": lease["start_ticks"] - 1}
    boot = lease | {"boot_id": "another"}
    (site.root / "leases" / f"{os.getpid()}-{older['start_ticks']}.json").write_text(
        json.dumps(older), encoding="utf-8"
    )
    (site.root / "leases" / name).write_text(json.dumps(boot), encoding="utf-8")
    site.start()
    assert site.names("leases") == []

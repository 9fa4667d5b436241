"""The caps hold at every moment, whatever comes in at the same time: staging, trash, records and all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract import holders, storm
from tests.contract.conftest import StartSite
from tests.contract.doubles import cvmfs_ad, image_ad, sif, tree
from tests.contract.origin import Origin, Reply


def test_the_caps_hold_under_load(make_site: StartSite, origin: Origin) -> None:
    """Forty images, five times what fits, asked for at once: all come in time, and those in use stay."""
    site = make_site(**storm.knobs(origin)).start()
    ads = storm.publish(origin)
    sampler, jobs = storm.Sampler(), storm.Storm()
    with sampler.running(lambda: storm.twice(site.root)):
        jobs.blow(site, ads)
    sampler.judge()
    assert {code for codes in jobs.codes.values() for code in codes} <= {0, 420}
    assert sorted(jobs.codes) == list(range(storm.IMAGES))
    for starter in jobs.held:
        assert Path(starter.answer().image).exists()
    status = site.ask("status")
    assert status["evictions"] > 0
    site.wait_for(lambda: not site.names("staging") and not site.names("trash"), "nothing left behind")


def test_what_can_never_fit_costs_no_byte(make_site: StartSite, origin: Origin) -> None:
    """320, by the manifest and by HEAD; what does not say its size ends at the cap, with 320 or 420."""
    site = make_site(**storm.knobs(origin)).start()
    body = sif("large", 9_000_000)
    origin.serve(tree("htc/large:1", body))
    origin.routes |= {"/told.sif": Reply(body), "/untold.sif": Reply(body, length=-1)}
    assert site.run_hook(cvmfs_ad("htc/large:1")).code == 320
    assert site.run_hook(image_ad(f"{origin.url}/told.sif")).code == 320
    assert [path for method, path in origin.requests if method == "GET" and path.endswith(".sif")] == []
    sampler = storm.Sampler()
    with sampler.running(lambda: storm.twice(site.root)):
        assert site.run_hook(image_ad(f"{origin.url}/untold.sif")).code in {320, 420}
        site.wait_for(lambda: sampler.samples > 1, "samples")
    sampler.judge()
    assert site.names("staging") == []


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
def test_a_cache_that_is_all_in_use_is_full(make_site: StartSite, origin: Origin, *, told: bool) -> None:
    """420, and nothing of what runs goes."""
    site = make_site(**storm.knobs(origin)).start()
    for name in "abc":
        origin.routes[f"/{name}.sif"] = Reply(sif(name, 3_000_000), length=None if told else -1)
    ads = [image_ad(f"{origin.url}/{name}.sif") for name in "abc"]
    running = [holders.start(site, ad) for ad in ads[:2]]
    answers = [one.answer() for one in running]
    assert [answer.code for answer in answers] == [0, 0], [answer.message for answer in answers]
    images = [Path(answer.image) for answer in answers]
    assert site.run_hook(ads[2]).code == 420
    assert all(image.exists() for image in images)

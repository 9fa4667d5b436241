"""What goes over the pipe between the manager and the child that evaluates expressions."""

from __future__ import annotations

import json

import pytest

from cache_manager.ads import NeedsEvaluation, not_here
from cache_manager.evaluated import from_json, to_json
from cache_manager.jobad import read_request
from tests.contract.doubles import cvmfs_ad, image_ad, job_ad

ADS = (
    job_ad(),
    cvmfs_ad("htc/rocky:9"),
    image_ad("box+https://user@h/x.sif?sig=1"),
    image_ad("docker://a/b@sha256:0"),
    job_ad("WantDocker = true"),
    image_ad("M\u00fcller.sif"),
)


@pytest.mark.parametrize("ad", ADS)
def test_a_request_comes_through_as_it_was(ad: str) -> None:
    """Images of every kind, none, and jobs that are left alone."""
    request = read_request(ad, 'Name = "slot1@ep"\nHasSIF = false\nGPUs = 2\n', "/scratch")
    assert from_json(json.loads(json.dumps(to_json(request)))) == request


@pytest.mark.parametrize("text", ["{}", '{"image": 1, "machine": {}}', '{"image": {"kind": "X"}, "machine": {}}'])
def test_what_is_no_request_is_an_error(text: str) -> None:
    """It comes from a process that read what a user wrote."""
    with pytest.raises(ValueError, match="no request"):
        from_json(json.loads(text))


@pytest.mark.parametrize(
    ("line", "needs"),
    [
        ('SingularityImage = "a.sif"', ""),
        ("WantContainer = true", ""),
        ("Rank = 1 + 1", ""),
        ('SingularityImage = strcat("a", ".sif")', "SingularityImage"),
        ("WantDocker = 1 == 1", "WantDocker"),
        ("ProcId = 2 - 1", "ProcId"),
    ],
)
def test_only_attributes_that_matter_need_evaluation(line: str, needs: str) -> None:
    """Nearly all that matter are literals: the others are nobody's business."""
    found = ""
    try:
        read_request(job_ad(line).replace("ProcId = 3\n", "" if "ProcId" in line else "ProcId = 3\n"), "", "", not_here)
    except NeedsEvaluation as error:
        found = str(error)
    assert found == needs

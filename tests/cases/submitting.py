"""How the rows of submitted.py are made: submit lines, and the ad that condor_submit makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from tests.cases.case import Case, Submit
from tests.contract.doubles import job_ad
from tests.contract.worlds import BARE, TREE

NO_CVMFS: Final = "CVMFS is not mounted"
STRICT: Final = {
    "IMAGE_CACHE_ALLOW": "htc/* ./*",
    "IMAGE_CACHE_DEFAULT_IMAGE": "htc/nothing:1",
    "IMAGE_CACHE_MIN_FREE_BYTES": "900 TB",
}
"""An EP that refuses."""

SITES: Final[Mapping[str, Mapping[str, str]]] = {
    "mounted": TREE | {"IMAGE_CACHE_DEFAULT_IMAGE": "htc/almalinux:9"},
    "bare": BARE,
    "docker": BARE,
    "strict": TREE | STRICT,
}
"""The knobs of the pools."""

STAYS: Final = {"transfer_container": "false"}
LOCAL: Final = ("TransferContainer = false", 'ContainerImageSource = "local"')


def row(code: int, name: str, submit: Submit, ad: str, asks: str = "") -> Case:
    """Return a row with the knobs and the slot of its pool."""
    machine = 'FileSystemDomain = "test"\nSlotID = 1\n' + ("HasDocker = true\n" if submit.pool == "docker" else "")
    return Case(code, f"submitted: {name}", ad, asks, knobs=SITES[submit.pool], machine=machine, submit=submit)


def runs(case: Case, place: str, said: str = "") -> Case:
    """Return the row of a job that runs from `place`."""
    return replace(case, runs=place, said=said)


def says(case: Case, said: str) -> Case:
    """Return the row with what its message says."""
    return replace(case, said=said)


def vanilla(pool: str, image: str, reads: str = "") -> tuple[Submit, str]:
    """Return a vanilla job that names its image by +SingularityImage."""
    line = f'"{image}"'
    return Submit(pool, {"+SingularityImage": line}, reads), job_ad(f"SingularityImage = {line}")


def container(pool: str, image: str, form: str, reads: str = "") -> tuple[Submit, str]:
    """Return a container-universe job whose image HTCondor leaves where it is."""
    lines = {"universe": "container", "container_image": image} | STAYS
    ad = job_ad("WantContainer = true", f'ContainerImage = "{image}"', f"{form} = true", *LOCAL)
    return Submit(pool, lines, reads), ad


def shipped(pool: str, file: str, reads: str = "") -> tuple[Submit, str]:
    """Return a container-universe job that HTCondor brings its image's file."""
    lines = {"universe": "container", "container_image": file}
    ad = job_ad(
        "WantContainer = true",
        f'ContainerImage = "{file}"',
        f'ContainerImageFullPath = "{file}"',
        'ContainerImageSource = "cedar"',
        f'TransferInput = "{file}"',
        "WantSIF = true",
    )
    return Submit(pool, lines, reads, (file,)), ad


def registry(pool: str, image: str, form: str) -> tuple[Submit, str]:
    """Return a container-universe job with a registry's image, which HTCondor never transfers."""
    scheme = image.partition(":")[0]
    ad = job_ad(
        "WantContainer = true", f'ContainerImage = "{image}"', f'ContainerImageSource = "{scheme}"', f"{form} = true"
    )
    return Submit(pool, {"universe": "container", "container_image": image}), ad

"""Who is asked for a job's image, in which order, and which jobs need nobody."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cache_manager.abilities import Abilities
from cache_manager.jobad import Machine
from cache_manager.policy import Candidate, Ranking, Site, SourceKind, order, rank, refused
from cache_manager.reference import ImageReference
from cache_manager.settings import SettingsError
from cache_manager.status import HookStatus
from tests.unit.builders import REPOSITORY, knobs, request

CVMFS_IMAGE = f"/cvmfs/{REPOSITORY}/htc/rocky:9"
FOREIGN_IMAGE = "/cvmfs/unpacked.cern.ch/atlas/base:1"
TREES = "https://one.example/v2 file:///srv/v2"
SANDBOX, SIF = SourceKind.CVMFS, SourceKind.TREE


def asked(ranking: Ranking) -> list[str]:
    """Return the candidates in words: `CVMFS sandbox singularity.opensciencegrid.org`."""
    return [f"{one.source.value} {one.base or one.repository}".strip() for one in ranking.candidates]


@pytest.mark.parametrize("text", [CVMFS_IMAGE, ""], ids=["the job's image", "the default image"])
@pytest.mark.parametrize(
    ("prefer", "unwell", "first"),
    [
        ("auto", False, SANDBOX),
        ("auto", True, SIF),
        ("cvmfs", False, SANDBOX),
        ("cvmfs", True, SANDBOX),
        ("sif", False, SIF),
        ("sif", True, SIF),
    ],
)
def test_both_forms_of_a_published_image_are_asked_in_the_preferred_order(
    text: str, prefer: str, first: SourceKind, *, unwell: bool
) -> None:
    """`auto` is CVMFS unless its repository is known not to answer; the other form is the fallback, never dropped."""
    settings = knobs(PREFER=prefer, SIF_SOURCES=TREES, DEFAULT_IMAGE="htc/rocky:9")
    ranking = rank(request(text), Site(settings, frozenset({REPOSITORY} if unwell else ())))
    sandboxes = [f"CVMFS sandbox {REPOSITORY}"]
    sifs = ["published SIF https://one.example/v2", "published SIF file:///srv/v2"]
    assert asked(ranking) == (sandboxes + sifs if first is SANDBOX else sifs + sandboxes)
    assert ranking.verdict is None
    assert {one.image.published_name for one in ranking.candidates} == {"htc/rocky:9"}


@pytest.mark.parametrize("prefer", ["auto", "cvmfs", "sif"])
@pytest.mark.parametrize("unwell", [True, False])
@pytest.mark.parametrize("sources", ["", TREES])
@pytest.mark.parametrize("has_sif", [True, False, None])
@pytest.mark.parametrize("has_sandbox", [True, False, None])
def test_only_what_this_ep_can_run_is_asked_for(
    *, prefer: str, sources: str, has_sif: bool | None, has_sandbox: bool | None, unwell: bool
) -> None:
    """What a slot does not say counts as able; if nothing is left, the job goes to another EP and is not held."""
    settings = knobs(PREFER=prefer, SIF_SOURCES=sources)
    machine = Machine(has_sif=has_sif, has_sandbox=has_sandbox)
    ranking = rank(request(CVMFS_IMAGE, machine), Site(settings, frozenset({REPOSITORY} if unwell else ())))
    expected = {SANDBOX} if has_sandbox is not False else set()
    if sources and has_sif is not False:  # without a runtime that we know nothing is unpacked
        expected.add(SIF)
    assert {one.source for one in ranking.candidates} == expected
    if not expected:
        assert ranking.verdict is not None
        assert ranking.verdict.status is HookStatus.NO_CONTAINER_RUNTIME
        assert ranking.verdict.message.startswith("htc/rocky:9: ")
        assert not ranking.verdict.status.holds
    assert len(ranking.skipped) >= 2 - len(expected)


BOTH = Abilities("apptainer", can_use_sif=True, can_use_sandbox=True, tried=True)
DIRECTORIES = replace(BOTH, can_use_sif=False, why_not="SIFs: no squashfuse")
NEITHER = replace(DIRECTORIES, can_use_sandbox=False, why_not="no user namespaces")
ONLY_SIFS = replace(BOTH, can_use_sandbox=False)


@pytest.mark.parametrize("text", [CVMFS_IMAGE, "https://host.example/x.sif"])
@pytest.mark.parametrize(
    ("abilities", "machine", "formats"),
    [
        (BOTH, Machine(), ("sif", "sandbox")),
        (BOTH, Machine(has_sif=True, has_sandbox=True), ("sif", "sandbox")),
        (BOTH, Machine(has_sif=False), ("sandbox",)),
        (DIRECTORIES, Machine(), ("sandbox",)),
        (DIRECTORIES, Machine(has_sif=True, has_sandbox=True), ("sandbox",)),
        (ONLY_SIFS, Machine(), ("sif",)),
        (ONLY_SIFS, Machine(has_sandbox=True), ("sif", "sandbox")),
        (NEITHER, Machine(has_sandbox=True), ("sandbox",)),
        (NEITHER, Machine(), ()),
        (replace(NEITHER, tried=False), Machine(), ("sif", "sandbox")),
        (NEITHER, Machine(has_sif=True, has_sandbox=False), ()),
    ],
)
def test_a_sif_is_unpacked_where_only_directories_run(
    text: str, abilities: Abilities, machine: Machine, formats: tuple[str, ...]
) -> None:
    """HTCondor's HasSIF is true also where each job would unpack its own: what was tried here counts."""
    site = Site(knobs(SIF_SOURCES="https://one.example/v2", PREFER="sif"), abilities=abilities)
    ranking = rank(request(text, machine), site)
    if formats:
        assert {one.formats for one in ranking.candidates} == {formats}
        assert {one.unpack for one in ranking.candidates} == {"sif" not in formats}
    else:
        assert ranking.verdict is not None
        assert ranking.verdict.status is HookStatus.NO_CONTAINER_RUNTIME
        assert "no user namespaces" in ranking.verdict.message


@pytest.mark.parametrize(
    ("formats", "directory", "words"),
    [
        (("sif", "sandbox"), True, ""),
        (("sif", "sandbox"), False, ""),
        (("sandbox",), True, ""),
        (("sandbox",), False, "cannot run SIF files"),
        (("sif",), True, "cannot run image directories"),
        (("sif",), False, ""),
    ],
)
def test_what_is_not_fetched_is_not_unpacked(formats: tuple[str, ...], words: str, *, directory: bool) -> None:
    """A file of the job's, or of the EP's, is never taken into the cache."""
    candidate = Candidate(SourceKind.LOCAL, ImageReference.parse("/srv/x.sif"), formats=formats)
    said = refused(candidate, directory=directory)
    assert words in said
    assert bool(words) == bool(said)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("https://host.example/x.sif?sig=1", SourceKind.URL),
        ("http://host.example/x.sif", SourceKind.URL),
        ("/srv/x.sif", SourceKind.LOCAL),
        ("file:///srv/x.sif", SourceKind.LOCAL),
        ("x.sif", SourceKind.JOB_FILE),
        ("images/rootfs/", SourceKind.JOB_FILE),
    ],
)
@pytest.mark.parametrize("prefer", ["auto", "cvmfs", "sif"])
def test_what_is_not_published_has_one_source(text: str, source: SourceKind, prefer: str) -> None:
    """No preference invents another one."""
    ranking = rank(request(text), Site(knobs(PREFER=prefer, SIF_SOURCES=TREES)))
    assert [one.source for one in ranking.candidates] == [source]


@pytest.mark.parametrize("text", ["docker://htc/rocky:9", "oras://ghcr.io/a/b:1"])
def test_a_default_image_from_a_registry_is_applied_or_refused(text: str) -> None:
    """The job names no image, so an answer that changes nothing runs it on the bare host."""
    try:
        settings = knobs(DEFAULT_IMAGE=text)
    except SettingsError:
        return
    verdict = rank(request(), Site(settings)).verdict
    assert verdict is not None
    assert verdict.image is not None or verdict.status is not HookStatus.OK


@pytest.mark.parametrize(
    ("allow", "text", "allowed"),
    [
        ("*", "https://host.example/x.sif", True),
        ("htc/*", CVMFS_IMAGE, True),
        (f"/cvmfs/{REPOSITORY}/*", CVMFS_IMAGE, True),
        ("osg/* htc/rocky:*", CVMFS_IMAGE, True),
        ("osg/*,htc/rocky:*", CVMFS_IMAGE, True),
        ("osg/*", CVMFS_IMAGE, False),
        ("HTC/*", CVMFS_IMAGE, False),
        ("https://host.example/*", "https://host.example/x.sif?sig=1", True),
        ("https://host.example/x.sif", "https://host.example/x.sif?sig=1", True),
        ("https://host.example/*", "https://other.example/host.example/x.sif", False),
        ("https://host.example/*", "https://host.example@other.example/x.sif", False),
        ("/cvmfs/*", "docker://htc/rocky:9", False),
        ("/cvmfs/*", "x.sif", False),
        ("docker://htc/*", "docker://htc/rocky:9", True),
    ],
)
def test_the_allow_list_decides_before_anything_is_asked(allow: str, text: str, *, allowed: bool) -> None:
    """Another site may allow it, so the job is not held; the message names image and knob."""
    verdict = rank(request(text), Site(knobs(ALLOW=allow))).verdict
    refused = verdict is not None and verdict.status is HookStatus.IMAGE_NOT_ALLOWED
    assert refused is not allowed
    if verdict is not None and refused:
        assert not verdict.status.holds
        assert verdict.message.startswith(f"{ImageReference.parse(text).short}: not allowed here (IMAGE_CACHE_ALLOW = ")


def test_a_published_name_is_asked_for_in_every_repository() -> None:
    """A default image names no repository; SIFs come first only when no repository answers."""
    settings = knobs(CVMFS_REPOSITORIES="a.example b.example", SIF_SOURCES=TREES, DEFAULT_IMAGE="htc/rocky:9")
    orders = [
        [one.source for one in rank(request(), Site(settings, frozenset(unwell))).candidates]
        for unwell in (set(), {"a.example"}, {"a.example", "b.example"})
    ]
    assert orders == [[SANDBOX, SANDBOX, SIF, SIF], [SANDBOX, SANDBOX, SIF, SIF], [SIF, SIF, SANDBOX, SANDBOX]]


OFF = "switched off at Anvil: NAT (IMAGE_CACHE_EXCEPTIONS)"
FEDERATED = "osdf:///ospool/v2 https://one.example/v2"


def test_the_order_of_sources_is_a_table_of_the_knobs() -> None:
    """One line for each place; `explain` prints it."""
    table = order(Site(knobs(SIF_SOURCES=FEDERATED, PREFER="sif"), federations_off=OFF))
    lines = [f"{row.source.name} {row.place} {row.off or row.unfit}".strip() for row in table]
    assert lines == [
        f"TREE osdf:///ospool/v2 {OFF}",
        "TREE https://one.example/v2",
        f"CVMFS {REPOSITORY}",
        "URL",
        f"FEDERATION  {OFF}",
        "REGISTRY",
        "LIBRARY",
        "PLUGIN",
        "JOB_FILE",
        "LOCAL",
    ]


def test_a_federation_that_is_switched_off_here_is_not_asked_and_told() -> None:
    """Other sources are; where there is none the job goes to another EP, with the reason."""
    settings = knobs(SIF_SOURCES=FEDERATED, CVMFS_REPOSITORIES=REPOSITORY)
    ranking = rank(request(CVMFS_IMAGE), Site(settings, federations_off=OFF))
    assert asked(ranking) == [f"CVMFS sandbox {REPOSITORY}", "published SIF https://one.example/v2"]
    assert [one.why for one in ranking.passed_over] == [f"published SIF osdf:///ospool/v2: {OFF}"]
    alone = rank(request("osdf:///ns/x.sif"), Site(settings, federations_off=OFF)).verdict
    assert alone is not None
    assert alone.status is HookStatus.SOURCE_UNREACHABLE
    assert OFF in alone.message


@pytest.mark.parametrize("url", ["gdrive://x.sif", "box://x.sif", "cred+ftp://host/x.sif"])
def test_what_takes_the_jobs_own_credential_is_left_to_htcondor(url: str) -> None:
    """It would be nobody else's: the message says how the job gets it."""
    verdict = rank(request(url), Site(knobs())).verdict
    assert verdict is not None
    assert verdict.status is HookStatus.NO_CONTAINER_RUNTIME
    assert "transfer_container = true" in verdict.message


def test_another_url_that_htcondor_knows_is_a_plugins() -> None:
    """Which one, if any, its source knows."""
    assert asked(rank(request("ftp://host/x.sif"), Site(knobs()))) == ["SIF that a transfer plug-in brings"]

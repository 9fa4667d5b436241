"""What comes in on the socket, and what goes out, without the socket."""

from __future__ import annotations

import os
from contextlib import suppress

import classad2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.outcome import Served
from cache_manager.policy import Verdict
from cache_manager.processes import Peer
from cache_manager.protocol import Header
from cache_manager.questions import Question
from cache_manager.reader import read_request
from cache_manager.selection import NotDone
from cache_manager.server import block_of
from cache_manager.status import HookStatus, StatusError

JOB = b'ClusterId = 1\nProcId = 0\nContainerImage = "/srv/x.sif"\n'
MACHINE = b"HasSIF = false\n"


def test_job_and_machine_ad_are_told_apart_by_the_length_of_the_first() -> None:
    """They come as one body."""
    request = read_request(Header(0, {"job": str(len(JOB)), "scratch": "/exec/dir_7/scratch"}), JOB + MACHINE)
    assert request.image is not None
    assert (request.image.text, request.machine.has_sif) == ("/srv/x.sif", False)
    assert (request.job_id, request.scratch) == ("1.0", "/exec/dir_7/scratch")


def test_without_a_length_all_is_the_job_ad() -> None:
    """`explain` sends only that."""
    assert read_request(Header(0, {}), JOB).image is not None


@pytest.mark.parametrize("job", ["-5", "-100000", "1000000", "1e11", "12.5"])
def test_a_length_that_cannot_be_meant_never_loses_the_image(job: str) -> None:
    """A job ad that is cut must not look like a job without an image."""
    with suppress(StatusError):
        assert read_request(Header(0, {"job": job}), JOB + MACHINE).image is not None


def test_letters_of_an_old_locale_elsewhere_in_the_ad_do_not_matter() -> None:
    """A user's name in Latin-1 is no reason not to run the job; in the image's own name it is."""
    assert read_request(Header(0, {}), b'Args = "M\xfcller"\n' + JOB).image is not None
    with pytest.raises(StatusError) as caught:
        read_request(Header(0, {}), b'ContainerImage = "/srv/M\xfcller.sif"\n')
    assert not caught.value.status.holds


@given(st.binary(max_size=200), st.dictionaries(st.sampled_from(["job", "scratch", "slot"]), st.text(max_size=20)))
def test_any_body_is_a_request_or_a_status(body: bytes, keys: dict[str, str]) -> None:
    """Every local user may send one."""
    with suppress(StatusError):
        read_request(Header(len(body), keys), body)


@pytest.mark.parametrize("path", ["/cache/entries/x/image", "/exec/dir 7/größe.sif", "/exec/a\\b.sif", '/exec/a"b.sif'])
def test_the_path_that_the_hook_prints_is_the_path(path: str) -> None:
    """HTCondor reads it back as it is."""
    block = block_of(Verdict(HookStatus.OK, "", Served(path, "x")))
    assert classad2.parseOne(block.decode(), classad2.ParserType.Old).eval("ContainerImage") == path


@pytest.mark.parametrize("path", ["/exec/a\nb.sif", "/exec/\udcff.sif"])
def test_a_path_that_no_ad_can_hold_sends_the_job_back(path: str) -> None:
    """Another path would be another image."""
    block = block_of(Verdict(HookStatus.OK, "", Served(path, "x")))
    assert b"HookStatusCode = 399\n" in block
    assert b"ContainerImage" not in block


@pytest.mark.parametrize("status", HookStatus)
def test_a_verdict_without_an_image_touches_nothing_of_the_job(status: HookStatus) -> None:
    """Only the status, and the reason if there is one."""
    block = block_of(Verdict(status, "why"))
    assert block == f'HookStatusCode = {status.code}\nHookStatusMessage = "why"\n'.encode()


@pytest.mark.parametrize(
    ("uid", "allowed"), [(0, True), (os.geteuid(), True), (os.geteuid() + 1, False), (65534, os.geteuid() == 65534)]
)
def test_only_root_and_the_managers_user_may_change_things(uid: int, *, allowed: bool) -> None:
    """Whatever the request says of itself."""
    header = Header(0, {"uid": "0", "verb": "evict"})
    assert Question(header, b"", Peer(4711, uid)).may_change is allowed


@pytest.mark.parametrize("body", [b"[]", b"5", b"{", b"\xff", b"[" * 100_000, b'{"refs": 5}', b'{"refs": [5]}'])
def test_a_body_that_names_no_images_is_refused(body: bytes) -> None:
    """Every local user may send one."""
    with pytest.raises(NotDone):
        Question(Header(len(body), {}), body, Peer(1, 0)).words("refs")


def test_no_body_names_nothing() -> None:
    """`verify` then means all."""
    assert Question(Header(0, {}), b"", Peer(1, 0)).words("refs") == []

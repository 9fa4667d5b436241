"""The hook prints a valid block whoever sits on its socket, and however that one ends."""

from __future__ import annotations

import signal
from pathlib import Path
from threading import Event

import pytest

from tests.contract.conftest import StartSite
from tests.contract.doubles import cvmfs_ad, image_ad, job_ad, sif
from tests.contract.fake_manager import AGAIN, AT_ONCE, SILENT, FakeManager, listener
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply

OK = b"HookStatusCode = 0\n"
ENDS_EARLY = ("--deadline", "0.3s")

REPLIES = (
    ("an HTTP server", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", 399),
    ("noise", bytes(range(255, -1, -1)), b"", 399),
    ("a newline", b"\n", b"", 399),
    ("a length that is no number", b"IMGC/1 many\n" + OK, b"", 399),
    ("a negative length", b"IMGC/1 -5\n" + OK, b"", 399),
    ("a length of 5,000 digits", b"IMGC/1 " + b"9" * 5000 + b"\n" + OK, b"", 399),
    ("2 MiB and no newline", b"IMGC/1 " + b"9" * (2 << 20), b"", 399),
    ("another version", b"IMGC/2 19\n" + OK, b"", 399),
    ("more than it said", b"IMGC/1 5\n" + OK, b"", 399),
    ("an empty block", b"IMGC/1 0\n", b"", 399),
    ("a block with a NUL", b"IMGC/1 20\nHookStatusCode = 0\0\n", b"", 399),
    ("a block without its last newline", b"IMGC/1 18\nHookStatusCode = 0", b"", 399),
    ("a block without a status", b'IMGC/1 22\nContainerImage = "/x"\n\n', b"", 399),
    ("a status only in the message", b'IMGC/1 42\nHookStatusMessage = "HookStatusCode = 0 "\n', b"", 399),
    ("a block of 20 kB", b"IMGC/1 20000\n" + OK + b"x" * (20000 - len(OK) - 1) + b"\n", b"", 399),
    ("half an answer", b"IMGC/1 100\nHookStatus", b"", 460),
    ("half a header", b"IMGC/1 1", b"", 460),
    ("half an answer, and silence", b"IMGC/1 100\nHookStatus", SILENT, 460),
    ("silence", b"", SILENT, 460),
    ("the end, at once", b"", AT_ONCE, 460),
    ("nothing", b"", b"", 460),
    ("a question for ever", b"IMGC/1 9 ask=probe\n/dev/null", AGAIN, 460),
)


@pytest.mark.parametrize(("name", "reply", "then", "code"), REPLIES, ids=[row[0] for row in REPLIES])
def test_whatever_is_answered_the_hook_prints_a_block(
    make_site: StartSite, name: str, reply: bytes, then: bytes, code: int
) -> None:
    """What is no answer is 399; what never comes is waited for until the deadline."""
    site = make_site()
    path = site.directory / "fake"
    with FakeManager(path, reply, then) as fake:
        answer = site.run_hook(cvmfs_ad("htc/rocky:9"), *ENDS_EARLY, socket=path)
        assert answer.code == code, f"{name}: {answer.message}"
        assert fake.asked >= 1


def test_the_hook_alone_prints_a_block_too(make_site: StartSite) -> None:
    """Without the launcher, and with a clean signal mask."""
    site = make_site()
    path = site.directory / "fake"
    with FakeManager(path, b"", SILENT):
        answer = site.run_hook(job_ad(), *ENDS_EARLY, socket=path, launcher=False, blocked_signals=False)
        assert answer.code == 460


def test_a_socket_on_which_nobody_listens_is_no_manager(make_site: StartSite) -> None:
    """Its file outlives a manager that was killed."""
    site = make_site()
    path = site.directory / "left"
    listener(path).close()
    answer = site.run_hook(cvmfs_ad("htc/rocky:9"), socket=path)
    assert answer.code == 410
    assert "refused" in answer.message


def test_a_manager_that_stands_still_is_waited_for_until_the_deadline(site: Site) -> None:
    """And answers again afterwards."""
    site.tell(signal.SIGSTOP)
    large = job_ad(f'Large = "{"x" * 900_000}"')  # more than the kernel keeps for it
    answers = [site.run_hook(ad, *ENDS_EARLY) for ad in (job_ad(), large)]
    site.tell(signal.SIGCONT)
    assert [answer.code for answer in answers] == [460, 460]
    assert site.run_hook(job_ad()).is_untouched


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT], ids=lambda one: one.name)
def test_a_manager_that_ends_in_mid_answer_costs_no_job(site: Site, origin: Origin, number: signal.Signals) -> None:
    """The hook asks the next one."""
    gate = Event()
    origin.routes["/a.sif"] = Reply(sif("a"), gate=gate)
    hook = site.start_hook(image_ad(f"{origin.url}/a.sif"))
    site.wait_for(lambda: origin.count("a.sif"), "the fetch")
    site.stop(number)
    gate.set()
    origin.routes["/a.sif"] = Reply(sif("a"))
    site.start()
    answer = hook.finish()
    assert answer.code == 0, answer.message
    assert Path(answer.image).read_bytes() == sif("a")
    assert site.names("staging") == []


def test_a_socket_may_have_a_path_longer_than_the_kernel_takes(make_site: StartSite, tmp_path: Path) -> None:
    """The manager, the hook and the commands reach it from its directory."""
    directory = tmp_path / ("d" * 120) / ("e" * 120)
    directory.mkdir(parents=True)
    site = make_site(IMAGE_CACHE_SOCKET=str(directory / "socket")).start()
    assert site.run_hook(job_ad()).is_untouched
    assert site.command("status").returncode == 0
    assert site.run_hook(cvmfs_ad("x:1"), socket=directory / "nobody").code == 410

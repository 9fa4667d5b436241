"""CVMFS as a source: asked through a real child, which may hang."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cache_manager.helper import Hangs, Helper
from cache_manager.outcome import Absent, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.sources.base import SourceError
from cache_manager.sources.cvmfs import CHILD, Cvmfs
from cache_manager.status import HookStatus
from tests.unit.origin import MemorySink

REPO = "images.example"
REQUEST = {"base": "/cvmfs", "repository": REPO, "path": ""}


def named(name: str) -> ImageReference:
    """Return the reference of an image of the repository."""
    return ImageReference.parse(f"/cvmfs/{REPO}/{name}")


@pytest.fixture
def helper() -> Iterator[Helper]:
    """Give the child that is used in real life."""
    one = Helper(CHILD)
    yield one
    one.close()


@pytest.fixture
def repository(tmp_path: Path, helper: Helper) -> Cvmfs:
    """Return a repository with one image, mounted elsewhere than /cvmfs."""
    (tmp_path / REPO / ".images" / "ab" / "cd" / "usr").mkdir(parents=True)
    (tmp_path / REPO / "htc").mkdir()
    (tmp_path / REPO / "htc" / "rocky:9").symlink_to(f"/cvmfs/{REPO}/.images/ab/cd")
    return Cvmfs(REPO, str(tmp_path), helper, limit_s=30.0)


def test_an_image_is_found_where_its_digest_is(repository: Cvmfs) -> None:
    """What runs is the directory behind the name."""
    path = f"{repository.base}/{REPO}/.images/ab/cd"
    assert repository.locate(named("htc/rocky:9")) == Located(path=path, sandbox=True)


def test_a_name_that_a_healthy_repository_does_not_have_is_final(repository: Cvmfs) -> None:
    """The hint is what the user looks for in the hold reason."""
    answer = repository.locate(named("htc/rokcy:9"))
    assert isinstance(answer, Absent)
    assert answer.authoritative
    assert "not published in the CVMFS repository images.example" in answer.why
    assert "did you mean htc/rocky:9?" in answer.why


@pytest.mark.parametrize("name", ["ﬁsh/größe:1", "a b:1", 'a"b:1', "a\\b:1", "a%00b:1", "'; rm -rf x"])
def test_any_name_reaches_the_child_as_it_is(repository: Cvmfs, name: str) -> None:
    """Names are data, in JSON and on disk."""
    directory = Path(repository.base, REPO, name)
    assert isinstance(repository.locate(named(name)), Absent)
    (directory / "usr").mkdir(parents=True)
    assert repository.locate(named(name)) == Located(path=str(directory), sandbox=True)


def test_a_repository_that_is_not_there_is_unwell_as_a_whole(repository: Cvmfs, tmp_path: Path) -> None:
    """No image of it need be asked for until it is back."""
    assert repository.check() is None
    (tmp_path / REPO).rename(tmp_path / "elsewhere")
    for answer in (repository.locate(named("htc/rocky:9")), repository.check()):
        assert isinstance(answer, Unwell)
        assert answer.status is HookStatus.CVMFS_UNAVAILABLE
        assert answer.everything
        assert REPO in answer.why


def test_one_broken_image_is_not_the_whole_repository(repository: Cvmfs, tmp_path: Path) -> None:
    """The others go on being served."""
    (tmp_path / REPO / "htc" / "bad:1").symlink_to("/etc")
    answer = repository.locate(named("htc/bad:1"))
    assert isinstance(answer, Unwell)
    assert not answer.everything


def test_nothing_is_copied_from_cvmfs(repository: Cvmfs) -> None:
    """It is its own cache."""
    with pytest.raises(SourceError):
        repository.transfer(Located(path="/cvmfs/x"), MemorySink())


def child_that(tmp_path: Path, code: str) -> Helper:
    """Return a helper with a child of our own making."""
    script = tmp_path / "child.py"
    script.write_text(code)
    return Helper(script)


SILENT = "import sys\nfor line in sys.stdin: pass\n"
DEAF = "import signal\nsignal.pause()\n"
MUTE_HALFWAY = "import signal, sys\nsys.stdout.write('{\"state\"')\nsys.stdout.flush()\nsignal.pause()\n"


@pytest.mark.parametrize("code", [SILENT, DEAF, MUTE_HALFWAY], ids=["silent", "deaf", "mute halfway"])
def test_a_child_that_does_not_answer_is_left_behind(tmp_path: Path, code: str) -> None:
    """A dead mount hangs rather than fails; the job goes on to the next source."""
    helper = child_that(tmp_path, code)
    source = Cvmfs(REPO, "/cvmfs", helper, limit_s=0.2)
    answer = source.locate(named("htc/rocky:9"))
    assert isinstance(answer, Unwell)
    assert answer.everything
    assert "hangs" in answer.why
    assert helper._abandoned is not None
    helper._abandoned.wait()


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit(1)\n",
        "this is no Python\n",
        "import sys\nsys.stdin.readline()\nraise SystemExit\n",
        "import sys\nsys.stdin.readline()\nsys.stdout.write('{\"state\": ')\n",
        "import sys\nfor line in sys.stdin: print('garbage', flush=True)\n",
        "import sys\nfor line in sys.stdin: print('[]', flush=True)\n",
    ],
    ids=["ends", "no program", "ends when asked", "ends halfway", "garbage", "no object"],
)
def test_a_child_that_is_broken_is_no_answer_and_no_crash(tmp_path: Path, code: str) -> None:
    """Whatever it was, the repository cannot be asked."""
    with closing(child_that(tmp_path, code)) as helper:
        assert isinstance(Cvmfs(REPO, "/cvmfs", helper, limit_s=30.0).locate(named("htc/rocky:9")), Unwell)


def test_a_child_that_died_is_replaced(helper: Helper) -> None:
    """An admin may kill it; nobody notices."""
    assert helper.ask(REQUEST, 30.0)["state"]
    assert helper._child is not None
    helper._child.kill()
    helper._child.wait()
    assert helper.ask(REQUEST, 30.0)["state"]


def test_after_a_hang_the_next_child_answers(tmp_path: Path) -> None:
    """The mount came back: the killed child has ended, and a new one is asked."""
    helper = child_that(tmp_path, SILENT)
    with pytest.raises(Hangs):
        helper.ask(REQUEST, 0.2)
    assert helper._abandoned is not None
    helper._abandoned.wait()
    (tmp_path / "child.py").write_text(
        'import sys\nfor line in sys.stdin: print(\'{"state": "healthy"}\', flush=True)\n'
    )
    with closing(helper):
        assert helper.ask(REQUEST, 30.0) == {"state": "healthy"}


def test_who_waits_for_a_turn_pays_for_no_second_hang(tmp_path: Path) -> None:
    """One job pays the probe's limit; the others, with other images, hear of it in the same moment."""
    helper = child_that(tmp_path, f"open({str(tmp_path / 'begun')!r}, 'a').write('x')\n{SILENT}")
    answers: list[bool] = []

    def ask() -> None:
        try:
            helper.ask(REQUEST, 0.5)
        except Hangs:
            answers.append(True)

    asking = [threading.Thread(target=ask) for _ in range(5)]
    for one in asking:
        one.start()
    for one in asking:
        one.join(30)
    assert answers == [True] * 5
    assert helper._abandoned is not None
    helper._abandoned.wait()
    assert (tmp_path / "begun").read_text() == "x"

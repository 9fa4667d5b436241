"""Objects of a federation by the `pelican` command. The command is a double: no distribution has it in its archive."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from cache_manager.abilities import Ran
from cache_manager.credential import Credential
from cache_manager.outcome import Absent, Answer, Denied, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.sources.base import SourceError
from cache_manager.sources.federation_url import FederationUrl
from cache_manager.sources.pelican_client import PelicanClient, answer_of, size_of
from cache_manager.sources.transport import Patience
from cache_manager.status import HookStatus
from tests.unit.origin import MemorySink

IMAGE: Final = ImageReference.parse("osdf:///ospool/x.sif?directread")
WHAT: Final = FederationUrl("https://osg-htc.org", "/ospool/x.sif")
DOUBLE: Final = """\
#!/bin/sh
echo "$*" >>{asked}
echo "$BEARER_TOKEN" >>{tokens}
case $2 in
stat) echo 'a warning' >&2; echo '{{"Name": "x", "Size": 5, "IsCollection": false}}' ;;
get) {get} ;;
esac
"""

Make = Callable[[str], PelicanClient]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return what puts a double of the command on PATH, which does as it is told to fetch."""

    def put(get: str) -> PelicanClient:
        program = tmp_path / "bin" / "pelican"
        program.parent.mkdir()
        program.write_text(DOUBLE.format(get=get, asked=tmp_path / "asked", tokens=tmp_path / "tokens"))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        place = tmp_path / "place"
        place.mkdir()
        return PelicanClient("https://osg-htc.org", Patience(10**6, 20.0), str(place))

    return put


def test_the_command_is_asked_for_the_size_and_for_the_object(make: Make, tmp_path: Path) -> None:
    """By one name for all ways to write it; nothing of what it wrote stays."""
    source, sink = make("printf image >$4"), MemorySink()
    found = source.locate(IMAGE)
    assert found == Located(url=WHAT.identity, version="5 bytes", about_bytes=5)
    assert isinstance(found, Located)
    source.transfer(found, sink)
    assert bytes(sink.data) == b"image"
    assert source.read("osdf:///ospool/x.txt", fresh=True) == b"image"
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0] == f"object stat --json {WHAT.identity}?directread="
    assert asked[1].startswith(f"object get {WHAT.identity} {tmp_path}/place/pelican-")
    assert asked[2].startswith("object get pelican://osg-htc.org/ospool/x.txt?directread ")
    assert list((tmp_path / "place").iterdir()) == []


def test_a_token_is_on_no_command_line(make: Make, tmp_path: Path) -> None:
    """It goes by the environment."""
    make("printf image >$4")
    credential = Credential("igwn", b"CaNaRy7391\n")
    source = PelicanClient("https://osg-htc.org", Patience(10**6, 20.0), str(tmp_path / "place"), credential)
    found = source.locate(IMAGE)
    assert isinstance(found, Located)
    assert found.private
    source.confirm(found)
    assert (tmp_path / "tokens").read_text() == "CaNaRy7391\nCaNaRy7391\n"
    assert "CaNaRy" not in (tmp_path / "asked").read_text() + repr(source)


@pytest.mark.parametrize(
    ("get", "answer", "said"),
    [
        ("echo cannot: connect; exit 11", Unwell, "ended with 11: cannot: connect"),
        ("exit 7", Denied, "ended with 7"),
        ("exit 8", Absent, "ended with 8"),
        ("true", Unwell, "there is no file"),
    ],
)
def test_a_command_that_fails_brings_nothing(make: Make, get: str, answer: type[Answer], said: str) -> None:
    """And says why."""
    sink = MemorySink()
    with pytest.raises(SourceError) as caught:
        make(get).transfer(Located(url=WHAT.identity), sink)
    assert isinstance(caught.value.answer, answer)
    assert said in str(caught.value)
    assert sink.size_bytes == 0


def test_a_command_that_takes_too_long_is_ended(make: Make, tmp_path: Path) -> None:
    """Its time grows with what it has brought."""
    make("exec sleep 600")
    source = PelicanClient("https://osg-htc.org", Patience(10**6, 0.2), str(tmp_path / "place"))
    with pytest.raises(SourceError) as caught:
        source.transfer(Located(url=WHAT.identity), MemorySink())
    assert isinstance(caught.value.answer, Unwell)
    assert caught.value.answer.status is HookStatus.SOURCE_TOO_SLOW


def test_an_execution_point_without_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one may have it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    found = PelicanClient("https://osg-htc.org", Patience(10**6, 1.0), str(tmp_path)).locate(IMAGE)
    assert isinstance(found, Unwell)
    assert found.status is HookStatus.NO_CONTAINER_RUNTIME
    assert "IMAGE_CACHE_PELICAN" in found.why


@pytest.mark.parametrize(
    ("status", "said", "answer"),
    [
        *((status, "", Unwell) for status in (2, 4, 5, 6, 9, 11, 124, 137, None, -9)),
        (7, "", Denied),
        (8, "", Absent),
        (1, "server returned 403 Forbidden", Denied),
        (1, "Authorization failed", Denied),
        (1, "404: object not found", Absent),
        (1, "some error of 14030 bytes", Unwell),
    ],
)
def test_an_exit_status_means_what_the_documentation_says(status: int | None, said: str, answer: type[Answer]) -> None:
    """Status 1 is anything: its words tell."""
    found = answer_of(WHAT, Ran(status, said), with_token=False)
    assert isinstance(found, answer)
    if isinstance(found, Denied):
        assert found.wants_credential
    if isinstance(found, Unwell):
        late = status in {124, 137, None}
        assert found.status is (HookStatus.SOURCE_TOO_SLOW if late else HookStatus.SOURCE_UNREACHABLE)


@pytest.mark.parametrize(
    ("said", "size"), [('x {"Size": 12}', 12), ('{"size":7,', 7), ("", None), ('"Size": -1', None), ("Size: 3", None)]
)
def test_a_size_is_read_from_whatever_stands_around_it(said: str, size: int | None) -> None:
    """Warnings are on the same stream."""
    assert size_of(said) == size

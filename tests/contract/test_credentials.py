"""What the hook reads for the manager of what HTCondor put beside the job, and what it does not."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cache_manager import protocol
from cache_manager.askback import credential_of
from cache_manager.credential import Credential, NoCredential
from tests.contract.conftest import StartSite
from tests.contract.doubles import job_ad
from tests.contract.fake_manager import listener

TOKEN = b"eyJhbGciOi.CaNaRy7391.x_y-z"
OK = b"HookStatusCode = 0\n"


def answered(make_site: StartSite, names: tuple[str, ...], **env: str) -> Credential | NoCredential:
    """Return what a hook says to a manager that asks for a credential."""
    site = make_site()
    said = b""
    with listener(site.directory / "asking") as server:

        def ask() -> None:
            nonlocal said
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as frames:
                frames.read(protocol.parse_header(frames.readline()).length)
                connection.sendall(protocol.frame("\n".join(names).encode(), ask="credential"))
                line = frames.readline()
                said = line + frames.read(protocol.parse_header(line).length)
                connection.sendall(protocol.frame(OK))
                connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=ask)
        thread.start()
        assert site.run_hook(job_ad(), socket=site.directory / "asking", env=env).code == 0
        thread.join()
    line, _, body = said.partition(b"\n")
    return credential_of(protocol.parse_header(line + b"\n"), body, names)


def creds(tmp_path: Path, **files: bytes) -> Path:
    """Make the directory that the starter makes; underscores of a name are what they are."""
    directory = tmp_path / "execute" / "dir_1" / "scratch" / ".condor_creds"
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / f"{name}.use").write_bytes(text)
    return directory


@pytest.mark.parametrize(
    ("names", "brought", "found"),
    [
        (("docker",), {}, b"with the job"),
        (("docker",), {"docker": b"by HTCondor"}, b"by HTCondor"),
        (("igwn",), {}, b""),
    ],
)
def test_what_docker_wrote_may_come_with_the_job(
    make_site: StartSite, tmp_path: Path, names: tuple[str, ...], brought: dict[str, bytes], found: bytes
) -> None:
    """Where HTCondor itself brought nothing for Docker."""

    def prepare() -> None:
        config = creds(tmp_path, **brought).parent / ".docker" / "config.json"
        config.parent.mkdir()
        config.write_bytes(b"with the job")

    answer = answered(_before(make_site, prepare), names)
    assert (answer.secret if isinstance(answer, Credential) else b"") == found


@pytest.mark.parametrize(
    ("files", "names", "found"),
    [
        ({"igwn": TOKEN}, ("igwn",), "igwn"),
        ({"igwn_read": TOKEN, "other": b"no"}, ("igwn_read", "igwn.read"), "igwn_read"),
        ({"igwn.read": TOKEN}, ("igwn_read", "igwn.read"), "igwn.read"),
        ({"only": TOKEN}, (), "only"),
        ({"scitokens": TOKEN, "a": b"no", "z": b"no"}, (), "scitokens"),
    ],
)
def test_the_hook_reads_the_credential_that_is_asked_for(
    make_site: StartSite, tmp_path: Path, files: dict[str, bytes], names: tuple[str, ...], found: str
) -> None:
    """The first of the names that is there; where none is said, the usual one or the only one."""
    make = _before(make_site, lambda: creds(tmp_path, **files))
    answer = answered(make, names)
    assert isinstance(answer, Credential)
    assert answer == Credential(found, TOKEN)
    assert answer.bearer == TOKEN.decode()
    assert TOKEN.decode() not in repr(answer)


def test_the_directory_is_the_one_that_the_starter_names(make_site: StartSite, tmp_path: Path) -> None:
    """_CONDOR_CREDS counts before the usual place."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "igwn.use").write_bytes(TOKEN)
    make = _before(make_site, lambda: creds(tmp_path, igwn=b"wrong"))
    assert answered(make, ("igwn",), _CONDOR_CREDS=str(elsewhere)) == Credential("igwn", TOKEN)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("nothing",), "no credential 'nothing'"),
        ((), "could be the one"),
        (("../secret",), "a name that is none"),
        (("a/b",), "a name that is none"),
        ((".hidden",), "a name that is none"),
        (("link",), "cannot be read"),
        (("fifo",), "no regular file"),
        (("directory",), "no regular file"),
        (("large",), "larger than"),
        (("empty",), "is empty"),
    ],
)
def test_what_is_no_credential_is_said_with_what_there_is(
    make_site: StartSite, tmp_path: Path, names: tuple[str, ...], why: str
) -> None:
    """No path leads out of the directory, no link is followed, no FIFO waited for."""

    def prepare() -> None:
        directory = creds(tmp_path, large=b"x" * 70_000, empty=b"", igwn=TOKEN)
        (tmp_path / "execute" / "dir_1" / "scratch" / "secret.use").write_bytes(TOKEN)
        (directory / "link.use").symlink_to("../secret.use")
        os.mkfifo(directory / "fifo.use")
        (directory / "directory.use").mkdir()

    answer = answered(_before(make_site, prepare), names)
    assert isinstance(answer, NoCredential)
    assert why in answer.why
    assert "igwn" in answer.others


def _before(make_site: StartSite, prepare: Callable[[], object]) -> StartSite:
    """Return what makes a site and then puts something into it."""

    def make() -> object:
        site = make_site()
        prepare()
        return site

    return make  # type: ignore[return-value]

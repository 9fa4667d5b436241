"""Where the list comes from: a file, or a forge that may say anything else instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from sync import credentials
from sync.credentials import CredentialsError
from sync.settings import Settings
from sync.survey import KNOWN, ListError, read_list, remember, survey
from tests.contract.raw_server import End, RawServer, Step, answer

LIST = b"# Physics\nhtc/rocky:9\nBROKEN/line\n"


def test_a_list_is_read_from_a_file_or_from_a_forge(tmp_path: Path) -> None:
    """To the last byte, broken lines and all."""
    path = tmp_path / "images.txt"
    path.write_bytes(LIST)
    with RawServer() as server:
        server.routes["/images.txt"] = (answer(body=LIST, headers={"Content-Type": "text/plain"}),)
        for place in (str(path), f"{server.url}/images.txt"):
            found = read_list(place)
            assert (found.render(), len(found.entries), len(found.faults)) == (LIST, 1, 1)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ((answer("404 Not Found"),), "HTTP 404"),
        (
            (answer(body=b"<html>sign in</html>", headers={"Content-Type": "text/html; charset=utf-8"}),),
            "is a web page",
        ),
        ((answer(body=b"htc/rocky:9\n", length="100"),), "ended early"),
        ((answer(body=b"# nothing yet\n"),), "lists no image"),
        ((answer(body=b""),), "lists no image"),
        ((End.RESET,), "txt: Connection reset by peer|txt: Remote end closed"),
    ],
)
def test_an_answer_that_is_no_list_ends_the_run(script: tuple[Step, ...], why: str) -> None:
    """Nothing may be concluded from it: every image would seem to have left the list. No secret of the URL is told."""
    with RawServer() as server:
        server.routes["/images.txt"] = script
        server.routes["/images.txt?token=s3cr3t"] = script
        with pytest.raises(ListError, match=why) as caught:
            read_list(f"{server.url}/images.txt?token=s3cr3t")
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n\n# only words\n"])
def test_a_file_without_an_image_is_no_list(tmp_path: Path, text: str) -> None:
    """Somebody saved the wrong file."""
    path = tmp_path / "images.txt"
    path.write_text(text)
    with pytest.raises(ListError, match="lists no image"):
        read_list(str(path))
    with pytest.raises(ListError, match="No such file"):
        read_list(f"{path}.old")


def test_what_was_found_out_is_there_for_the_next_run(tmp_path: Path) -> None:
    """Whole, and under its own name."""
    path = tmp_path / "images.txt"
    path.write_text("localhost:1/a/b:1\n")
    settings = Settings(image_list=str(path), state_directory=str(tmp_path), registry_patience_s=2)
    found = survey(settings)
    assert list(found.failures) == ["a/b:1"]
    remember(settings, found)
    assert survey(settings) == found
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([KNOWN, "images.txt"])


def test_credentials_of_registries_are_read_before_anything_is_asked(tmp_path: Path) -> None:
    """All that are wrong are told at once."""
    good, token = tmp_path / "good", tmp_path / "token"
    good.write_text("joe:word")
    token.write_text("only-a-token")
    for one in (good, token):
        one.chmod(0o600)
    begin = "image_list: /list\nsif: {directory: /sif}\nregistries:\n"
    settings = Settings.from_yaml(f"{begin}  docker.io: {{credentials_file: {good}}}\n  ghcr.io: {{insecure: true}}\n")
    found = credentials.for_registries(settings)
    assert {host: (one.user, one.password) for host, one in found.items()} == {"docker.io": ("joe", "word")}
    settings = Settings.from_yaml(
        f"{begin}  a.example: {{credentials_file: {token}}}\n  b.example: {{credentials_file: {tmp_path}/none}}\n"
    )
    with pytest.raises(CredentialsError) as caught:
        survey(settings)
    assert len(str(caught.value).splitlines()) == 2
    assert "only-a-token" not in str(caught.value)

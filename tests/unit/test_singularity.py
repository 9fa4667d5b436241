"""What is written into an image's tree: scripts that mean what the image's configuration says, whatever is in it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync import imageconfig, singularity
from sync.imageconfig import ConfigError
from sync.request import Request
from sync.values import Variant
from tests.layers import config

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


def run(script: str, *arguments: str, **environment: str) -> list[str]:
    """Run a script with the system's shell; return the words that it prints, one after another with zero bytes."""
    done = subprocess.run(["/bin/sh", "-c", script, "sh", *arguments], capture_output=True, env=environment, check=True)
    return done.stdout.decode().split("\0")[:-1]


def script(entrypoint: list[str], command: list[str]) -> str:
    """Return the script that prints its words instead of running them."""
    values = config(Entrypoint=["/usr/bin/printf", "%s\\0", *entrypoint], Cmd=command)
    return singularity.runscript(imageconfig.parse(values))


@given(WORDS)
@settings(deadline=None, max_examples=50)
def test_a_variable_has_its_value_whatever_is_in_it(value: str) -> None:
    """Nothing in it is run."""
    text = singularity.environment_script(imageconfig.parse(config(Env=[f"NAME={value}"])))
    assert run(text + "printf '%s\\0' \"$NAME\"\n") == [value]


def test_a_jobs_own_value_wins_but_for_the_path() -> None:
    """As in images that Apptainer makes; an empty value is none."""
    found = imageconfig.parse(config(Env=["A=image", "B=image", "PATH=/image", "not-a-name=x", "C"]))
    text = singularity.environment_script(found) + 'printf \'%s\\0\' "$A" "$B" "$PATH" "$C"\n'
    assert run(text, A="job", B="", PATH="/job") == ["job", "image", "/image", ""]


@given(st.lists(WORDS, max_size=3), st.lists(WORDS, min_size=1, max_size=3))
@settings(deadline=None, max_examples=50)
def test_entry_point_and_command_are_words_that_no_shell_touches(entrypoint: list[str], command: list[str]) -> None:
    """Without arguments."""
    assert run(script(entrypoint, command)) == [*entrypoint, *command]


ARGUMENTS = {
    "in place of the command": (["1", "a b"], {}, ["entry", "1", "a b"]),
    "seen by the shell once more": (["$HOME", "`echo x`"], {}, ["entry", "/home/joe", "x"]),
    "as they are": (["$HOME", '"'], {"SINGULARITY_NO_EVAL": "1"}, ["entry", "$HOME", '"']),
}


@pytest.mark.parametrize("what", ARGUMENTS)
def test_arguments_are_taken(what: str) -> None:
    """As Apptainer's images take them."""
    arguments, environment, wanted = ARGUMENTS[what]
    assert (
        run(script(["entry"], ["command"]), *arguments, HOME="/home/joe", PATH="/bin:/usr/bin", **environment) == wanted
    )


def test_an_image_that_runs_nothing_starts_a_shell() -> None:
    """And any command that is given."""
    text = singularity.runscript(imageconfig.parse(config()))
    assert "set -- '/bin/sh'" in text
    assert run(text, "printf", "%s\\0", "x") == ["x"]


CONFIGS = {
    "text": (b"<html>", "is no JSON"),
    "a list": (b"[]", "is no JSON object"),
    "an environment that is none": (json.dumps({"config": {"Env": {"A": "b"}}}).encode(), "Env is no list of words"),
    "a word with a zero byte": (json.dumps({"config": {"Cmd": ["a\0b"]}}).encode(), "Cmd is no list of words"),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_configuration_that_is_none_is_refused(what: str) -> None:
    """What is missing is no fault."""
    body, why = CONFIGS[what]
    with pytest.raises(ConfigError, match=why):
        imageconfig.parse(body)
    assert imageconfig.parse(b"{}") == imageconfig.ImageConfig()


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ("2024-01-02T03:04:05Z", 1704164645),
        ("2024-01-02T03:04:05.123456789Z", 1704164645),
        ("2024-01-02T04:04:05+01:00", 1704164645),
        ("0001-01-01T00:00:00Z", 0),
        ("9999-01-01T00:00:00Z", 2**32 - 1),
        ("2024-13-40T99:99:99Z", 0),
        ("yesterday", 0),
    ],
)
def test_the_time_of_an_image_is_one_that_a_file_system_can_have(said: str, at: int) -> None:
    """Whatever the image says."""
    assert imageconfig.parse(config(created=said)).created_at == at


def test_the_scripts_are_shell_scripts(tmp_path: Path) -> None:
    """Every one of them, for a shell that only reads."""
    request = Request("htc/a:1", "r/htc/a:1", "sha256:i", Variant("x86_64", "sha256:v"))
    for member, body in singularity.members(imageconfig.parse(config(Env=["A='\"`$"])), request):
        if body.startswith(b"#!/bin/sh"):
            (tmp_path / "script").write_bytes(body)
            subprocess.run(["/bin/sh", "-n", tmp_path / "script"], check=True)
            assert member.mode == 0o755

"""What HTCondor makes of a hook's output, read strictly: a line that it would lose or misread is an error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import classad2

MAX_BYTES: Final = 10_000
"""HTCondor closes the pipe at 10,240 bytes and holds the job."""

Literal = str | bool | int

_LINE: Final = re.compile(r'[A-Za-z]+ = (?:"(?:[^"]|(?<=\\)")*"|true|false|\d+)')
"""In the old syntax a quote inside of a string has a backslash before it, and a backslash stands for itself."""

_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_UNIVERSAL: Final = frozenset(
    {
        "ContainerImage",
        "SingularityImage",
        "WantContainer",
        "WantSIF",
        "WantSandboxImage",
        "WantDockerImage",
        "WantDocker",
    }
)


def read_block(stdout: bytes) -> dict[str, Literal]:
    """Return the attributes of a valid block; anything else is an AssertionError that shows it."""
    assert stdout.endswith(b"\n"), f"no block: {stdout[-200:]!r}"
    assert len(stdout) < MAX_BYTES, f"too long: {len(stdout)} bytes"
    text = stdout.decode()
    assert not _CONTROL.search(text), f"a control character: {stdout!r}"
    lines = text[:-1].split("\n")
    for line in lines:
        assert _LINE.fullmatch(line), f"no `Name = literal`: {line!r}"
    attributes = _as_condor_reads(text)
    assert len(attributes) == len(lines), f"an attribute twice, or lost: {text}"
    assert "HookStatusCode" in attributes, f"no HookStatusCode: {text}"
    assert type(attributes["HookStatusCode"]) is int, f"HookStatusCode is no number: {text}"
    assert isinstance(attributes.get("HookStatusMessage", ""), str), f"HookStatusMessage is no string: {text}"
    rest = set(attributes) - {"HookStatusCode", "HookStatusMessage"}
    assert rest in (set(), _UNIVERSAL), f"neither a status alone nor the universal update ad: {text}"
    assert not rest or attributes["HookStatusCode"] == 0, f"an image and a failure: {text}"
    return attributes


def _as_condor_reads(text: str) -> dict[str, Literal]:
    ad = classad2.parseOne(text, classad2.ParserType.Old)
    return {name: ad[name] for name in ad}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a hook did. Made only of a valid block."""

    attributes: dict[str, Literal]
    stdout: bytes
    stderr: bytes
    exit_status: int
    seconds: float

    @classmethod
    def of(cls, stdout: bytes, stderr: bytes, exit_status: int, seconds: float) -> Answer:
        """Check the block and the exit status: HTCondor holds a job whose hook exits with 1."""
        assert exit_status == 0, f"exit status {exit_status}: {stdout!r} {stderr!r}"
        return cls(read_block(stdout), stdout, stderr, exit_status, seconds)

    @property
    def code(self) -> int:
        """HookStatusCode."""
        return int(self.attributes["HookStatusCode"])

    @property
    def message(self) -> str:
        """HookStatusMessage; empty if there is none."""
        return str(self.attributes.get("HookStatusMessage", ""))

    @property
    def image(self) -> str:
        """The path that the job runs from; empty for an untouched job."""
        return str(self.attributes.get("ContainerImage", ""))

    @property
    def is_untouched(self) -> bool:
        """Whether the job runs as it is."""
        return self.attributes == {"HookStatusCode": 0}

    def runs(self, path: object, *, sandbox: bool) -> bool:
        """Whether this is the universal update ad for `path`."""
        universal = {
            "ContainerImage": str(path),
            "SingularityImage": str(path),
            "WantContainer": True,
            "WantSIF": not sandbox,
            "WantSandboxImage": sandbox,
            "WantDockerImage": False,
            "WantDocker": False,
            "HookStatusCode": 0,
        }
        return {name: value for name, value in self.attributes.items() if name != "HookStatusMessage"} == universal

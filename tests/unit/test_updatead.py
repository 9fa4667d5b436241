"""The block that the hook prints, read back by classad2 as HTCondor reads it."""

from __future__ import annotations

import classad2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cache_manager import updatead
from cache_manager.status import HookStatus


def read_back(block: bytes) -> dict[str, object]:
    """Return the attributes as the starter finds them in a hook's output: in the old syntax."""
    ad = classad2.parseOne(block.decode(), classad2.ParserType.Old)
    return {name.lower(): ad.eval(name) for name in ad.keys()}  # noqa: SIM118 - no Mapping


PLAIN = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=60)


@given(PLAIN)
@example('a "quoted" word')
@example('"')
@example('" ; HookStatusCode = 0')
def test_a_string_reads_back_as_it_was(text: str) -> None:
    """Quotes do not end it."""
    if "\\" not in text:
        assert read_back(updatead.render({"A": text, "B": 1})) == {"a": text, "b": 1}


@pytest.mark.parametrize("text", ["\\", "a\\b.sif", "C:\\dir\\", "a\\\\b", "\\n", 'a\\"b', '\\"', 'a"\\'])
def test_a_backslash_reads_back_as_it_was(text: str) -> None:
    """In the old syntax a backslash stands for itself unless a quote follows: doubled, it names another file."""
    assert read_back(updatead.render({"A": text, "B": 1})) == {"a": text, "b": 1}


@given(st.text(max_size=100))
@example("a\nHookStatusCode = 0\nb")
@example("a\r\nb")
@example("a\x00b")
@example("\\")
@example('\\"')
@example('\\\\"\nB = 2\nC = "')
def test_no_text_ends_its_line_or_adds_an_attribute(text: str) -> None:
    """Parsing stops silently at the first bad line, so a message could make a held job run."""
    block = updatead.render({"HookStatusMessage": text, "HookStatusCode": 150})
    assert block.count(b"\n") == 2
    found = read_back(block)
    assert set(found) == {"hookstatusmessage", "hookstatuscode"}
    assert found["hookstatuscode"] == 150


@pytest.mark.parametrize("text", ["a\nb", "a\r\n\tb", "a\x00\x01b", "a\u2028b", "a\x85b"])
def test_control_characters_become_one_blank(text: str) -> None:
    """An event in the job's log is one line."""
    assert read_back(updatead.render({"A": text})) == {"a": "a b"}


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (True, b"A = true\n"),
        (False, b"A = false\n"),
        (1, b"A = 1\n"),
        (0, b"A = 0\n"),
        (-7, b"A = -7\n"),
        ("1", b'A = "1"\n'),
    ],
)
def test_each_type_has_its_literal(value: updatead.Literal, line: bytes) -> None:
    """A boolean is no integer, and an integer is no string, for a START expression."""
    assert updatead.render({"A": value}) == line


def test_more_than_htcondor_reads_is_refused() -> None:
    """HTCondor closes the pipe at 10,240 bytes, and then holds the job."""
    with pytest.raises(ValueError, match=r"too large \(10011 bytes, at most 10000\)"):
        updatead.render({"A": "x" * 10_004})
    assert len(updatead.render({"A": "x" * 9_993})) == updatead.MAX_BYTES


@pytest.mark.parametrize("sandbox", [True, False])
def test_the_universal_answer_serves_every_kind_of_job(*, sandbox: bool) -> None:
    """Observed with every submit form: these attributes, and nothing less."""
    found = read_back(updatead.runs_image("/cache/entries/x.sif/image", sandbox=sandbox, message="htc/rocky:9: cached"))
    assert found == {
        "containerimage": "/cache/entries/x.sif/image",
        "singularityimage": "/cache/entries/x.sif/image",
        "wantcontainer": True,
        "wantsif": not sandbox,
        "wantsandboximage": sandbox,
        "wantdockerimage": False,
        "wantdocker": False,
        "hookstatuscode": 0,
        "hookstatusmessage": "htc/rocky:9: cached",
    }


@pytest.mark.parametrize("status", HookStatus)
def test_a_status_alone_leaves_the_job_as_it_is(status: HookStatus) -> None:
    """Nothing but the code and the message; no message leaves no event in the job's log."""
    assert read_back(updatead.status(status, "why")) == {"hookstatuscode": status.code, "hookstatusmessage": "why"}
    assert updatead.status(status, "") == b"HookStatusCode = %d\n" % status.code


@given(
    st.text(min_size=1, max_size=40).map(lambda text: text * 3000)
    | st.sampled_from(['"' * 5000, "\\" * 5000, "ä" * 5000, "\n" * 5000])
)
def test_any_message_fits(message: str) -> None:
    """The code always arrives, and the beginning of the message with it."""
    block = updatead.status(HookStatus.CACHE_FULL, message)
    assert len(block) < updatead.MAX_BYTES
    assert read_back(block)["hookstatuscode"] == 420


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/" + "a" * 4000, "a" * 4000),
        ("/" + "ä" * 2000, '"' * 4000),
    ],
)
def test_the_longest_path_still_makes_an_answer_that_htcondor_reads(path: str, message: str) -> None:
    """A path may have 4,096 bytes and stands in the answer twice; the message gives way."""
    block = updatead.runs_image(path, sandbox=False, message=message)
    assert len(block) <= updatead.MAX_BYTES
    found = read_back(block)
    assert (found["containerimage"], found["hookstatuscode"]) == (path, 0)

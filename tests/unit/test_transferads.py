"""The ads of transfer plug-ins, compared with what HTCondor's own library reads and writes."""

from __future__ import annotations

import classad2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager import transferads
from cache_manager.transferads import AdError

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name.lower() not in {"true", "false", "undefined", "error", "is", "isnt", "parent"}
)
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126))
LITERALS = st.one_of(TEXTS, st.booleans(), st.integers(-(2**62), 2**62))


@given(st.dictionaries(NAMES, LITERALS, max_size=5), st.dictionaries(NAMES, LITERALS, max_size=3))
def test_what_is_written_is_what_htcondor_and_we_read(ad: dict[str, object], inner: dict[str, object]) -> None:
    """Literals, lists and nested ads; names have no case."""
    causes = [{name.lower(): value for name, value in inner.items()}]
    ad = {name.lower(): value for name, value in ad.items()} | {"causes": causes}
    text = transferads.render(ad)
    assert transferads.parse(f"{text}\n  {text}\n") == [(text, ad)] * 2
    read = classad2.ClassAd(text)
    assert {name: read[name] for name in ad if name != "causes"} == {k: v for k, v in ad.items() if k != "causes"}
    assert dict(read["causes"][0]) == causes[0]


def test_what_follows_the_result_in_a_preallocated_file_is_no_ad() -> None:
    """HTCondor fills the file with blanks."""
    assert [ad for _, ad in transferads.parse("[ A = 1 ]\n" + " " * 20_000)] == [{"a": 1}]


def test_an_expression_is_undefined_and_hides_nothing_behind_it() -> None:
    """HTCondor may write more than literals one day."""
    text = '[ A = strcat("x]", "y;"); B = 1 + 2; C = foo; D = "d"; E = {1, [F = 2.5]} ]'
    assert transferads.parse(text)[0][1] == {"a": None, "b": None, "c": None, "d": "d", "e": [1, {"f": 2.5}]}


@pytest.mark.parametrize("text", ["[", "[ A", "[ A = ", '[ A = "x', "x", "[ A = { 1 2", "[ = 1 ]", "[ A = " * 40])
def test_what_is_no_ad_is_said_so(text: str) -> None:
    """And ends, however deep it is."""
    with pytest.raises(AdError):
        transferads.parse(text)


def test_what_a_plugin_says_of_itself_is_read_line_by_line() -> None:
    """Also around lines that are none."""
    said = transferads.parse_lines('Warning!\nPluginType = "FileTransfer"\nProtocolVersion = 4\nX = "cut\nM = true\n')
    assert said == {"plugintype": "FileTransfer", "protocolversion": 4, "m": True}

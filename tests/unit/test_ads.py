"""Ads as text: the line scanner and classad2 have to agree, and nothing is lost in silence."""

from __future__ import annotations

import math

import classad2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cache_manager.ads import Ad, Missing, Value
from cache_manager.status import HookStatus, StatusError
from tests.unit.builders import in_child

WANTED = (
    "ContainerImage",
    "SingularityImage",
    "DockerImage",
    "WantContainer",
    "WantDockerImage",
    "WantDocker",
    "JobUniverse",
    "ClusterId",
    "Owner",
    "HasDocker",
    "GPUs",
)
STRINGS = st.text(st.characters(codec="utf-8", exclude_characters="\n\x00"), max_size=40)
VALUES = (
    STRINGS
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.floats(-1e300, 1e300)
    | st.sampled_from([classad2.Value.Undefined, classad2.Value.Error])
    | st.sampled_from(
        [
            classad2.ExprTree(text)
            for text in (
                '"a" + 1',
                'strcat("/img/", "x.sif")',
                'ifThenElse(1 < 2, "a.sif", "b.sif")',
                "Args + 1",
                "MY.Args",
                "TARGET.Arch",
                "Nowhere =?= undefined",
                "2 > 1 && true",
                "{1, 2}",
                "[a = 1]",
            )
        ]
    )
)


def as_classad2_has_it(ad: classad2.ClassAd, name: str, target: classad2.ClassAd) -> Value:
    """Return the value of an attribute without our scanner."""
    value = ad.lookup(name).eval(ad, target) if name in ad else classad2.Value.Undefined
    if isinstance(value, classad2.Value):
        return Missing.UNDEFINED if value == classad2.Value.Undefined else Missing.ERROR
    return value if isinstance(value, (str, int, float)) else Missing.ERROR


@given(st.dictionaries(st.sampled_from([*WANTED, "ProcId", "Args", "Env"]), VALUES, max_size=9))
@example({"ContainerImage": 'a"b\\c', "Owner": "\\", "Args": '"'})
@example({"ContainerImage": "a\r", "Owner": " x ", "ClusterId": -(2**63)})
@example({"ContainerImage": "= \x0b\x85\u2028", "GPUs": 10**17})
def test_what_htcondor_prints_is_read_as_htcondor_means_it(values: dict[str, object]) -> None:
    """Every attribute that matters has the value that classad2 gives it, literal or expression."""
    ad = classad2.ClassAd(values)
    machine = classad2.parseOne('Arch = "X86_64"\n', classad2.ParserType.Old)
    ours = Ad(ad.printOld(), "job ad")
    target = Ad(machine.printOld(), "machine ad")
    for name in WANTED:
        value, expected = ours.value(name, target), as_classad2_has_it(ad, name, machine)
        assert value == expected or (isinstance(value, float) and math.isclose(value, float(str(expected))))
        assert type(value) is type(expected)


@given(st.dictionaries(st.sampled_from(WANTED), STRINGS | st.integers(-(2**40), 2**40) | st.booleans(), max_size=6))
def test_line_ends_of_another_system_change_nothing(values: dict[str, object]) -> None:
    """An ad that came through Windows reads the same."""
    text = classad2.ClassAd(values).printOld()
    plain, other = Ad(text, "job ad"), Ad(text.replace("\n", "\r\n"), "job ad")
    assert [other.value(name) for name in WANTED] == [plain.value(name) for name in WANTED]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('A = "x"', "x"),
        ('A="x"', "x"),
        ('  A\t=\t"x"  ', "x"),
        ('a = "x"', "x"),
        ('A = ""', ""),
        ('A = "a = b"', "a = b"),
        ('A = "a\\"b"', 'a"b'),
        ('A = "C:\\dir\\"', "C:\\dir\\"),
        ('A = "osdf:///x/y.sif?pack=auto"', "osdf:///x/y.sif?pack=auto"),
        ("A = 12", 12),
        ("A = -12", -12),
        ("A = 1.5", 1.5),
        ("A = TRUE", True),
        ("A = False", False),
        ("A = Undefined", Missing.UNDEFINED),
        ("A = ERROR", Missing.ERROR),
        ('A = "x" // said so', "x"),
        ('A = 1\nA = "later"', "later"),
        ('A = 1\na = "later"', "later"),
        ("B = 1", Missing.UNDEFINED),
        ("", Missing.UNDEFINED),
    ],
)
def test_a_value_is_found_as_users_and_tools_write_it(text: str, value: Value) -> None:
    """Blanks, letter case, and an equal sign within a string included."""
    found = Ad(text, "job ad").value("A")
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "line",
    [
        "garbage",
        "# a comment",
        "// a comment",
        "ContainerImage",
        "ContainerImage =",
        'ContainerImage "/srv/x.sif"',
        'ContainerImage == "/srv/x.sif"',
        'ContainerImage : "/srv/x.sif"',
        '= "/srv/x.sif"',
        '1A = "/srv/x.sif"',
        '"A" = 1',
        "[",
        "]",
        "\x00",
        'A = "one\ntwo"',
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_that_is_no_attribute_is_named_and_never_skipped(line: str, end: str) -> None:
    """classad2 stops there in silence, which would lose the image: the job goes back to idle and is not run without."""
    text = f'Owner = "joe"{end}{line}{end}ContainerImage = "/srv/x.sif"{end}'
    with pytest.raises(StatusError, match=r"line [23] is no attribute") as caught:
        Ad(text, "job ad")
    assert caught.value.status is HookStatus.HOOK_INTERNAL_ERROR
    assert "job ad" in caught.value.message


def test_blank_lines_are_no_fault() -> None:
    """condor_q -long ends with one."""
    ad = Ad('\nA = 1\n\n   \nB = "x"\n\r\n\n', "job ad")
    assert (len(ad), ad.value("A"), ad.value("B")) == (2, 1, "x")


@pytest.mark.parametrize("broken", ["Args = (1 +", 'Args = "one', "Args = 0x10", "Args = strcat("])
def test_an_expression_is_not_evaluated_in_half_an_ad(broken: str) -> None:
    """An attribute that classad2 cannot read hides all that come after it."""
    ad = Ad(f'{broken}\nContainerImage = strcat("/srv/", "x.sif")\n', "job ad")
    with pytest.raises(StatusError, match="attributes can be read") as caught:
        ad.value("ContainerImage")
    assert caught.value.status is HookStatus.HOOK_INTERNAL_ERROR


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"x" + 1', Missing.ERROR),
        ("1 / 0", Missing.ERROR),
        ("Nowhere", Missing.UNDEFINED),
        ("TARGET.Nowhere", Missing.UNDEFINED),
        ("TARGET.A", Missing.UNDEFINED),
        ("A", Missing.ERROR),
        ("B", Missing.ERROR),
        ("{1, 2}", Missing.ERROR),
        ("[a = 1]", Missing.ERROR),
        ('absTime("2020-01-01T00:00:00Z")', Missing.ERROR),
        ("unknown_function(1)", Missing.ERROR),
    ],
)
def test_an_expression_without_a_plain_value_is_undefined_or_an_error(text: str, value: Value) -> None:
    """A list, a nested ad and a time name no image, and an attribute that comes back to itself is an error."""
    assert Ad(f"A = {text}\nB = A\n", "job ad").value("A", Ad("", "machine ad")) is value


@pytest.mark.parametrize(
    "expression",
    [
        'substr("é", 0, 1)',
        "A1",
    ],
    ids=["half a character", "a chain of 5000 attributes"],
)
def test_an_expression_that_classad2_gives_up_is_an_error(expression: str) -> None:
    """Any user may write one; the manager knows no other way out than its statuses."""
    chain = "".join(f"A{number} = A{number + 1}\n" for number in range(1, 5000))
    try:
        value = Ad(f"A = {expression}\n{chain}A5000 = 1\n", "job ad").value("A")
    except StatusError as error:
        value = error.status.name
    assert value in {Missing.ERROR, Missing.UNDEFINED, 1, "HOOK_INTERNAL_ERROR"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("true", True), ("1", True), ("-1.5", True), ("2 > 1", True), ("0", False), ("false", False), ("0.0", False)]
    + [(text, False) for text in ('"true"', "undefined", "error", '""', "{1}")],
)
def test_truth_is_what_htcondor_takes_for_it(text: str, *, expected: bool) -> None:
    """A number other than zero counts; a string never does."""
    assert Ad(f"A = {text}\n", "job ad").is_true("A") is expected


@given(st.text(max_size=120) | st.text('Ab =\t"\\\r\n+(1', max_size=60))
def test_any_text_is_an_ad_or_refused(text: str) -> None:
    """Every local user may send one."""
    try:
        ad = Ad(text, "job ad")
        ad.value("A")
    except StatusError as error:
        if error.status is not HookStatus.HOOK_INTERNAL_ERROR:
            raise


@pytest.mark.parametrize(
    "line",
    ['"A =" + " " * 200_000', '"A =" + " \\t" * 100_000 + "\\r"', '" " * 200_000 + "A"', '"A" + " " * 200_000 + "= 1"'],
    ids=["no value", "no value, tabs", "no equal sign", "a gap"],
)
def test_a_long_line_is_read_in_time_that_grows_with_its_length(line: str) -> None:
    """The manager has one loop: an ad of a megabyte must not stop it for hours."""
    ended = in_child(
        f"from cache_manager.ads import Ad\ntry:\n    Ad({line} + '\\n', 'job ad')\nexcept Exception: pass\nprint('ok')"
    )
    assert (ended.stdout, ended.returncode) == ("ok\n", 0)


def test_attributes_that_name_one_another_are_read_in_time_that_grows_with_their_number() -> None:
    """Half a megabyte of them, of which none has a value."""
    ended = in_child(
        "from cache_manager.ads import Ad\n"
        "wide = [f'B{i} = ' + '+'.join(f'B{(i + j) % 30}' for j in range(3500)) for i in range(30)]\n"
        "deep = [f'C{i} = C{i + 1}' for i in range(5000)]\n"
        "ad = Ad('\\n'.join(['A = ifThenElse(true, undefined, C0 + B0)', *wide, *deep]) + '\\n', 'job ad')\n"
        "print(ad.value('A').name)"
    )
    assert (ended.stdout, ended.returncode) == ("UNDEFINED\n", 0)


@pytest.mark.parametrize(
    "value",
    ['"+".join(["1"] * 300_000)', '"(" * 300_000 + "1" + ")" * 300_000', '"!" * 600_000 + "true"', '"{" * 300_000'],
    ids=["sum", "brackets", "not", "lists"],
)
def test_an_ad_of_legal_size_never_ends_the_process(value: str) -> None:
    """A deep expression overflows the stack of a recursive parser, and with it would go the manager for everybody."""
    ended = in_child(
        f"from cache_manager.ads import Ad\ntry:\n    Ad('A = ' + {value} + '\\n', 'job ad').value('A')\n"
        "except Exception: pass\nprint('ok')"
    )
    assert (ended.stdout, ended.returncode) == ("ok\n", 0)

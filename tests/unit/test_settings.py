"""Every knob, as an admin writes it."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.quantities import parse_size, parse_time
from cache_manager.settings import Settings, SettingsError, knob_names, table_markdown
from tests.unit.builders import knobs

UNITS = {"b": 1} | {
    unit + suffix: base**power
    for power, unit in enumerate("kmgt", 1)
    for suffix, base in (("b", 1000), ("ib", 1024), ("", 1000))
}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 1_048_576),
        ("20 GB", 20_000_000_000),
        ("20GB", 20_000_000_000),
        ("20gb", 20_000_000_000),
        ("20 G", 20_000_000_000),
        ("1.5 TB", 1_500_000_000_000),
        ("512 KB", 512_000),
        ("512 KiB", 524_288),
        ("2 GiB", 2_147_483_648),
        ("7 B", 7),
        ("  1 MB\t", 1_000_000),
    ],
)
def test_a_size_is_read_with_the_units_of_the_handbook(text: str, size: int) -> None:
    """KB counts in thousands, KiB in 1024; a plain number is bytes, to the last one."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("90", 90.0), ("90s", 90.0), ("15m", 900.0), ("1.5 h", 5400.0), ("7d", 604_800.0), (" 2 M ", 120.0)],
)
def test_a_time_is_read_with_the_units_of_the_handbook(text: str, seconds: float) -> None:
    """A plain number is seconds; m is minutes and never months or milliseconds."""
    assert parse_time(text) == seconds


@given(st.integers(0, 10**6), st.integers(0, 999), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " ", "  "]))
def test_any_number_with_any_unit_is_that_many_bytes(whole: int, thousandths: int, unit: str, gap: str) -> None:
    """Also fractions, which are cut to whole bytes."""
    exact = (whole + Fraction(thousandths, 1000)) * UNITS[unit]
    assert abs(parse_size(f"{whole}.{thousandths:03}{gap}{unit}") - exact) <= 1 + exact / 10**12


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "GB",
        "-1",
        "-5 GB",
        "1,5 GB",
        "1e9",
        "0x10",
        "1 GB 2",
        "1 EB",
        "1 byte",
        "inf",
        "nan",
        ".5",
        "5.",
        "5 m s",
        "1_000",
        "\u0665 GB",
        "ten",
        "9" * 400,
    ],
)
def test_what_is_no_size_and_no_time_is_a_value_error(text: str) -> None:
    """A knob that is misread would fill the disk."""
    for parse in (parse_size, parse_time):
        with pytest.raises(ValueError, match="is no"):
            parse(text)


@given(st.text(max_size=30) | st.text("0123456789. kKmMgGiIbBsSdDhH-+eE", max_size=12))
def test_any_text_is_a_quantity_or_a_value_error(text: str) -> None:
    """The configuration is text that people write."""
    for parse in (parse_size, parse_time):
        try:
            assert parse(text) >= 0
        except ValueError:
            continue


def test_the_defaults_are_those_of_the_handbook() -> None:
    """An EP without a single knob is a working one."""
    found = Settings.from_knobs({"LOCAL_DIR": "/var/lib/condor", "LOG": "/var/log/condor"})
    assert (found.root, found.socket) == ("/var/lib/condor/image_cache", "/var/lib/condor/image_cache/socket")
    assert found.log == "/var/log/condor/ImageCacheLog"
    assert (found.max_bytes, found.max_inodes, found.min_free_bytes) == (20 * 10**9, 0, 2 * 10**9)
    assert (found.high_watermark, found.low_watermark, found.min_age_s) == (90, 80, 120.0)
    assert (found.prefer, found.cvmfs_base, found.messages, found.allow) == ("auto", "/cvmfs", "always", ("*",))
    assert found.cvmfs_repositories == ("singularity.opensciencegrid.org",)
    assert (found.sif_sources, found.default_image, found.default_image_gpu) == ((), (), ())
    assert (found.tag_ttl_s, found.hook_deadline_s, found.stall_timeout_s) == (900.0, 1200.0, 60.0)
    assert found.min_rate_bytes == 10**6


@pytest.mark.parametrize("name", knob_names())
@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_knob_has_its_default(name: str, text: str) -> None:
    """An admin empties a knob to be rid of it."""
    base = {"LOCAL_DIR": "/local", "LOG": "/log"}
    assert Settings.from_knobs({**base, name: text}) == Settings.from_knobs(base)


@pytest.mark.parametrize("local", [{}, {"LOCAL_DIR": "/local"}, {"LOCAL_DIR": ""}, {"IMAGE_CACHE_DIR": "/srv/cache/"}])
def test_the_socket_lies_in_the_root_unless_told_otherwise(local: dict[str, str]) -> None:
    """Hook and manager have to find the same one."""
    found = Settings.from_knobs(local)
    assert found.socket.replace("//", "/") == f"{found.root}/socket"


FAULTS = {
    "DIR": "relative/path",
    "SOCKET": "socket",
    "MAX_BYTES": "20 gallons",
    "MAX_INODES": "-1",
    "HIGH_WATERMARK": "101",
    "LOW_WATERMARK": "0",
    "MIN_AGE": "soon",
    "PREFER": "docker",
    "SIF_SOURCES": "host.example/v2",
    "DEFAULT_IMAGE": "../rocky",
    "DEFAULT_IMAGE_GPU": "0%__htc/rocky:9",
    "TAG_TTL": "15 minutes",
    "MIN_RATE": "fast",
    "MESSAGES": "sometimes",
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_knob_that_cannot_be_meant_is_named_with_its_value(name: str) -> None:
    """The message is what the admin sees in the log and in ImageCacheReason."""
    with pytest.raises(SettingsError, match=f"^IMAGE_CACHE_{name}: ") as caught:
        knobs(**{name: FAULTS[name]})
    assert FAULTS[name].removesuffix("%__htc/rocky:9") in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@given(st.sets(st.sampled_from(sorted(FAULTS)), min_size=2))
def test_all_faults_are_told_at_once(names: set[str]) -> None:
    """An admin mends a file once, and not once for each knob."""
    with pytest.raises(SettingsError) as caught:
        knobs(**{name: FAULTS[name] for name in names})
    assert {part.partition(":")[0] for part in str(caught.value).split("; ")} >= {f"IMAGE_CACHE_{n}" for n in names}


def test_watermarks_in_the_wrong_order_are_told_beside_other_faults() -> None:
    """Background eviction would never end, or never begin."""
    with pytest.raises(SettingsError, match="LOW_WATERMARK: is above the high one"):
        knobs(HIGH_WATERMARK="50", LOW_WATERMARK="60")
    with pytest.raises(SettingsError, match="LOW_WATERMARK"):
        knobs(HIGH_WATERMARK="50", LOW_WATERMARK="60", MAX_BYTES="many")
    assert knobs(HIGH_WATERMARK="70%", LOW_WATERMARK="70").low_watermark == 70


@pytest.mark.parametrize("text", ["https://a.example/v2 file:///srv/v2", "https://a.example/v2,file:///srv/v2"])
def test_lists_are_separated_by_blanks_or_commas(text: str) -> None:
    """HTCondor's own lists take both."""
    assert knobs(SIF_SOURCES=text).sif_sources == ("https://a.example/v2", "file:///srv/v2")


@pytest.mark.parametrize(
    "text", ["htc/rocky:9", "70%__htc/rocky:9 30%__htc/almalinux:9", "0%__a/b:1 5%__htc/rocky:9", "100%__docker:24"]
)
def test_a_default_image_is_always_one_of_those_named(text: str) -> None:
    """A weight of zero switches one off."""
    found = {image.short for slot in range(50) if (image := knobs(DEFAULT_IMAGE=text).default_for(f"slot{slot}", 0))}
    assert found <= {word.rpartition("%__")[2] for word in text.split() if not word.startswith("0%")}
    assert found


@pytest.mark.parametrize(
    "text", ["70%__htc/rocky:9, 30%__htc/almalinux:9", "1000%__htc/rocky:9", "70.5%__htc/rocky:9", "70%__", "./a.sif"]
)
def test_a_default_image_that_would_be_a_file_of_the_job_is_refused(text: str) -> None:
    """No job brings it along: each job without an image would be held for a file that it never named."""
    with pytest.raises(SettingsError, match="IMAGE_CACHE_DEFAULT_IMAGE"):
        knobs(DEFAULT_IMAGE=text)


@given(st.text(max_size=40), st.integers(0, 4))
def test_a_slot_keeps_its_default_image(slot: str, gpus: int) -> None:
    """A job that comes back to the slot finds the image that it had."""
    text = "70%__htc/rocky:9 20%__htc/almalinux:9 10%__htc/debian:12"
    one, other = knobs(DEFAULT_IMAGE=text), knobs(DEFAULT_IMAGE=text, MAX_BYTES="1 GB")
    assert one.default_for(slot, gpus) == other.default_for(slot, gpus)


@pytest.mark.parametrize("weights", [(70, 30), (50, 50), (90, 9, 1), (1, 1, 1, 1), (100, 300)])
def test_over_many_slots_the_images_have_their_shares(weights: tuple[int, ...]) -> None:
    """4,000 slots: each share is within three percent of the whole."""
    settings = knobs(DEFAULT_IMAGE=" ".join(f"{weight}%__img/{number}:1" for number, weight in enumerate(weights)))
    chosen = Counter(settings.default_for(f"slot1_{n % 64}@ep{n // 64}.example", 0) for n in range(4000))
    shares = {image.short: count / 4000 for image, count in chosen.items() if image is not None}
    for number, weight in enumerate(weights):
        assert shares.get(f"img/{number}:1", 0) == pytest.approx(weight / sum(weights), abs=0.03)


def test_slots_with_gpus_fall_back_to_the_common_default() -> None:
    """An empty GPU list means: as the others."""
    both = knobs(DEFAULT_IMAGE="htc/rocky:9", DEFAULT_IMAGE_GPU="htc/rocky:9-cuda")
    one = knobs(DEFAULT_IMAGE="htc/rocky:9")
    gpu_only = knobs(DEFAULT_IMAGE_GPU="htc/rocky:9-cuda")
    names = [found and found.short for found in (both.default_for("s", 1), both.default_for("s", 0))]
    assert names == ["htc/rocky:9-cuda", "htc/rocky:9"]
    assert one.default_for("s", 1) == one.default_for("s", 0) != None  # noqa: E711 - the chain reads as it is meant
    assert gpu_only.default_for("s", 0) is None


def test_the_readme_table_tells_every_knob() -> None:
    """A knob that is not written down does not exist for an admin."""
    rows = table_markdown().splitlines()[2:]
    assert len(rows) == len(fields(Settings)) == len(set(knob_names()))
    assert all(
        row.startswith(f"| {name} | ") and row.count("|") == 4 for name, row in zip(knob_names(), rows, strict=True)
    )

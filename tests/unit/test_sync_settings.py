"""sync.yaml, as a publisher writes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sync.options import Compression, Registry
from sync.settings import Settings, SettingsError, options_documented

LEAST = "image_list: /srv/images.txt\nsif:\n  directory: /srv/sif\n"


def test_what_is_not_written_has_its_default() -> None:
    """Three lines are a configuration."""
    found = Settings.from_yaml(LEAST)
    assert (found.image_list, found.sif_directory, found.cvmfs_directory) == ("/srv/images.txt", "/srv/sif", "")
    assert (found.engine, found.workers, found.architectures) == ("local", 2, ("x86_64",))
    assert (found.sandboxes_grace_s, found.sifs_grace_s, found.max_removals) == (172_800, 864_000, 50)
    assert (found.size_limit_bytes, found.compression) == (10_000_000_000, Compression("zstd", 3))
    assert found.registry("ghcr.io") == Registry()


def test_every_option_is_read_from_its_place() -> None:
    """Sections, lists, words with blanks between, and registries by host and port."""
    found = Settings.from_yaml("""
image_list: https://forge.example.org/raw/images.txt?ref=main
cvmfs: {repository: images.example.org}
sif:
  url: https://origin.example.org/images/v2/
  credentials_file: /etc/sync/origin
architectures: [aarch64, x86_64]
workers: 8
engine: HTCondor
registries:
  Docker.io: {credentials_file: /etc/sync/hub}
  localhost:5000:
    insecure: yes
    connections: 3
grace: {links: 1h, sandboxes: 5d, sifs: 30d}
max_removals: 0
size_limit: 30 GB
compression: gzip
batch: 5
authoritative: htc library
""")
    assert found.sif_url == "https://origin.example.org/images/v2"
    assert found.architectures == ("aarch64", "x86_64")
    assert found.registry("docker.io").credentials_file == "/etc/sync/hub"
    assert found.registry("localhost:5000") == Registry(insecure=True, connections=3)
    assert (found.links_grace_s, found.max_removals, found.batch) == (3600, 0, 5)
    assert (found.compression, found.authoritative) == (Compression("gzip"), ("htc", "library"))


def test_all_faults_are_told_at_once_each_with_its_path() -> None:
    """Nobody wants to mend a file line by line."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_yaml("""
cvmfs: {repository: "no name", directory: relative/path}
sif: {directory: /a, url: "https://joe:s3cr3t@example.org/x"}
architectures: [amd64]
grace: {sandboxs: 2d, sifs: soon}
registries: {"localhost:5000": {insecure: perhaps, tls: no}, "bad host": {}}
workers: [1, 2]
compression: zstd-40
""")
    faults = str(caught.value).splitlines()
    assert {one.partition(": ")[0] for one in faults} == {
        "image_list",
        "cvmfs.repository",
        "cvmfs.directory",
        "sif.url",
        "architectures",
        "grace.sandboxs",
        "grace.sifs",
        "registries",
        "workers",
        "compression",
    }
    text = "\n".join(faults)
    assert "did you mean grace.sandboxes?" in text
    assert "here it is x86_64" in text
    assert "localhost:5000.insecure: is neither true nor false" in text
    assert "localhost:5000.tls: is no option" in text
    assert "s3cr3t" not in text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no mapping"),
        ("- a\n- b\n", "no mapping"),
        ("image_list: [\n", "line 2"),
        (LEAST + "sif: {directory: /other}\n", "line 4: 'sif' is there twice"),
        ("image_list: /a\n", "nothing says where to publish"),
        (LEAST + "cvmfs: yes\n", "cvmfs: is no section"),
        ("image_list: /a\ncvmfs: {directory: /b, repository: a.b}\n", "both a repository and a directory"),
        ("image_list: /a\nsif: {directory: /b, command: put-it}\n", "more than one of directory, url and command"),
        ("image_list: /a\nsif: {directory: /b, credentials_file: /c}\n", "only for sif.url"),
        (LEAST + "work_directory: /srv/sif\n", "work_directory: sif.directory lies in it"),
        (LEAST + "work_directory: /srv\n", "work_directory: image_list lies in it"),
        (LEAST + "work_directory: /\n", "work_directory: state_directory lies in it"),
        (LEAST + "work_directory: /var/lib/condor_image_sync\n", "work_directory: state_directory lies in it"),
        ("[" * 5000, "nested too deeply"),
        ("? [a]\n: b\n", "no name"),
    ],
)
def test_a_file_that_is_no_configuration_says_why(text: str, why: str) -> None:
    """Also what YAML alone would let pass: a key that is there twice."""
    with pytest.raises(SettingsError, match=why):
        Settings.from_yaml(text)


def test_the_documented_example_is_a_configuration() -> None:
    """Also with every option in it set to its default."""
    example = (Path(__file__).parents[2] / "docs" / "sync.yaml").read_text(encoding="utf-8")
    assert Settings.from_yaml(example).registry("docker.io").credentials_file
    given = re.sub(r"^( *)# ([a-z_]+:(?: |$))", r"\1\2", example, flags=re.MULTILINE)
    assert Settings.from_yaml(given) == Settings.from_yaml(example)
    for path, _, meaning in options_documented():
        assert meaning
        assert f"{path.rpartition('.')[2]}:" in example

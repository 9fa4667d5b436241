"""The list against Debian's docker-registry: resolved, checked for a pull request, and one HEAD each when unchanged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sync.__main__ import main
from sync.imagelist import ImageList
from sync.resolution import Known, Resolution
from sync.resolve import Resolver, connect
from sync.settings import Settings
from tests.pool.registry import DockerRegistry

AMD = b'{"architecture": "amd64", "os": "linux"}'
ARM = b'{"architecture": "arm64", "os": "linux"}'
SETTINGS = Settings(architectures=("x86_64", "aarch64"), size_limit_bytes=50_000)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """Give a registry with images for one and for two architectures, a large one, and one with 250 tags."""
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as one:
        amd = one.push("htc/many:amd", AMD, b"a" * 1000)
        arm = one.push("htc/many:arm", ARM, b"b" * 2000)
        one.push_index("htc/many:1", amd64=amd, arm64=arm)
        one.push("htc/rocky:9", AMD, b"c" * 3000)
        one.push("htc/large:1", AMD, bytes(90_000))
        for number in range(250):
            one.push(f"htc/nightly:el9-{number:03}", AMD, b"d")
        yield one


def resolve(registry: DockerRegistry, known: Known, *names: str) -> Resolution:
    images = ImageList.parse("".join(f"{registry.host}/{name}\n" for name in names).encode())
    client = connect(SETTINGS)
    try:
        return Resolver(client, SETTINGS, known).resolve(images)
    finally:
        client.close()


def requests(registry: DockerRegistry) -> list[str]:
    """Return the requests for manifests so far, as the registry logged them."""
    asked = re.findall(r'"((?:GET|HEAD) /v2/[^ "]+/manifests/[^ "]+)', registry.log)
    return [str(one) for one in asked]


def test_a_list_is_resolved_and_costs_one_head_each_when_it_is_unchanged(registry: DockerRegistry) -> None:
    """As the registry itself has logged it."""
    names = ("htc/many:1", "htc/rocky:9", "htc/large:1", "htc/gone:1")
    first = resolve(registry, {}, *names)
    found = first.resolved["htc/many:1"]
    assert [(one.arch, one.compressed_bytes) for one in found.variants] == [("x86_64", 1000), ("aarch64", 2000)]
    assert {name: one.why.partition(" (")[0] for name, one in first.failures.items()} == {
        "htc/large:1": "too large for x86_64",
        "htc/gone:1": "no such image in its registry",
    }
    before = len(requests(registry))
    assert resolve(registry, first.known, *names) == first
    made = requests(registry)[before:]
    assert sorted(one.split()[0] for one in made) == ["HEAD"] * 4


def test_a_pattern_stands_for_every_tag_of_every_page(registry: DockerRegistry) -> None:
    """The registry lists a hundred at a time."""
    found = resolve(registry, {}, "htc/nightly:el9-1*", "htc/nightly:*9")
    assert len(found.resolved) == 100 + 25 - 10
    assert not found.failures


def test_a_pull_request_is_checked(
    registry: DockerRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table names what cannot be published, and why."""
    path = tmp_path / "images.txt"
    lines = ("htc/many:1", "htc/large:1", "htc/gone:1", "htc/nightly:*")
    path.write_text("".join(f"{registry.host}/{one}\n" for one in lines), encoding="ascii")
    assert main(["verify", "--json", "--size-limit", "50KB", str(path)]) == 1
    found = {one["line"]: (one["is"], one["what"]) for one in json.loads(capsys.readouterr().out)}
    assert {line: opinion for line, (opinion, _) in found.items()} == {1: "ok", 2: "no", 3: "no", 4: "ok"}
    assert found[4][1].startswith("stands for 250 tags; 3 looked at")

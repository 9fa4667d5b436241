"""The generated parts of the documentation: `python -m tests.docs --write` writes them, a test compares them."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Final

from cache_manager import settings, status
from cache_manager.condorconfig import Installation, render
from sync import settings as sync_settings

ROOT: Final = Path(__file__).resolve().parents[1]
README: Final = ROOT / "README.md"
COUNTED: Final = ROOT / "docs" / "reliability.json"
FUZZED: Final = ROOT / "docs" / "fuzz.json"
DROP_IN: Final = ROOT / "condor_config.d" / "50-image-cache.conf"
PILOT: Final = ROOT / "condor_config.d" / "50-image-cache-pilot.conf"

SYNC_YAML: Final = ROOT / "docs" / "sync.yaml"

CANONICAL: Final = Installation(
    command="/opt/htcondor-image-cache/bin/condor_image_cache",
    hook="/opt/htcondor-image-cache/lib/python3.11/site-packages/hooks/prepare-job",
    python="/usr/bin/python3",
    binds=("/cvmfs",),
    reserved_mb=20000,
    plugin="/opt/htcondor-image-cache/bin/image_cache_plugin",
    next_plugins="http,https=/usr/libexec/condor/curl_plugin osdf,stash,pelican=/usr/libexec/condor/stash_plugin",
)
"""The committed example; `condor_image_cache config` prints the one for an installation."""


def reliability() -> str:
    """Return what the last `make bench` counted."""
    found = json.loads(COUNTED.read_text(encoding="ascii"))
    fuzzed = json.loads(FUZZED.read_text(encoding="ascii"))
    return (
        "| what was done to it | how often | lost, partial, or counted wrong |\n|---|---|---|\n"
        f"| `kill -9` of the manager under load | {found['kills']:,} | nothing: {found['jobs']:,} waiting or running"
        " jobs kept or got their images |\n"
        "| a start on what a crash, a half-written file or a power loss leaves, at each file operation |"
        f" {found['moments']:,} | nothing |\n"
        f"| inputs that a fuzzer made for {fuzzed['parsers']} parsers of what others send, in {fuzzed['seconds']:,} s |"
        f" {fuzzed['inputs']:,} | nothing: no crash, no hang, no growth |\n"
    )


SYNC_EXAMPLE: Final = {
    "image_list": "https://raw.githubusercontent.com/example/images/main/images.txt",
    "cvmfs.repository": "images.example.org",
    "sif.directory": "/srv/origin/images/v2",
    "registries.HOST.credentials_file": "/etc/condor/sync.d/hub",
}
"""What docs/sync.yaml sets; every other option is there as a comment, with its default."""


def sync_yaml() -> str:
    """Return the publisher's configuration with every option explained."""
    lines = ["# /etc/condor/sync.yaml: what condor_image_sync publishes, and where. Sizes: 10 GB; times: 15m, 2d."]
    section: list[str] = []
    for path, default, meaning in sync_settings.options_documented():
        given = path in SYNC_EXAMPLE
        *above, name = ["docker.io" if part == "HOST" else part for part in path.split(".")]
        fresh = [
            f"{'  ' * depth}{part}:" for depth, part in enumerate(above) if section[: depth + 1] != above[: depth + 1]
        ]
        section = above
        indent = "  " * len(above)
        value = SYNC_EXAMPLE.get(path, default)
        if not above or fresh:
            lines.append("")
        lines += fresh
        lines += textwrap.wrap(meaning, 110, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        if path != "registries":
            lines.append(f"{indent}{'' if given else '# '}{name}: {value}".rstrip())
    return "\n".join(lines) + "\n"


def expected() -> dict[Path, str]:
    """Return what each generated file has to hold."""
    readme = README.read_text(encoding="utf-8")
    tables = {"status": status.table_markdown(), "knobs": settings.table_markdown(), "reliability": reliability()}
    for name, table in tables.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        readme = pattern.sub(lambda found, table=table: f"{found[1]}{table}{found[2]}", readme)  # type: ignore[misc]
    pilot = replace(CANONICAL, user="", reserved_mb=0)
    return {README: readme, DROP_IN: render(CANONICAL), PILOT: render(pilot), SYNC_YAML: sync_yaml()}


if __name__ == "__main__":
    for path, text in expected().items():
        if "--write" in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path.name} is not what `make docs` writes")

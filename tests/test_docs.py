"""What is written down is what the code does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from cache_manager.__main__ import COMMANDS
from cache_manager.status import HookStatus
from sync import __main__ as publisher
from tests import docs


@pytest.mark.parametrize("path", list(docs.expected()), ids=lambda path: path.name)
def test_generated_documents_are_up_to_date(path: Path) -> None:
    """`make docs` writes them."""
    assert path.read_text(encoding="utf-8") == docs.expected()[path]


def test_the_readme_has_every_status_and_every_command() -> None:
    """The markers are there, so the tables are."""
    readme = docs.README.read_text(encoding="utf-8")
    assert all(f"| {status.code} | {status.name} |" in readme for status in HookStatus)
    assert all(f"`{command}`" in readme or f"condor_image_cache {command}" in readme for command in COMMANDS)
    publishing = readme.partition("## Publish images")[2].partition("\n## ")[0]
    assert all(f"| `{command}`" in publishing for command in publisher.COMMANDS)


def test_the_hooks_codes_are_those_of_the_table() -> None:
    """The hook imports nothing of ours: its codes are literals."""
    literals: dict[str, str] = {}
    for name in ("prepare_job.py", "degraded.py", "next_hook.py"):
        text = (docs.ROOT / "hooks" / name).read_text(encoding="utf-8")
        literals |= dict(re.findall(r"^([A-Z_]+) = (\d{3})$", text, re.MULTILINE))
    assert {name: int(code) for name, code in literals.items()} == {
        "INTERNAL_ERROR": HookStatus.HOOK_INTERNAL_ERROR.code,
        "DEADLINE_EXCEEDED": HookStatus.DEADLINE_EXCEEDED.code,
        "MANAGER_DOWN": HookStatus.CACHE_MANAGER_DOWN.code,
    }


def test_every_threat_of_the_security_page_has_a_test_that_exists() -> None:
    """A row without one is a wish."""
    page = (docs.ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    table = page.partition("## Threats")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    sources = [path.read_text(encoding="utf-8") for path in sorted((docs.ROOT / "tests").rglob("test_*.py"))]
    known = {name for text in sources for name in re.findall(r"^(?:async )?def (test_\w+)\(", text, re.MULTILINE)}
    assert len(rows) > 20
    for threat, *_, shown in rows:
        named = re.findall(r"`(test_\w+)`", shown)
        assert named, threat
        assert set(named) <= known, f"{threat}: {set(named) - known}"


def test_the_workflow_for_pull_requests_needs_no_secret_and_runs_our_command() -> None:
    """Whoever copies it finds that out on a forge only."""
    text = (docs.ROOT / "packaging" / "github" / "verify-images.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in text
    assert "pull_request_target" not in text
    steps = [one["run"] for one in workflow["jobs"]["verify"]["steps"] if "run" in one]
    (command,) = (one for one in steps if one.startswith("condor_image_sync verify "))
    found = publisher.PROGRAM.parser_of("verify").parse_args(shlex.split(command)[2:])
    assert (found.base, str(found.file), found.architectures) == ("$BASE", "images.txt", ("x86_64",))

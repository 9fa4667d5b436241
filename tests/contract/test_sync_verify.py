"""The check of a pull request: `condor_image_sync verify`, in real git repositories, against a registry on loopback."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sync.__main__ import COMMANDS, main
from sync.changed import GitError, changed_lines
from tests.unit.registry_server import Registry, Said, manifest

AMD = b'{"architecture": "amd64", "os": "linux"}'
ARM = b'{"architecture": "arm64", "os": "linux"}'
WHO = ("-c", "user.name=joe", "-c", "user.email=joe@example.org", "-c", "commit.gpgsign=false")


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Give a registry with a few images."""
    one = Registry()
    one.push("htc/rocky:9", manifest(AMD, bytes(1000)), AMD)
    one.push("htc/large:1", manifest(AMD, bytes(90_000)), AMD)
    one.push("htc/arm:1", manifest(ARM, b"arm"), ARM)
    for tag in ("v1", "v2", "v3", "v4"):
        one.push(f"htc/many:{tag}", manifest(AMD, bytes(1000), tag.encode()), AMD)
    tags = json.dumps({"name": "htc/many", "tags": ["v1", "v2", "v3", "v4"]}).encode()
    one.answers["/v2/htc/many/tags/list?n=1000"] = Said(tags)
    yield one
    one.close()


Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, registry: Registry) -> Write:
    """Give what writes the list; `R` stands for the registry."""

    def to(text: str) -> Path:
        path = tmp_path / "images.txt"
        path.write_text(text.replace("R/", f"{registry.host}/"))
        return path

    return to


def git(where: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", where, *WHO, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(where: Path) -> str:
    git(where, "add", "-A")
    git(where, "commit", "-qm", "change")
    return git(where, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Give an empty git repository."""
    git(tmp_path, "init", "-q", "-b", "main")
    return tmp_path


def verdicts(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[int, tuple[str, str]]]:
    """Run it; return its exit status, and for each line what is said."""
    status = main(["verify", "--json", *map(str, words)])
    found = json.loads(capsys.readouterr().out)
    return status, {one["line"]: (one["is"], one["what"]) for one in found}


def test_each_line_gets_its_verdict(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Grammar, existence, architecture, size, and how much a pattern stands for; all of them at once."""
    path = write(
        "# Physics\nR/htc/rocky:9\nR/htc/large:1\nR/htc/arm:1\nR/htc/gone:1\nHTC/Rocky\n"
        "R/htc/many:*\nR/htc/none:*\nR/htc/many:x*\n\nlocalhost:1/a/b:1\n"
    )
    status, found = verdicts(capsys, "--size-limit", "50 KB", path)
    assert status == 1
    assert {line: opinion for line, (opinion, _) in found.items()} == {
        2: "ok",
        3: "no",
        4: "no",
        5: "no",
        6: "no",
        7: "ok",
        8: "no",
        9: "no",
        11: "not known",
    }
    assert found[2][1].startswith("x86_64 1.0 kB compressed, sha256:")
    assert "too large for x86_64 (90.0 kB compressed, the limit is 50.0 kB)" in found[3][1]
    assert "not for x86_64; there is: aarch64" in found[4][1]
    assert "404" in found[5][1]
    assert "did you mean htc/rocky?" in found[6][1]
    assert found[7][1] == "stands for 4 tags; 3 looked at, up to 1.0 kB compressed, about 4.0 kB in all"
    assert "404" in found[8][1]
    assert "no tag of the repository fits it" in found[9][1]
    assert "could not be looked at" in found[11][1]


def test_a_waiver_of_the_list_is_told(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever merges it has to see that."""
    path = write("images:\n- image: R/htc/large:1\n  size_limit: 1 MB\n")
    status, found = verdicts(capsys, "--size-limit", "50KB", "--architectures", "x86_64,aarch64", path)
    assert status == 0
    assert found[2][1].endswith("the list allows it 1.0 MB")


def test_only_changed_lines_are_looked_at(
    repository: Path, write: Write, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is broken elsewhere is not this change's fault, and is not asked for."""
    write("R/htc/gone:1\nBROKEN/line\nR/htc/rocky:9\n# words\n")
    base = commit(repository)
    path = write("R/htc/gone:1\nBROKEN/line\nR/htc/large:1\nR/htc/rocky:9\n# other words\n")
    status, found = verdicts(capsys, "--base", base, path)
    assert (status, list(found)) == (0, [3])
    assert registry.asked("HEAD", "htc/gone") == []
    assert main(["verify", "--base", base, str(path)]) == 0
    table = capsys.readouterr().out
    assert "1 of 1 can be published." in table
    assert "Broken lines elsewhere in the file, which are not this change's: 1." in table


def test_a_change_of_the_base_since_then_is_not_the_branchs(
    repository: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line that main took away is no new line of ours."""
    write("R/htc/gone:1\nR/htc/rocky:9\n")
    commit(repository)
    git(repository, "switch", "-qc", "ours")
    path = write("R/htc/gone:1\nR/htc/rocky:9\nR/htc/large:1\n")
    commit(repository)
    git(repository, "switch", "-q", "main")
    write("R/htc/rocky:9\n")
    commit(repository)
    git(repository, "switch", "-q", "ours")
    assert verdicts(capsys, "--base", "main", path)[1].keys() == {3}


def test_a_clash_is_the_fault_of_whoever_changed_either_line(
    repository: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the new line is the first of the two."""
    write("# words\nR/htc/rocky:9\n")
    base = commit(repository)
    path = write("R/htc/rocky:9\n# words\nR/htc/rocky:9\n")
    status, found = verdicts(capsys, "--base", base, path)
    assert status == 1
    assert ("no", "the same image as in line 1") in found.values()


def test_lines_that_go_away_need_no_check(repository: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Taking an image out of the list is always possible."""
    write("R/htc/gone:1\nR/htc/rocky:9\n")
    base = commit(repository)
    path = write("R/htc/rocky:9\n")
    assert main(["verify", "--base", base, str(path)]) == 0
    assert "No line with an image is new or changed." in capsys.readouterr().out


def test_a_change_cannot_hide_its_lines_from_git(repository: Path, write: Write) -> None:
    """By attributes or settings that come with it."""
    write("R/htc/rocky:9\n")
    base = commit(repository)
    path = write("R/htc/rocky:9\nR/htc/new:1\n")
    (repository / ".gitattributes").write_text("images.txt -diff binary\n")
    git(repository, "config", "diff.external", "true")
    git(repository, "config", "color.ui", "always")
    assert changed_lines(path, base) == {2}


def test_a_file_that_is_new_is_changed_in_every_line(repository: Path, write: Write) -> None:
    """Also when nobody added it to git's index, and whatever its name."""
    (repository / "other").write_text("x")
    base = commit(repository)
    path = write("R/htc/rocky:9\nR/htc/new:1\n").rename(repository / "-- *[x].txt")
    git(repository, "add", "-A")
    assert changed_lines(path, base) == {1, 2}


@pytest.mark.parametrize("base", ["nothing", "--output=x", "-h", ""])
def test_a_revision_that_is_none_is_wrong_usage(
    repository: Path, write: Write, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what git says; nothing of it is an option."""
    path = write("R/htc/rocky:9\n")
    commit(repository)
    with pytest.raises(GitError):
        changed_lines(path, base)
    assert main(["verify", f"--base={base}", str(path)]) == 2
    assert str(path) in capsys.readouterr().err
    assert not (repository / "x").exists()


def test_a_private_image_is_refused_whatever_the_publisher_may_read(
    write: Write, registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check asks as anybody would: what needs a password may not become public."""
    registry.users, registry.private = {"joe": "word"}, {"htc/rocky"}
    secret = tmp_path / "secret"
    secret.write_text("joe:word")
    secret.chmod(0o600)
    config = tmp_path / "sync.yaml"
    config.write_text(
        f"image_list: /list\nsif: {{directory: /srv}}\n"
        f"registries: {{'{registry.host}': {{credentials_file: {secret}}}}}\n"
    )
    status, found = verdicts(capsys, "--config", config, write("R/htc/rocky:9\n"))
    assert (status, found[1][0]) == (1, "no")
    assert "without a credential" in found[1][1]


def test_nothing_of_a_list_is_read_as_markdown(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """A pull request comes from anybody, and its table is shown to who merges it."""
    path = write("a/b:1|x\n<img src=x>\n[a](http://x)\n`@root`\n")
    assert main(["verify", str(path)]) == 1
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 4
    for row in rows:
        outside = "".join(row.split("`")[::2])
        assert not {"<", "[", "@"} & set(outside), row
        assert row.replace("\\|", "").count("|") == 5, row


def test_the_table_goes_to_the_page_of_the_workflow_too(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was there stays."""
    page = tmp_path / "summary.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    assert main(["verify", str(write("R/htc/rocky:9\n"))]) == 0
    assert page.read_text() == f"before\n{capsys.readouterr().out}\n"


@pytest.mark.parametrize(
    "words",
    [["verify"], ["verify", "/nonexistent"], ["plan", "--config", "/nonexistent"], ["nothing"], ["verify", "/"]],
)
def test_wrong_usage_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With a word on stderr, and nothing on stdout."""
    try:
        status = main(words)
    except SystemExit as end:
        status = int(str(end.code))
    said = capsys.readouterr()
    assert (status, said.out) == (2, "")
    assert said.err


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And can print JSON."""
    with pytest.raises(SystemExit):
        main([name, "--help"])
    said = capsys.readouterr().out
    assert f"example:\n  condor_image_sync {name}" in said
    assert "--json" in said


def test_the_plan_is_printed_and_nothing_is_done(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table with reasons, or JSON; 1 where an image cannot be resolved."""
    state = tmp_path / "state"
    config = tmp_path / "sync.yaml"
    path = write("R/htc/rocky:9\nR/htc/gone:1\n")
    config.write_text(f"image_list: {path}\nsif: {{directory: {tmp_path}/sif}}\nstate_directory: {state}\n")
    assert main(["plan", "--config", str(config)]) == 1
    said = capsys.readouterr().out
    assert "not published yet (1.0 kB compressed)" in said
    assert said.endswith("1 convert, 1 wait\n")
    assert main(["plan", "--config", str(config), "--json", "--only", "htc/rocky:9"]) == 0
    (step,) = json.loads(capsys.readouterr().out)["actions"]
    assert (step["verb"], step["arch"], step["forms"]) == ("convert", "x86_64", ["sif"])
    assert not state.exists()
    assert not os.path.lexists(tmp_path / "sif")
    assert main(["plan", "--config", str(config), "--only", "htc/other:1"]) == 1
    assert "not listed" in capsys.readouterr().err


def test_a_run_tells_programs_what_became_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing else is on stdout; 1 where an image failed."""
    path = tmp_path / "images.txt"
    path.write_text("localhost:1/a/b:1\n")
    config = tmp_path / "sync.yaml"
    config.write_text(
        f"image_list: {path}\nsif: {{directory: {tmp_path}/sif}}\nstate_directory: {tmp_path}/state\n"
        f"work_directory: {tmp_path}/work\nregistry_patience: 2s\n"
    )
    assert main(["run", "--json", "--config", str(config)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert ([one["name"] for one in found["failed"]], found["published"]) == (["a/b:1"], [])
    assert found["failed"][0]["transient"]

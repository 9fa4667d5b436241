"""Files with credentials: whose they are, and what is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sync import credentials
from sync.credentials import Credentials, CredentialsError
from sync.options import Registry
from sync.settings import Settings


def file_with(path: Path, raw: bytes, mode: int = 0o600) -> str:
    path.write_bytes(raw)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"joe:pass:word\n", Credentials("joe", "pass:word")),
        (b"abcdef0123", Credentials("", "abcdef0123")),
    ],
)
def test_a_line_is_user_and_password_or_a_token(tmp_path: Path, raw: bytes, found: Credentials) -> None:
    """A password may have colons."""
    assert credentials.read(file_with(tmp_path / "file", raw)) == found


def test_what_is_in_it_is_not_shown() -> None:
    """Neither by a log line nor by a traceback that shows the value."""
    assert "word" not in repr(Credentials("joe", "word"))
    assert "joe" not in str(Credentials("joe", "word"))


@pytest.mark.parametrize(
    ("raw", "mode", "why"),
    [
        (b"joe:s3cr3t", 0o640, "others may read or write it .mode 0640, wanted 0600."),
        (b"joe:s3cr3t", 0o602, "mode 0602"),
        (b"", 0o600, "is no line"),
        (b"joe:s3cr3t\nsecond", 0o600, "is no line"),
        (b"\xff\xfes3cr3t", 0o600, "is no line"),
        (b"s3cr3t" * 20000, 0o600, "is no line"),
    ],
)
def test_a_file_that_others_may_read_or_that_holds_none_is_refused(
    tmp_path: Path, raw: bytes, mode: int, why: str
) -> None:
    """With its name, and without a word of what is in it."""
    path = file_with(tmp_path / "file", raw, mode)
    with pytest.raises(CredentialsError, match=why) as caught:
        credentials.read(path)
    assert path in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With the system's reason."""
    with pytest.raises(CredentialsError, match="missing: No such file"):
        credentials.read(str(tmp_path / "missing"))


def test_each_fault_names_the_option_that_leads_to_its_file(tmp_path: Path) -> None:
    """All at once, for an admin who corrects sync.yaml; a file alone does not say which registry it is for."""
    token = file_with(tmp_path / "token", b"s3cr3t")
    files = {"a.example.org": str(tmp_path / "none"), "b.example.org": token}
    registries = {host: Registry(credentials_file=file) for host, file in files.items()}
    with pytest.raises(CredentialsError) as caught:
        credentials.for_registries(Settings(registries=registries))
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"registries.a.example.org.credentials_file: {tmp_path}/none: No such file")
    assert second.startswith(f"registries.b.example.org.credentials_file: {token}: a registry wants `user:password`")

"""HTCondor's configuration, read by a real child with the real bindings."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache_manager.configuration import ConfigurationError, read_knobs
from cache_manager.settings import Settings


def use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """Make a file the configuration."""
    file = tmp_path / "condor_config"
    file.write_text(f"LOCAL_DIR = {tmp_path}\nLOG = $(LOCAL_DIR)/log\n{text}")
    monkeypatch.setenv("CONDOR_CONFIG", str(file))


def test_knobs_are_read_with_their_macros_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As every daemon of HTCondor reads them; also what the environment sets."""
    use(
        monkeypatch,
        tmp_path,
        "IMAGE_CACHE_DIR = $(LOCAL_DIR)/cache\n"
        "IMAGE_CACHE_MAX_BYTES = 1 GB\n"
        "IMAGE_CACHE_DEFAULT_IMAGE = 70%__htc/rocky:9 30%__htc/almalinux:9\n"
        "IMAGE_CACHE_SIF_SOURCES = \\\n  https://a.example/v2 \\\n  file:///srv/v2\n"
        "IMAGE_CACHE_ALLOW =\n"
        "image_cache_prefer = sif\n",
    )
    monkeypatch.setenv("_CONDOR_IMAGE_CACHE_MAX_BYTES", "2 GB")
    settings = Settings.from_knobs(read_knobs())
    assert settings.root == f"{tmp_path}/cache"
    assert settings.socket == f"{tmp_path}/cache/socket"
    assert settings.log == f"{tmp_path}/log/ImageCacheLog"
    assert (settings.max_bytes, settings.prefer, settings.allow) == (2 * 10**9, "sif", ("*",))
    assert [weight for weight, _ in settings.default_image] == [70, 30]
    assert settings.sif_sources == ("https://a.example/v2", "file:///srv/v2")


def test_a_configuration_without_our_knobs_is_a_working_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everything has a default."""
    use(monkeypatch, tmp_path, "")
    assert Settings.from_knobs(read_knobs()).root == f"{tmp_path}/image_cache"


@pytest.mark.parametrize("text", ["if true\n", "IMAGE_CACHE_MAX_BYTES $ 1 GB\n", "include : /does/not/exist\n"])
def test_a_typing_error_is_told_and_ends_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """HTCondor's library ends the process that reads such a file: the manager must outlive it."""
    use(monkeypatch, tmp_path, text)
    with pytest.raises(ConfigurationError, match=r"HTCondor configuration: .") as caught:
        read_knobs()
    assert len(str(caught.value).splitlines()) == 1


def test_a_configuration_file_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """HTCondor's library would go on with defaults, and the cache with a root that nobody meant."""
    monkeypatch.setenv("CONDOR_CONFIG", str(tmp_path / "missing"))
    with pytest.raises(ConfigurationError, match=r"CONDOR_CONFIG names .*missing, which does not exist"):
        read_knobs()

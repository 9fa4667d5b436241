"""Credentials as values."""

from __future__ import annotations

import pytest

from cache_manager.credential import Credential, CredentialError


@pytest.mark.parametrize(
    "text", [b"abc.def-_~+/==", b"  abc.def-_~+/==\n", b'{"access_token": "abc.def-_~+/==", "expires_in": 1}']
)
def test_a_token_is_read_in_each_form_in_which_a_credmon_writes_it(text: bytes) -> None:
    """Plainly, or in what the issuer said."""
    assert Credential("igwn", text).bearer == "abc.def-_~+/=="


@pytest.mark.parametrize(
    "text",
    [b"", b"two words", b"line\r\nX-Forged: 1", b"\xff\xfe", b"{", b"{}", b'{"access_token": "a b"}', b"[" * 100_000],
)
def test_what_is_no_token_is_refused_without_being_told(text: bytes) -> None:
    """It would go into a header."""
    with pytest.raises(CredentialError) as caught:
        _ = Credential("igwn", text).bearer
    assert "igwn" in str(caught.value)
    assert "Forged" not in str(caught.value)

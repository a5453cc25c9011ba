"""Credentials of a known form are masked in any text."""

from __future__ import annotations

import pytest

from app.core.ids import new_id
from app.core.masking import mask_credentials
from app.core.security import new_api_key
from app.core.session_tokens import SessionTokens

KEY = new_api_key(new_id())


@pytest.mark.parametrize("text", ["{}", "the key {} is unknown", '{{"path": "/x/{}"}}', "{}, {}", "orr_{}"])
def test_an_api_key_is_masked(text: str) -> None:
    masked = mask_credentials(text.replace("{}", KEY))
    assert KEY.split("_", 2)[2] not in masked
    assert "orr_…" in masked


def test_the_tokens_of_a_session_are_masked() -> None:
    tokens = SessionTokens(b"s" * 32)
    access = tokens.access_token(user_id=new_id(), session_id=new_id(), org_id=new_id())
    assert mask_credentials(f"Bearer {access} refused") == "Bearer eyJ… refused"
    refresh = tokens.refresh_token(new_id(), 3)
    assert mask_credentials(f"refresh {refresh}.") == "refresh orf_…."


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://app:hunter2@db/x", "postgresql://app:…@db/x"),
        ("redis://:hunter2@127.0.0.1:6379/0", "redis://:…@127.0.0.1:6379/0"),
        ("see postgresql+asyncpg://a:b@c and d@e", "see postgresql+asyncpg://a:…@c and d@e"),
    ],
)
def test_the_password_of_a_url_is_masked(url: str, masked: str) -> None:
    assert mask_credentials(url) == masked


@pytest.mark.parametrize("text", ["orr_", "orr_short", "https://example.test:80/a", "mail a@b.c", ""])
def test_everything_else_stays(text: str) -> None:
    assert mask_credentials(text) == text

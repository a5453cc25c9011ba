"""Access, refresh and CSRF tokens: what is taken, and what is not."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey

from app.core.ids import new_id
from app.core.security import derive_key
from app.core.session_tokens import AUDIENCE, ISSUER, LEEWAY_S, TYPE, RefreshClaims, SessionTokens

SECRET = b"a secret of more than thirty-two bytes"
TOKENS = SessionTokens(SECRET, access_s=900)
IDS = {"user_id": new_id(), "session_id": new_id(), "org_id": new_id()}


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a good token; a change to None leaves the claim out."""
    now = int(time.time())
    good: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 900}
    good |= {"sub": str(IDS["user_id"]), "sid": str(IDS["session_id"]), "org": str(IDS["org_id"])}
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(body: dict[str, Any], *, algorithm: str = "HS256", typ: str = TYPE, secret: bytes = SECRET) -> str:
    key = OctKey.import_key(derive_key(secret, "access-tokens"))
    return jwt.encode({"alg": algorithm, "typ": typ}, body, key, [algorithm])


def encoded(part: Any) -> str:
    return urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def unsigned(header: Any) -> str:
    return f"{encoded(header)}.{encoded(claims())}."


def tampered(token: str) -> str:
    head, body, signature = token.split(".")
    found = json.loads(urlsafe_b64decode(body + "=="))
    return f"{head}.{encoded(found | {'sub': str(new_id())})}.{signature}"


class TestAccessToken:
    def test_says_who_and_where(self) -> None:
        found = TOKENS.read_access_token(TOKENS.access_token(**IDS))
        assert found
        assert {name: getattr(found, name) for name in IDS} == IDS

    def test_made_by_hand_with_all_claims_is_taken(self) -> None:
        assert TOKENS.read_access_token(signed(claims()))

    @pytest.mark.parametrize("name", ["iss", "aud", "sub", "sid", "org", "iat", "exp"])
    def test_needs_every_claim(self, name: str) -> None:
        assert TOKENS.read_access_token(signed(claims(**{name: None}))) is None

    @pytest.mark.parametrize(
        "changes",
        [
            {"iss": "another"},
            {"aud": "another"},
            {"aud": ["another"]},
            {"sub": "nobody"},
            {"sid": 7},
            {"org": ""},
            {"exp": "tomorrow"},
            {"exp": True},
            {"exp": 10**400},
            {"iat": 2**40},
            {"nbf": 2**40},
        ],
        ids=str,
    )
    def test_with_a_wrong_claim_is_refused(self, changes: dict[str, Any]) -> None:
        assert TOKENS.read_access_token(signed(claims(**changes))) is None

    def test_is_refused_when_it_has_expired(self) -> None:
        now = int(time.time())
        late = claims(iat=now - 1000, exp=now - LEEWAY_S - 1)
        assert TOKENS.read_access_token(signed(late)) is None
        assert TOKENS.read_access_token(signed(late), expired_too=True)

    def test_is_taken_by_a_clock_that_is_a_little_ahead(self) -> None:
        assert TOKENS.read_access_token(signed(claims(exp=int(time.time()) - 1)))

    @pytest.mark.parametrize("algorithm", ["none", "None", "HS384", "RS256", ["HS256"], None, 1, {}])
    def test_without_our_algorithm_is_refused(self, algorithm: Any) -> None:
        assert TOKENS.read_access_token(unsigned({"alg": algorithm, "typ": TYPE})) is None

    @pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
    def test_signed_with_our_key_by_another_algorithm_is_refused(self, algorithm: str) -> None:
        assert TOKENS.read_access_token(signed(claims(), algorithm=algorithm)) is None

    def test_of_another_type_is_refused(self) -> None:
        assert TOKENS.read_access_token(signed(claims(), typ="JWT")) is None

    def test_signed_with_another_key_is_refused(self) -> None:
        assert (
            TOKENS.read_access_token(signed(claims(), secret=b"another secret of thirty-two bytes")) is None
        )

    def test_that_was_changed_is_refused(self) -> None:
        token = TOKENS.access_token(**IDS)
        assert TOKENS.read_access_token(tampered(token)) is None
        assert TOKENS.read_access_token(token[:-2]) is None
        assert TOKENS.read_access_token(token + "=") is None

    def test_that_wants_more_of_its_reader_is_refused(self) -> None:
        for header in ({"crit": ["exp"]}, {"b64": False}, {"jwk": {"kty": "oct", "k": "AAAA"}}):
            assert TOKENS.read_access_token(unsigned({"alg": "HS256", "typ": TYPE} | header)) is None

    @given(st.text() | st.from_regex(r"\A[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}\Z"))
    def test_is_never_what_anybody_makes_up(self, token: str) -> None:
        assert TOKENS.read_access_token(token) is None

    @given(
        st.recursive(
            st.none() | st.booleans() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        )
    )
    def test_with_any_header_is_refused(self, header: Any) -> None:
        assert TOKENS.read_access_token(unsigned(header)) is None

    def test_nested_without_end_is_refused(self) -> None:
        deep = urlsafe_b64encode(b"[" * 3000).decode()
        assert TOKENS.read_access_token(f"{deep}.e30.e30") is None


class TestRefreshToken:
    def test_says_its_session_and_generation(self) -> None:
        session_id = new_id()
        token = TOKENS.refresh_token(session_id, 7)
        assert TOKENS.read_refresh_token(token) == RefreshClaims(session_id, 7)

    def test_is_one_for_each_session_and_generation(self) -> None:
        one, other = new_id(), new_id()
        tokens = [TOKENS.refresh_token(session_id, n) for session_id in (one, other) for n in (0, 1, 10)]
        assert len(set(tokens)) == len(tokens)
        assert TOKENS.refresh_token(one, 1) == tokens[1]

    def test_of_another_key_is_refused(self) -> None:
        assert TOKENS.read_refresh_token(SessionTokens(b"x" * 32).refresh_token(new_id(), 0)) is None

    def test_holds_for_its_session_and_generation_only(self) -> None:
        one, other = new_id(), new_id()
        token = TOKENS.refresh_token(one, 1)
        for changed in (
            token.replace(one.hex, other.hex),
            token.replace("_1_", "_2_", 1),
            token.replace("_1_", "_01_", 1),
            token.replace("_1_", "_١_", 1),
            token.upper(),
            f"{token}=",
            f"{token}\n",
            token[:-1],
        ):
            assert TOKENS.read_refresh_token(changed) is None

    def test_that_differs_in_one_character_is_refused(self) -> None:
        token = TOKENS.refresh_token(new_id(), 0)
        for place in range(len(token)):
            other = "B" if token[place] == "A" else "A"
            assert TOKENS.read_refresh_token(token[:place] + other + token[place + 1 :]) is None

    @pytest.mark.parametrize(
        "token",
        [
            *("", "orf", "orf_", "orf__x", f"orf_{'z' * 32}_0_x", f"orr_{UUID(int=1).hex}_0_x", "x" * 5000),
            f"orf_{'0' * 32}_{'9' * 4400}_{'a' * 43}",
            f"orf_{'0' * 32}_-1_{'a' * 43}",
        ],
    )
    def test_that_is_none_says_nothing(self, token: str) -> None:
        assert TOKENS.read_refresh_token(token) is None

    @given(st.text() | st.from_regex(r"\Aorf_[0-9a-f]{32}_[0-9]{1,18}_[\w-]{43}\Z"))
    def test_is_never_what_anybody_makes_up(self, token: str) -> None:
        assert TOKENS.read_refresh_token(token) is None


class TestCsrfToken:
    def test_is_bound_to_its_session(self) -> None:
        one, two = new_id(), new_id()
        assert TOKENS.csrf_token(one) == TOKENS.csrf_token(one) != TOKENS.csrf_token(two)

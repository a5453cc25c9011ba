"""What roles may do, and that keys only narrow it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.permissions import ALL, BY_ROLE, Permission, granted
from app.db.postgres.models.identity import Role


class TestRoles:
    def test_all_have_permissions(self) -> None:
        assert set(BY_ROLE) == {role.value for role in Role}

    def test_each_includes_the_one_below(self) -> None:
        assert BY_ROLE["viewer"] < BY_ROLE["member"] < BY_ROLE["admin"] == BY_ROLE["owner"] == ALL

    def test_viewer_changes_and_runs_nothing(self) -> None:
        assert not {p for p in BY_ROLE["viewer"] if p.value.endswith((":write", ":run"))}

    @pytest.mark.parametrize("role", ["viewer", "member"])
    def test_below_admin_do_not_see_keys(self, role: str) -> None:
        assert not BY_ROLE[role] & {Permission.KEYS_READ, Permission.KEYS_WRITE}

    def test_that_is_unknown_may_do_nothing(self) -> None:
        assert granted("superuser", None) == frozenset()


class TestScopes:
    @given(st.sampled_from(sorted(BY_ROLE)), st.lists(st.sampled_from([*ALL, "root", "*", ""])))
    def test_only_narrow(self, role: str, scopes: list[str]) -> None:
        assert granted(role, scopes) == BY_ROLE[role] & set(scopes)

    def test_that_are_absent_narrow_nothing(self) -> None:
        assert granted("member", None) == BY_ROLE["member"]

    def test_that_are_empty_leave_nothing(self) -> None:
        assert granted("owner", []) == frozenset()

"""Every repository there is begins with the tenant."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any
from unittest.mock import sentinel

import pytest

import app.db.postgres.repositories as room
from app.core.errors import BadRequest
from app.core.ids import new_id
from app.db.postgres.repositories.base import Repository
from app.db.session import Tenant
from tests.tenant_watch import check

ORGANIZATION_WIDE = {"ApiKeys"}
"""Repositories whose rows may lie in a project and are yet listed for the whole organization."""


def repositories(kind: type[Repository[Any]] = Repository) -> Iterator[type[Repository[Any]]]:
    for child in kind.__subclasses__():
        yield child
        yield from repositories(child)


for module in iter_modules(room.__path__, f"{room.__name__}."):
    import_module(module.name)
REPOSITORIES = [each for each in repositories() if each.__module__.startswith("app.")]


@pytest.mark.parametrize("repository", REPOSITORIES, ids=lambda each: each.__name__)
class TestEveryRepository:
    def test_begins_with_the_organization(self, repository: type[Repository[Any]]) -> None:
        check(repository(sentinel.session, Tenant(new_id(), new_id())).visible())

    def test_begins_with_the_project_where_rows_have_one(self, repository: type[Repository[Any]]) -> None:
        tenant = Tenant(new_id(), new_id())
        statement = str(repository(sentinel.session, tenant).visible().whereclause)
        of_projects = hasattr(repository.model, "project_id")
        named = f"{repository.model.__tablename__}.project_id =" in statement
        assert named == (of_projects and repository.__name__ not in ORGANIZATION_WIDE)

    def test_demands_the_project_where_it_needs_one(self, repository: type[Repository[Any]]) -> None:
        found = repository(sentinel.session, Tenant(new_id()))
        if repository.by_project:
            with pytest.raises(BadRequest, match="X-Project-Id"):
                found.visible()
        else:
            check(found.visible())

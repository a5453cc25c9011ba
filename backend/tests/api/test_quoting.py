"""Which models take secrets, so that errors about them quote nothing."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, SecretStr

from app.api.quoting import takes_secrets


class Plain(BaseModel):
    name: str
    tags: list[str]


class Holder(BaseModel):
    password: Annotated[SecretStr, Field(min_length=8)]


class Nested(BaseModel):
    plain: Plain
    holders: dict[str, list[Holder | None]]


class Circle(BaseModel):
    next: Circle | None
    plain: Plain


@pytest.mark.parametrize(
    "model", [SecretStr, Holder, Nested, list[Nested], Plain | Holder, Annotated[Holder, Field()]]
)
def test_a_secret_is_found_at_any_depth(model: Any) -> None:
    assert takes_secrets(model)


@pytest.mark.parametrize("model", [str, Plain, Circle, list[Plain], dict[str, Any], None, Any])
def test_nothing_is_found_where_there_is_none(model: Any) -> None:
    assert not takes_secrets(model)

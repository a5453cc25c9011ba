"""What runs used, on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from app.api.schemas.common import Read
from app.db.postgres.repositories.usage import GroupBy


class UsedRead(Read):
    """`cost` is by currency, as exact decimal digits; it lacks the `unpriced_tokens`."""

    runs: int
    input_tokens: int
    output_tokens: int
    cost: Annotated[dict[str, str], Field(examples=[{"USD": "0.001275"}])]
    unpriced_tokens: int


class GroupRead(UsedRead):
    key: str


class UsageReport(Read):
    """`items` are 1,000 at most; `total` is of all."""

    group_by: GroupBy
    since: Annotated[datetime, Field(serialization_alias="from")]
    until: Annotated[datetime, Field(serialization_alias="to")]
    total: UsedRead
    items: list[GroupRead]

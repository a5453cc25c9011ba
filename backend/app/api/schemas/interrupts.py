"""What runs ask people, and the answers, on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from app.api.schemas.common import Body, Read, example
from app.db.postgres.models.agents import InterruptStatus


class InterruptRead(Read):
    """A question of a run. `choice`, `data` and `answered_by` are the answer, once there is one.

    `form` is the JSON Schema of `data`, for which `prefill` proposes values; without it none is asked for. Of
    the kind `approval`, it is about the call of `tool` that the run's events have under `tool_call_id`.
    """

    id: UUID
    run_id: UUID
    node_path: str
    kind: str
    status: InterruptStatus
    message: str
    choices: list[str] | None
    form: dict[str, Any] | None
    prefill: dict[str, Any] | None
    assignee: str | None
    tool: str | None
    tool_call_id: str | None
    due_at: datetime | None
    choice: str | None
    data: dict[str, Any] | None
    answered_by: str | None
    closed_at: datetime | None
    created_at: datetime


class InterruptAnswer(Body):
    """`choice` is one of the question's `choices`, if it has any; `data` fits its `form`."""

    model_config = example(choice="approve", data={"comment": "Fine."})

    choice: Annotated[str, Field(max_length=200)] | None = None
    data: dict[str, Any] = Field(default_factory=dict)

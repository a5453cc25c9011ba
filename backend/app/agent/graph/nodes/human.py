"""`human`: a person decides, or gives what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from app.agent.core.base import ERROR, SUCCESS, Effect, Mistake, NodeConfig, NodeError, Outputs, node
from app.agent.core.interrupts import Question
from app.agent.core.scope import Scope
from app.agent.core.value_types import ValueType, of_schema
from app.agent.graph.json_schema import sound_schema
from app.agent.graph.json_template import JsonTemplate
from app.agent.graph.policies import Name
from app.agent.graph.references import Lookup, Template

TIMEOUT = "timeout"
_RESERVED = (SUCCESS, ERROR, TIMEOUT)
LONGEST_S = 366 * 86_400


class HumanConfig(NodeConfig):
    """Asks a person, and waits for the answer as long as it takes; no process waits with it.

    The run is `interrupted`, and the question stands in the inbox (`GET /interrupts`). It is answered once,
    by `POST /runs/{run}/interrupts/{interrupt}` with `{"choice": …, "data": {…}}`: `choice` is one of
    `choices`, which are handles of the node, if there are any; `data` must fit `form`, a JSON Schema, and is
    the node's output. `prefill` proposes values for it.

    `assignee` (a user's e-mail address or id) alone may answer, besides those who may change the agent; an
    empty one fails the node.
    After `answer_within_s` seconds without an answer the node leaves by the handle `timeout`.
    """

    type: ClassVar[str] = "human"

    example: ClassVar[dict[str, Any]] = {
        "message": "Refund {{ inputs.amount }} to {{ inputs.customer }}?",
        "choices": ["approve", "reject"],
        "form": {"type": "object", "properties": {"comment": {"type": "string"}}},
        "answer_within_s": 86400,
    }

    message: Template
    choices: Annotated[list[Name], Field(max_length=20)] = Field(default_factory=list)
    form: Annotated[dict[str, Any], AfterValidator(sound_schema)] | None = None
    prefill: dict[str, JsonTemplate] = Field(default_factory=dict)
    assignee: Template | None = None
    answer_within_s: Annotated[float, Field(strict=True, gt=0, le=LONGEST_S)] | None = None

    @classmethod
    def mistakes(cls, raw: Mapping[str, Any]) -> Iterator[Mistake]:
        choices: Any = raw.get("choices")
        choices = choices if isinstance(choices, list) else []
        for index, choice in enumerate(choices):
            if choice in _RESERVED:
                message = f"{choice!r} is the name of another handle"
                yield Mistake(("choices", index), message, "give it another name")
            elif choice in choices[:index]:
                yield Mistake(("choices", index), f"the choice {choice!r} is there twice", "remove one")
        form, prefill = raw.get("form"), raw.get("prefill")
        known = form.get("properties", {}) if isinstance(form, dict) else {}
        for name in prefill if isinstance(prefill, dict) and isinstance(known, dict) else ():
            if name not in known:
                message = f"'prefill' has {name!r}, which is no property of 'form'"
                yield Mistake(("prefill", name), message, "add it to the form, or leave it out")

    def handles(self) -> tuple[str, ...]:
        ways = tuple(dict.fromkeys(self.choices)) or (SUCCESS,)
        return (*ways, TIMEOUT) if self.answer_within_s else ways

    def fallback(self) -> str:
        return TIMEOUT if self.answer_within_s else self.handles()[0]

    def given(self, types: Mapping[str, ValueType]) -> Mapping[str, ValueType]:
        return types if self.form is None else {**types, "data": of_schema(self.form)}


@node(
    HumanConfig,
    effect=Effect.READ,
    suspends=True,
    outputs={"choice": str | None, "data": dict[str, Any], "answered_by": str | None},
)
async def human(config: HumanConfig, scope: Scope) -> Outputs:
    """Raises `Suspended` until there is an answer."""
    within_s = config.answer_within_s
    question = Question(
        message=config.message.text(scope),
        choices=tuple(config.choices),
        form=config.form,
        prefill={name: value.value(scope) for name, value in config.prefill.items()},
        assignee=named(config.assignee, scope),
        due_ms=scope.now_ms() + int(within_s * 1000) if within_s else None,
    )
    answer = await scope.ask(question)
    scope.take(TIMEOUT if answer.expired else answer.choice or SUCCESS)
    return {"choice": answer.choice, "data": answer.data, "answered_by": answer.answered_by}


def named(assignee: Template | None, scope: Lookup) -> str | None:
    """Who is to answer. Raises `NodeError` where nobody is named who should be: then anybody could."""
    if assignee is None:
        return None
    if not (name := assignee.text(scope).strip()):
        message = f"'assignee' {str(assignee)!r} is empty: it takes a user's e-mail address or id"
        raise NodeError(message, code="bad_request")
    return name

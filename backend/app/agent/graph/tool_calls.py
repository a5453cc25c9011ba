"""One tool call that a model asks for: read, agreed to, made, and told; whatever comes of it is an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from ag_ui.core import ToolCallResultEvent
from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter

from app.agent.core.base import NodeError
from app.agent.core.calls import MOST_NAME, JournalledCall
from app.agent.core.events import Failure
from app.agent.core.interfaces import Passage, StepRecord, ToolCall
from app.agent.core.interrupts import Question
from app.agent.graph.functions import Function, Reply
from app.agent.graph.issues import listing
from app.agent.graph.json_schema import errors_of, in_short, with_defaults
from app.core.errors import AppError
from app.core.ids import stable_id

APPROVE, REJECT = "approve", "reject"
_PASSAGES = TypeAdapter(dict[int, Passage])
_NOTHING = object()


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as the model put it: `said.arguments` may be broken. `id` is the one under which it is told."""

    id: str
    said: ToolCall


class ToolOutcome(BaseModel):
    """A tool call of an agent, and what came of it.

    `arguments` are those that the tool was called with, a text where the model wrote no JSON object. `result`
    is what the tool gave, a JSON value, and `text` what the model was told; `error` is why it failed.
    `approved` says what a person decided, null where nobody was asked, and `answered_by` who that was.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    name: str
    arguments: dict[str, JsonValue] | str
    result: JsonValue = None
    text: str
    error: Failure | None = None
    approved: bool | None = None
    answered_by: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """`passages` are those that it found, by their numbers."""

    outcome: ToolOutcome
    passages: Mapping[int, Passage] = field(default_factory=dict)


class Refused(NodeError):
    """The call is not made; the model is told why."""


class Approval(Protocol):
    """Who decides on calls, and within how many seconds."""

    @property
    def within_s(self) -> float | None: ...

    def needed(self, function: Function) -> bool: ...

    def question(self, function: Function, arguments: Mapping[str, Any]) -> Question: ...


@dataclass(slots=True)
class _Progress:
    """What is known of a call so far."""

    arguments: dict[str, Any] | str
    approved: bool | None = None
    answered_by: str | None = None
    changed: bool = False

    def told(self, name: str) -> dict[str, Any]:
        """As the journal has it while the call is under way."""
        return {"name": name, **asdict(self)}


async def answered(
    call: JournalledCall,
    asked: Asked,
    functions: Sequence[Function] | None,
    approval: Approval,
    *,
    first: int,
) -> Answered:
    """Makes the call, unless that was done already. Failures are told in the outcome.

    `functions` None: there were too many calls. `first` is the number of the first passage that it finds.
    Raises `Suspended` while a person has to decide, or the agent that is called waits.
    """
    if known := call.recall():
        return _recalled(known)
    if known := call.take_over([asked.said.name, asked.said.arguments]):
        told = _recalled(known, as_of=asked)
        await call.finish(_written(told), failure=told.outcome.error, event=_event(told.outcome))
        return told
    progress = _Progress(asked.said.arguments)
    failure, reply = None, None
    try:
        function = _function(asked.said.name, functions)
        given = await _agree(call, asked, function, approval, progress=progress)
        decided = progress.approved is not None
        await call.prepare(function.effect, progress.told(asked.said.name), decided=decided)
        reply = await function.invoke(call, given, first)
    except AppError as error:
        call.check_failure(error)
        await call.withdraw()
        failure = Failure(code=error.code, message=error.detail)
    outcome = _outcome(asked, progress, reply, failure)
    told = Answered(outcome, reply.passages if reply else {})
    await call.finish(_written(told), failure=outcome.error, event=_event(outcome))
    return told


async def _agree(
    call: JournalledCall, asked: Asked, function: Function, approval: Approval, *, progress: _Progress
) -> dict[str, Any]:
    """The arguments, once they fit, and whoever has to agree has done so. Raises `Refused`.

    A person who was asked decides, whatever the tool needs by now; and once for all, also for a run that is
    made of this one. What they were shown is what is called, and a call in doubt is repeated as it was made,
    whatever the tool has as defaults by now.
    """
    progress.arguments = written = _read(asked.said.arguments)
    begun, put = call.begun(), _put(call, asked.said.name, written)
    if begun:
        given: dict[str, Any] = begun["arguments"]
    elif put is not None:
        given = _as_shown(put.prefill["arguments"], written)
    else:
        given = _given(function, written)
    progress.arguments = given
    if begun.get("approved"):
        progress.approved = True
        progress.answered_by, progress.changed = begun["answered_by"], begun["changed"]
        return given
    if put is None and not approval.needed(function):
        return given
    question = replace(approval.question(function, given), tool_call_id=asked.id)
    answer = await call.ask(question, within_s=approval.within_s)
    progress.approved = not answer.expired and answer.choice == APPROVE
    progress.answered_by = answer.answered_by
    if answer.expired:
        raise Refused("nobody agreed to the call in time", code="rejected")
    if not progress.approved:
        reason = answer.data.get("reason")
        raise Refused(f"a person rejected the call{f': {reason}' if reason else ''}", code="rejected")
    if (changed := answer.data.get("arguments")) is None or changed == given:
        return given
    progress.arguments, progress.changed = changed, True
    progress.arguments = given = _given(function, changed)
    return given


def _put(call: JournalledCall, name: str, written: Mapping[str, Any]) -> Question | None:
    """What was asked about this call, and not about one that had its number in another run."""
    question = call.put()
    if question is None or question.tool != name:
        return None
    shown = question.prefill["arguments"]
    same = all(shown.get(key, _NOTHING) == value for key, value in written.items())
    return question if same else None


def _as_shown(shown: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """The same values, in the order of the model: the database does not keep it."""
    names = [*(name for name in written if name in shown), *(name for name in shown if name not in written)]
    return {name: written[name] if written.get(name) == shown[name] else shown[name] for name in names}


def _function(name: str, functions: Sequence[Function] | None) -> Function:
    if functions is None:
        raise Refused("as many tools were called as may be: answer without", code="call_limit")
    for one in functions:
        if one.definition.name == name:
            return one
    names = sorted(one.definition.name for one in functions)
    raise Refused(
        f"there is no tool {name[:MOST_NAME]!r} (valid: {listing(names) or 'none'})",
        code="unknown_operation",
    )


def _read(arguments: str) -> dict[str, Any]:
    """Raises `Refused` for what is no JSON object."""
    try:
        value = json.loads(arguments or "{}")
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()  # nothing that JSON cannot carry
    except (ValueError, RecursionError) as error:
        raise Refused(f"the arguments are not JSON: {error}", code="invalid_arguments") from error
    if not isinstance(value, dict):
        raise Refused("the arguments are not a JSON object", code="invalid_arguments")
    return value


def _given(function: Function, arguments: Any) -> dict[str, Any]:
    """The arguments with defaults. Raises `Refused` where they do not fit."""
    given = with_defaults(function.definition.parameters, arguments)
    if wrong := errors_of(function.definition.parameters, given):
        raise Refused(f"the arguments do not fit: {in_short(wrong)}", code="invalid_arguments")
    return given


def _outcome(asked: Asked, progress: _Progress, reply: Reply | None, failure: Failure | None) -> ToolOutcome:
    result = reply.result if reply else None
    if result and result.is_error:
        failure = Failure(code="tool_error", message=result.text)
    text = result.text if result else ""
    if failure:
        text = f"Error ({failure.code}): {failure.message}"
    if progress.changed:
        changed = json.dumps(progress.arguments, ensure_ascii=False)
        text = f"(A person changed the arguments to {changed}.)\n{text}"
    return ToolOutcome(
        id=asked.id,
        name=asked.said.name[:MOST_NAME],
        arguments=progress.arguments,
        result=result.content if result else None,
        text=text,
        error=failure,
        approved=progress.approved,
        answered_by=progress.answered_by,
    )


def _event(outcome: ToolOutcome) -> ToolCallResultEvent:
    message_id = str(stable_id(outcome.id, "result"))
    return ToolCallResultEvent(
        message_id=message_id, tool_call_id=outcome.id, content=outcome.text, role="tool"
    )


def _written(told: Answered) -> dict[str, Any]:
    """As the journal has it."""
    output = told.outcome.model_dump(mode="json")
    return output | (
        {"passages": _PASSAGES.dump_python(dict(told.passages), mode="json")} if told.passages else {}
    )


def _recalled(known: StepRecord, *, as_of: Asked | None = None) -> Answered:
    """`as_of`: the call as it is told in this run, where another one has made it."""
    output = dict(known.output or {}) | ({"id": as_of.id} if as_of else {})
    passages = _PASSAGES.validate_python(output.pop("passages", {}))
    return Answered(ToolOutcome.model_validate(output), passages)

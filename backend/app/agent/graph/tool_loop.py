"""The loop of an agent: the model is asked, its tool calls are made, it is asked again with their results.

Every model call and every tool call is one entry of the journal, numbered in an order that depends on nothing
but what the model said: a model call, then its tool calls in the order in which it listed them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from app.agent.core.base import NodeError
from app.agent.core.calls import CallKind, JournalledCall
from app.agent.core.events import Failure
from app.agent.core.interfaces import (
    ChatModel,
    ChatRequest,
    Citation,
    Finished,
    FinishReason,
    Message,
    Passage,
    Role,
    StepRecord,
    ToolCall,
    ToolChoice,
    Usage,
)
from app.agent.core.scope import Scope
from app.agent.graph.functions import Function
from app.agent.graph.markers import unexplained
from app.agent.graph.model_calls import Heard, check_silence, listen
from app.agent.graph.structured_output import InvalidOutput, parsed
from app.agent.graph.tool_calls import Answered, Approval, Asked, ToolOutcome, answered

StoppedBy = Literal["answer", "max_iterations", "token_budget"]
"""Why no more tools were called: the model answered, or it had to."""
Work = Callable[[], Awaitable[Answered]]
_NO_MORE = "No more tools can be called. Answer now, with what you know, and say what is missing."


@dataclass(frozen=True, slots=True)
class Rules:
    """How far a loop goes. `at_once`: tool calls of one answer that run side by side."""

    max_iterations: int
    token_budget: int | None
    fails_at_limit: bool
    parallel: bool
    at_once: int
    most_calls: int
    citations: bool
    schema: Mapping[str, Any] | None
    approval: Approval


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer of the model."""

    text: str
    calls: tuple[Asked, ...]
    reason: FinishReason
    usage: Usage

    @property
    def message(self) -> Message:
        return Message(Role.ASSISTANT, self.text, tuple(asked.said for asked in self.calls))


@dataclass(slots=True)
class ToolLoop:
    """One node's loop. `messages` is the exchange so far, `value` the structured answer, if one is wanted."""

    scope: Scope
    model: ChatModel
    request: ChatRequest
    functions: Sequence[Function]
    rules: Rules
    messages: list[Message] = field(default_factory=list)
    outcomes: list[ToolOutcome] = field(default_factory=list)
    passages: dict[int, Passage] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    iterations: int = 0
    stopped_by: StoppedBy = "answer"
    value: Any = None
    repaired: bool = False
    numbers: int = 0
    made: int = 0
    searched: int = 0

    async def run(self) -> Turn:
        """The last answer. Raises `ModelError`, `NodeError`, and `Suspended` while somebody has to decide."""
        while True:
            limit = self._limit()
            if limit and self.rules.fails_at_limit:
                raise _exceeded(limit, self.rules)
            turn = await self._turn(last=limit is not None or self.repaired)
            self.messages.append(turn.message)
            if turn.calls:
                self.messages += await self._results(turn.calls)
            elif wrong := self._wrong(turn):
                self._ask_again(wrong)
            else:
                self.stopped_by = limit or "answer"
                return turn

    def citations(self, text: str) -> list[Citation]:
        """The passages that markers in `text` lead to."""
        return list(unexplained(text, self.passages)) if self.rules.citations else []

    def _limit(self) -> StoppedBy | None:
        """What keeps the model from calling more tools."""
        budget = self.rules.token_budget
        if budget is not None and self.usage.input_tokens + self.usage.output_tokens >= budget:
            return "token_budget"
        return "max_iterations" if self.iterations >= self.rules.max_iterations else None

    async def _turn(self, *, last: bool) -> Turn:
        """What the model answers now; where it has done so already, what it answered then."""
        call = self._next_call("model")
        known = call.recall()
        if known is not None:
            turn = _recalled(known)
        else:
            turn = await self._asked(call, self._request(last=last))
        self.iterations += 1
        self.usage = Usage(
            self.usage.input_tokens + turn.usage.input_tokens,
            self.usage.output_tokens + turn.usage.output_tokens,
        )
        self.scope.ended(turn.reason)
        return turn

    async def _asked(self, call: JournalledCall, request: ChatRequest) -> Turn:
        if known := call.take_over(_asks(self.model.name, request)):
            heard, finished, spent = await self._told_again(known)
        else:
            await call.prepare("read", {})
            heard = Heard()
            finished = await listen(self.model, request, self.scope, heard, aloud=True)
            self.scope.spend(self.model.name, finished.usage)
            spent = {self.model.name: finished.usage}
        asked = [] if request.tool_choice is ToolChoice.NONE else await self._told(heard.calls)
        turn = Turn("".join(heard.text), tuple(asked), finished.reason, finished.usage)
        try:
            if not turn.calls and not turn.text.strip():
                check_silence(self.model.name, turn.reason, heard.calls)
            await self._conclude(call, turn)
        except NodeError as error:
            failure = Failure(code=error.code, message=error.detail)
            await call.finish(None, failure=failure, usage=spent)
            raise
        # Nothing is waited for in between: the end of the message and this are stored together.
        await call.finish(_written(turn), usage=spent)
        return turn

    async def _told_again(self, known: StepRecord) -> tuple[Heard, Finished, Mapping[str, Usage]]:
        """What the model said in the run that this one was made of; it costs nothing now."""
        turn = _recalled(known)
        await self.scope.say(turn.text)
        heard = Heard([turn.text], calls=[asked.said for asked in turn.calls])
        return heard, Finished(turn.reason, turn.usage), {}

    def _request(self, *, last: bool) -> ChatRequest:
        messages = [*self.request.messages, *self.messages]
        if not last:
            return replace(self.request, messages=messages)
        if not self.repaired:
            messages.append(Message(Role.USER, _NO_MORE))
        return replace(self.request, messages=messages, tool_choice=ToolChoice.NONE)

    async def _told(self, calls: Sequence[ToolCall]) -> list[Asked]:
        """The calls under ids of their own; told as a whole where the model did not write them in pieces."""
        asked: list[Asked] = []
        known: set[str] = set()
        for index, call in enumerate(calls):
            model_id = call.id if call.id and call.id not in known else f"{call.id or 'call'}_{index}"
            known.add(model_id)
            told = await self.scope.tell_call(model_id, call.name, call.arguments, whole=True)
            asked.append(Asked(told, replace(call, id=model_id)))
        return asked

    async def _conclude(self, call: JournalledCall, turn: Turn) -> None:
        if turn.calls:
            await call.complete_message()
        elif wrong := self._wrong(turn):
            await call.discard_message(Failure(code=wrong.code, message=wrong.detail))
        else:
            for citation in self.citations(turn.text):
                await self.scope.cite(citation)
            await call.complete_message()

    def _wrong(self, turn: Turn) -> InvalidOutput | None:
        """What is wrong with an answer that must have a form, if it can be mended."""
        if self.rules.schema is None:
            return None
        try:
            self.value = parsed(turn.text, self.rules.schema, turn.reason)
        except InvalidOutput as error:
            if error.told is None or self.repaired:
                raise
            return error
        return None

    def _ask_again(self, wrong: InvalidOutput) -> None:
        self.repaired = True
        told = f"{wrong.told}\nAnswer again, in the form that was asked for."
        self.messages.append(Message(Role.USER, told))

    async def _results(self, asked: Sequence[Asked]) -> list[Message]:
        """The messages that answer the calls, in their order."""
        works = [self._work(one) for one in asked]
        if self.rules.parallel:
            at_once = self.rules.at_once
            found = await self.scope.side_by_side(works, places=at_once, ends=lambda _, error: error)
        else:
            found = [await work() for work in works]
        for one in found:
            self.outcomes.append(one.outcome)
            self.passages |= one.passages
        return [
            Message(Role.TOOL, one.outcome.text, tool_call_id=call.said.id)
            for call, one in zip(asked, found, strict=True)
        ]

    def _work(self, asked: Asked) -> Work:
        """The call, numbered; to be begun later."""
        call = self._next_call("tool")
        self.made += 1
        functions = self.functions if self.made <= self.rules.most_calls else None
        first, name = self.searched + 1, asked.said.name
        self.searched += next((one.found for one in self.functions if one.definition.name == name), 0)

        async def work() -> Answered:
            return await answered(call, asked, functions, self.rules.approval, first=first)

        return work

    def _next_call(self, kind: CallKind) -> JournalledCall:
        self.numbers += 1
        return self.scope.call(self.numbers, kind)


def _exceeded(limit: StoppedBy, rules: Rules) -> NodeError:
    if limit == "token_budget":
        message = f"the model has used the {rules.token_budget} tokens that it may, and has not answered"
        return NodeError(message, code="token_limit")
    message = f"the model was asked {rules.max_iterations} times, and has not answered"
    return NodeError(message, code="iteration_limit")


def _written(turn: Turn) -> dict[str, Any]:
    """As the journal has it."""
    calls = [
        {"id": asked.id, "call_id": said.id, "name": said.name, "arguments": said.arguments}
        for asked in turn.calls
        for said in [asked.said]
    ]
    told = {"text": turn.text, "finish_reason": turn.reason, "tool_calls": calls}
    return {**told, "usage": turn.usage.told()}


def _asks(model: str, request: ChatRequest) -> Any:
    """A request as JSON."""
    return [model, asdict(request)]


def _recalled(known: StepRecord) -> Turn:
    output = known.output or {}
    calls = tuple(
        Asked(call["id"], ToolCall(call["call_id"], call["name"], call["arguments"]))
        for call in output["tool_calls"]
    )
    return Turn(output["text"], calls, output["finish_reason"], Usage.read(output["usage"]))

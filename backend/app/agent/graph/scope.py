"""What one attempt of one node sees and may do (the `Scope` of `core/base`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from app.agent.core.base import SUCCESS, Effect, NodeError
from app.agent.core.calls import AgentAnswer, CallKind
from app.agent.core.events import CitationFound, InterruptOpened
from app.agent.core.http import HttpReply, HttpRequest
from app.agent.core.interfaces import (
    ChatModel,
    Citation,
    FinishReason,
    Passage,
    StepRecord,
    Tool,
    ToolResult,
    Usage,
)
from app.agent.core.interrupts import Answered, Interrupt, Question, Suspended
from app.agent.core.limits import EngineLimits
from app.agent.core.sandbox import CodeRunner, Expressions
from app.agent.core.scope import Ends, Work
from app.agent.core.state import Reducer, Write
from app.agent.core.value_types import fits, of_value
from app.agent.graph.checks.state import type_of
from app.agent.graph.crew import side_by_side
from app.agent.graph.json_schema import in_short, with_defaults
from app.agent.graph.node_calls import NodeCall
from app.agent.graph.plan import PlannedNode
from app.agent.graph.ports import Undeliverable, usage_read
from app.agent.graph.references import Chain, Lookup, Reference, as_text
from app.agent.graph.run_context import AssistantMessage, Frame, RunContext, over_all_visits
from app.core.errors import AppError
from app.core.ids import stable_id

_IDEMPOTENCY_KEY = "Idempotency-Key"


@dataclass(frozen=True, slots=True)
class Values:
    """Where references lead in one run: the four fixed sources, and the outputs of finished nodes."""

    sources: Mapping[str, Mapping[str, Any]]
    outputs: Mapping[str, Mapping[str, Any]]

    def found(self, references: Iterable[Reference]) -> dict[str, Any]:
        """The values of those that are set."""
        looked = [(str(reference), *self.find(reference)) for reference in references]
        return {name: value for name, is_set, value in looked if is_set}

    def find(self, reference: Reference) -> tuple[bool, Any]:
        """Whether the reference is set, and its value."""
        if reference.source in self.sources:
            here: Any = self.sources[reference.source]
        elif reference.source in self.outputs:
            here = self.outputs[reference.source]
        else:
            return False, None
        for step in reference.path:
            if isinstance(here, Mapping) and step in here:
                here = here[step]
            elif isinstance(here, list) and step.isdigit() and int(step) < len(here):
                here = here[int(step)]
            else:
                return False, None
        return True, here


Place = tuple[Any, ...]
"""Of an interrupt in its run; see `RunContext.interrupt_id`."""


@dataclass(slots=True)
class NodeScope:
    """Made anew for each attempt, so that a failed attempt leaves nothing behind.

    `asked` gives what the node is asked, as a hash.
    """

    frame: Frame
    node: PlannedNode
    values: Values
    message: AssistantMessage
    attempt: int
    started_at_ms: int
    asked: Callable[[], str]
    used: dict[str, Usage] = field(default_factory=dict)
    handle: str = SUCCESS
    writes: list[Write] = field(default_factory=list)
    requests: int = 0
    interrupts: int = 0
    cited: list[Citation] = field(default_factory=list)
    cached: bool = False
    finish_reason: FinishReason | None = None

    @property
    def run(self) -> RunContext:
        return self.frame.run

    @property
    def path(self) -> str:
        return self.frame.path_of(self.node.id)

    @property
    def speaks(self) -> bool:
        """Whether the node's text is assistant text."""
        return self.node.live and self.frame.speaks

    @property
    def expressions(self) -> Expressions:
        return self.run.ports.expressions

    @property
    def code(self) -> CodeRunner:
        return self.run.ports.code

    @property
    def idempotency_key(self) -> str:
        """Of the next request: nothing of the attempt or the process is in it, but what the node is asked.

        A node that is asked something else by a corrected version wants another effect.
        """
        made_of = (self.run.effects_id, "effect", self.path, self.asked())
        return str(stable_id(*made_of, self.requests + 1))

    async def request(self, request: HttpRequest) -> HttpReply:
        given = {name.lower() for name in request.headers}
        if self.node.effect is Effect.WRITE and _IDEMPOTENCY_KEY.lower() not in given:
            headers = {**request.headers, _IDEMPOTENCY_KEY: self.idempotency_key}
            request = replace(request, headers=headers)
        self.requests += 1
        return await self.run.ports.http.send(request)

    def value(self, chain: Chain) -> Any:
        """The first alternative that is set and not null; null if the best one is null.

        Raises `NodeError` (`unset_reference`) where none is set.
        """
        found_null = False
        for reference in chain.references:
            found, value = self.values.find(reference)
            if value is not None:
                return value
            found_null |= found
        if chain.literal:
            return chain.literal.value
        if found_null:
            return None
        raise NodeError(f"'{chain}' is not set in this run", code="unset_reference")

    async def chat_model(self, binding: str) -> ChatModel:
        return await self.run.ports.models.chat(self.frame.plan.bindings.models[binding])

    async def search(self, binding: str, query: str, *, top_k: int, mode: str) -> list[Passage]:
        collection = self.frame.plan.bindings.collections[binding]
        return await self.run.ports.retriever.search(collection, query, top_k=top_k, mode=mode)

    def reading(self, **sources: Any) -> Lookup:
        return replace(self, values=replace(self.values, sources={**self.values.sources, **sources}))

    async def inside(self, key: str, inputs: Mapping[str, Any], /, **sources: Any) -> Mapping[str, Any]:
        plan = self.node.inner
        if plan is None:
            raise RuntimeError(f"node {self.node.id!r} has no graph inside of it")
        if wrong := plan.shape.errors_of(dict(inputs)) if plan.inputs else []:
            raise NodeError(f"the inputs do not fit: {in_short(wrong)}", code="invalid_input")
        frame = Frame(
            self.run, plan, sources,
            path=f"{self.path}/{key}", speaks=False, depth=self.frame.depth, visit=self._inner_visit,
        )  # fmt: skip
        return await self._entered(frame, inputs)

    async def _entered(self, frame: Frame, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The output of the graph. Where it failed, nobody needs to answer what it asked."""
        try:
            return await self.run.enter(frame, with_defaults(frame.plan.inputs, dict(inputs)))
        except Undeliverable:
            raise
        except AppError:
            await self.run.withdraw(frame.path)
            raise

    async def call_agent(self, binding: str, inputs: Mapping[str, Any]) -> AgentAnswer:
        return await self.enter_agent(
            binding, inputs, path=self.path, speaks=self.speaks, visit=self._inner_visit
        )

    async def enter_agent(
        self, binding: str, inputs: Mapping[str, Any], *, path: str, speaks: bool, visit: int
    ) -> AgentAnswer:
        """Raises like `call_agent`."""
        deepest = self.run.ports.limits.agent_depth
        if self.frame.depth >= deepest:
            raise NodeError(f"agents call each other more than {deepest} deep", code="too_deep")
        plan = await self.run.ports.agents.plan(self.frame.plan.bindings.agents[binding])
        if wrong := plan.shape.errors_of(dict(inputs)):
            raise NodeError(f"the inputs do not fit the agent: {in_short(wrong)}", code="invalid_input")
        frame = Frame(
            self.run, plan, {"session": self.run.session},
            path=path, speaks=speaks, depth=self.frame.depth + 1, visit=visit,
        )  # fmt: skip
        output = await self._entered(frame, inputs)
        return AgentAnswer(output, as_text(output[plan.answer]) if plan.answer else None)

    @property
    def _inner_visit(self) -> int:
        return over_all_visits(self.attempt, self.frame.visit)

    def call(self, number: int, kind: CallKind) -> NodeCall:
        clock = self.run.ports.clock
        return NodeCall(self, number, kind, clock.now_ms(), clock.elapsed_s())

    def message_of(self, call: int) -> AssistantMessage:
        return self.run.message(self.path, self.attempt, self.frame.visit, call)

    async def tell_call(self, model_id: str, name: str, arguments: str, *, whole: bool = False) -> str:
        return await self.message.tell_call(model_id, name, arguments, whole=whole)

    async def agent_inputs(self, binding: str) -> Mapping[str, Any]:
        return (await self.run.ports.agents.plan(self.frame.plan.bindings.agents[binding])).inputs

    async def ask(self, question: Question) -> Answered:
        self.interrupts += 1
        return await self.put(self._place, question)

    async def put(self, place: Place, question: Question) -> Answered:
        """Asks under an id that is the same whenever this is asked: that of its place. Raises like `ask`."""
        known = self.run.asked(*place)
        if known and known.question and known.answered and known.question.asks_the_same(question):
            return known.answered
        interrupt = Interrupt(self.run.interrupt_id(*place), self.path, question, question.due_ms)
        event = InterruptOpened(
            node_id=self.node.id,
            interrupt_id=interrupt.id,
            kind=question.kind,
            message=question.message,
            choices=list(question.choices) or None,
            form=dict(question.form) if question.form else None,
            prefill=dict(question.prefill) or None,
            assignee=question.assignee,
            due_at=_moment(question.due_ms),
            tool=question.tool,
            tool_call_id=question.tool_call_id,
        ).event()
        return await self._over(interrupt, event)

    async def until(self, due_ms: int) -> None:
        self.interrupts += 1
        await self._over(Interrupt(self.run.interrupt_id(*self._place), self.path, None, due_ms))

    async def side_by_side(self, works: Sequence[Work], *, places: int, ends: Ends) -> list[Any]:
        if self.run.replay is not None:
            places = len(works) or 1  # the record says who had one when
        return await side_by_side(works, places=places, lookout=self.run.lookout, ends=ends)

    async def _over(self, interrupt: Interrupt, event: Any = None) -> Answered:
        """Opens the interrupt once; raises `Suspended` until it is over.

        This machine's clock only tells what is past when it is opened.
        """
        port = self.run.ports.interrupts
        known = port.recall(interrupt.id)
        if known is None:
            await port.open(interrupt, event)
            past = interrupt.due_ms is not None and interrupt.due_ms <= self.run.ports.clock.now_ms()
            known = replace(interrupt, due=past)
        if known.answered is not None:
            return known.answered
        if known.due:
            return await self.run.expire(known.id)
        by_people, ids = known.question is not None, frozenset([known.id])
        raise Suspended(due_ms=known.due_ms, by_people=by_people, ids=ids)

    @property
    def _place(self) -> Place:
        """Of the interrupt that is the last so far: nothing of the process is in it."""
        return self.path, self._inner_visit, self.interrupts

    @property
    def limits(self) -> EngineLimits:
        return self.run.ports.limits

    def has_shown(self, text: str) -> bool:
        return text in self.run.shown

    def now_ms(self) -> int:
        return self.started_at_ms

    async def tools(self, binding: str) -> Sequence[Tool]:
        return await self.run.ports.tools.tools(self.frame.plan.bindings.tools[binding])

    async def call_tool(self, tool: Tool, arguments: Mapping[str, Any]) -> ToolResult:
        writes = Effect.WRITE in (self.node.effect, tool.effect)
        key = self.idempotency_key if writes else None
        self.requests += 1
        return await tool.call(arguments, idempotency_key=key)

    async def say(self, delta: str) -> None:
        if self.speaks:
            await self.message.say(delta)

    async def cite(self, citation: Citation) -> None:
        self.cited.append(citation)
        message_id = self.message.id if self.speaks else None
        event = CitationFound(node_id=self.node.id, message_id=message_id, **asdict(citation)).event()
        await self.run.emit(event, self.path)

    def count_recalled(self, call: StepRecord) -> None:
        """What an earlier process has spent on a call of this node: the run's bill has it already."""
        if call.key not in self.run.done and call.key not in self.run.counted:
            self.run.counted.add(call.key)
            for model, usage in usage_read(call.usage).items():
                self.used[model] = self.used.get(model, Usage()) + usage

    def spend(self, model: str, usage: Usage) -> None:
        self.used[model] = self.used.get(model, Usage()) + usage
        self.run.spend(model, usage)

    def ended(self, reason: FinishReason) -> None:
        self.finish_reason = reason

    def take(self, handle: str) -> None:
        if handle not in self.node.config.handles():
            raise NodeError(f"{handle!r} is none of the handles {self.node.config.handles()!r}")
        self.handle = handle

    def write_state(self, field: str, value: Any) -> None:
        """Raises `NodeError` (`type_mismatch`) where the reducer could not take the value."""
        declared = self.frame.plan.state[field]
        if declared.reducer != Reducer.APPEND and not fits(type_of(declared), of_value(value)):
            message = f"state field {field!r} takes {declared.type}, not {of_value(value)}"
            raise NodeError(message, code="type_mismatch")
        self.writes.append((field, value))


def _moment(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)

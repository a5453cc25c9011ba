"""One run while it lasts: its ports, what it has used, what it has shown; and the graphs it is inside of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from ag_ui.core import (
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    ToolCallArgsEvent,
    ToolCallEndEvent,
    ToolCallStartEvent,
)

from app.agent.core.calls import MOST_NAME
from app.agent.core.events import Failure, MessageDiscarded, RunContinued, RunResumed
from app.agent.core.interfaces import StepKey, StepRecord, Usage
from app.agent.core.interrupts import Answered, Interrupt
from app.agent.graph.crew import Lookout
from app.agent.graph.plan import Plan
from app.agent.graph.policies import MOST_ATTEMPTS
from app.agent.graph.ports import Past, Ports, Undeliverable
from app.agent.graph.replaying import Replay
from app.core.ids import stable_id

T = TypeVar("T")

_INSIDE = "/"


@dataclass(slots=True)
class RunContext:
    """Shared by all nodes of a run. `enter` runs a graph inside of a node.

    `effects_id` is what the keys of its effects are made of: those of a run that is resumed stay the same.
    `shown` holds the whole assistant messages so far; `parked`, by their paths, nodes that waited for a
    person or a time when they were last at work, with what they used here; `done` what this process did
    inside of nodes, which may be tried again, and what waited; `told` the paths and visits of pure nodes
    inside of others whose end it told; `counted` the calls of an earlier one whose usage their nodes have
    counted.
    """

    ports: Ports
    run_id: str
    thread_id: str
    session: Mapping[str, Any]
    enter: Enter
    past: Past = field(default_factory=Past)
    effects_id: str = ""
    replay: Replay | None = None
    usage: dict[str, Usage] = field(default_factory=dict)
    shown: list[str] = field(init=False)
    parked: dict[str, dict[str, Usage]] = field(init=False)
    done: dict[StepKey, StepRecord] = field(default_factory=dict)
    told: set[tuple[str, int]] = field(default_factory=set)
    counted: set[StepKey] = field(default_factory=set)
    ended: bool = False
    lookout: Lookout = field(init=False)

    def __post_init__(self) -> None:
        self.effects_id = self.effects_id or self.run_id
        self.usage |= self.past.usage
        self.shown = list(self.past.shown)
        self.parked = {path: {} for path in self.past.parked}
        self.lookout = Lookout(self.ports.interrupts, self.ports.clock)

    async def emit(self, event: Any, node_path: str = "") -> None:
        """Raises `Undeliverable`, also once the run has ended: nothing follows the terminal event."""
        if self.ended:
            raise Undeliverable("the run has ended")
        try:
            await self.ports.sink.emit(event, node_path=node_path)
        except Exception as error:
            raise Undeliverable("the event sink raised") from error

    async def end(self, event: Any) -> None:
        """Emits the terminal event."""
        await self.emit(event)
        self.ended = True

    async def go_on(self) -> None:
        """Tells that the run is taken up again; what was told in part does not count."""
        news = RunResumed if self.past.suspended else RunContinued
        await self.emit(news(times=self.past.continued).event())
        for half in self.past.half_told:
            node_path, message_id = half.node_path, half.message_id
            if half.text:
                await self.emit(TextMessageEndEvent(message_id=message_id), node_path)
            for call_id in half.calls:
                await self.emit(ToolCallEndEvent(tool_call_id=call_id), node_path)
            reason = Failure(code="process_died", message="the process that wrote this is gone")
            discarded = MessageDiscarded(node_id=node_path, message_id=message_id, reason=reason)
            await self.emit(discarded.event(), node_path)

    def recall(self, node_path: str, visit: int, call: int = 0) -> StepRecord | None:
        """What is known of a node, or of a call of it. What an earlier visit brought to a good end counts
        for a later one."""
        for earlier in range(visit, 0, -1):
            key = (node_path, earlier, call)
            known = self.done.get(key) or self.ports.journal.recall(*key)
            if known and (earlier == visit or (known.ended and known.output is not None)):
                return known
        return None

    def interrupt_id(self, *place: Any) -> UUID:
        """Of what a node waits for; `place`: its path, its visit, and what tells it from others of that."""
        return stable_id(self.run_id, "interrupt", *place)

    def asked(self, path: str, visit: int, *rest: Any) -> Interrupt | None:
        """What is known of that; of a question that was answered in a run which this one resumes, the answer,
        in whichever visit that was."""
        recall = self.ports.interrupts.recall
        if known := recall(self.interrupt_id(path, visit, *rest)):
            return known
        for run_id in self.past.resumes:
            for earlier in range(MOST_ATTEMPTS, 0, -1):
                known = recall(stable_id(run_id, "interrupt", path, earlier, *rest))
                if known and known.answered and not known.answered.expired:
                    return known
        return None

    def is_told(self, step: StepRecord) -> bool:
        """Whether the log of this run has the step: it is this run's, or was taken over by this process."""
        return step.source_run_id is None or step.key in self.done

    def rule_out_outage(self, error: Exception) -> None:
        """Raises `Undeliverable` where `error` is not the graph's: the platform's database is away."""
        if self.ports.is_outage(error):
            raise Undeliverable("the database is away") from error

    async def ready(self) -> None:
        """Returns once everything that was recorded is stored."""
        await _delivered(self.ports.journal.ready())

    async def begin(self, step: StepRecord) -> None:
        """Stores that an effect is about to happen."""
        await _delivered(self.ports.journal.began(step))

    async def record(self, step: StepRecord, event: Any = None) -> None:
        """Records a step together with the event that tells it."""
        if step.call or _INSIDE in step.node_path or step.status == "waiting" or step.key in self.done:
            self.done[step.key] = step
        await _delivered(self.ports.journal.finished(step, event))

    def spend(self, model: str, usage: Usage) -> None:
        self.usage[model] = self.usage.get(model, Usage()) + usage

    async def expire(self, interrupt_id: UUID) -> Answered:
        """Closes what nobody answered in time."""
        return await _delivered(self.ports.interrupts.expire(interrupt_id))

    async def withdraw(self, under: str) -> None:
        """Takes back what the node at `under`, or one inside of it, waits for."""
        await _delivered(self.ports.interrupts.withdraw(under))

    def message(self, node_path: str, attempt: int, visit: int = 1, call: int = 0) -> AssistantMessage:
        """A message of its own for each attempt, and call, of each process that works on the run."""
        return AssistantMessage(self, node_path, over_all_visits(attempt, visit), call)


Enter = Callable[["Frame", Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Runs the graph of a frame with its inputs; the output of the end that it reached."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A graph on its way: the agent's own, or one inside of a node (an item, a round, a sub-agent).

    `path` leads to it, "" for the agent's own. `sources` are what its references read besides `inputs` and
    `state`. `speaks`: the text of its answering nodes is assistant text. `depth` counts sub-agents. `visit`
    is raised when the node around it is tried again.
    """

    run: RunContext
    plan: Plan
    sources: Mapping[str, Any]
    path: str = ""
    speaks: bool = True
    depth: int = 0
    visit: int = 1

    def recall(self, node_id: str) -> StepRecord | None:
        return self.run.recall(self.path_of(node_id), self.visit)

    def path_of(self, node_id: str) -> str:
        """How events and journal name a node: `each/3/write`."""
        return f"{self.path}{_INSIDE}{node_id}" if self.path else node_id


@dataclass(slots=True)
class AssistantMessage:
    """Assistant text, opened by its first delta, and the tool calls that a model asks for with it.

    Empty deltas are not passed on. `calls` are the ids under which calls are told, by those of the model.
    """

    run: RunContext
    node_path: str
    attempt: int
    call: int = 0
    deltas: list[str] = field(default_factory=list)
    calls: dict[str, str] = field(default_factory=dict)
    _id: str = ""

    @property
    def id(self) -> str:
        """Made when first asked for: most nodes say nothing."""
        if not self._id:
            made_of = (self.run.run_id, self.node_path, self.run.past.continued, self.attempt)
            self._id = str(stable_id(*made_of, *([self.call] if self.call else [])))
        return self._id

    @property
    def begun(self) -> bool:
        """Whether anything of it was told."""
        return bool(self.deltas or self.calls)

    @property
    def visible(self) -> bool:
        """Whether text of it was shown."""
        return bool(self.deltas)

    async def say(self, delta: str) -> None:
        if not delta:
            return
        await self.open()
        self.deltas.append(delta)
        await self.run.emit(TextMessageContentEvent(message_id=self.id, delta=delta), self.node_path)

    async def open(self) -> None:
        if not self.deltas:
            await self.run.emit(TextMessageStartEvent(message_id=self.id, role="assistant"), self.node_path)

    async def tell_call(self, model_id: str, name: str, arguments: str, *, whole: bool = False) -> str:
        """A piece of the arguments of a tool call, or, where no piece was told, the `whole` of them; answers
        the id under which the call is told."""
        told = self.calls.get(model_id)
        if told is not None and whole:
            return told
        if told is None:
            told = self.calls[model_id] = str(stable_id(self.id, "call", len(self.calls)))
            start = ToolCallStartEvent(
                tool_call_id=told, tool_call_name=name[:MOST_NAME], parent_message_id=self.id
            )
            await self.run.emit(start, self.node_path)
        if arguments:
            await self.run.emit(ToolCallArgsEvent(tool_call_id=told, delta=arguments), self.node_path)
        return told

    async def close(self) -> None:
        if self.deltas:
            await self.run.emit(TextMessageEndEvent(message_id=self.id), self.node_path)
        for told in self.calls.values():
            await self.run.emit(ToolCallEndEvent(tool_call_id=told), self.node_path)

    async def discard(self, node_id: str, reason: Failure) -> None:
        """Ends the message; what was told of it does not count."""
        if self.begun:
            await self.close()
            event = MessageDiscarded(node_id=node_id, message_id=self.id, reason=reason).event()
            await self.run.emit(event, self.node_path)

    async def complete(self) -> None:
        """Ends the message; from now on its text counts as shown."""
        await self.close()
        if self.deltas:
            self.run.shown.append("".join(self.deltas))


async def _delivered(work: Awaitable[T]) -> T:
    try:
        return await work
    except Exception as error:
        raise Undeliverable("the journal raised") from error


def over_all_visits(attempt: int, visit: int) -> int:
    """The number of an attempt that no other of the node has, in whichever visit."""
    return (visit - 1) * MOST_ATTEMPTS + attempt

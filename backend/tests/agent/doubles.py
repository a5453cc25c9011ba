"""Stand-ins for what the engine is given from outside, and node types for its tests.

The models answer from a script as a hosted model would over the network; the sink, the journal and
the clock are complete, only in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar
from uuid import UUID

from ag_ui.core import CustomEvent, TextMessageContentEvent
from pydantic import Field

from app.agent.core.base import (
    NODE_TYPES,
    Effect,
    NodeConfig,
    NodeError,
    NodeType,
    NodeTypes,
    Outputs,
    node_type,
)
from app.agent.core.interfaces import (
    Capability,
    ChatEvent,
    ChatRequest,
    Finished,
    Passage,
    StepRecord,
    TextDelta,
    Usage,
)
from app.agent.core.node_cache import CachedStep
from app.agent.core.scope import Scope
from app.agent.graph.compiler import AgentCompiler
from app.agent.graph.executable import ExecutableAgent
from app.agent.graph.ports import Ports, RunResult
from app.agent.graph.references import Template

Script = Sequence[ChatEvent | Exception | float | asyncio.Event]
"""What one call does: events of a model are sent, exceptions raised, numbers (seconds) and asyncio's events
waited for."""


class ScriptedModel:
    """Plays one script per call, the last one again and again; remembers what it was asked."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self.requests: list[ChatRequest] = []
        self.closed = 0

    @property
    def name(self) -> str:
        return "scripted"

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset(Capability) - {Capability.IMAGES}

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        script = self._scripts[min(len(self.requests), len(self._scripts) - 1)]
        self.requests.append(request)
        try:
            for item in script:
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, float):
                    await asyncio.sleep(item)
                elif isinstance(item, asyncio.Event):
                    await item.wait()
                else:
                    yield item
        finally:
            self.closed += 1


def says(*deltas: str, tokens: tuple[int, int] = (3, 2)) -> Script:
    return [*map(TextDelta, deltas), Finished(usage=Usage(*tokens))]


class Bound:
    """Models by the target of their binding."""

    def __init__(self, **models: ScriptedModel) -> None:
        self._models = {name.replace("_", "-"): model for name, model in models.items()}

    async def chat(self, reference: str) -> ScriptedModel:
        return self._models[reference]


class Shelf:
    """A retriever that finds the same passages whatever is asked."""

    def __init__(self, *passages: Passage, error: Exception | None = None) -> None:
        self._passages = passages
        self._error = error
        self.searches: list[tuple[str, str, int, str, Any]] = []

    async def search(self, collection: str, query: str, *, top_k: int, mode: str) -> list[Passage]:
        self.searches.append((collection, query, top_k, mode))
        if self._error:
            raise self._error
        return list(self._passages)


def passage(number: int, text: str = "") -> Passage:
    return Passage(
        chunk_id=UUID(int=number),
        document_id=UUID(int=1000 + number),
        title=f"Document {number}",
        text=text or f"Passage {number}.",
        start=10 * number,
        end=10 * number + 9,
        score=1 / number,
        page=number,
    )


class Log:
    """Sink and journal in one list, so that their order is seen."""

    def __init__(self, *known: StepRecord) -> None:
        self.entries: list[tuple[str, Any]] = []
        self.begun: list[StepRecord] = []
        self.known = {step.key: step for step in known}

    async def emit(self, event: Any, *, node_path: str = "") -> None:
        self.entries.append((node_path, event))

    def recall(self, node_path: str, visit: int, call: int) -> StepRecord | None:
        return self.known.get((node_path, visit, call))

    async def ready(self) -> None:
        """Everything is there at once."""

    async def began(self, step: StepRecord) -> None:
        self.begun.append(step)

    async def finished(self, step: StepRecord, event: Any = None) -> None:
        self.entries.append((step.node_path, step))
        if event is not None:
            await self.emit(event, node_path=step.node_path)

    @property
    def events(self) -> list[Any]:
        return [entry for _, entry in self.entries if not isinstance(entry, StepRecord)]

    @property
    def steps(self) -> list[StepRecord]:
        return [entry for _, entry in self.entries if isinstance(entry, StepRecord)]

    @property
    def names(self) -> list[str]:
        """Event types; CUSTOM events by their name and node."""
        return [
            f"{event.name} {event.value['node_id']}" if isinstance(event, CustomEvent) else event.type.value
            for event in self.events
        ]

    def custom(self, name: str) -> list[dict[str, Any]]:
        return [event.value for event in self.events if isinstance(event, CustomEvent) and event.name == name]

    @property
    def text(self) -> str:
        """All assistant text, discarded or not."""
        return "".join(event.delta for event in self.events if isinstance(event, TextMessageContentEvent))


class Kept:
    """A cache of node results, in memory; without times."""

    def __init__(self) -> None:
        self.steps: dict[str, CachedStep] = {}
        self.ttls: list[float] = []

    async def find(self, key: str) -> CachedStep | None:
        return self.steps.get(key)

    async def keep(self, key: str, step: CachedStep, *, ttl_s: float) -> None:
        self.steps[key] = step
        self.ttls.append(ttl_s)


class SteppedClock:
    """Time that passes only by sleeping; remembers each sleep."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now_ms(self) -> int:
        return 1_700_000_000_000 + int(sum(self.slept) * 1000)

    def elapsed_s(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class PickConfig(NodeConfig):
    """Leaves by the handle it is told, or fails."""

    type: ClassVar[str] = "pick"

    take: Template
    choices: list[str] = Field(default_factory=lambda: ["yes", "no"])

    def handles(self) -> tuple[str, ...]:
        return tuple(self.choices)


async def pick(config: PickConfig, scope: Scope) -> Outputs:
    wanted = config.take.text(scope)
    if wanted == "fail":
        raise NodeError("told to fail", code="told")
    scope.take(wanted)
    return {"picked": wanted}


class NoteConfig(NodeConfig):
    """Writes to a state field."""

    type: ClassVar[str] = "note"

    field: str
    value: Template

    def writes(self) -> frozenset[str]:
        return frozenset({self.field})


async def note(config: NoteConfig, scope: Scope) -> Outputs:
    scope.write_state(config.field, config.value.value(scope))
    return {}


class NapConfig(NodeConfig):
    """Sleeps, for real."""

    type: ClassVar[str] = "nap"

    seconds: float = 0
    fail: bool = False
    crash: bool = False


async def nap(config: NapConfig, scope: Scope) -> Outputs:
    await asyncio.sleep(config.seconds)
    if config.crash:
        raise ZeroDivisionError("a detail that must not leak")
    if config.fail:
        raise NodeError("woken up", code="woken")
    return {"text": "rested"}


class CallerConfig(NodeConfig):
    """Needs a model that calls tools."""

    type: ClassVar[str] = "caller"


async def caller(config: CallerConfig, scope: Scope) -> Outputs:
    return {}


EXTRA: tuple[NodeType, ...] = (
    node_type(PickConfig, pick, pure=True, outputs={"picked": str}),
    node_type(NoteConfig, note, outputs={}),
    node_type(NapConfig, nap, effect=Effect.READ, outputs={"text": str}),
)
TYPES = NodeTypes([*NODE_TYPES.values(), *EXTRA])
COMPILER = AgentCompiler(TYPES)


class Bench:
    """One agent with everything it runs against."""

    def __init__(
        self,
        document: Mapping[str, Any],
        *scripts: Script,
        shelf: Shelf | None = None,
        clock: Any = None,
        compiler: AgentCompiler = COMPILER,
        **ports: Any,
    ) -> None:
        self.agent = ExecutableAgent(compiler.compile(document))
        self.more = ports
        self.model = ScriptedModel(*(scripts or [says("Hello.")]))
        self.shelf = shelf or Shelf(passage(1), passage(2))
        self.log = Log()
        self.clock = clock or SteppedClock()

    @property
    def ports(self) -> Ports:
        bound = Bound(default_chat=self.model)
        return Ports(bound, self.shelf, self.log, self.log, self.clock, **self.more)

    async def run(self, **inputs: Any) -> RunResult:
        return await self.given({"question": "Why?", **inputs}, run_id="run-1", thread_id="thread-1")

    async def given(self, inputs: Any, run_id: str = "r", thread_id: str = "t", **how: Any) -> RunResult:
        """Runs with exactly these inputs, which are checked before."""
        checked = self.agent.validate_input(inputs)
        return await self.agent.run(
            checked, **{"ports": self.ports, "run_id": run_id, "thread_id": thread_id} | how
        )

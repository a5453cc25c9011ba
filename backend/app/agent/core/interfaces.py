"""What the engine consumes, as Protocols: models, retrieval, events. Vendor agnostic, no I/O here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol
from uuid import UUID

from app.agent.core.usage import Usage as Usage
from app.core.errors import AppError


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a model asks for. `arguments` is JSON as the model wrote it: it may be broken."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """What was said. An assistant's message may ask for `tool_calls`; for each of them one message of
    the role `tool` follows, which has its id as `tool_call_id` and the result, as text, as `content`.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved chunk. `start`/`end` are Unicode code points into the document's stored text.

    `page` is that of `start`; `page_starts` are (offset, page) of the pages that begin further inside.
    """

    chunk_id: UUID
    document_id: UUID
    title: str
    text: str
    start: int
    end: int
    score: float
    page: int | None = None
    external_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    page_starts: tuple[tuple[int, int], ...] = ()

    def page_at(self, offset: int) -> int | None:
        """The page that `offset` of the document's text lies on."""
        begun = [page for start, page in self.page_starts if start <= offset]
        return begun[-1] if begun else self.page


@dataclass(frozen=True, slots=True)
class Citation:
    """Marker `[index]` (from 1) in an answer: where the quoted words stand in which document."""

    index: int
    chunk_id: UUID
    document_id: UUID
    title: str
    start: int
    end: int
    quote: str
    page: int | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of the arguments of the tool call `id`, "" perhaps in the first one; calls may interleave."""

    id: str
    name: str
    arguments: str


FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
"""Why an answer ended: it was complete, cut off at a limit of tokens, asks for tools, or was withheld."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Last event of every model stream."""

    reason: FinishReason = "stop"
    usage: Usage = field(default_factory=Usage)


ChatEvent = TextDelta | ToolCallDelta | ToolCall | Citation | Finished


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool that a model may ask for. `parameters` is the JSON Schema of its arguments, an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


class ToolChoice(StrEnum):
    """`auto`: tools or text, as the model likes; `none`: text; `required`: at least one tool."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One model call. With `citations` the model marks its sources `[n]`, n = place in `context` from 1.

    `tool_choice` may also be a `ToolDefinition`, the one to be called. With `response_schema`, a JSON
    Schema of an object, the text is JSON that should fit it: the caller checks.
    """

    messages: Sequence[Message]
    context: Sequence[Passage] = ()
    citations: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    tools: Sequence[ToolDefinition] = ()
    tool_choice: ToolChoice | ToolDefinition = ToolChoice.AUTO
    parallel_tool_calls: bool = True
    response_schema: Mapping[str, Any] | None = None


class Capability(StrEnum):
    STREAMING = "streaming"
    TOOLS = "tools"
    IMAGES = "images"
    STRUCTURED_OUTPUT = "structured_output"
    INSTRUCTIONS = "instructions"  # it does what a prompt tells it, whatever that is


class ModelError(Exception):
    """A model call failed. `code` is one of `rate_limit, timeout, server_error, bad_request, auth`."""

    def __init__(self, code: str, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s


class ChatModel(Protocol):
    """A chat model. `stream` yields text as it comes, citations where known, `Finished` last.

    Tool calls come piece by piece (`ToolCallDelta`) and, once the answer is complete, whole and in order
    (`ToolCall`). Raises `ModelError`; closing the iterator aborts the call.
    """

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> frozenset[Capability]: ...

    def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]: ...


class Models(Protocol):
    """Chat models by what the version's bindings resolved to."""

    async def chat(self, reference: str) -> ChatModel: ...


class Retriever(Protocol):
    """Searches collections by what the version's bindings resolved to; the tenant is bound already."""

    async def search(self, collection: str, query: str, *, top_k: int, mode: str) -> list[Passage]: ...


class EventSink(Protocol):
    """Where a run's events go. Writing never blocks on a reader.

    `event` is an AG-UI 1.0 event (`ag_ui.core`); `node_path` is the emitting node's path, or "" for the run.
    """

    async def emit(self, event: Any, *, node_path: str = "") -> None: ...


StepKey = tuple[str, int, int]
"""Node path, visit, call."""


class Journal(Protocol):
    """The step journal: one entry per (node path, visit, call) of what is not pure.

    Call 0 is the node itself; a node that makes several calls journals them from 1.

    What was recorded is stored soon; `ready` waits until it is, and is awaited before the next node that is
    not pure begins.
    """

    def recall(self, node_path: str, visit: int, call: int) -> StepRecord | None:
        """The entry that an earlier process of this run wrote, if any."""
        ...

    async def ready(self) -> None:
        """Returns once everything recorded so far is stored."""
        ...

    async def began(self, step: StepRecord) -> None:
        """Stores, before an effect, that it is about to happen. `status` is `started`."""
        ...

    async def finished(self, step: StepRecord, event: Any = None) -> None:
        """Records what came of a step, together with the AG-UI event that tells it: both or neither."""
        ...


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one node did, or one call of it: `status` is `succeeded`, `failed` or `skipped`; `started` before
    an effect, `waiting` while a person or a time is waited for.

    Times are in milliseconds. `attempts` counts from 1 (0 if skipped). `handle` is the way out it took, None
    if it took none. A failed node has `error {code, message}`, and `output` too if the run goes on.
    `usage` is what `usage_told` gives. `writes` are (state field, value).
    `request_hash` is the same where the node was asked the same. `source_run_id`: the run that did it, if
    not this one.
    """

    node_path: str
    node_type: str
    visit: int
    status: str
    started_at_ms: int
    duration_ms: float
    attempts: int
    output: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    usage: Mapping[str, Any] | None = None
    handle: str | None = None
    writes: Sequence[tuple[str, Any]] = ()
    request_hash: str | None = None
    call: int = 0
    source_run_id: str | None = None

    @property
    def key(self) -> StepKey:
        return self.node_path, self.visit, self.call

    @property
    def ended(self) -> bool:
        return self.status not in ("started", "waiting")


class Clock(Protocol):
    """Time, so that tests need not wait for it."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        ...

    def elapsed_s(self) -> float:
        """A monotonic reading; only differences mean something."""
        ...

    async def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Session:
    """The conversation a run belongs to, as it was when the run was created (JSON values)."""

    id: str
    user: Mapping[str, Any] | None = None
    messages: Sequence[Mapping[str, Any]] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AgentOffer:
    """A published agent as a node: the JSON Schema of its inputs, the names of its outputs, where known."""

    version_id: str
    inputs: Mapping[str, Any] | None = None
    outputs: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Catalog:
    """What a graph may name in one project: models with what they can do, collections, and published agents
    (also with a version, `slug@2`); by slug and by id.

    `remedies`: what to do about a model that lacks something, for those of which more is known than that.
    `secrets`: None where whoever asks may not know their names. `tools`: what each of them offers.
    """

    models: Mapping[str, frozenset[Capability]] = field(default_factory=dict)
    remedies: Mapping[str, str] = field(default_factory=dict)
    collections: frozenset[str] = frozenset()
    agents: Mapping[str, AgentOffer] = field(default_factory=dict)
    secrets: frozenset[str] | None = None
    tools: Mapping[str, Sequence[ToolOffer]] = field(default_factory=dict)


ToolEffect = Literal["pure", "read", "write"]
"""What a call does to the world; the values of `core/base.Effect`."""


@dataclass(frozen=True, slots=True)
class ToolOffer:
    """A tool as it is described to models, and what calling it does."""

    definition: ToolDefinition
    effect: ToolEffect
    needs_approval: bool = False


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gave: `content` is a JSON value, `text` what a model is shown of it.

    `is_error`: the tool did answer, and says that it could not do what was asked.
    """

    content: Any
    text: str
    is_error: bool = False


class ToolFailed(AppError):
    """The call came to nothing.

    `code`: `timeout`, `server_error`, `rate_limit` can be tried again; `invalid_arguments` (`errors` has
    them all), `bad_request`, `http_status`, `egress_denied`, `too_large`, `invalid_response`, `tool_changed`
    and others cannot.
    """

    status, code, title = 502, "server_error", "Tool call failed"


class Tool(Protocol):
    """One function that models and nodes call; the tenant is bound already."""

    @property
    def definition(self) -> ToolDefinition: ...

    @property
    def effect(self) -> ToolEffect: ...

    @property
    def needs_approval(self) -> bool:
        """Whether a person has to agree to each call that a model asks for."""
        ...

    async def call(self, arguments: Mapping[str, Any], *, idempotency_key: str | None) -> ToolResult:
        """Holds `arguments` against `definition.parameters`, then calls. Raises `ToolFailed`.

        `idempotency_key` is sent along where the tool writes and its protocol has a place for one.
        """
        ...


class Tools(Protocol):
    """Tools by what the version's bindings name. Raises `NotFound` for a name that stands for nothing."""

    async def tools(self, reference: str) -> Sequence[Tool]:
        """What the name stands for: one tool, or all that an MCP server or an API description offers."""
        ...

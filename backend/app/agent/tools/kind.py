"""What a kind of tools is: a closed configuration, what it offers, how it is called; and the registry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import Field, JsonValue

from app.agent.core.base import Closed, Effect, Mistake
from app.agent.core.http import Http, HttpStreams
from app.agent.core.interfaces import Retriever, ToolResult
from app.agent.core.sandbox import CodeRunner, Expressions
from app.core.errors import FieldError, Invalid
from app.core.timed_cache import TimedCache

LONGEST_DESCRIPTION = 4_000
"""Characters of an operation's description: all of them are shown to models, at every call."""


class ToolConfig(Closed):
    """Base of every kind's `config`. `kind` is the name used in the API."""

    kind: str

    @classmethod
    def mistakes(cls, raw: Mapping[str, Any]) -> Iterable[Mistake]:
        """What no schema tells; parts of `raw` that break the schema are passed over."""
        return ()

    def collections(self) -> tuple[str, ...]:
        """The collections of the project that it names."""
        return ()


class Operation(Closed):
    """One function that a registered tool offers, as it is stored with it.

    `call` is for the kind alone. `pin` is the hash of what a server said of the function when it was
    registered, None where nobody but the project says anything of it.
    """

    name: str
    description: str
    parameters: dict[str, JsonValue]
    effect: Effect
    call: dict[str, JsonValue] = Field(default_factory=dict)
    pin: str | None = None


@dataclass(frozen=True, slots=True)
class Unusable:
    """What was offered, and why it cannot be used. `name` is as its author wrote it."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Offer:
    """All that a configuration offers."""

    operations: tuple[Operation, ...]
    unusable: tuple[Unusable, ...] = ()


def unusable_field(field: str, message: str) -> Invalid:
    """What is wrong with a field of a configuration for the server or document that it is about."""
    return Invalid(message, errors=[FieldError(f"/body/config/{field}", "invalid_value", message)])


@dataclass(frozen=True, slots=True)
class Naming:
    """What a tool that offers one function calls it."""

    slug: str
    description: str


@dataclass(frozen=True, slots=True)
class ToolLimits:
    """`timeout_s`: of a whole call. `max_text`: characters that a model is shown of a result."""

    timeout_s: float = 60
    max_operations: int = 200
    max_text: int = 20_000


Listings = TimedCache[tuple[str, str], Mapping[str, str]]
"""What servers say of their functions now: (project, configuration) → name → pin."""


@dataclass(frozen=True, slots=True)
class ToolPorts:
    """What kinds call others with; the tenant, whose name is `project`, is bound already."""

    project: str
    http: Http
    streams: HttpStreams
    expressions: Expressions
    code: CodeRunner
    retriever: Retriever
    listings: Listings
    limits: ToolLimits


@dataclass(frozen=True, slots=True)
class Request:
    """One call, whose arguments keep the operation's parameters."""

    operation: Operation
    arguments: Mapping[str, Any]
    idempotency_key: str | None = None


Config = TypeVar("Config", bound=ToolConfig)
Offers = Callable[[Config, Naming, ToolPorts], Awaitable[Offer]]
"""Raises `ToolFailed` where a server has to be asked and does not answer, `Invalid` for what is wrong."""
Call = Callable[[Config, Request, ToolPorts], Awaitable[ToolResult]]
"""Raises `ToolFailed`, or another `AppError`."""


@dataclass(frozen=True, slots=True, eq=False)
class ToolKind:
    """One entry of the registry. `remote`: a server is asked what there is."""

    name: str
    remote: bool
    config: type[ToolConfig]
    offers: Offers[Any]
    call: Call[Any]


TOOL_KINDS: dict[str, ToolKind] = {}


def tool_kind(
    name: str, config: type[Config], *, offers: Offers[Config], remote: bool = False
) -> Callable[[Call[Config]], Call[Config]]:
    """Registers the decorated coroutine function as the way to call tools of this kind."""

    def register(call: Call[Config]) -> Call[Config]:
        if name in TOOL_KINDS:
            raise ValueError(f"the kind of tools {name!r} is already registered")
        TOOL_KINDS[name] = ToolKind(name, remote, config, offers, call)
        return call

    return register

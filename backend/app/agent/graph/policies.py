"""What every node carries besides its configuration: identity and the uniform policies."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, JsonValue, Tag
from pydantic_core import PydanticCustomError

from app.agent.core.base import Closed, Effect, NodeConfig
from app.agent.graph.references import Template

RESERVED = frozenset({"inputs", "state", "session", "item", "loop", "true", "false", "null"})
"""Names that references read otherwise, so that no node can have them."""


def _not_reserved(name: str) -> str:
    if name in RESERVED:
        raise PydanticCustomError(
            "reserved_id", "{name} is reserved; reserved are {reserved}",
            {"name": repr(name), "reserved": ", ".join(sorted(RESERVED))},
        )  # fmt: skip
    return name


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
NodeId = Annotated[Name, AfterValidator(_not_reserved)]
MOST_ATTEMPTS = 10
"""Of a node, within one visit."""
Seconds = Annotated[float, Field(strict=True, gt=0, le=86_400)]


class RetryPolicy(Closed):
    """When to try a failed node again, at most `max_attempts` times in all.

    `exponential` doubles the delay from `initial_s` up to `max_s`; `jitter` draws it from its upper
    half. A `Retry-After` of the provider is waited for in full. Once text was shown nothing is
    tried again, unless `restart_stream` lets the shown message be discarded.
    """

    max_attempts: Annotated[int, Field(strict=True, ge=1, le=MOST_ATTEMPTS)] = 3
    backoff: Literal["exponential", "constant"] = "exponential"
    initial_s: Annotated[float, Field(strict=True, ge=0, le=3600)] = 0.5
    max_s: Annotated[float, Field(strict=True, ge=0, le=3600)] = 20
    jitter: Annotated[bool, Field(strict=True)] = True
    on: tuple[Literal["rate_limit", "timeout", "server_error"], ...] = (
        "rate_limit",
        "timeout",
        "server_error",
    )
    restart_stream: Annotated[bool, Field(strict=True)] = False


class DefaultOutputs(Closed):
    """`on_error` of a node that goes on with these outputs when it fails.

    It leaves by its first way out; a `condition` by `else`.
    """

    default: dict[str, JsonValue]


class CachePolicy(Closed):
    """Keeps what the node hands on for `ttl_s` seconds, for all runs of this version in the project.

    It is found again when the node is asked the same: when the text of `key` is the same, or, without a
    `key`, every value that the configuration refers to. Failures are not kept, nor results beyond the
    installation's size limit.
    """

    ttl_s: Annotated[float, Field(strict=True, gt=0, le=30 * 86_400)]
    key: Template | None = None


def _on_error_tag(value: object) -> str:
    return "default" if isinstance(value, dict | DefaultOutputs) else "fail"


OnError = Annotated[
    Annotated[Literal["fail"], Tag("fail")] | Annotated[DefaultOutputs, Tag("default")],
    Discriminator(_on_error_tag),
]


class Node(Closed):
    """One node of a document. `timeout_s` bounds each attempt.

    Without `on_error` a failure leaves by the `error` handle if it has an edge, else fails the run.
    `join` says whether the node waits for `all` incoming edges or acts on `any` first taken one.
    """

    id: NodeId
    type: str
    config: NodeConfig
    timeout_s: Seconds | None = None
    retry: RetryPolicy | None = None
    on_error: OnError | None = None
    effect: Effect | None = None
    cache: CachePolicy | None = None
    join: Literal["all", "any"] = "all"

    @property
    def plain(self) -> bool:
        """Whether every policy has its default."""
        own = (self.timeout_s, self.retry, self.on_error, self.effect, self.cache)
        return own == (None,) * 5 and self.join == "all"

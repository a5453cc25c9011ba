"""Logical models and provider connections on the wire; the keys of connections go in, and never come out."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError

from app.agent.core.interfaces import Capability
from app.api.schemas.common import Body, Description, ItemError, Read, Slug, example
from app.core.base_urls import check_base_url

RESERVED = frozenset(
    ("messages", "model", "n", "response_format", "stream", "stream_options", "tool_choice", "tools")
)
"""What `extra_body` may not set: the platform does."""


def _base_url(url: str) -> str:
    try:
        return check_base_url(url)
    except ValueError as error:
        raise PydanticCustomError("base_url", "{message}", {"message": str(error)}) from None


Provider = Literal["openai_compatible"]
BaseUrl = Annotated[
    str,
    Field(max_length=2000, description="Without `/chat/completions`", examples=["https://api.openai.com/v1"]),
    AfterValidator(_base_url),
]
Key = Annotated[SecretStr, Field(min_length=1, description="Write-only", examples=["sk-your-key"])]
ModelName = Annotated[
    str, Field(min_length=1, max_length=200, description="As its provider names it", examples=["gpt-5-mini"])
]


class ConnectionCreate(Body):
    """Without a key, calls carry none, as servers of one's own often want it."""

    model_config = example(slug="openai", base_url="https://api.openai.com/v1", api_key="sk-your-key")

    slug: Slug = Field(examples=["openai"])
    provider: Provider = "openai_compatible"
    base_url: BaseUrl
    api_key: Key | None = None
    description: Description = ""


class ConnectionUpdate(Body):
    """JSON Merge Patch (RFC 7396). Another host needs the key again; a key of null is removed."""

    model_config = example(api_key="sk-your-key")

    base_url: BaseUrl = ""
    api_key: Key | None = None
    description: Description | None = None


class ConnectionRead(Read):
    """`hint` is the end of a long key; the key itself is never shown. `has_key` tells if there is one."""

    id: UUID
    slug: str
    provider: str
    base_url: str
    description: str
    has_key: bool
    hint: str | None
    key_changed_at: datetime | None
    revision: int
    created_at: datetime
    updated_at: datetime


Price = Annotated[Decimal, Field(ge=0, le=1_000_000, max_digits=13, decimal_places=6, examples=["0.25"])]


class Prices(Body):
    """What a million tokens cost, in a currency (ISO 4217)."""

    input_per_million: Price
    output_per_million: Price
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$", examples=["USD"])]


class PricesUpdate(Body):
    """Changes of `Prices`."""

    input_per_million: Price | None = None
    output_per_million: Price | None = None
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$", examples=["USD"])] | None = None


class ModelConfig(Body):
    """What is special about a model. `capabilities` replaces what is assumed of the provider's models.

    `max_tokens_field` names the field that carries the limit of tokens, where the usual one is not taken;
    `extra_body` is added to each request, such as `{"reasoning_effort": "low"}`. `prices` are those of the
    calls from now on; where there are none, it is not known what calls cost.
    """

    capabilities: list[Capability] | None = None
    prices: Prices | None = None
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    extra_body: Annotated[dict[str, Any], Field(max_length=50)] = Field(default_factory=dict)

    @field_validator("extra_body")
    @classmethod
    def _sets_nothing_of_ours(cls, body: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(RESERVED & set(body)):
            message = f"{', '.join(map(repr, taken))} cannot be set: the platform does"
            raise PydanticCustomError("reserved", "{message}", {"message": message})
        return body


class ModelConfigUpdate(Body):
    """Changes of a `ModelConfig`: null removes what was said, also inside of `extra_body`."""

    capabilities: list[Capability] | None = None
    prices: PricesUpdate | None = None
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    extra_body: dict[str, Any] | None = None


_EXAMPLE: dict[str, Any] = {"slug": "fast", "model": "gpt-5-mini", "connection": "openai"}


class ModelCreate(Body):
    """`connection` (id or slug) says where the model is; without one it is `local`."""

    model_config = example(**_EXAMPLE)

    slug: Slug = Field(examples=["fast"])
    kind: Literal["chat"] = "chat"
    model: ModelName
    connection: Annotated[str, Field(examples=["openai"])] | None = None
    config: ModelConfig = Field(default_factory=ModelConfig)
    description: Description = ""


class ModelUpdate(Body):
    """JSON Merge Patch (RFC 7396), also inside of `config`. A connection of null means `local`."""

    model_config = example(model="gpt-5")

    model: ModelName = ""
    connection: str | None = None
    config: ModelConfigUpdate | None = None
    description: Description | None = None


class ModelRead(Read):
    """`revision` counts changes; it begins the ETag."""

    id: UUID
    slug: str
    kind: str
    provider: str
    model: str
    connection_id: UUID | None
    config: dict[str, Any]
    description: str
    revision: int
    created_at: datetime
    updated_at: datetime


class ResolutionRead(Read):
    """What a name stands for now. `base_url` is that of a connection; the operator's is not shown.

    `model` is null where its server has to be asked and gives no answer; `problem` says why.
    """

    reference: str
    source: Literal["registry", "environment", "built_in"]
    provider: str
    model: str | None
    connection: str | None
    base_url: str | None
    capabilities: list[Capability]
    why: str
    problem: str | None


class UsageRead(Read):
    input_tokens: int
    output_tokens: int


class ProbeRead(Read):
    """How one tiny call went; times in milliseconds. `error` is null if it went well."""

    ok: bool
    model: str | None
    text: str
    first_text_ms: float | None
    duration_ms: float
    usage: UsageRead | None
    error: ItemError | None

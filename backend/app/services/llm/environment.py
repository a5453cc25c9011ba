"""`default-chat` as the operator's environment binds it.

`ORRERY_OPENAI_API_KEY` or `OPENAI_API_KEY`, `ORRERY_OPENAI_BASE_URL` or `OPENAI_BASE_URL`, and
`ORRERY_DEFAULT_CHAT_MODEL`; `docs/models.md` has the rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from pydantic import SecretStr

from app.agent.core.interfaces import ChatModel, ModelError
from app.core.config import Settings
from app.core.constants import DEFAULT_CHAT_MODEL
from app.core.egress import Gate, Limits
from app.core.errors import Misconfigured
from app.core.timed_cache import TimedCache
from app.services.llm.openai_compatible import Endpoint, OpenAICompatible, list_models

OPENAI = "openai"
OPENAI_COMPATIBLE = "openai_compatible"
LOCAL_PROVIDER = "local"
OPENAI_URL = "https://api.openai.com/v1"
OPENAI_MODEL = "gpt-5-mini"
"""Where a key is given and nothing else: the smaller one of the current generation."""
_LOCAL_MODELS = ("extractive",)
_LISTED_FOR_S = 60.0
_MAX_NAMED = 20


@dataclass(frozen=True, slots=True)
class EnvironmentChoice:
    """What the settings say. `provider` is `local` or `openai_compatible`; `model` None: ask the server."""

    provider: str
    model: str | None
    why: str
    base_url: str = ""
    api_key: SecretStr | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """How usage names the provider."""
        return OPENAI if self.base_url == OPENAI_URL else self.provider

    @property
    def place(self) -> str:
        """How messages name the server: tenants do not see the operator's URL."""
        return OPENAI_URL if self.base_url == OPENAI_URL else "OPENAI_BASE_URL"


def chosen(settings: Settings) -> EnvironmentChoice | None:
    """What the environment binds `default-chat` to; None where it says nothing. Raises `Misconfigured`."""
    provider, model = _named(settings.default_chat_model)
    if provider == LOCAL_PROVIDER:
        if model not in _LOCAL_MODELS:
            raise Misconfigured(
                f"ORRERY_DEFAULT_CHAT_MODEL is {settings.default_chat_model!r}; the provider 'local' has "
                f"{', '.join(f'local/{name}' for name in _LOCAL_MODELS)}."
            )
        return EnvironmentChoice(LOCAL_PROVIDER, model, f"ORRERY_DEFAULT_CHAT_MODEL is 'local/{model}'")
    key, url = settings.openai_api_key, settings.openai_base_url
    if key is None and url is None:
        if model is None:
            return None
        raise Misconfigured(
            f"ORRERY_DEFAULT_CHAT_MODEL is {settings.default_chat_model!r}, but neither OPENAI_API_KEY nor "
            "OPENAI_BASE_URL is set: set one of them, or choose 'local/extractive'."
        )
    given = "OPENAI_BASE_URL is set" if url else "OPENAI_API_KEY is set"
    if model is None and url in (None, OPENAI_URL):
        model = OPENAI_MODEL
    return EnvironmentChoice(OPENAI_COMPATIBLE, model, given, url or OPENAI_URL, key)


def _named(setting: str | None) -> tuple[str | None, str | None]:
    """Provider and model; a first part that is no provider belongs to the model's own name."""
    if setting is None:
        return None, None
    first, slash, rest = setting.partition("/")
    return (
        (first, rest or None)
        if slash and first in (LOCAL_PROVIDER, OPENAI, OPENAI_COMPATIBLE)
        else (None, setting)
    )


@dataclass(slots=True)
class EnvironmentModel:
    """The model of the environment. `gate` opens its server, also an internal one, and nothing else more."""

    choice: EnvironmentChoice
    gate: Gate
    limits: Limits
    _listed: TimedCache[str, str] = field(
        default_factory=lambda: TimedCache(ttl_s=_LISTED_FOR_S, size=1), repr=False
    )

    async def chat(self, org_id: UUID) -> ChatModel:
        """For calls of this organization. Raises `ModelError` where the server has to be asked for its model
        and does not answer, or has not exactly one.
        """
        endpoint = self._endpoint(org_id)
        return OpenAICompatible(endpoint, await self.model(org_id))

    async def model(self, org_id: UUID) -> str:
        """The model's name at the server: the one that is named, else the only one that it has."""
        if self.choice.model is not None:
            return self.choice.model
        return await self._listed.get("", lambda: self._only_one(org_id))

    async def names(self, org_id: UUID) -> list[str]:
        """The models that the server says it has. Raises `ModelError`."""
        return await list_models(self._endpoint(org_id))

    async def _only_one(self, org_id: UUID) -> str:
        names = await self.names(org_id)
        if len(names) == 1:
            return names[0]
        has = f"has {len(names)} models: {', '.join(names[:_MAX_NAMED])}" if names else "lists no models"
        more = ", …" if len(names) > _MAX_NAMED else ""
        raise ModelError(
            "bad_request",
            f"model {DEFAULT_CHAT_MODEL!r} cannot be told: the server at OPENAI_BASE_URL {has}{more}. "
            "Set ORRERY_DEFAULT_CHAT_MODEL to one.",
        )

    def _endpoint(self, org_id: UUID) -> Endpoint:
        choice = self.choice
        return Endpoint(
            choice.label,
            choice.base_url,
            self.gate.of(org_id),
            self.limits,
            choice.api_key,
            slug=DEFAULT_CHAT_MODEL,
            at=choice.place,
        )

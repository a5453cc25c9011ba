"""The model server that the environment names: reachable, the key taken, the model there."""

from __future__ import annotations

from collections.abc import Sequence

from app.agent.core.interfaces import ModelError
from app.cli.doctor.finding import Finding, ok, warn
from app.cli.doctor.subject import Subject
from app.core.constants import DEFAULT_CHAT_MODEL
from app.core.egress import Limits
from app.core.ids import new_id
from app.resources.outgoing import way_to
from app.services.llm.environment import LOCAL_PROVIDER, EnvironmentChoice, EnvironmentModel, chosen

_PATIENCE = Limits(connect_s=3, first_byte_s=3, idle_s=3, total_s=5)
_MAX_NAMED = 20
_REMEDIES = {
    "auth": "correct OPENAI_API_KEY",
    "bad_request": "correct OPENAI_BASE_URL: most end in '/v1'",
    "rate_limit": "see what the provider says about the limits of this key",
}
_UNREACHABLE = "start it, or correct OPENAI_BASE_URL"
_LATEST = ":latest"  # Ollama lists `llama3.2` as `llama3.2:latest`, and takes both


async def model_server_answers(subject: Subject) -> list[Finding]:
    """Everything else works without it, so nothing here is a failure."""
    choice = chosen(subject.settings)
    if choice is None:
        return [ok(f"no model server is set: {DEFAULT_CHAT_MODEL!r} is 'local/extractive'")]
    if choice.provider == LOCAL_PROVIDER:
        return [ok(f"{DEFAULT_CHAT_MODEL!r} is 'local/{choice.model}': {choice.why}")]
    try:
        async with way_to(choice, subject.settings) as gate:
            names = await EnvironmentModel(choice, gate, _PATIENCE).names(new_id())
    except ModelError as error:
        return [warn(error.message, _REMEDIES.get(error.code, _UNREACHABLE))]
    return [_listed(choice, names)]


def _listed(choice: EnvironmentChoice, names: Sequence[str]) -> Finding:
    server = f"the model server {choice.base_url!r}"
    shown = ", ".join(names[:_MAX_NAMED]) + (", …" if len(names) > _MAX_NAMED else "")
    has = f"it has {shown}" if names else "it lists no models"
    remedy = "set ORRERY_DEFAULT_CHAT_MODEL to one that the server has"
    if choice.model is None:
        if len(names) == 1:
            return ok(f"{server} answers, with the model {names[0]!r}")
        return warn(f"{server} answers, but which of its models is meant is not said: {has}", remedy)
    if choice.model in names or choice.model + _LATEST in names:
        return ok(f"{server} answers, and has the model {choice.model!r}")
    return warn(f"{server} answers, but has no model {choice.model!r}: {has}", remedy)

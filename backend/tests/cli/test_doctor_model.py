"""What the doctor finds about the model server of the environment, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from app.cli.doctor import model_server
from app.cli.doctor.model_server import model_server_answers
from app.cli.doctor.subject import Subject, find_subject
from app.core.config import Settings
from app.core.egress import Limits
from app.core.errors import Misconfigured
from tests.cli.doctoring import wrong
from tests.core.peers import nobody_listening, peer
from tests.core.peers import says as sends
from tests.openai_compatible_double import double

KEY = "sk-canary-doctor-5b81e0"


def subject(**given: Any) -> Subject:
    return find_subject(Settings(_env_file=None, **given), {})


async def found(subject: Subject) -> str:
    """What is fine."""
    assert await wrong(model_server_answers, subject) == ""
    return " | ".join(finding.what for finding in await model_server_answers(subject))


class TestModelServer:
    async def test_that_is_not_set_is_fine(self) -> None:
        assert "no model server is set" in await found(subject())

    async def test_is_not_asked_where_the_model_is_local(self) -> None:
        given = {"openai_api_key": KEY, "default_chat_model": "local/extractive"}
        assert "is 'local/extractive'" in await found(subject(**given))

    @pytest.mark.parametrize("model", [None, "llama3.2:latest", "llama3.2"])
    async def test_that_has_the_model_is_fine(self, model: str | None) -> None:
        async with double(models=["llama3.2:latest"], key=KEY) as server:
            given = {"openai_base_url": server.base_url, "openai_api_key": KEY, "default_chat_model": model}
            said = await found(subject(**given))
            assert [one.path for one in server.received] == ["/v1/models"] * 2
        assert f"{server.base_url!r} answers" in said
        assert "llama3.2" in said

    async def test_that_is_away_is_a_warning(self) -> None:
        with nobody_listening() as port:
            said = await wrong(model_server_answers, subject(openai_base_url=f"http://127.0.0.1:{port}/v1"))
        assert said.startswith("warn: ")
        assert f"No connection to '127.0.0.1:{port}' could be made" in said
        assert "start it, or correct OPENAI_BASE_URL" in said

    async def test_that_does_not_answer_is_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(model_server, "_PATIENCE", Limits(first_byte_s=0.05))
        async with peer(sends()) as other:
            said = await wrong(model_server_answers, subject(openai_base_url=other.url))
        assert f"'{other.authority}' did not answer within 0.05 s" in said

    async def test_that_refuses_the_key_is_a_warning_that_does_not_tell_it(self) -> None:
        async with double(key="another") as server:
            given = {"openai_base_url": server.base_url, "openai_api_key": KEY}
            said = await wrong(model_server_answers, subject(**given))
        assert said.startswith("warn: ")
        assert "answered 401" in said
        assert "correct OPENAI_API_KEY" in said
        assert KEY not in said

    async def test_that_has_not_the_model_is_a_warning(self) -> None:
        async with double(models=["a", "b"]) as server:
            given = {"openai_base_url": server.base_url, "default_chat_model": "c"}
            said = await wrong(model_server_answers, subject(**given))
        assert "answers, but has no model 'c': it has a, b → set ORRERY_DEFAULT_CHAT_MODEL" in said

    @pytest.mark.parametrize(("models", "has"), [([], "it lists no models"), (["a", "b"], "it has a, b")])
    async def test_of_which_no_model_is_named_is_a_warning(self, models: list[str], has: str) -> None:
        async with double(models=models) as server:
            said = await wrong(model_server_answers, subject(openai_base_url=server.base_url))
        assert f"which of its models is meant is not said: {has} → set ORRERY_DEFAULT_CHAT_MODEL" in said

    async def test_that_is_none_is_a_warning(self) -> None:
        async with peer(sends(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")) as other:
            said = await wrong(model_server_answers, subject(openai_base_url=other.url))
        assert "answered 404 Not Found → correct OPENAI_BASE_URL" in said

    async def test_whose_settings_make_no_sense_is_told_by_their_names(self) -> None:
        with pytest.raises(Misconfigured, match="ORRERY_DEFAULT_CHAT_MODEL"):
            await wrong(model_server_answers, subject(default_chat_model="gpt-5"))

"""What the environment binds `default-chat` to, and how its server is reached."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from app.agent.core.interfaces import ChatRequest, Message, ModelError, Role
from app.core.base_urls import authority
from app.core.config import Settings
from app.core.egress import Limits, Rule, Rules, open_egress
from app.core.errors import Misconfigured
from app.core.ids import new_id
from app.services.llm.environment import EnvironmentModel, chosen
from app.services.llm.openai_compatible import OpenAICompatible
from tests.core.peers import nobody_listening
from tests.openai_compatible_double import Double, double, says
from tests.services.llm.chat_model_conformance import collect, text_of

ASK = ChatRequest([Message(Role.USER, "Why?")])
OLLAMA = "http://localhost:11434/v1"


def settings(**given: Any) -> Settings:
    return Settings(_env_file=None, **given)


def chosen_of(**given: Any) -> tuple[str, str | None, str, str] | None:
    choice = chosen(settings(**given))
    return choice and (choice.provider, choice.model, choice.base_url, choice.label)


class TestChoice:
    def test_is_none_where_nothing_is_set(self) -> None:
        assert chosen_of() is None

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (
                {"openai_api_key": "sk"},
                ("openai_compatible", "gpt-5-mini", "https://api.openai.com/v1", "openai"),
            ),
            (
                {"openai_api_key": "sk", "default_chat_model": "openai/gpt-5"},
                ("openai_compatible", "gpt-5", "https://api.openai.com/v1", "openai"),
            ),
            (
                {"openai_api_key": "sk", "default_chat_model": "gpt-5"},
                ("openai_compatible", "gpt-5", "https://api.openai.com/v1", "openai"),
            ),
            (
                {"openai_base_url": OLLAMA},
                ("openai_compatible", None, OLLAMA, "openai_compatible"),
            ),
            (
                {"openai_base_url": OLLAMA, "default_chat_model": "llama3.2:3b"},
                ("openai_compatible", "llama3.2:3b", OLLAMA, "openai_compatible"),
            ),
            (
                {"openai_base_url": OLLAMA, "default_chat_model": "meta-llama/Llama-3.1-8B"},
                ("openai_compatible", "meta-llama/Llama-3.1-8B", OLLAMA, "openai_compatible"),
            ),
            (
                {"openai_base_url": OLLAMA, "default_chat_model": "openai/openai/gpt-oss-20b"},
                ("openai_compatible", "openai/gpt-oss-20b", OLLAMA, "openai_compatible"),
            ),
            (
                {"openai_api_key": "sk", "default_chat_model": "local/extractive"},
                ("local", "extractive", "", "local"),
            ),
        ],
    )
    def test_follows_the_settings(self, given: dict[str, Any], expected: tuple[Any, ...]) -> None:
        assert chosen_of(**given) == expected

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"default_chat_model": "gpt-5"}, "neither OPENAI_API_KEY nor OPENAI_BASE_URL is set"),
            (
                {"default_chat_model": "local/llama"},
                "'local/llama'; the provider 'local' has local/extractive",
            ),
            ({"default_chat_model": "local/"}, "local/extractive"),
        ],
    )
    def test_that_makes_no_sense_names_the_setting(self, given: dict[str, Any], said: str) -> None:
        with pytest.raises(Misconfigured, match="ORRERY_DEFAULT_CHAT_MODEL") as caught:
            chosen(settings(**given))
        assert said in caught.value.detail

    def test_does_not_show_the_key(self) -> None:
        assert "sk-canary" not in repr(chosen(settings(openai_api_key=SecretStr("sk-canary"))))


async def said_by(server: Double, *, allow: bool = True, **given: Any) -> tuple[str, str]:
    """What the model of the environment says, and its name."""
    choice = chosen(settings(openai_base_url=server.base_url, **given))
    assert choice is not None
    rules = Rules((Rule.parse(authority(choice.base_url)),) if allow else ())
    async with open_egress(rules=rules, limits=Limits()) as gate:
        model = await EnvironmentModel(choice, gate, Limits()).chat(new_id())
        return text_of(await collect(model, ASK)), model.name


class TestServer:
    async def test_that_has_one_model_is_asked_for_its_name(self) -> None:
        async with double(models=["llama3.2"]) as server:
            assert await said_by(server) == ("Hello there.", "openai_compatible/llama3.2")
            assert server.calls[0]["model"] == "llama3.2"

    @pytest.mark.parametrize("models", [[], ["b", "a"]])
    async def test_that_has_none_or_several_is_not_guessed_at(self, models: list[str]) -> None:
        async with double(models=models) as server:
            with pytest.raises(ModelError, match="Set ORRERY_DEFAULT_CHAT_MODEL") as caught:
                await said_by(server)
        assert ("2 models: a, b." if models else "lists no models.") in caught.value.message

    async def test_is_not_asked_where_the_model_is_named(self) -> None:
        async with double(models=["a", "b"]) as server:
            await said_by(server, default_chat_model="a")
            assert [one.path for one in server.received] == ["/v1/chat/completions"]

    @pytest.mark.parametrize("named", ["llama3.2", None])
    async def test_that_is_away_is_named_with_model_host_port_and_setting(self, named: str | None) -> None:
        with nobody_listening() as port:
            away = Double(says(), port=port)
            with pytest.raises(ModelError) as caught:
                await said_by(away, default_chat_model=named)
        model = "openai_compatible/llama3.2" if named else "openai_compatible"
        assert caught.value.message == (
            f"model 'default-chat' ({model}) at OPENAI_BASE_URL gave no answer: "
            f"No connection to '127.0.0.1:{port}' could be made: it refused, or cannot be reached."
        )

    async def test_is_asked_once_for_many_calls(self) -> None:
        async with double() as server:
            choice = chosen(settings(openai_base_url=server.base_url))
            assert choice is not None
            rules = Rules((Rule.parse(authority(server.base_url)),))
            async with open_egress(rules=rules, limits=Limits()) as gate:
                environment = EnvironmentModel(choice, gate, Limits())
                models = [await environment.chat(new_id()) for _ in range(3)]
            assert all(isinstance(model, OpenAICompatible) for model in models)
            assert len(server.received) == 1

    async def test_is_sent_no_key_where_there_is_none(self) -> None:
        async with double() as server:
            await said_by(server)
            assert all("authorization" not in one.headers for one in server.received)

"""`classify`: the model chooses a way out, and nothing but one of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.agent.core.interfaces import Capability, Catalog, Finished, ModelError, Session, TextDelta
from app.agent.graph.ports import RunFailed
from tests.agent.documents import codes, end, graph, issues, line, node, only, text
from tests.agent.doubles import Bench, ScriptedModel, says

CLASSES = [
    {
        "handle": "billing",
        "description": "Invoices and refunds",
        "examples": ['I paid "twice"', "Rückzahlung"],
    },
    {"handle": "technical", "description": "Something is broken"},
]
WAYS = ("billing", "technical", "else")


def document(output: Any = None, classes: Any = CLASSES, **config: Any) -> dict[str, Any]:
    policies = {key: config.pop(key) for key in ("on_error", "retry") if key in config}
    chosen = {"model": "main", "input": "{{ inputs.question }}", "classes": classes, **config}
    texts = [text(f"t_{way}", way) for way in WAYS]
    edges = ["start > c", *(f"c.{way} > t_{way}" for way in WAYS), *(f"t_{way} > done" for way in WAYS)]
    way = output or "{{ t_billing.text ?? t_technical.text ?? t_else.text }}"
    return graph(node("c", "classify", chosen, **policies), *texts, end(answer=way), edges=edges)


def chooses(name: str, **more: str) -> Any:
    return says(json.dumps({**more, "class": name}))


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model follows instructions, and knows no structured output."""
    able = frozenset({Capability.STREAMING, Capability.INSTRUCTIONS})
    monkeypatch.setattr(ScriptedModel, "capabilities", able)


async def answer(*scripts: Any, **config: Any) -> Any:
    return (await Bench(document(**config), *scripts).run()).output["answer"]


class TestRun:
    @pytest.mark.parametrize("way", WAYS)
    async def test_leaves_by_the_class_that_the_model_chooses(self, way: str) -> None:
        assert await answer(chooses(way)) == way

    async def test_offers_the_model_the_classes_and_no_other(self) -> None:
        bench = Bench(
            document(instructions="Customers of {{ inputs.question }}", temperature=0.0), chooses("billing")
        )
        await bench.run()
        (request,) = bench.model.requests
        assert request.response_schema == {
            "type": "object",
            "properties": {"class": {"type": "string", "enum": ["billing", "technical", "else"]}},
            "required": ["class"],
            "additionalProperties": False,
        }
        task, said = request.messages
        assert (task.role, said.role, said.content) == ("system", "user", "Why?")
        assert '- "billing": Invoices and refunds\n  Examples:\n  - "I paid \\"twice\\""' in task.content
        assert "Rückzahlung" in task.content
        assert "Customers of Why?" in task.content
        assert request.temperature == 0

    async def test_gives_the_earlier_messages_before_the_text(self) -> None:
        history = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        bench = Bench(document(history="{{ session.messages }}"), chooses("billing"))
        found = bench.agent.validate_input({"question": "Why?"})
        await bench.agent.run(
            found, ports=bench.ports, run_id="r", thread_id="t", session=Session(id="s", messages=history)
        )
        assert [message.content for message in bench.model.requests[0].messages[1:]] == [
            "Hi",
            "Hello",
            "Why?",
        ]

    async def test_says_why_where_it_is_asked_to(self) -> None:
        found = document({"class": "{{ c.class }}", "why": "{{ c.reason }}"}, explain=True)
        bench = Bench(found, chooses("billing", reason="It is about money."))
        assert (await bench.run()).output["answer"] == {"class": "billing", "why": "It is about money."}
        schema = bench.model.requests[0].response_schema
        assert schema is not None
        assert list(schema["properties"]) == ["reason", "class"]

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            (says("billing"), "This is not JSON"),
            (chooses("money"), "'money' is not one of 'billing', 'technical', 'else'"),
            (says("{}"), "'class' is a required property"),
        ],
    )
    async def test_asks_once_more_where_no_class_is_named(self, wrong: Any, told: str) -> None:
        bench = Bench(document("{{ c.usage }}"), wrong, chooses("technical"))
        result = await bench.run()
        assert result.output["answer"] == {"input_tokens": 6, "output_tokens": 4}
        assert result.usage.input_tokens == 6
        said = bench.model.requests[1].messages
        assert [message.role for message in said] == ["system", "user", "assistant", "user"]
        assert told in said[-1].content

    async def test_fails_where_the_second_answer_is_none_either(self) -> None:
        bench = Bench(document(), chooses("money"))
        with pytest.raises(RunFailed) as failure:
            await bench.run()
        assert (failure.value.code, len(bench.model.requests)) == ("invalid_output", 2)
        assert failure.value.usage.input_tokens == 6

    @pytest.mark.parametrize("reason", ["length", "content_filter", "tool_calls"])
    async def test_does_not_ask_again_where_that_is_no_use(self, reason: Any) -> None:
        bench = Bench(document(), [TextDelta("{"), Finished(reason)])
        with pytest.raises(RunFailed) as failure:
            await bench.run()
        assert (failure.value.code, len(bench.model.requests)) == ("invalid_output", 1)

    async def test_a_default_leaves_by_else(self) -> None:
        assert await answer(chooses("money"), on_error={"default": {}}) == "else"

    async def test_a_failing_model_fails_the_node_and_is_tried_again_by_its_policy(self) -> None:
        with pytest.raises(RunFailed) as failure:
            await answer([ModelError("rate_limit", "slow down")])
        assert failure.value.code == "rate_limit"
        script = [ModelError("rate_limit", "slow down")], chooses("billing")
        assert await answer(*script, retry={"max_attempts": 2}) == "billing"

    async def test_an_empty_text_is_not_classified(self) -> None:
        bench = Bench(document(input="  "))
        with pytest.raises(RunFailed) as failure:
            await bench.run()
        assert (failure.value.code, bench.model.requests) == ("bad_request", [])

    async def test_nothing_of_it_is_shown_as_text(self) -> None:
        bench = Bench(
            document() | {"interface": {"message": "question", "answer": "answer"}}, chooses("billing")
        )
        await bench.run()
        assert bench.log.text == "billing"


@pytest.mark.usefixtures("plain")
class TestWithoutStructuredOutput:
    @pytest.mark.parametrize("said", ["billing", "Billing", '"billing"', " **billing**.\n", "`billing`"])
    async def test_takes_the_name_of_a_class(self, said: str) -> None:
        bench = Bench(document(), says(said))
        assert (await bench.run()).output["answer"] == "billing"
        assert bench.model.requests[0].response_schema is None
        assert 'Answer with one of "billing", "technical", "else" and nothing else.' in (
            bench.model.requests[0].messages[0].content
        )

    @pytest.mark.parametrize(
        "said", ["It is billing", "billing or technical", "", "billing\nbecause of money", "money"]
    )
    async def test_takes_nothing_else(self, said: str) -> None:
        bench = Bench(document(), says(said), says("else"))
        assert (await bench.run()).output["answer"] == "else"
        assert "This is none of the classes: 'billing', 'technical', 'else'." in (
            bench.model.requests[1].messages[-1].content
        )

    async def test_takes_the_reason_from_the_lines_after_it(self) -> None:
        found = document("{{ c.class }}: {{ c.reason }}", explain=True)
        assert (await Bench(found, says("billing\nIt is\nabout money.\n")).run()).output == {
            "answer": "billing: It is\nabout money."
        }

    async def test_a_model_that_follows_no_instructions_is_not_asked(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ScriptedModel, "capabilities", frozenset({Capability.STREAMING}))
        bench = Bench(document(), says("billing"))
        with pytest.raises(RunFailed, match="lacks instructions"):
            await bench.run()
        assert bench.model.requests == []


class TestChecks:
    def test_every_class_is_a_way_out_beside_else(self) -> None:
        found = document()
        found["edges"].append({"source": "c", "handle": "biling", "target": "done"})
        issue = only(found)
        assert issue.code == "unknown_handle"
        assert issue.fix.startswith("did you mean 'billing'?")

    def test_the_reason_is_there_only_where_it_is_asked_for(self) -> None:
        assert issues(document("{{ c.reason }}", explain=True)) == []
        assert codes(document("{{ c.reason }}")) == ["unknown_output"]

    def test_handles_differ(self) -> None:
        issue = issues(document(classes=[*CLASSES, {"handle": "billing", "description": "Again"}]))[0]
        assert issue.pointer == "/nodes/1/config/classes/2/handle"
        assert "the handle 'billing' is that of class 0 already" in issue.message

    @pytest.mark.parametrize("handle", ["else", "out", "error", "A", ""])
    def test_handles_are_names_and_not_taken_ones(self, handle: str) -> None:
        one = {"handle": handle, "description": "x"}
        found = line(node("c", "classify", {"model": "main", "input": "x", "classes": [one]}))
        assert "/nodes/1/config/classes/0/handle" in [issue.pointer for issue in issues(found)]

    def test_says_what_to_do_about_a_model_that_cannot(self) -> None:
        models = {"default-chat": frozenset({Capability.STREAMING}), "big": frozenset(Capability)}
        catalog = Catalog(models, {"default-chat": "set OPENAI_API_KEY"}, frozenset({"handbook"}))
        issue = only(document(), catalog)
        assert (issue.code, issue.pointer) == ("missing_capability", "/nodes/1/config/model")
        assert "'big'" in issue.fix
        assert issue.fix.endswith("set OPENAI_API_KEY")

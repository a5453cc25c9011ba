"""Nodes that wait for a person or a time: `human` and `wait`, alone, side by side, inside of others."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from app.agent.core.interfaces import ModelError, StepRecord
from app.agent.core.interrupts import Answered, Suspended
from app.agent.graph.ports import Past, RunFailed, RunResult, Undeliverable
from app.core.errors import Unavailable
from tests.agent.documents import end, graph, issues, llm, node, only, text
from tests.agent.doubles import Bench, Log, Script, SteppedClock, says
from tests.agent.interrupts import Inbox
from tests.agent.test_inner_graphs import ITEMS, Team, calling, inner, line, mapping

FORM = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}


DOWN = [ModelError("server_error", "down")]
PANEL = graph(
    llm("write"), node("one", "human", {"message": "?"}), node("other", "human", {"message": "?"}),
    end(answer="{{ write.text }}"),
    edges=["start > write", "write > one", "write > other", "one > done", "other > done"],
    interface={"message": "question", "answer": "answer"},
)  # fmt: skip


class Office:
    """One run that is suspended and taken up again, as the executor does it: by its journal and its log."""

    def __init__(self, document: Mapping[str, Any], *scripts: Script, inputs: Any = None, **ports: Any):
        self.document, self.scripts, self.inputs = document, scripts, inputs or {"question": "Why?"}
        self.clock, self.ports = SteppedClock(), ports
        self.inbox = Inbox(self.clock)
        self.taken_up = 0
        self.steps: dict[Any, StepRecord] = {}
        self.names: list[str] = []
        self.told: set[str] = set()
        self.benches: list[Bench] = []

    async def go_on(self) -> RunResult:
        """Until the run ends, or raises `Suspended`."""
        bench = Bench(self.document, *self.scripts, clock=self.clock, interrupts=self.inbox, **self.ports)
        self.inbox.log = bench.log = Log(*self.steps.values())
        self.benches.append(bench)
        parked = frozenset(step.node_path for step in self.steps.values() if step.status == "waiting")
        past = Past(
            continued=self.taken_up,
            suspended=self.taken_up > 0,
            begun=self.taken_up > 0,
            parked=parked,
            told=frozenset(self.told),
        )
        self.taken_up += 1
        try:
            return await bench.given(self.inputs, past=past)
        finally:
            self.steps |= {step.key: step for step in bench.log.steps}
            self.told |= {value["node_id"] for value in bench.log.custom("node.finished")}
            self.names += [
                event.type.value if not hasattr(event, "name") else f"{event.name}"
                for event in bench.log.events
            ]

    async def waits(self) -> Suspended:
        with pytest.raises(Suspended) as waiting:
            await self.go_on()
        return waiting.value


def asking(**config: Any) -> dict[str, Any]:
    choices = config.get("choices", ())
    ways = [f"ask.{way} > done" for way in choices] or ["ask > done"]
    if "answer_within_s" in config:
        ways.append("ask.timeout > done")
    out = end(choice="{{ ask.choice }}", data="{{ ask.data }}", by="{{ ask.answered_by }}")
    return graph(
        node("ask", "human", {"message": "Pay {{ inputs.question }}", **config}), out,
        edges=["start > ask", *ways],
    )  # fmt: skip


def asked_at_the_second_attempt() -> Office:
    """At the first the model is away, at the second two people are asked."""
    document = calling()
    document["nodes"][1]["retry"] = {"max_attempts": 2}
    return Office(document, DOWN, says("Hello."), agents=Team(helper=PANEL))


class TestHuman:
    async def test_waits_and_goes_on_with_the_answer(self) -> None:
        office = Office(asking(choices=["approve", "reject"], form=FORM, prefill={"amount": 5}))
        waiting = await office.waits()
        assert (waiting.by_people, waiting.due_ms) == (True, None)
        (asked,) = office.inbox.open_ones
        assert asked.question is not None
        assert asked.question.message == "Pay Why?"
        assert asked.question.prefill == {"amount": 5}
        office.inbox.answer("ask", "approve", amount=7)
        result = await office.go_on()
        assert result.output == {"choice": "approve", "data": {"amount": 7}, "by": "ann@example.org"}

    async def test_is_never_everybodys_where_somebody_is_to_be_named(self) -> None:
        office = Office(asking(assignee="{{ inputs.question }}"), inputs={"question": " "})
        with pytest.raises(RunFailed, match=r"'assignee' .* is empty: it takes"):
            await office.go_on()

    async def test_is_told_once(self) -> None:
        office = Office(asking())
        await office.waits()
        await office.waits()
        office.inbox.answer("ask")
        await office.go_on()
        assert office.names == [
            *("RUN_STARTED", "node.started", "node.finished", "node.started", "interrupt", "run.suspended"),
            *("run.resumed", "run.suspended"),
            *("run.resumed", "node.finished", "node.started", "node.finished", "RUN_FINISHED"),
        ]

    async def test_nobody_answers_in_time(self) -> None:
        office = Office(asking(answer_within_s=60))
        waiting = await office.waits()
        assert waiting.due_ms == office.clock.now_ms() + 60_000
        await office.clock.sleep(59)
        await office.waits()
        await office.clock.sleep(1)
        assert (await office.go_on()).output["choice"] is None
        finished = [step for step in office.steps.values() if step.node_path == "ask"]
        assert (finished[0].handle, finished[0].duration_ms) == ("timeout", 60_000)

    async def test_other_branches_go_on_meanwhile(self) -> None:
        ask, write = node("ask", "human", {"message": "Well?"}), llm("write")
        done = end(text="{{ write.text }}", by="{{ ask.answered_by }}")
        edges = ["start > ask", "start > write", "ask > done", "write > done"]
        office = Office(graph(ask, write, done, edges=edges))
        await office.waits()
        assert len(office.benches[0].model.requests) == 1
        office.inbox.answer("ask")
        assert (await office.go_on()).output == {"text": "Hello.", "by": "ann@example.org"}
        assert office.benches[1].model.requests == []

    async def test_several_are_asked_at_once_and_answered_one_by_one(self) -> None:
        one, other = (node(name, "human", {"message": name}) for name in ("one", "other"))
        edges = ["start > one", "start > other", "one > done", "other > done"]
        office = Office(graph(one, other, end(), edges=edges))
        await office.waits()
        office.inbox.answer("other")
        await office.waits()
        office.inbox.answer("one")
        await office.go_on()
        assert office.names.count("interrupt") == 2

    async def test_inside_of_a_map(self) -> None:
        document = mapping(node("ask", "human", {"message": "{{ item }}?"}), end(by="{{ ask.answered_by }}"))
        office = Office(document, inputs={"items": ["a", "b", "c"]})
        await office.waits()
        messages = [one.question.message for one in office.inbox.open_ones if one.question]
        assert messages == ["a?", "b?", "c?"]
        for index in (1, 0):
            office.inbox.answer(f"each/{index}/ask")
            await office.waits()
        office.inbox.answer("each/2/ask")
        assert (await office.go_on()).output["results"] == [{"by": "ann@example.org"}] * 3
        assert office.names.count("interrupt") == 3

    async def test_inside_of_a_subagent(self) -> None:
        office = Office(calling(), agents=Team(helper=asking() | {"interface": {"answer": "by"}}))
        await office.waits()
        office.inbox.answer("ask/ask")
        assert (await office.go_on()).output["answer"] == "ann@example.org"

    async def test_a_failure_beside_it_takes_the_question_back(self) -> None:
        body = inner(
            node("ask", "human", {"message": "Well?"}), node("nap", "nap", {"fail": True}), end(),
            edges=["start > ask", "start > nap", "ask > done", "nap > done"],
        )  # fmt: skip
        each = node("each", "map", {"items": "{{ inputs.items }}", "graph": body}, on_error={"default": {}})
        office = Office(graph(each, end(), edges=line([each, end()]), inputs=ITEMS), inputs={"items": [1]})
        await office.go_on()
        assert office.inbox.withdrawn == ["each/0/ask"]

    async def test_of_a_second_attempt_stays_when_the_run_goes_on(self) -> None:
        office = asked_at_the_second_attempt()
        await office.waits()
        office.inbox.answer("ask/one")
        await office.waits()
        office.inbox.answer("ask/other")
        assert (await office.go_on()).output["answer"] == "Hello."
        assert (office.inbox.withdrawn, office.names.count("retry")) == ([], 1)

    async def test_of_a_second_attempt_stays_when_the_process_dies(self) -> None:
        office = asked_at_the_second_attempt()
        await office.waits()
        begun = [step for step in office.benches[0].log.steps if step.status == "started"]
        office.steps |= {step.key: step for step in begun if step.node_path == "ask"}
        await office.waits()
        assert (office.inbox.withdrawn, len(office.inbox.open_ones)) == ([], 2)

    async def test_a_failure_beside_it_ends_the_run(self) -> None:
        edges = ["start > ask", "start > nap", "ask > done", "nap > done"]
        office = Office(
            graph(
                node("ask", "human", {"message": "?"}), node("nap", "nap", {"fail": True}), end(), edges=edges
            )
        )
        with pytest.raises(RunFailed, match="woken up"):
            await office.go_on()


class TestWait:
    async def test_for_a_while(self) -> None:
        document = graph(
            node("nap", "wait", {"for_s": 90}), end(at="{{ nap.waited_until }}"),
            edges=["start > nap", "nap > done"],
        )  # fmt: skip
        office = Office(document)
        waiting = await office.waits()
        assert (waiting.by_people, waiting.due_ms) == (False, office.clock.now_ms() + 90_000)
        await office.clock.sleep(90)
        result = await office.go_on()
        assert datetime.fromisoformat(result.output["at"]).timestamp() * 1000 == office.clock.now_ms()
        assert "interrupt" not in office.names

    @pytest.mark.parametrize(
        ("until", "meant"),
        [
            ("2023-11-14T23:00:00Z", datetime(2023, 11, 14, 23, tzinfo=UTC)),
            ("2023-11-15T00:00:00+01:00", datetime(2023, 11, 14, 23, tzinfo=UTC)),
            ("2023-11-14 23:00", datetime(2023, 11, 14, 23, tzinfo=UTC)),
        ],
    )
    async def test_until_a_time(self, until: str, meant: datetime) -> None:
        office = Office(
            graph(node("nap", "wait", {"until": until}), end(), edges=["start > nap", "nap > done"])
        )
        assert (await office.waits()).due_ms == meant.timestamp() * 1000

    async def test_a_time_that_is_past_does_not_wait(self) -> None:
        parts = node("nap", "wait", {"until": "2020-01-01"}), end(at="{{ nap.waited_until }}")
        office = Office(graph(*parts, edges=["start > nap", "nap > done"]))
        result = await office.go_on()
        assert datetime.fromisoformat(result.output["at"]) == datetime(2020, 1, 1, tzinfo=UTC)

    @pytest.mark.parametrize("until", ["tomorrow", "", "12"])
    async def test_what_is_no_time(self, until: str) -> None:
        parts = node("nap", "wait", {"until": "{{ inputs.question }}"}), end()
        office = Office(graph(*parts, edges=["start > nap", "nap > done"]), inputs={"question": until})
        with pytest.raises(RunFailed, match="'until' takes a time such as"):
            await office.go_on()

    async def test_whose_end_cannot_be_stored_is_no_failure_of_the_node(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def away(_: UUID) -> Answered:
            raise Unavailable("away")

        nap = node("nap", "wait", {"for_s": 1}, on_error={"default": {}})
        office = Office(graph(nap, end(), edges=["start > nap", "nap > done"]))
        await office.waits()
        await office.clock.sleep(1)
        monkeypatch.setattr(office.inbox, "expire", away)
        with pytest.raises(Undeliverable):
            await office.go_on()

    async def test_the_earliest_time_counts(self) -> None:
        naps = [node(f"nap{s}", "wait", {"for_s": s}) for s in (30, 10, 20)]
        edges = [edge for nap in naps for edge in (f"start > {nap['id']}", f"{nap['id']} > done")]
        office = Office(graph(*naps, end(), edges=edges))
        for passed in (10, 10, 10):
            assert (await office.waits()).due_ms == office.clock.now_ms() + 10_000
            await office.clock.sleep(passed)
        await office.go_on()


class TestChecks:
    def test_exactly_one_time(self) -> None:
        for config in ({}, {"for_s": 1, "until": "2020-01-01"}):
            parts = node("nap", "wait", config), end()
            issue = only(graph(*parts, edges=["start > nap", "nap > done"]))
            assert (issue.code, issue.pointer) == ("invalid_value", "/nodes/1/config")

    @pytest.mark.parametrize(("field", "value"), [("for_s", "soon"), ("for_s", "60"), ("until", "tomorrow")])
    def test_a_time_that_is_none(self, field: str, value: str) -> None:
        issue = only(graph(node("nap", "wait", {field: value}), end(), edges=["start > nap", "nap > done"]))
        assert (issue.code, issue.pointer) == ("invalid_value", f"/nodes/1/config/{field}")
        assert repr(value) in issue.message

    def test_a_choice_leads_on_by_its_handle(self) -> None:
        document = asking(choices=["yes", "no"])
        document["edges"].pop()
        assert [issue.code for issue in issues(document)] == ["no_path_to_end"]

    @pytest.mark.parametrize("choices", [["error"], ["timeout"], ["a", "a"]])
    def test_choices_are_handles(self, choices: list[str]) -> None:
        issue = next(one for one in issues(asking(choices=choices)) if one.code == "invalid_value")
        assert issue.pointer.startswith("/nodes/1/config/choices/")

    def test_prefill_is_of_the_form(self) -> None:
        issue = only(asking(form=FORM, prefill={"amont": 1}))
        assert (issue.code, issue.pointer) == ("invalid_value", "/nodes/1/config/prefill/amont")

    def test_the_data_has_the_types_of_the_form(self) -> None:
        document = asking(form=FORM)
        document["nodes"].insert(2, text("t", "{{ ask.data.amout }}"))
        document["edges"] = graph(edges=["start > ask", "ask > t", "t > done"])["edges"]
        assert [issue.code for issue in issues(document)] == ["unknown_output"]

    def test_runs_that_are_stored_at_their_exit_cannot_wait(self) -> None:
        assert [issue.code for issue in issues(asking() | {"durability": "exit"})] == ["no_lasting_wait"]

    def test_waiting_cannot_be_cached(self) -> None:
        document = asking()
        document["nodes"][1]["cache"] = {"ttl_s": 1}
        assert [issue.code for issue in issues(document)] == ["not_cacheable"]

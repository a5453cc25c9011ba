"""`set_state`: what becomes of the state, before a run and in it, and in one that goes on."""

from __future__ import annotations

from typing import Any

import pytest

from app.agent.core.interfaces import StepRecord
from app.agent.graph.ports import Past, RunFailed
from tests.agent.documents import end, graph, issues, line, node, only, text
from tests.agent.doubles import Bench, Log

STATE: dict[str, Any] = {
    "name": {"type": "string"},
    "notes": {"type": "array", "reducer": "append", "initial": []},
    "facts": {"type": "object", "reducer": "merge", "initial": {"a": 1}},
    "total": {"type": "number", "reducer": "add", "initial": 0},
    "ready": {"type": "boolean", "initial": False},
}


def writes(node_id: str = "s", /, **values: Any) -> dict[str, Any]:
    return node(node_id, "set_state", {"values": values})


def document(*middle: dict[str, Any], output: Any = "{{ state.notes }}") -> dict[str, Any]:
    found = line(*middle, output=output, state=STATE)
    found["inputs"] = {
        "type": "object",
        "properties": {"question": {"type": "string"}, "x": {}},
        "required": ["question"],
    }
    return found


async def output(found: dict[str, Any], **inputs: Any) -> Any:
    return (await Bench(found).run(**inputs)).output["answer"]


class TestRun:
    @pytest.mark.parametrize(
        ("values", "read", "value"),
        [
            ({"name": "{{ inputs.question }}"}, "name", "Why?"),
            ({"name": "Q: {{ inputs.question }}"}, "name", "Q: Why?"),
            ({"notes": "{{ inputs.question }}"}, "notes", ["Why?"]),
            (
                {"notes": {"q": "{{ inputs.question }}", "n": [1, None]}},
                "notes",
                [{"q": "Why?", "n": [1, None]}],
            ),
            ({"notes": ["x"]}, "notes", [["x"]]),
            ({"facts": {"b": "{{ inputs.question }}"}}, "facts", {"a": 1, "b": "Why?"}),
            ({"total": 2.5}, "total", 2.5),
            ({"ready": True}, "ready", True),
        ],
    )
    async def test_writes_through_the_reducer(self, values: Any, read: str, value: Any) -> None:
        assert await output(document(writes(**values), output=f"{{{{ state.{read} }}}}")) == value

    async def test_writes_several_fields_none_of_which_sees_another(self) -> None:
        found = document(
            writes(total=1, notes="{{ state.total }}"), writes("t", total=2, notes="{{ state.total }}")
        )
        assert await output(found) == [0, 1]

    async def test_nodes_side_by_side_add_to_one_field(self) -> None:
        found = graph(
            writes("a", notes="a"), writes("b", notes="b"), end(answer="{{ state.notes }}"),
            edges=["start > a", "start > b", "a > done", "b > done"], state=STATE,
        )  # fmt: skip
        assert await output(found) == ["a", "b"]

    @pytest.mark.parametrize(
        ("values", "given"),
        [
            ({"total": "{{ inputs.x }}"}, "3"),
            ({"facts": "{{ inputs.x }}"}, [1]),
            ({"name": "{{ inputs.x }}"}, None),
        ],
    )
    async def test_a_value_that_the_field_cannot_take_fails_and_writes_nothing(
        self, values: Any, given: Any
    ) -> None:
        found = document(
            writes(notes="n", **{k: v.replace("x }}", "x ?? null }}") for k, v in values.items()})
        )
        with pytest.raises(RunFailed) as failure:
            await output(found, x=given)
        assert failure.value.code == "type_mismatch"
        found["nodes"][1]["on_error"] = {"default": {}}
        assert await output(found, x=given) == []

    async def test_counts_as_pure_and_has_no_outputs(self) -> None:
        planned = Bench(document(writes(name="x"))).agent.plan.nodes[1]
        assert (planned.effect, dict(planned.type.types)) == ("pure", {})


class TestGoingOn:
    async def test_works_writes_out_anew_and_once(self) -> None:
        """The journal of a process that died has the search, not the writes around it."""
        search = node("search", "retrieve", {"collection": "kb", "query": "{{ inputs.question }}"})
        found = document(writes("a", notes="before", total=1), search, writes("b", notes="after", total=10))
        found["nodes"][-1]["config"]["output"]["total"] = "{{ state.total }}"
        first = Bench(found)
        whole = (await first.run()).output
        bench = Bench(found)
        bench.log = Log(*(step for step in first.log.steps if isinstance(step, StepRecord)))
        told = frozenset({"start", "a", "search"})
        again = await bench.given({"question": "Why?"}, past=Past(continued=1, begun=True, told=told))
        assert again.output == whole == {"answer": ["before", "after"], "total": 11}
        assert bench.shelf.searches == []

    async def test_behind_a_race_writes_are_in_the_journal(self) -> None:
        found = graph(
            text("a", "a"),
            text("b", "b"),
            writes("s", notes="{{ a.text ?? b.text }}"),
            end(answer="{{ state.notes }}"),
            edges=["start > a", "start > b", "a > s", "b > s", "s > done"], state=STATE,
        )  # fmt: skip
        found["nodes"][3]["join"] = "any"
        first = Bench(found)
        whole = (await first.run()).output
        kept = [step for step in first.log.steps if step.node_path == "s"]
        assert [list(step.writes) for step in kept] == [[("notes", whole["answer"][0])]]
        bench = Bench(found)
        bench.log = Log(*first.log.steps)
        assert (await bench.given({"question": "Why?"}, past=Past(continued=1, begun=True))).output == whole


class TestChecks:
    def test_an_unknown_field_names_the_nearest_one(self) -> None:
        issue = only(document(writes(nots="x")))
        assert (issue.code, issue.pointer) == ("unknown_state", "/nodes/1/config/values/nots")
        assert issue.fix.startswith("did you mean 'notes'?")
        assert issue.fix.endswith('; or add "nots" to the state')

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"total": "{{ inputs.question }}"}, "'inputs.question' is string, but 'total' takes number"),
            (
                {"total": "n: {{ inputs.question }}"},
                "'n: {{ inputs.question }}' is string, but 'total' takes number",
            ),
            ({"total": "5"}, "'5' is string, but 'total' takes number"),
            ({"total": None}, "null is null, but the state field 'total' takes number"),
            ({"facts": [1]}, "[1] is array, but the state field 'facts' takes object"),
            ({"ready": 1}, "1 is integer, but the state field 'ready' takes boolean"),
            ({"name": "{{ state.notes }}"}, "'state.notes' is array, but 'name' takes string"),
        ],
    )
    def test_a_value_of_another_type_is_found(self, values: Any, said: str) -> None:
        issue = only(document(writes(**values)))
        (field,) = values
        assert (issue.code, issue.pointer) == ("type_mismatch", f"/nodes/1/config/values/{field}")
        assert said in issue.message

    def test_a_field_is_set_where_every_way_there_writes_it(self) -> None:
        choice = node(
            "c", "condition", {"branches": [{"handle": "yes", "when": "{{ inputs.question }} == ''"}]}
        )
        edges = ["start > c", "c.yes > a", "c.else > b", "a > done", "b > done"]
        found = graph(
            choice,
            writes("a", name="a"),
            writes("b", name="b"),
            end(answer="{{ state.name }}"),
            edges=edges,
            state=STATE,
        )
        assert issues(found) == []
        found["nodes"][3]["config"]["values"] = {"notes": "b"}
        assert only(found).code == "maybe_unset"

    def test_a_field_may_be_unset_where_its_writer_goes_on_after_a_failure(self) -> None:
        found = document(writes(name="x") | {"on_error": {"default": {}}}, output="{{ state.name }}")
        assert only(found).code == "maybe_unset"

    def test_a_field_is_unset_before_it_is_written(self) -> None:
        assert only(document(text("t", "{{ state.name }}"), writes(name="x"))).code == "maybe_unset"

    @pytest.mark.parametrize("value", [1, "x", None, ["x"], {"a": "{{ inputs.question }}"}])
    def test_anything_can_be_appended(self, value: Any) -> None:
        assert issues(document(writes(notes=value))) == []

    def test_two_that_may_replace_the_same_field_at_once_are_an_error(self) -> None:
        found = graph(
            writes("a", name="a"), writes("b", name="b"), end(answer="{{ state.name ?? null }}"),
            edges=["start > a", "start > b", "a > done", "b > done"], state=STATE,
        )  # fmt: skip
        assert only(found).code == "parallel_writers"

    @pytest.mark.parametrize("values", [{}, {"Notes": 1}, [], None])
    def test_names_and_number_of_fields(self, values: Any) -> None:
        found = document(node("s", "set_state", {"values": values}))
        assert issues(found)[0].pointer.startswith("/nodes/1/config/values")

    def test_it_is_not_cached(self) -> None:
        found = document(writes(notes=1))
        found["nodes"][1]["cache"] = {"ttl_s": 60}
        issue = only(found)
        assert (issue.code, "writes the state field 'notes'" in issue.message) == ("not_cacheable", True)

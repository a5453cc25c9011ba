"""`agent`: a chat model that calls tools until it can answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from app.agent.config import ModelSettings, PromptMessage
from app.agent.core.base import Binds, Effect, Mistake, NodeConfig, Outputs, expects, node
from app.agent.core.interfaces import (
    Capability,
    ChatModel,
    ChatRequest,
    Citation,
    FinishReason,
    Message,
    Role,
    Usage,
)
from app.agent.core.interrupts import Question
from app.agent.core.scope import Scope
from app.agent.core.value_types import ValueType, of_schema
from app.agent.graph.functions import (
    Function,
    check_count,
    described,
    named_apart,
    of_agent,
    of_collection,
    of_tools,
)
from app.agent.graph.json_schema import sound_schema
from app.agent.graph.model_calls import check_able, conversation, leading_system
from app.agent.graph.nodes.human import LONGEST_S, named
from app.agent.graph.references import Template
from app.agent.graph.structured_output import schema_told
from app.agent.graph.tool_calls import APPROVE, REJECT, ToolOutcome
from app.agent.graph.tool_loop import Rules, StoppedBy, ToolLoop, Turn

_SHARED = ("$defs", "definitions")
"""References of a schema lead to these from its root, wherever it stands."""
ToolName = Annotated[str, Field(min_length=1, max_length=200)]


class AgentConfig(NodeConfig, ModelSettings):
    """Has a chat model work on a task with tools: it is asked, the tools that it calls are called, and it is
    asked again with what they gave, until it answers without calling one.

    `tools` name entries of `bindings.tools`, each of which may offer several; every one of `collections` is
    offered as the tool `search_<name>`, and every one of `agents`, published agents, as the tool `<name>`,
    which takes their inputs. Two tools of one name are told apart by the binding: `crm_search`, `web_search`.
    `descriptions` say, by a tool's name, what it is good for, instead of what it says of itself.

    What a tool gives, also that it failed, that its arguments do not fit, or that there is no such tool, is
    told to the model, which may do better. Calls of one answer run side by side, `concurrency` at once; with
    `"parallel_tool_calls": false` one after the other.

    After `max_iterations` answers with calls, or once the model calls of the node have used `token_budget`
    tokens, the model is asked to answer without tools (`stopped_by` tells so); with `"on_limit": "fail"` the
    node fails by `iteration_limit` or `token_limit`.

    `approval` names the tools (by their own name, the one that the model sees, or their binding's) that a
    person must agree to before each call; `all` stands for every one. Tools that are registered as needing
    approval are asked for in any case. The run is `interrupted` meanwhile; the other calls are made.
    Who answers chooses `approve` or `reject`, may change the arguments, and may give a reason, which the
    model is told. `assignee` and `answer_within_s` are those of `human`; a call that nobody answers for in
    time is rejected.

    With `output_schema`, the JSON Schema of an object, the last answer is JSON that fits it, asked for once
    more where it does not: `output`. With `citations`, markers `[n]` in it are the passages that searches
    found. `messages` are the exchange without the leading system messages, of use as `history` the next time.
    """

    type: ClassVar[str] = "agent"
    keeps_calls: ClassVar[bool] = True
    example: ClassVar[dict[str, Any]] = {
        "model": "main",
        "prompt": [
            {"role": "system", "content": "You help customers. Look things up before you answer."},
            {"role": "user", "content": "{{ inputs.question }}"},
        ],
        "tools": ["crm"],
        "collections": ["kb"],
        "approval": ["crm"],
        "max_iterations": 8,
    }

    prompt: Annotated[list[PromptMessage], Field(min_length=1, max_length=100)]
    history: Annotated[Template | None, expects(list[Message])] = None
    tools: Annotated[list[Annotated[str, Binds("tools")]], Field(max_length=50)] = Field(default_factory=list)
    collections: Annotated[list[Annotated[str, Binds("collections")]], Field(max_length=50)] = Field(
        default_factory=list
    )
    agents: Annotated[list[Annotated[str, Binds("agents")]], Field(max_length=50)] = Field(
        default_factory=list
    )
    descriptions: Annotated[
        dict[ToolName, Annotated[str, Field(min_length=1, max_length=4000)]], Field(max_length=200)
    ] = Field(default_factory=dict)
    top_k: Annotated[int, Field(strict=True, ge=1, le=50)] = 6
    mode: Literal["hybrid", "dense", "keyword"] = "hybrid"
    citations: Annotated[bool, Field(strict=True)] = False
    max_iterations: Annotated[int, Field(strict=True, ge=1, le=100)] = 10
    token_budget: Annotated[int, Field(strict=True, ge=1, le=100_000_000)] | None = None
    on_limit: Literal["answer", "fail"] = "answer"
    parallel_tool_calls: Annotated[bool, Field(strict=True)] = True
    concurrency: Annotated[int, Field(strict=True, ge=1, le=64)] = 8
    approval: Literal["all"] | Annotated[list[ToolName], Field(max_length=200)] = Field(default_factory=list)
    assignee: Template | None = None
    answer_within_s: Annotated[float, Field(strict=True, gt=0, le=LONGEST_S)] | None = None
    output_schema: Annotated[dict[str, Any], AfterValidator(sound_schema)] | None = None

    @classmethod
    def mistakes(cls, raw: Mapping[str, Any]) -> Iterator[Mistake]:
        for field in ("tools", "collections", "agents"):
            given: Any = raw.get(field)
            named: list[Any] = given if isinstance(given, list) else []
            for index, name in enumerate(named):
                if name in named[:index]:
                    yield Mistake((field, index), f"{name!r} is there twice", "remove one")

    def waits(self) -> bool:
        return bool(self.approval)

    def effect(self) -> Effect:
        """`write` with tools or agents, whatever those do now; each call does what its tool does."""
        return Effect.WRITE if self.tools or self.agents else Effect.READ

    def given(self, types: Mapping[str, ValueType]) -> Mapping[str, ValueType]:
        """`output` only with `output_schema`, whose values it has."""
        if self.output_schema is None:
            return {name: kind for name, kind in types.items() if name != "output"}
        return {**types, "output": of_schema(self.output_schema)}


@node(
    AgentConfig,
    effect=Effect.READ,
    streams="text",
    requires={Capability.TOOLS},
    outputs={
        "text": str,
        "output": dict[str, Any],
        "citations": list[Citation],
        "messages": list[Message],
        "tool_calls": list[ToolOutcome],
        "iterations": int,
        "stopped_by": StoppedBy,
        "usage": Usage,
        "finish_reason": FinishReason,
    },
)
async def agent(config: AgentConfig, scope: Scope) -> Outputs:
    """Raises `ModelError`; `NodeError` (`invalid_output`, `iteration_limit`, `token_limit`, `too_large`,
    `unexpected_tool_calls`, `content_filter`); `Suspended` while somebody has to decide."""
    model = await scope.chat_model(config.model)
    check_able(model, {Capability.TOOLS})
    functions = await _functions(config, scope)
    said = conversation(config.prompt, config.history, scope)
    request = _request(config, said, functions, model=model)
    loop = ToolLoop(scope, model, request, functions, _rules(config, scope))
    turn = await loop.run()
    return _outputs(config, loop, turn, said[leading_system(said) :])


async def _functions(config: AgentConfig, scope: Scope) -> list[Function]:
    found: list[Function] = []
    for name in config.tools:
        found += of_tools(name, await scope.tools(name))
    found += [
        of_collection(scope, name, top_k=config.top_k, mode=config.mode, cited=config.citations)
        for name in config.collections
    ]
    found += [of_agent(name, await scope.agent_inputs(name)) for name in config.agents]
    check_count(found, scope.limits.offered_tools)
    return described(named_apart(found), config.descriptions)


def _request(
    config: AgentConfig, said: list[Message], functions: list[Function], *, model: ChatModel
) -> ChatRequest:
    schema = config.output_schema
    takes_schema = Capability.STRUCTURED_OUTPUT in model.capabilities
    if schema is not None and not takes_schema:
        said = [Message(Role.SYSTEM, schema_told(schema)), *said]
    return ChatRequest(
        messages=said,
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        tools=[function.definition for function in functions],
        parallel_tool_calls=config.parallel_tool_calls,
        response_schema=schema if takes_schema else None,
    )


def _rules(config: AgentConfig, scope: Scope) -> Rules:
    return Rules(
        max_iterations=config.max_iterations,
        token_budget=config.token_budget,
        fails_at_limit=config.on_limit == "fail",
        parallel=config.parallel_tool_calls,
        at_once=config.concurrency,
        most_calls=scope.limits.tool_calls,
        citations=config.citations,
        schema=config.output_schema,
        approval=_Approval(
            named=config.approval,
            assignee=named(config.assignee, scope),
            within_s=config.answer_within_s,
        ),
    )


def _outputs(config: AgentConfig, loop: ToolLoop, turn: Turn, said: list[Message]) -> Outputs:
    outputs: dict[str, Any] = {
        "text": turn.text,
        "citations": loop.citations(turn.text),
        "messages": [*said, *loop.messages],
        "tool_calls": loop.outcomes,
        "iterations": loop.iterations,
        "stopped_by": loop.stopped_by,
        "usage": loop.usage,
        "finish_reason": turn.reason,
    }
    return outputs if config.output_schema is None else outputs | {"output": loop.value}


@dataclass(frozen=True, slots=True)
class _Approval:
    """Who must agree to which calls (`Approval` of `graph/tool_calls`)."""

    named: Literal["all"] | list[str]
    assignee: str | None
    within_s: float | None

    def needed(self, function: Function) -> bool:
        named = self.named == "all" or any(function.is_called(name) for name in self.named)
        return function.asks or named

    def question(self, function: Function, arguments: Mapping[str, Any]) -> Question:
        parameters = dict(function.definition.parameters)
        shared: dict[str, Any] = {word: parameters.pop(word) for word in _SHARED if word in parameters}
        return Question(
            message=f"May the tool {function.definition.name!r} be called?",
            kind="approval",
            choices=(APPROVE, REJECT),
            form={
                "type": "object",
                "properties": {
                    "arguments": parameters,
                    "reason": {"type": "string", "maxLength": 2000, "description": "Told to the model"},
                },
                "additionalProperties": False,
                **shared,
            },
            prefill={"arguments": dict(arguments)},
            assignee=self.assignee,
            tool=function.definition.name,
        )

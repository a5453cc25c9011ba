"""Every `error.code` of nodes and runs: what programs match on, and what the documentation says of it."""

from __future__ import annotations

from enum import StrEnum


class RunErrorCode(StrEnum):
    """`retried`: the policy `retry` tries again, unless its `on` leaves the code out.

    `of_runs`: no node fails with it, only a run.
    """

    description: str
    retried: bool
    of_runs: bool

    def __new__(
        cls, code: str, description: str, retried: bool = False, of_runs: bool = False
    ) -> RunErrorCode:
        member = str.__new__(cls, code)
        member._value_ = code
        member.description = description
        member.retried, member.of_runs = retried, of_runs
        return member

    RATE_LIMIT = "rate_limit", "A provider or server takes no more requests for now (429).", True
    TIMEOUT = (
        "timeout",
        "The node did not end within its `timeout_s`, or whom it asked did not answer in time.",
        True,
    )
    SERVER_ERROR = (
        "server_error",
        "Whom the node asked failed (5xx), could not be reached, or broke its answer off.",
        True,
    )
    BAD_REQUEST = "bad_request", "What the node would ask for is refused: a value in it cannot be used there."
    AUTH = "auth", "The provider refuses the key of the model's connection."
    UNSET_REFERENCE = "unset_reference", "A reference, without `??`, to a value that this run has not set."
    TYPE_MISMATCH = "type_mismatch", "The value to be written is not of the state field's type."
    TOO_LARGE = "too_large", "A text, an output or an answer is larger than a run may carry."
    NOT_BOOLEAN = "not_boolean", "The expression of a branch gives something else than true or false."
    EXPRESSION_FAILED = "expression_failed", "An expression raised an error, or gave what JSON cannot carry."
    EXPRESSION_LIMIT = "expression_limit", "An expression took more time, memory or depth than it may."
    CODE_FAILED = "code_failed", "The code of a `code` node raised an error, or nothing runs code here."
    CODE_LIMIT = (
        "code_limit",
        "A `code` node took more time or memory than it may, or gave more.",
    )
    LOOP_LIMIT = "loop_limit", "A `loop` did as many rounds as it may, and its condition still holds."
    TOO_DEEP = "too_deep", "Agents call agents more levels deep than they may."
    NO_AGENTS = "no_agents", "The process that has the run knows no other agents."
    NO_INTERRUPTS = "no_interrupts", "The process that has the run can ask nobody, and keeps no times."
    INVALID_OUTPUT = "invalid_output", "The model's answer is not the JSON that was asked for."
    UNEXPECTED_TOOL_CALLS = (
        "unexpected_tool_calls",
        "The model asked for tools, of which it was given none, instead of answering.",
    )
    CONTENT_FILTER = "content_filter", "A filter of the model's provider withheld the answer."
    INVALID_ARGUMENTS = "invalid_arguments", "The arguments do not keep the JSON Schema of the tool."
    UNKNOWN_OPERATION = "unknown_operation", "What a tool's name stands for has no such operation (any more)."
    TOOL_CHANGED = (
        "tool_changed",
        "The MCP server describes the tool otherwise than it was registered: look at it, and confirm it.",
    )
    TOOL_ERROR = "tool_error", "The tool, or its server, answers that it could not do what was asked."
    ITERATION_LIMIT = (
        "iteration_limit",
        "The model of an `agent` node was asked as often as it may be, and did not answer.",
    )
    TOKEN_LIMIT = "token_limit", "The model of an `agent` node used its tokens up, and did not answer."
    CALL_LIMIT = "call_limit", "As many tools as may be were called in one node. The model is told so."
    REJECTED = (
        "rejected",
        "A person did not agree to a tool call, or nobody did in time. The model is told so.",
    )
    HTTP_STATUS = "http_status", "The answer's status is not among those that the node expects."
    INVALID_RESPONSE = "invalid_response", "The body of an answer is not the JSON that it should be."
    EGRESS_DENIED = "egress_denied", "The installation does not let this address be called."
    SECRET_UNREADABLE = "secret_unreadable", "A stored secret or key does not open: set it again."
    NOT_FOUND = "not_found", "What a name stood for, a model, a tool, a collection or a secret, is gone."
    INVALID = "invalid", "What a name stands for cannot be used as it is set up."
    NODE_FAILED = "node_failed", "The node failed, and has no more precise code for it."
    INTERNAL_ERROR = "internal_error", "A mistake in the platform; its log says more."
    PROCESS_DIED = (
        "process_died",
        "Processes that worked on the run ended, more often than is tried again. Of a message that is "
        "discarded: the one that wrote it.",
        False,
        True,
    )
    AMBIGUOUS_END = "ambiguous_end", "Two `end` nodes were reached in one run.", False, True
    CANCELLED = "cancelled", "The run was cancelled.", False, True
    REPLAY_DIVERGED = (
        "replay_diverged",
        "The replay came to something else than the run that was recorded; the message says where.",
        False,
        True,
    )
    NOT_RECORDED = "not_recorded", "What a replay needs of the run that it repeats is not kept.", False, True
    UNSTORABLE = "unstorable", "The run's result cannot be stored.", False, True
    UNDELIVERABLE = "undeliverable", "What the run told or did cannot be stored.", False, True
    INVALID_GRAPH = "invalid_graph", "The graph does not compile with this release any more.", False, True
    INVALID_INPUT = (
        "invalid_input",
        "The run's input does not fit its graph's `inputs` any more.",
        False,
        True,
    )

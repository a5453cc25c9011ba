"""Pages of the codes that validation reports, and the table of those that runs fail with."""

from __future__ import annotations

from typing import Any

from app.agent.core.run_errors import RunErrorCode
from app.agent.graph.compiler import AgentCompiler
from app.agent.graph.issues import InvalidGraph, IssueCode
from app.agent.graph.loading import load_document
from app.core.report import Issue
from scripts.reference.examples import PROJECT, Example
from scripts.reference.examples_of_documents import OF_DOCUMENTS
from scripts.reference.examples_of_flow import OF_FLOW
from scripts.reference.examples_of_references import OF_REFERENCES
from scripts.reference.markdown import Pages, code, page, table, yaml_block

EXAMPLES = {**OF_DOCUMENTS, **OF_FLOW, **OF_REFERENCES}


def issues_of(document: Any) -> list[Issue]:
    """What validation says of a document, or of text that is to be one."""
    if isinstance(document, str):
        try:
            document = load_document(document)
        except InvalidGraph as error:
            return error.report.issues
    return AgentCompiler().check(document, PROJECT).issues


def code_pages() -> Pages:
    pages = {f"codes/{found.value}.md": _page(found) for found in IssueCode}
    rows = [
        (f"[`{found.value}`]({found.value}.md)", found.severity, found.description) for found in IssueCode
    ]
    pages["codes/index.md"] = page(
        "What validation says",
        "An error keeps a graph from being published or run; a warning does not. Each page has a graph that "
        "has it, and the same put right.",
        table(("Code", "Severity", ""), rows),
    )
    return pages


def _page(found: IssueCode) -> str:
    kind = "An error." if found.severity == "error" else "A warning: the graph can be published and run."
    example = EXAMPLES[found]
    return page(code(found.value), f"{kind} {found.description}", example.about, *_shown(example))


def _shown(example: Example) -> list[str]:
    issue = issues_of(example.wrong)[0]
    where = f" at `{issue.pointer}`" if issue.pointer else ""
    told = [f"Validation says{where}: {_text(issue.message)}.", f"What to do: {_text(issue.fix)}."]
    if example.shown:
        return ["## A graph that has it", example.shown, *told]
    return [
        "## A graph that has it",
        yaml_block(example.wrong),
        *told,
        "## Put right",
        yaml_block(example.right),
    ]


def _text(message: str) -> str:
    """A message as it is, whatever it means to Markdown."""
    return f"`` {message} ``" if "`" in message else f"`{message}`"


def run_errors_page() -> Pages:
    def rows(of_runs: bool) -> list[tuple[str, str, str]]:
        return [
            (code(found.value), found.description, "yes" if found.retried else "")
            for found in RunErrorCode
            if found.of_runs is of_runs
        ]

    return {
        "run-errors.md": page(
            "Why nodes and runs fail",
            "`error.code` of a node that failed, and of a run that did. A node's failure that nothing in its "
            "graph handles is that of its run. The policy `retry` tries again after the codes that say so, "
            "unless its `on` leaves them out. [Graphs](../graphs.md) says how failures are handled.",
            "## Of nodes, and of runs because of them",
            table(("Code", "", "Tried again"), rows(False)),
            "## Of runs only",
            table(("Code", ""), [row[:2] for row in rows(True)]),
        )
    }

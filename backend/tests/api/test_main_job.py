"""The main job, exactly, by curl: every line with its status and its shape. Automation depends on it."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.api.calls import Frame, frames, work
from tests.factories import Factory, Member
from tests.fixtures import Running

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="the main job is fixed as curl speaks it"),
]
GRAPH = {
    "schema_version": "1",
    "inputs": {"type": "object", "properties": {"question": {"type": "string"}}, "required": ["question"]},
    "interface": {"message": "question", "answer": "answer"},
    "bindings": {"models": {"main": "default-chat"}, "collections": {"kb": "handbook"}},
    "nodes": [
        {"id": "start", "type": "start"},
        {
            "id": "search",
            "type": "retrieve",
            "config": {"collection": "kb", "query": "{{ inputs.question }}"},
        },
        {
            "id": "write",
            "type": "llm",
            "config": {
                "model": "main",
                "citations": True,
                "prompt": [{"role": "user", "content": "{{ inputs.question }}"}],
                "context": "{{ search.results }}",
            },
        },
        {"id": "done", "type": "end", "config": {"output": {"answer": "{{ write.text }}"}}},
    ],
    "edges": [
        {"source": "start", "target": "search"},
        {"source": "search", "target": "write"},
        {"source": "write", "target": "done"},
    ],
}
INPUT = {"question": "Who keeps the key of the lighthouse?"}
UPLOADED = {"document_id", "name", "title", "external_id", "status", "error"}
JOB = {"id", "kind", "status", "stage", "progress", "error"}
DOCUMENT = {"id", "name", "status", "error", "chunk_count"}
HIT = {
    "score", "chunk_id", "document_id", "external_id", "title", "text", "page", "start", "end", "metadata",
}  # fmt: skip
RUN = {"id", "status", "output", "usage", "error"}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    kind: str
    text: str

    @property
    def body(self) -> dict[str, Any]:
        return dict(json.loads(self.text))


Said = dict[str, Answer]


@dataclass(frozen=True, slots=True)
class Curl:
    """Calls `url` as somebody with a shell does."""

    url: str
    key: str

    async def __call__(self, method: str, path: str, body: Any = None, *options: str) -> Answer:
        sent = [] if body is None else ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        process = await asyncio.create_subprocess_exec(
            *("curl", "-sS", "-X", method, "-w", "\n%{http_code} %{content_type}"),
            *("-H", f"Authorization: Bearer {self.key}", *sent, *options, f"{self.url}/api/v1{path}"),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        assert process.returncode == 0
        text, _, told = out.decode().rpartition("\n")
        status, _, kind = told.partition(" ")
        return Answer(int(status), kind, text)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    texts = {
        "harbour.txt": "The harbour master keeps the key of the lighthouse.",
        "empty.txt": "",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owner(server: Running) -> Member:
    return await Factory(server.resources).member()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def job(server: Running, owner: Member, files: list[Path]) -> Said:
    """Every line of the main job, in its order, and what was answered."""
    curl, said = Curl(server.url, owner.key), Said()
    said["collection"] = await curl("POST", "/collections", {"name": "handbook"})
    form = [option for file in files for option in ("-F", f"files=@{file}")]
    about = {"harbour.txt": {"external_id": "h-1", "title": "Harbour", "metadata": {"year": 2026}}}
    upload = f"/collections/{said['collection'].body['id']}/documents"
    said["upload"] = await curl("POST", upload, None, *form, "-F", f"items={json.dumps(about)}")
    text = {
        "external_id": "t-1",
        "title": "Tides",
        "text": "High tide is at six.",
        "metadata": {"year": 2025},
    }
    said["text"] = await curl("POST", "/collections/handbook/documents/text", {"items": [text]})
    await work(server)
    said["again"] = await curl("POST", upload, None, *form[:2], "-F", f"items={json.dumps(about)}")
    said["job"] = await curl("GET", f"/jobs/{said['text'].body['job_id']}")
    said["document"] = await curl("GET", f"/documents/{said['upload'].body['items'][0]['document_id']}")
    query = {"query": "lighthouse key", "mode": "hybrid", "top_k": 10, "filters": None, "group_by": "chunk"}
    said["search"] = await curl("POST", "/search", {"collections": ["handbook"], **query})
    agent = {"name": "Keeper", "slug": "keeper", "graph": GRAPH}
    said["agent"] = await curl("POST", "/agents", agent)
    agent_id = said["agent"].body["id"]
    said["validate draft"] = await curl("POST", f"/agents/{agent_id}/validate")
    broken = GRAPH | {"nodes": [*GRAPH["nodes"], {"id": "lost", "type": "template", "config": {"text": "x"}}]}
    said["validate graph"] = await curl("POST", "/agents/keeper/validate", {"graph": broken})
    said["publish"] = await curl("POST", "/agents/keeper/publish", {"note": "first"})
    said["wait"] = await curl("POST", "/agents/keeper/runs", {"input": INPUT, "mode": "wait"})
    said["stream"] = await curl("POST", f"/agents/{agent_id}/runs", {"input": INPUT, "mode": "stream"}, "-N")
    said["background"] = await curl("POST", "/agents/keeper/runs", {"input": INPUT, "mode": "background"})
    run_id = said["background"].body["id"]
    said["events"] = await curl("GET", f"/runs/{run_id}/events?after=2", None, "-N")
    said["run"] = await curl("GET", f"/runs/{run_id}")
    said["cancel"] = await curl("POST", f"/runs/{run_id}/cancel")
    return said


class TestDocuments:
    async def test_collection(self, job: Said) -> None:
        assert job["collection"].status == 201
        assert job["collection"].body.keys() >= {"id", "name", "slug"}
        assert job["collection"].body["slug"] == "handbook"

    async def test_upload(self, job: Said) -> None:
        assert job["upload"].status == 202
        harbour, empty = job["upload"].body["items"]
        assert job["upload"].body.keys() == {"job_id", "items"}
        assert (harbour.keys(), empty.keys()) == (UPLOADED, UPLOADED)
        assert (harbour["name"], harbour["title"]) == ("harbour.txt", "Harbour")
        assert (harbour["status"], harbour["error"]) == ("accepted", None)
        assert (empty["status"], empty["document_id"]) == ("rejected", None)
        assert empty["error"]["message"]

    async def test_upload_again(self, job: Said) -> None:
        (item,) = job["again"].body["items"]
        assert (job["again"].status, item["status"]) == (202, "unchanged")
        assert item["document_id"] == job["upload"].body["items"][0]["document_id"]

    async def test_text(self, job: Said) -> None:
        (item,) = job["text"].body["items"]
        assert (job["text"].status, job["text"].body.keys()) == (202, {"job_id", "items"})
        assert (item.keys(), item["status"], item["title"]) == (UPLOADED, "accepted", "Tides")

    async def test_job(self, job: Said) -> None:
        body = job["job"].body
        assert (job["job"].status, body["status"], body["error"]) == (200, "succeeded", None)
        assert body.keys() >= JOB
        assert body["progress"].items() >= {"done": 1, "total": 1}.items()

    async def test_document(self, job: Said) -> None:
        body = job["document"].body
        assert (job["document"].status, body["status"], body["error"]) == (200, "ready", None)
        assert body.keys() >= DOCUMENT
        assert body["chunk_count"] == 1

    async def test_search(self, job: Said) -> None:
        assert job["search"].status == 200
        best = job["search"].body["items"][0]
        assert best.keys() >= HIT
        assert (best["external_id"], best["title"], best["metadata"]) == ("h-1", "Harbour", {"year": 2026})
        assert best["text"][: best["end"] - best["start"]] == best["text"]


class TestAgents:
    async def test_agent(self, job: Said) -> None:
        assert (job["agent"].status, job["agent"].body["revision"]) == (201, 1)

    async def test_validate_the_draft(self, job: Said) -> None:
        assert (job["validate draft"].status, job["validate draft"].body) == (
            200,
            {"valid": True, "issues": []},
        )

    async def test_validate_a_graph(self, job: Said) -> None:
        assert (job["validate graph"].status, job["validate graph"].body["valid"]) == (200, False)
        issue = job["validate graph"].body["issues"][0]
        assert issue.keys() == {"code", "severity", "node_id", "pointer", "message", "fix"}
        assert (issue["node_id"], issue["pointer"]) == ("lost", "/nodes/4")

    async def test_publish(self, job: Said) -> None:
        assert (job["publish"].status, job["publish"].body["version"]) == (201, 1)
        assert len(job["publish"].body["content_hash"]) == 64


class TestRuns:
    def events(self, answer: Answer) -> list[Frame]:
        assert (answer.status, answer.kind.split(";")[0]) == (200, "text/event-stream")
        return frames(answer.text)

    async def test_wait(self, job: Said) -> None:
        body = job["wait"].body
        assert (job["wait"].status, body["status"], body["error"]) == (200, "succeeded", None)
        assert body.keys() >= RUN
        assert "harbour master" in body["output"]["answer"]
        assert body["usage"]["input_tokens"] > 0

    async def test_stream(self, job: Said) -> None:
        seen = self.events(job["stream"])
        assert [event.id for event in seen] == list(range(1, len(seen) + 1))
        assert (seen[0].event, seen[-1].event) == ("RUN_STARTED", "RUN_FINISHED")
        assert seen[-1].data["event"]["result"] == job["wait"].body["output"]

    async def test_background(self, job: Said) -> None:
        assert job["background"].status == 202
        assert job["background"].body["status"] == "queued"

    async def test_events(self, job: Said) -> None:
        seen = self.events(job["events"])
        assert (seen[0].id, seen[-1].event) == (3, "RUN_FINISHED")

    async def test_run(self, job: Said) -> None:
        body = job["run"].body
        assert (job["run"].status, body["status"], body["output"]) == (
            200,
            "succeeded",
            job["wait"].body["output"],
        )

    async def test_cancel(self, job: Said) -> None:
        assert (job["cancel"].status, job["cancel"].body) == (200, job["run"].body)

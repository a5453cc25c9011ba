"""Documents to hand in over HTTP, and what became of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
from reportlab.lib.pagesizes import A5
from reportlab.pdfgen.canvas import Canvas

from tests.prose import prose
from tests.trust.serving import eventually

ENDED = ("ready", "failed")
Fingerprint = list[tuple[str, int, str, int, int]]


def texts(count: int, *, sentences: int = 30) -> list[tuple[str, bytes]]:
    return [(f"note-{n:03}.txt", prose(n, sentences=sentences).encode()) for n in range(count)]


def pdfs(count: int, *, pages: int = 2) -> list[tuple[str, bytes]]:
    return [(f"paper-{n:03}.pdf", _pdf(1000 + n, pages)) for n in range(count)]


def _pdf(seed: int, pages: int) -> bytes:
    output = io.BytesIO()
    canvas = Canvas(output, A5, invariant=1)
    for page in range(pages):
        words = prose(seed * 10 + page, sentences=25).split()
        for line in range(0, len(words), 9):
            canvas.drawString(30, 560 - 14 * (line // 9), " ".join(words[line : line + 9]))
        canvas.showPage()
    canvas.save()
    return output.getvalue()


@dataclass(frozen=True, slots=True)
class Upload:
    """Documents handed in: the jobs they are in, and their ids."""

    collection: str
    jobs: list[str]
    ids: list[str]


def make_collection(client: httpx2.Client, slug: str) -> str:
    client.post("/collections", json={"name": slug, "slug": slug}).raise_for_status()
    return slug


def upload(client: httpx2.Client, collection: str, files: Sequence[tuple[str, bytes]]) -> Upload:
    """Hands `files` in, in requests of at most 50."""
    taken = Upload(collection, [], [])
    for start in range(0, len(files), 50):
        parts = [("files", file) for file in files[start : start + 50]]
        answer = client.post(f"/collections/{collection}/documents", files=parts).raise_for_status().json()
        taken.jobs.append(answer["job_id"])
        assert {item["status"] for item in answer["items"]} == {"accepted"}
        taken.ids.extend(item["document_id"] for item in answer["items"])
    return taken


def progress(client: httpx2.Client, taken: Upload) -> int:
    """How many documents have ended."""
    return sum(client.get(f"/jobs/{job}").json()["progress"]["done"] for job in taken.jobs)


def wait_for(client: httpx2.Client, taken: Upload, *, done: int, within_s: float = 60) -> None:
    eventually(lambda: progress(client, taken) >= done, within_s=within_s, every_s=0.1)


def documents(client: httpx2.Client, collection: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 200}
    while True:
        page = client.get(f"/collections/{collection}/documents", params=query).raise_for_status().json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


def fingerprint(client: httpx2.Client, collection: str) -> Fingerprint:
    """What ingestion made of each document, without ids."""
    chunks = []
    for document in documents(client, collection):
        body = client.get(f"/documents/{document['id']}/text").raise_for_status().json()
        chunks += [
            (document["external_id"], chunk["ordinal"], chunk["text"], chunk["start"], chunk["end"])
            for chunk in body["chunks"]
        ]
    return sorted(chunks)

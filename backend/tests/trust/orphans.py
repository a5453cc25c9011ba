"""What must not be left when the dust has settled, looked for past every wall, as the database's owner."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from tests.trust.serving import Platform, eventually

OPEN = "SELECT count(*) FROM work_items WHERE state IN ('queued', 'running')"
LEFT = {
    "file without a version": """
        SELECT f.id FROM files f LEFT JOIN document_versions v ON v.org_id = f.org_id AND v.file_id = f.id
        WHERE v.id IS NULL""",
    "version that is neither searched nor to be": """
        SELECT v.id FROM document_versions v JOIN documents d ON d.org_id = v.org_id AND d.id = v.document_id
        WHERE v.id NOT IN (d.newest_version_id, COALESCE(d.version_id, d.newest_version_id))""",
    "document or collection that was deleted": """
        SELECT id FROM documents WHERE deleted_at IS NOT NULL
        UNION ALL SELECT id FROM collections WHERE deleted_at IS NOT NULL""",
    "document that has not ended": "SELECT id FROM documents WHERE status NOT IN ('ready', 'failed')",
    "failure without a reason": "SELECT id FROM documents WHERE status = 'failed' AND error->>'code' IS NULL",
    "chunk without a version": """
        SELECT c.id FROM chunks c LEFT JOIN document_versions v
            ON v.org_id = c.org_id AND v.id = c.document_version_id AND v.document_id = c.document_id
        WHERE v.id IS NULL""",
    "searched chunk without a visible vector": """
        SELECT c.id FROM chunks c
        JOIN documents d ON d.org_id = c.org_id AND d.version_id = c.document_version_id
        LEFT JOIN vector_entries e ON e.org_id = c.org_id AND e.chunk_id = c.id
        WHERE e.visible IS NOT TRUE""",
    "vector without a chunk": """
        SELECT e.chunk_id FROM vector_entries e
        LEFT JOIN chunks c ON c.org_id = e.org_id AND c.id = e.chunk_id
        WHERE c.id IS NULL OR c.document_version_id <> e.document_version_id""",
    "visible vector that is not of a searched version": """
        SELECT e.chunk_id FROM vector_entries e LEFT JOIN documents d
            ON d.org_id = e.org_id AND d.version_id = e.document_version_id
        WHERE e.visible AND d.id IS NULL""",
    "document whose chunks are miscounted": """
        SELECT d.id FROM documents d WHERE d.chunk_count <> (
            SELECT count(*) FROM chunks c
            WHERE c.org_id = d.org_id AND c.document_version_id = d.version_id)""",
    "term with a wrong document frequency": """
        SELECT term FROM (
            SELECT org_id, index_id, unnest(terms) AS term, 1 AS seen, 0 AS said FROM vector_entries
            WHERE visible
            UNION ALL SELECT org_id, index_id, term, 0, documents FROM vector_terms
        ) AS both_sides GROUP BY org_id, index_id, term HAVING sum(seen) <> sum(said)""",
    "index whose counters are wrong": """
        SELECT i.id FROM index_versions i LEFT JOIN LATERAL (
            SELECT count(*) AS chunks, COALESCE(sum(term_count), 0) AS terms FROM vector_entries e
            WHERE e.org_id = i.org_id AND e.index_id = i.id AND e.visible) AS found ON true
        WHERE i.chunk_count <> found.chunks OR i.term_total <> found.terms""",
    "work that is open": "SELECT id || ' ' || kind FROM work_items WHERE state IN ('queued', 'running')",
    "lease that nobody holds": """
        SELECT id FROM work_items
        WHERE state <> 'running' AND (lease_owner IS NOT NULL OR lease_until IS NOT NULL)
        UNION ALL SELECT id FROM agent_runs
        WHERE finished_at IS NOT NULL AND (lease_owner IS NOT NULL OR lease_until IS NOT NULL)""",
    "document without work that ended as it did": """
        SELECT d.id FROM documents d WHERE NOT EXISTS (
            SELECT FROM work_items w WHERE w.org_id = d.org_id AND w.subject_id = d.id AND w.kind = 'ingest'
            AND w.payload->>'version_id' = d.newest_version_id::text
            AND w.state = CASE d.status WHEN 'ready' THEN 'succeeded' ELSE 'failed' END)""",
    "job that nothing was done for": """
        SELECT j.id FROM jobs j WHERE j.skipped = 0
        AND NOT EXISTS (SELECT FROM work_items w WHERE w.org_id = j.org_id AND w.job_id = j.id)""",
    "run that has not ended": "SELECT id FROM agent_runs WHERE finished_at IS NULL",
    "run whose log has gaps or not one end": """
        SELECT r.id FROM agent_runs r LEFT JOIN LATERAL (
            SELECT count(*) AS events, max(seq) AS newest,
                count(*) FILTER (WHERE type IN ('RUN_FINISHED', 'RUN_ERROR')) AS ends
            FROM agent_run_events e WHERE e.org_id = r.org_id AND e.run_id = r.id) AS log ON true
        WHERE log.events <> r.last_seq OR log.newest <> r.last_seq OR log.ends <> 1""",
    "step or event without a run": """
        SELECT s.run_id FROM agent_run_steps s
        LEFT JOIN agent_runs r ON r.org_id = s.org_id AND r.id = s.run_id WHERE r.id IS NULL
        UNION ALL SELECT e.run_id FROM agent_run_events e
        LEFT JOIN agent_runs r ON r.org_id = e.org_id AND r.id = e.run_id WHERE r.id IS NULL""",
}


async def fetch(platform: Platform, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """What the owner of the database sees."""
    connection = await asyncpg.connect(platform.services()["migration_url"], timeout=10)
    try:
        return [tuple(row) for row in await connection.fetch(statement, *values)]
    finally:
        await connection.close()


def query(platform: Platform, statement: str, *values: Any) -> list[Any]:
    """The first column of `fetch`, where no event loop runs."""
    return [row[0] for row in asyncio.run(fetch(platform, statement, *values))]


def settle(platform: Platform, *, within_s: float = 120) -> None:
    """Waits until no work is open and no run executes."""
    runs = "SELECT count(*) FROM agent_runs WHERE finished_at IS NULL"
    eventually(lambda: query(platform, OPEN) == query(platform, runs) == [0], within_s=within_s, every_s=0.2)


def orphans(platform: Platform) -> list[str]:
    """Everything that is left over on a settled platform, one line each."""
    rows = [f"{what}: {row}" for what, statement in LEFT.items() for row in query(platform, statement)]
    return [*rows, *_blobs(platform), *_files(platform), *_processes(platform)]


def stored_blobs(platform: Platform) -> dict[str, Path]:
    """The files of the blob folder by key."""
    folder = platform.data_dir / "blobs"
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def _blobs(platform: Platform) -> Iterator[str]:
    stored, known = set(stored_blobs(platform)), set(query(platform, "SELECT blob_key FROM files"))
    yield from (f"blob without a file: {key}" for key in sorted(stored - known))
    yield from (f"file without its blob: {key}" for key in sorted(known - stored))


def _files(platform: Platform) -> Iterator[str]:
    yield from (f"temporary file: {path}" for path in sorted(platform.temporary.rglob("*")))
    staged = (path for path in (platform.data_dir / "blobs").rglob("*") if "#" in path.name)
    yield from (f"half-written blob: {path}" for path in sorted(staged))


def _processes(platform: Platform) -> Iterator[str]:
    assert platform.process
    head = psutil.Process(platform.process.pid)
    family = {head, *head.children(recursive=True)}
    for process in psutil.process_iter():
        try:
            if process in family or not platform.owns(process) or not process.is_running():
                continue
            yield f"process: {process.pid} {' '.join(process.cmdline())[:100]}"
        except psutil.Error:
            continue

"""`orrery eval` against a real server whose work is done by a drain in this process."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from app.cli.client import ApiError, Client, open_client
from app.cli.commands import cli
from app.cli.credentials import Server
from app.cli.evaluating import Evaluation, EvaluationFailed, Mode, default_collection, evaluate, show
from app.cli.retrieval_set import RetrievalSet, Text, read_retrieval_set
from app.core.config import Settings
from app.core.constants import INGEST_QUEUE
from tests.factories import Factory, Member
from tests.fixtures import Running, running_server

TEXTS = {
    "frogs": "Tree frogs live in rain forests and eat insects.",
    "trains": "The night train from Vienna to Rome leaves at seven.",
    "bread": "Sourdough bread needs flour, water, salt and time.",
}
QUERIES = {"q1": "When does the train to Rome leave?", "q2": "What do tree frogs eat?"}
RELEVANT = {"q1": "trains", "q2": "frogs"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set whose questions only one document answers."""
    folder = tmp_path / "little-set"
    folder.mkdir()
    corpus = [json.dumps({"_id": id_, "title": "", "text": text}) for id_, text in TEXTS.items()]
    queries = [json.dumps({"_id": id_, "text": text}) for id_, text in QUERIES.items()]
    qrels = ["query-id\tcorpus-id\tscore", *(f"{query}\t{text}\t1" for query, text in RELEVANT.items())]
    for name, lines in (("corpus.jsonl", corpus), ("queries.jsonl", queries), ("qrels.tsv", qrels)):
        (folder / name).write_text("\n".join(lines))
    return folder


@asynccontextmanager
async def working_on(server: Running) -> AsyncIterator[None]:
    """Somebody works off what is ingested."""
    done = asyncio.Event()

    async def work() -> None:
        while not done.is_set():
            await server.drain().run(INGEST_QUEUE)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        done.set()
        await task


@pytest.fixture
async def working(server: Running) -> AsyncIterator[None]:
    async with working_on(server):
        yield


async def evaluated(server: Running, member: Member, found: RetrievalSet, *modes: Mode) -> Evaluation:
    def run() -> Evaluation:
        with open_client(Server(server.url, member.key)) as client:
            console = Console(quiet=True)
            return evaluate(client, found, collection="set", modes=modes or list(Mode), console=console)

    return await asyncio.to_thread(run)


async def command(server: Running, member: Member, *arguments: str) -> Result:
    env = {"ORRERY_URL": server.url, "ORRERY_API_KEY": member.key}
    return await asyncio.to_thread(CliRunner().invoke, cli, ["eval", *arguments], env=env)


@pytest.mark.usefixtures("working")
class TestEvaluate:
    async def test_finds_the_relevant_documents_in_every_mode(
        self, server: Running, member: Member, folder: Path
    ) -> None:
        measured = await evaluated(server, member, read_retrieval_set(folder))
        assert {mode: scores.ndcg_at_10 for mode, scores in measured.modes.items()} == dict.fromkeys(Mode, 1)

    async def test_can_be_repeated_on_the_same_collection(
        self, server: Running, member: Member, folder: Path
    ) -> None:
        found = read_retrieval_set(folder)
        await evaluated(server, member, found, Mode.KEYWORD)
        assert (await evaluated(server, member, found, Mode.KEYWORD)).documents == len(TEXTS)

    async def test_counts_documents_that_are_not_of_the_set(
        self, server: Running, member: Member, folder: Path
    ) -> None:
        found = read_retrieval_set(folder)
        await evaluated(server, member, found, Mode.KEYWORD)
        fewer = RetrievalSet(found.name, found.texts[:2], found.queries, found.judgements)
        assert (await evaluated(server, member, fewer, Mode.KEYWORD)).foreign == 1

    async def test_the_server_s_refusal_is_passed_on(self, server: Running, folder: Path) -> None:
        def run(client: Client) -> None:
            found = read_retrieval_set(folder)
            evaluate(client, found, collection="set", modes=[Mode.DENSE], console=Console(quiet=True))

        stranger = Server(server.url, "no-such-key-of-enough-length-for-the-server")
        with open_client(stranger) as client, pytest.raises(ApiError, match="unknown, revoked or expired"):
            await asyncio.to_thread(run, client)


@pytest.mark.usefixtures("working")
class TestCommand:
    async def test_prints_json_for_programs(self, server: Running, member: Member, folder: Path) -> None:
        result = await command(server, member, str(folder), "--mode", "keyword", "--json")
        body = json.loads(result.stdout)
        assert (body["collection"], list(body["modes"])) == ("eval-little-set", ["keyword"])

    async def test_takes_another_collection(self, server: Running, member: Member, folder: Path) -> None:
        result = await command(server, member, str(folder), "--collection", "mine", "--mode", "keyword")
        assert "mine: 3 documents, 2 queries" in result.stdout

    async def test_refuses_an_unknown_mode(self, server: Running, member: Member, folder: Path) -> None:
        result = await command(server, member, str(folder), "--mode", "fuzzy")
        assert (result.exit_code, "fuzzy" in result.output) == (2, True)


class TestIncompleteSets:
    """A set of which a document is missing gives no figures."""

    @pytest.mark.parametrize(
        ("limit", "reason"),
        [
            ("max_upload_bytes", "were rejected: d: 'd.txt': larger than 1024 bytes"),
            ("parse_max_text_bytes", "were not ingested: d: "),
        ],
    )
    async def test_are_told_with_the_reason(self, settings: Settings, limit: str, reason: str) -> None:
        long = RetrievalSet("set", [Text("d", "", "long " * 500)], {"q": "?"}, {"q": {"d": 1}})
        async with running_server(settings.model_copy(update={limit: 1024})) as server, working_on(server):
            member = await Factory(server.resources).member()
            with pytest.raises(EvaluationFailed, match=re.escape(reason)):
                await evaluated(server, member, long, Mode.KEYWORD)


class TestDefaultCollection:
    def test_is_a_slug_of_the_folder_s_name(self) -> None:
        assert default_collection("XQuAD (en)") == "eval-xquad-en"


class TestShow:
    def test_warns_of_documents_that_are_not_of_the_set(self, capsys: pytest.CaptureFixture[str]) -> None:
        measured = Evaluation(collection="c", documents=2, foreign=1, queries=1, modes={})
        show(Console(width=200), measured)
        assert "holds 1 documents that are not of this set" in capsys.readouterr().out

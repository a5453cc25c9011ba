from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.rag.providers.model.minilm import MiniLM
from app.rag.providers.model.minilm_graph import WEIGHTS_SHA256, ensure_graph, file_sha256, model_folder

BACKEND = Path(__file__).parents[3]
BUILD = (
    "import sys; from pathlib import Path; from app.rag.providers.model.minilm_graph import ensure_graph; \
print(ensure_graph(Path(sys.argv[1])))"
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_graph(tmp_path_factory.mktemp("models"))


class TestEnsureGraph:
    def test_builds_once(self, graph: Path) -> None:
        built = graph.stat().st_mtime_ns
        assert ensure_graph(graph.parent) == graph
        assert graph.stat().st_mtime_ns == built

    def test_the_name_tells_version_and_content(self, graph: Path) -> None:
        assert graph.name == f"all-minilm-l6-v2-g1-{WEIGHTS_SHA256[:8]}-fp32-{file_sha256(graph)}.onnx"

    def test_leaves_nothing_else_behind(self, graph: Path) -> None:
        assert list(graph.parent.iterdir()) == [graph]

    def test_a_truncated_file_is_built_anew(self, graph: Path, tmp_path: Path) -> None:
        whole = graph.read_bytes()
        (tmp_path / graph.name).write_bytes(whole[: len(whole) // 2])
        assert ensure_graph(tmp_path).read_bytes() == whole

    async def test_processes_that_start_at_once_all_get_a_whole_graph(self, tmp_path: Path) -> None:
        command = [sys.executable, "-c", BUILD, str(tmp_path)]
        children = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=BACKEND) for _ in range(3)
        ]
        paths = {Path(child.communicate(timeout=60)[0].strip()) for child in children}
        assert [child.returncode for child in children] == [0, 0, 0]
        assert paths == set(tmp_path.iterdir())
        model = MiniLM(tmp_path)
        assert (await model.embed(["it works"])).shape == (1, 384)
        model.close()


class TestWeights:
    def test_are_the_expected_ones(self) -> None:
        assert file_sha256(model_folder() / "model.safetensors") == WEIGHTS_SHA256

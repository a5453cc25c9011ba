"""The licence check: what metadata may say, with planted distributions."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from scripts import licences

BACKEND = Path(__file__).parents[2]
APPROVED = "License :: OSI Approved ::"


def plant(folder: Path, *lines: str, name: str = "planted") -> None:
    """A distribution with these lines of metadata."""
    place = folder / f"{name}-1.0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(
        "\n".join(["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *lines])
    )


def findings(folder: Path, *, runtime: bool = True) -> list[str]:
    needed = frozenset({"planted"}) if runtime else frozenset()
    return list(licences.check(distributions(path=[str(folder)]), needed))


class TestAccepted:
    @pytest.mark.parametrize(
        "line",
        [
            "License-Expression: MIT",
            "License-Expression: MIT AND (Apache-2.0 OR BSD-3-Clause)",
            "License-Expression: GPL-3.0-only OR MIT",
            "License-Expression: Apache-2.0 WITH LLVM-exception",
            "License-Expression: MPL-2.0",
            f"Classifier: {APPROVED} BSD License",
            f"Classifier: {APPROVED} Mozilla Public License 2.0 (MPL 2.0)",
            "License: BSD-3-Clause",
            "License: MIT License",
            "License: MPL-2.0 AND MIT",
        ],
    )
    def test_permissive_licences(self, tmp_path: Path, line: str) -> None:
        plant(tmp_path, line)
        assert findings(tmp_path) == []

    def test_the_expression_before_the_classifiers(self, tmp_path: Path) -> None:
        gpl = f"Classifier: {APPROVED} GNU General Public License v3 (GPLv3)"
        plant(tmp_path, "License-Expression: MIT", gpl, "License: GPL")
        assert findings(tmp_path) == []

    def test_the_classifiers_before_the_field(self, tmp_path: Path) -> None:
        plant(tmp_path, f"Classifier: {APPROVED} MIT License", "License: see LICENSE.txt")
        assert findings(tmp_path) == []

    def test_copyleft_of_tools(self, tmp_path: Path) -> None:
        plant(tmp_path, "License-Expression: GPL-3.0-or-later")
        assert findings(tmp_path, runtime=False) == []


class TestRefused:
    @pytest.mark.parametrize(
        ("line", "named"),
        [
            ("License-Expression: GPL-3.0-or-later", "'GPL-3.0-or-later'"),
            ("License-Expression: AGPL-3.0-only", "'AGPL-3.0-only'"),
            ("License-Expression: MIT AND LGPL-3.0-only", "'MIT AND LGPL-3.0-only'"),
            ("License-Expression: (MIT", "'(MIT'"),
            ("License-Expression: MIT OR", "'MIT OR'"),
            ("License-Expression: MIT MIT", "'MIT MIT'"),
            (f"Classifier: {APPROVED} GNU Affero General Public License v3", "Affero"),
            ("Classifier: License :: Other/Proprietary License", "Proprietary"),
            ("License: Business Source License 1.1", "Business Source"),
            ("License: SSPL-1.0", "SSPL"),
            ("Summary: says nothing", "not stated"),
            ("Classifier: License :: OSI Approved", "not stated"),
        ],
    )
    def test_at_run_time_with_name_licence_and_remedy(self, tmp_path: Path, line: str, named: str) -> None:
        plant(tmp_path, line)
        (finding,) = findings(tmp_path)
        assert finding.startswith("planted: ")
        assert named in finding
        assert "replace the package, or read the licence" in finding

    def test_among_several_classifiers(self, tmp_path: Path) -> None:
        gpl = f"Classifier: {APPROVED} GNU General Public License v2 (GPLv2)"
        plant(tmp_path, f"Classifier: {APPROVED} MIT License", gpl)
        assert len(findings(tmp_path)) == 1

    @pytest.mark.parametrize("line", ["License-Expression: AGPL-3.0-only", "Summary: says nothing"])
    def test_among_tools(self, tmp_path: Path, line: str) -> None:
        plant(tmp_path, line)
        assert "a tool of development" in findings(tmp_path, runtime=False)[0]


class TestReviewed:
    @pytest.fixture(autouse=True)
    def review(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(licences, "REVIEWED", {"planted": licences.Reviewed("see file", "read it")})

    def test_exceptions_are_let_through(self, tmp_path: Path) -> None:
        plant(tmp_path, "License: see file")
        assert findings(tmp_path) == []

    def test_exceptions_end_when_the_metadata_changes(self, tmp_path: Path) -> None:
        plant(tmp_path, "License: AGPL-3.0-only")
        assert "'AGPL-3.0-only'" in findings(tmp_path)[0]

    def test_exceptions_that_are_not_needed_are_reported(self, tmp_path: Path) -> None:
        plant(tmp_path, "License: MIT")
        assert "needs no exception any more" in findings(tmp_path)[0]


class TestThisInstallation:
    def test_has_no_licence_that_is_not_on_the_list(self) -> None:
        done = subprocess.run(
            [sys.executable, "scripts/licences.py"], cwd=BACKEND, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_knows_what_the_product_needs(self) -> None:
        needed = licences.needed((BACKEND / "requirements.txt").read_text())
        assert {"fastapi", "cryptography", "onnxruntime"} <= needed
        assert not needed & {"pytest", "ruff", "mypy"}

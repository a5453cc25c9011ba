from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.rag.sparse import LANGUAGES, detect_language


class TestDetectLanguage:
    @pytest.mark.parametrize(
        ("text", "language"),
        [
            ("Refunds are paid within thirty days of the return.", "en"),
            ("Die Rücksendung ist innerhalb von dreißig Tagen möglich.", "de"),
            ("Le remboursement est effectué sous trente jours.", "fr"),
            ("El reembolso se realiza en un plazo de treinta días.", "es"),
            ("Вы можете вернуть товар в течение тридцати дней, если он не был использован.", "ru"),
            ("客户可以在收到商品后三十天内退货。", "zh"),
            ("商品到着後三十日以内に返品できます。", "ja"),
            ("상품을 받은 후 삼십일 이내에 반품할 수 있습니다.", "ko"),
            ("يمكن إرجاع المنتج خلال ثلاثين يوما من الاستلام.", "ar"),
        ],
    )
    def test_knows_the_language_of_a_sentence(self, text: str, language: str) -> None:
        assert detect_language(text) == language

    @pytest.mark.parametrize("text", ["", "x", "hello world", "12345 67890 12345 67890 12345", "!!! ??? ---"])
    def test_does_not_guess(self, text: str) -> None:
        assert detect_language(text) is None

    def test_reads_more_than_the_beginning_of_a_long_text(self) -> None:
        german = "Die Rücksendung ist innerhalb von dreißig Tagen möglich, danach leider nicht mehr. " * 200
        assert detect_language("Copyright notice of the publisher in English.\n" + german) == "de"

    def test_answers_only_known_languages(self) -> None:
        assert {"en", "de", "zh", "uk"} <= LANGUAGES

    def test_the_model_is_loaded_when_first_used(self) -> None:
        code = "import sys, app.rag.sparse; sys.exit('py3langid' in sys.modules)"
        backend = Path(__file__).parents[3]
        assert subprocess.run([sys.executable, "-c", code], check=False, cwd=backend).returncode == 0

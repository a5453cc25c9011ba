"""Markdown to blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.rag.components.parsers.draft import Draft
from tests.rag.components.samples import blocks_of, parse

DOCUMENT = """---
title: The Guide
tags: [a, b]
date: 2024-05-01
---
# First *title*

A paragraph with `code`, **bold** and a [link](http://x.y "t"),
on two lines.\\
And a hard break.

* one
* two
  1. nested
  2. list

     with a paragraph

> quoted words

```python
def f():
    return 1
```

| a | b |
|---|:-:|
| 1 | x \\| y |

<div><h2>HTML title</h2><p>inside <b>html</b></p><script>no()</script></div>

![picture](x.png) tail
"""


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    path = tmp_path / "guide.md"
    path.write_text(DOCUMENT)
    return parse(path)


class TestMarkdown:
    def test_front_matter_becomes_metadata(self, draft: Draft) -> None:
        assert draft.metadata == {"title": "The Guide", "tags": ["a", "b"], "date": "2024-05-01"}

    def test_title_is_that_of_the_front_matter(self, draft: Draft) -> None:
        assert draft.title == "The Guide"

    def test_headings_have_ranks_and_no_marks(self, draft: Draft) -> None:
        assert blocks_of(draft, "heading") == ["First title", "HTML title"]

    def test_inline_marks_fall_away(self, draft: Draft) -> None:
        assert blocks_of(draft, "paragraph")[0] == (
            "A paragraph with code, bold and a link, on two lines.\nAnd a hard break."
        )

    def test_a_list_is_one_block(self, draft: Draft) -> None:
        assert blocks_of(draft, "list") == ["- one\n- two\n  1. nested\n  2. list\n    with a paragraph"]

    def test_code_is_kept_as_it_stands(self, draft: Draft) -> None:
        assert blocks_of(draft, "code") == ["def f():\n    return 1"]

    def test_a_table_stays_one(self, draft: Draft) -> None:
        assert blocks_of(draft, "table") == ["| a | b |\n| --- | --- |\n| 1 | x \\| y |"]

    def test_html_inside_is_read_as_html(self, draft: Draft) -> None:
        assert "inside html" in blocks_of(draft, "paragraph")
        assert "no()" not in draft.text

    def test_quotations_and_alternative_texts_are_kept(self, draft: Draft) -> None:
        assert {"quoted words", "picture tail"} <= set(blocks_of(draft, "paragraph"))


class TestFrontMatter:
    @pytest.mark.parametrize(
        "source",
        [
            "---\na: &a [x]\nb: *a\n---\n",  # an alias
            "---\na: " + "[" * 3000 + "\n---\n",
            "---\n- a list\n---\n",
            "---\n: : :\n\t- broken\n---\n",
        ],
    )
    def test_what_is_no_plain_mapping_stays_text(self, source: str, tmp_path: Path) -> None:
        path = tmp_path / "a.md"
        path.write_text(source + "body words")
        draft = parse(path)
        assert draft.metadata == {}
        assert draft.text.endswith("body words")

    def test_toml_is_read_too(self, tmp_path: Path) -> None:
        path = tmp_path / "a.md"
        path.write_text('+++\ntitle = "T"\nyear = 2024\n+++\nbody')
        assert parse(path).metadata == {"title": "T", "year": 2024}

    def test_a_rule_is_no_front_matter(self, tmp_path: Path) -> None:
        path = tmp_path / "a.md"
        path.write_text("Text\n\n---\n\nMore text\n")
        assert blocks_of(parse(path)) == ["Text", "More text"]

    def test_values_hold_nothing_unstorable(self, tmp_path: Path) -> None:
        path = tmp_path / "a.md"
        path.write_text('---\na: "x\\0y"\nb: .nan\nc: 1000000000000000000000\n---\nbody')
        assert parse(path).metadata == {"a": "xy", "b": "nan", "c": "1000000000000000000000"}

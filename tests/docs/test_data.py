"""The rows that docs/data.md shows are read as it says, and it names everything that is looked for."""

import json
import re
from pathlib import Path

import pytest
import tiny

from surefoot.stages.checks import check_rows, drop_unusable
from surefoot.stages.rows import load_rows

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^<!-- (sft|preference): (.*?) -->\n```json\n(.*?)\n```", PAGE, re.M | re.S)


@pytest.mark.parametrize(("kind", "words", "text"), EXAMPLES, ids=[words for _, words, _ in EXAMPLES])
def test_each_row_of_the_page_is_read_as_the_page_says(kind, words, text):
    rows = load_rows([json.loads(text)], kind=kind)
    assert rows.form.startswith(words)
    assert len(drop_unusable(rows)[0]) == 1


def test_every_example_is_marked():
    assert len(EXAMPLES) == PAGE.count("```json") - 1  # the last shows reward.json


def test_every_thing_that_is_looked_for_is_on_the_page():
    parts = [("", "a", "b"), ("Q", "", "b"), ("Q", "a", "a"), ("Q", "a", "b")]
    bad = [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in parts]
    kept, dropped = drop_unusable(load_rows(bad, kind="preference"))
    empty = drop_unusable(load_rows([{"text": " "}, {"text": "a"}], kind="sft"))[1]
    report = check_rows(kept, kept, tiny.tiny_tokenizer(), 7, dropped=dropped)
    names = {finding.name.replace("7", "`max_tokens`") for finding in (*report.findings, *empty)}
    assert len(names) == 11
    assert [name for name in names if f"| {name} |" not in PAGE] == []

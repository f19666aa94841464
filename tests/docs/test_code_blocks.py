"""Every Python block of the documents runs as it stands, in order, one page one program.

A page finds what its reader has: a folder `your-sft-model` (a tiny model and its tokenizer) where it runs, and the
names of `_names` below. A block that cannot run here is preceded by `<!-- not run: reason -->`.
"""

import re
import traceback
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(r"^(?:<!-- not run:(?P<reason>[^\n]*)-->\n+)?```python\n(?P<code>.*?)^```", re.M | re.S)
_OPENED = re.compile(r"^\s*```\s*(?:python|py)\b", re.M)


@dataclass(frozen=True)
class Block:
    """A block of a page; `reason` says why it is not run, where it is not."""

    line: int
    code: str
    reason: str | None


def blocks_of(text: str) -> list[Block]:
    return [
        Block(
            text.count("\n", 0, m.start("code")) + 1, m["code"], None if m["reason"] is None else m["reason"].strip()
        )
        for m in _BLOCK.finditer(text)
    ]


def run_page(text: str, name: str, names: dict) -> None:
    for block in blocks_of(text):
        if block.reason is None:
            source = "\n" * (block.line - 1) + block.code  # tracebacks name the page's own lines
            exec(compile(source, name, "exec"), names)  # noqa: S102


def _names() -> dict:
    return {
        "__name__": "page",
        "prompt_dataloader": [{"prompt_text": [f"prompt number {i}" for i in range(64)]}],
        "reward_model_score": lambda queries, responses: [len(r) / 100 for r in responses],
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    text = page.read_text(encoding="utf-8")
    if blocks_of(text):
        tiny.tiny_llama(max_position_embeddings=1024).save_pretrained(tmp_path / "your-sft-model")
        tiny.tiny_tokenizer(chat=True).save_pretrained(tmp_path / "your-sft-model")
        monkeypatch.chdir(tmp_path)
        run_page(text, page.name, _names())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_block_is_found_and_every_one_left_out_has_a_reason(page):
    text = page.read_text(encoding="utf-8")
    blocks = blocks_of(text)
    assert len(blocks) == len(_OPENED.findall(text)), "a block is indented, unclosed, or not marked ```python"
    assert [b.line for b in blocks if b.reason == ""] == [], "not run: without a reason"
    assert text.count("<!-- not run") == sum(b.reason is not None for b in blocks), "a comment stands before no block"


def test_the_runner_shares_names_skips_what_says_so_and_shows_the_line():
    skipped = "<!-- not run: needs a GPU -->\n```python\nboom()\n```\n"
    page = f"# Page\n```python\na = 1\n```\n{skipped}```python\nassert a == 2\n```\n"
    assert [(b.line, b.reason) for b in blocks_of(page)] == [(3, None), (7, "needs a GPU"), (10, None)]
    with pytest.raises(AssertionError) as caught:
        run_page(page, "page.md", {})
    last = traceback.extract_tb(caught.tb)[-1]
    assert (last.filename, last.lineno) == ("page.md", 10)

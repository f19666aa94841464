"""Links between the documents lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_to_files_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_the_modules_and_files_that_the_documents_name_exist():
    for page in ("anatomy-of-a-step.md", "details.md"):
        named = re.findall(r"`((?:\w+/)*\w+\.py)`", (ROOT / "docs" / page).read_text(encoding="utf-8"))
        assert named
        assert [name for name in named if not (ROOT / "src" / "surefoot" / name).exists()] == []

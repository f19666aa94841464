"""The pages over runs in a real Chromium."""

import itertools
import json
import re

import pytest
from made_run import make_run
from playwright.sync_api import expect
from web_server import CONTRAST, chromium, open_page, serving

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "alpha", steps=40, every=10, prompts=8)
    make_run(folder / "beta", steps=40, every=10, prompts=8, seed=1)
    (folder / "beta" / "result.json").unlink()
    return folder


def test_the_first_page_takes_three_requests_to_its_own_server_and_no_error(browser, runs):
    with serving("web", runs) as served:
        page, watched = open_page(browser, served.links[0])
        page.wait_for_load_state("networkidle")
        mine = [url for url in watched.requests if "token" not in url and not url.startswith("data:")]
        origin = served.links[0].partition("/?")[0]
        assert all(url.startswith(origin + "/") for url in mine)
        assert len(set(mine)) == 3
        assert watched.errors == []


def test_the_arrow_keys_turn_prompts(browser, runs):
    with serving("web", runs) as served:
        page, watched = open_page(browser, served.links[0])
        page.get_by_role("link", name="Answers of alpha").click()
        expect(page.get_by_text("prompt 1 of 8")).to_be_visible()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_text("prompt 2 of 8")).to_be_visible()
        page.keyboard.press("ArrowLeft")
        expect(page.get_by_text("prompt 1 of 8")).to_be_visible()
        assert watched.errors == []


def test_runs_that_go_on_are_looked_at_again_and_a_lost_server_is_told(browser, runs):
    with serving("web", runs) as served:
        page, _ = open_page(browser, served.links[0])
        expect(page.locator("#state")).to_contain_text("Looks again every 10 seconds")
        expect(page.locator("#state")).to_contain_text("Looked at", timeout=15_000)
        served.process.kill()
        expect(page.locator("#state")).to_contain_text("does not answer", timeout=15_000)
        expect(page.get_by_role("heading", level=1)).to_have_text("Runs")


def test_every_picture_has_a_name_for_who_cannot_see_it(browser, runs):
    with serving("web", runs) as served:
        page, _ = open_page(browser, served.links[0])
        names = [svg.get_attribute("aria-label") for svg in page.get_by_role("img").all()]
        assert len(names) == 12
        assert all(names)
        levels = [int(h.evaluate("e => e.tagName[1]")) for h in page.get_by_role("heading").all()]
        assert levels[0] == 1
        assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["", "samples?run=alpha"])
def test_all_text_stands_out_from_its_ground(browser, runs, scheme, path):
    with serving("web", runs) as served:
        page, _ = open_page(browser, served.links[0], color_scheme=scheme)
        page.goto(re.sub(r"\?.*", "", served.links[0]) + path)
        ratio, where = page.evaluate(CONTRAST)
        assert ratio >= 4.5, where


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(browser, runs, width):
    with serving("web", runs) as served:
        page, _ = open_page(browser, served.links[0], viewport={"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """A run whose answers have every colour there is."""
    folder = tmp_path_factory.mktemp("coloured")
    run = make_run(folder / "run", steps=20, every=10, prompts=4)
    kl, advantage = [-2.0, -0.6, -0.1, 0.0, 0.1, 0.3, 0.7, 1.5, 3.0], [-2.0, -1.0, -0.3, 0.0, 0.3, 1.0, 2.0, 0.1, 0.1]
    tokens = {"texts": [f" word{n}" for n in range(9)], "kl": kl, "advantage": advantage}
    for path in (run / "samples").iterdir():
        lines = [json.loads(line) | {"tokens": tokens, "length": 9} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_keys_choose_the_colour_and_turn_steps_which_keep_it(browser, coloured):
    with serving("web", coloured) as served:
        page, watched = open_page(browser, served.links[0])
        page.get_by_role("link", name="Answers of run").click()
        page.get_by_role("link", name="answers that were learnt from").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("What step 20 learnt from")
        assert page.locator(".tokens .k5").count() > 0
        page.keyboard.press("2")
        expect(page.locator(".tokens .p3").first).to_be_visible()
        assert page.locator(".tokens .k5").count() == 0
        page.keyboard.press("3")
        expect(page.locator(".tokens")).to_have_count(0)
        assert watched.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("colour", ["kl", "advantage"])
def test_text_stands_out_from_every_colour(browser, coloured, scheme, colour):
    with serving("web", coloured) as served:
        page, _ = open_page(browser, served.links[0], color_scheme=scheme, viewport={"width": 390, "height": 800})
        page.goto(f"{served.links[0].partition('?')[0]}steps?run=run&colour={colour}")
        assert page.locator(".tokens [class]").count() > 5
        ratio, where = page.evaluate(CONTRAST)
        assert ratio >= 4.5, where
        assert page.evaluate("document.documentElement.scrollWidth") <= 390

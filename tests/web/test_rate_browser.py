"""The rating page in a real Chromium."""

import functools
import http.server
import re
import sqlite3
import threading

import pytest
from playwright.sync_api import expect
from rated_runs import write_run
from web_server import CONTRAST, chromium, open_page, serving

pytestmark = pytest.mark.browser
OTHER = {"a": "b", "b": "a"}
SETTLED = 350
"""Milliseconds after which a screen takes keys: nobody has read it sooner."""


@pytest.fixture(scope="module")
def browser():
    with chromium("--host-resolver-rules=MAP evil.example 127.0.0.1, MAP lab.example 127.0.0.1") as made:
        yield made


def number(page):
    """Of the screen; 0 where it is none."""
    found = re.match(r"(\d+) of \d+", page.title())
    return int(found[1]) if found else 0


def press(page, key):
    """A key that ends a screen, and the screen after it."""
    page.wait_for_timeout(SETTLED)
    with page.expect_navigation():
        page.keyboard.press(key)


def votes_of(run, rater):
    with sqlite3.connect(run / "ratings.sqlite") as db:
        return db.execute(
            "SELECT item, side, choice, note, seconds FROM votes JOIN showings USING (session, rater, place) "
            "WHERE rater = ? AND undone IS NULL ORDER BY place",
            (rater,),
        ).fetchall()


def origin_of(link):
    return link.partition("/?")[0]


def test_a_session_of_twenty_votes_by_keyboard_with_undo_reload_skip_and_note(browser, tmp_path):
    run = write_run(tmp_path)
    keys = ["1", "2", "0", "9"] * 5
    with serving("rate", run, "--pairs", "16") as served:
        page, watched = open_page(browser, served.links[0])
        assert "token" not in page.url
        shown = []
        for place, key in enumerate(keys):
            assert number(page) == place + 1
            shown.append(page.locator(".answers .text").all_inner_texts())
            if place == 4:  # a wrong key, taken back
                press(page, "2")
                assert number(page) == 6
                press(page, "u")
                expect(page.get_by_role("status")).to_have_text("Your last vote was taken back.")
                assert (number(page), page.locator(".answers .text").all_inner_texts()) == (5, shown[4])
            if place == 8:
                page.reload()
                assert page.locator(".answers .text").all_inner_texts() == shown[8]
            if place == 11:
                page.keyboard.press("n")
                page.keyboard.type("1 is what I type, not a vote")
                assert number(page) == 12
                page.keyboard.press("Escape")
            if place == 15:
                page.keyboard.press("?")
                expect(page.get_by_text("Every vote is kept at once")).to_be_visible()
                page.keyboard.press("?")
                expect(page.get_by_text("Every vote is kept at once")).to_be_hidden()
            press(page, "s" if place == 13 else key)
        expect(page.get_by_role("heading")).to_have_text("All 20 done. Thank you.")
        votes = votes_of(run, "rater")
        assert len(votes) == 20
        for place, (_, side, choice, note, seconds) in enumerate(votes):
            meant = {"1": side, "2": OTHER[side], "0": "both good", "9": "both bad"}[keys[place]]
            assert choice == ("skip" if place == 13 else meant)
            assert note == ("1 is what I type, not a vote" if place == 11 else "")
            assert 0.2 < seconds < 60
        page.wait_for_timeout(SETTLED)
        page.get_by_role("button", name="End the voting").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("What people said")
        assert {re.match(r"http://[^/]+", url)[0] for url in watched.requests} == {origin_of(served.links[0])}
        assert watched.errors == []


def test_two_raters_at_once(browser, tmp_path):
    run = write_run(tmp_path)
    with serving("rate", run, "--raters", "ana", "ben", "--pairs", "16", links=2) as served:
        (ana, _), (ben, _) = (open_page(browser, link) for link in served.links)
        for page, key in ((ana, "1"), (ben, "2"), (ana, "1"), (ben, "2"), (ana, "9")):
            press(page, key)
        assert (number(ana), number(ben)) == (4, 3)
    assert (len(votes_of(run, "ana")), len(votes_of(run, "ben"))) == (3, 2)


def test_a_restart_of_the_server_loses_nothing(browser, tmp_path):
    run = write_run(tmp_path)
    with serving("rate", run, "--pairs", "16") as served:
        page, _ = open_page(browser, served.links[0])
        press(page, "1")
        served.process.kill()
    with serving("rate", run) as served:
        page, _ = open_page(browser, served.links[0])
        assert number(page) == 2


@pytest.mark.parametrize("javascript", [True, False])
def test_a_double_click_is_one_vote_with_and_without_javascript(browser, tmp_path, javascript):
    run = write_run(tmp_path)
    with serving("rate", run, "--pairs", "16") as served:
        page, _ = open_page(browser, served.links[0], java_script_enabled=javascript)
        page.wait_for_timeout(SETTLED)
        page.get_by_role("button", name="Both good").dblclick()
        page.wait_for_timeout(500)
        assert len(votes_of(run, "rater")) == 1


def test_without_javascript_buttons_vote_undo_skip_and_note(browser, tmp_path):
    run = write_run(tmp_path)
    with serving("rate", run, "--pairs", "16") as served:
        page, _ = open_page(browser, served.links[0], java_script_enabled=False)
        page.locator("#note summary").click()
        page.get_by_label("A note on this pair").fill("fine")
        page.get_by_role("button", name="A is better").click()
        expect(page).to_have_title(re.compile("^2 of"))
        page.wait_for_timeout(SETTLED)
        page.get_by_role("button", name="Skip").click()
        expect(page).to_have_title(re.compile("^3 of"))
        page.get_by_role("button", name="Undo").click()
        expect(page).to_have_title(re.compile("^2 of"))
    assert [(choice, note, seconds) for _, _, choice, note, seconds in votes_of(run, "rater")] == [
        (votes_of(run, "rater")[0][1], "fine", None)
    ]


def test_hostile_texts_do_nothing(browser, tmp_path):
    hostile = (
        "<script>document.title = 'hacked'</script>",
        "<img src=x onerror=\"document.title = 'hacked'\">",
        "<svg onload=alert(1)>",
        "</div><iframe src=//evil.example></iframe><meta http-equiv=refresh content='0;url=//evil.example'>",
        "<form action=//evil.example><button autofocus data-key=1>",
        "<style>body { display: none }</style><base href=//evil.example>",
    )
    run = write_run(tmp_path, rows=6, text=lambda step, row: f"{hostile[row]} {step}")
    with serving("rate", run, "--pairs", "6") as served:
        page, watched = open_page(browser, served.links[0])
        seen = ""
        while number(page):
            seen += " ".join(page.locator(".answers .text").all_inner_texts())
            assert page.locator("iframe, .text *:not(.escape), script:not([src])").count() == 0
            press(page, "1")
        assert all(text in seen for text in hostile)
        assert {re.match(r"http://[^/]+", url)[0] for url in watched.requests} == {origin_of(served.links[0])}
        assert watched.errors == []


def test_a_foreign_name_for_this_machine_gets_nothing(browser, tmp_path):
    with serving("rate", write_run(tmp_path)) as served:
        page = browser.new_context().new_page()
        answered = page.goto(served.links[0].replace("127.0.0.1", "evil.example"))
        assert answered.status == 400
        assert "Prompt" not in page.content()


def test_a_named_machine_without_encryption_takes_votes_by_their_origin(browser, tmp_path):
    """There browsers send no Sec-Fetch-Site, and an Origin only where the page's referrer policy lets them."""
    run = write_run(tmp_path)
    with serving("rate", run, "--name", "lab.example") as served:
        assert served.links[0].startswith("http://lab.example:")
        page, watched = open_page(browser, served.links[0])
        press(page, "1")
        assert number(page) == 2
        assert watched.errors == []
    assert len(votes_of(run, "rater")) == 1


def test_a_form_on_another_site_cannot_vote(browser, tmp_path):
    run = write_run(tmp_path / "run")
    with serving("rate", run) as served:
        target = origin_of(served.links[0])
        trap = tmp_path / "trap"
        trap.mkdir()
        (trap / "index.html").write_text(
            f"<form method=post action={target}/vote><input name=place value=0><input name=answer value=left></form>"
            "<script>document.forms[0].submit()</script>"
        )
        quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
        handler = functools.partial(quiet, directory=str(trap))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
            threading.Thread(target=site.serve_forever, daemon=True).start()
            page, _ = open_page(browser, served.links[0])  # who is let in, and then visits the other site
            page.goto(f"http://localhost:{site.server_port}/index.html")
            page.wait_for_url(f"{target}/vote")
            assert "Another site asked for this" in page.content()
            site.shutdown()
    assert votes_of(run, "rater") == []


def test_a_page_can_be_used_by_its_roles_and_labels(browser, tmp_path):
    run = write_run(tmp_path)
    with serving("rate", run) as served:
        page, _ = open_page(browser, served.links[0])
        for name in ("Response A", "Response B"):
            expect(page.get_by_role("region", name=name)).to_be_visible()
        names = [button.inner_text() for button in page.get_by_role("button").all()]
        assert [re.sub(r"\s+", " ", name) for name in names] == [
            "1 A is better", "0 Both good", "9 Both bad", "2 B is better", "s Skip", "u Undo"
        ]  # fmt: skip
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert outline == "3px"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_its_ground(browser, tmp_path, scheme):
    """WCAG 2.2, 1.4.3: a contrast of 4.5 to 1, computed here from the colours that the browser shows."""
    with serving("rate", write_run(tmp_path)) as served:
        page, _ = open_page(browser, served.links[0], color_scheme=scheme)
        ratio, where = page.evaluate(CONTRAST)
        assert ratio >= 4.5, where

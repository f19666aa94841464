"""A rating by plain forms, as in a browser without JavaScript."""

import html
import json
import re

import pytest
from rated_runs import client_of, place_of, press, rating_of, vote, write_run


@pytest.fixture
def rating(tmp_path):
    return rating_of(write_run(tmp_path / "secretive-run"), "ana", "ben")


@pytest.fixture
def client(rating):
    return client_of(rating, "ana")


def texts(page):
    """Prompt, left, right."""
    return [html.unescape(text) for text in re.findall(r'<div class="text" dir="auto">(.*?)</div>', page, re.DOTALL)]


def showings(rating, rater):
    return [(row["item"], row["side"], row["choice"]) for row in rating.store.rows(15) if row["rater"] == rater]


def rate_all(client, of=20, said=lambda place: "left"):
    for place in range(of):
        assert place_of(client) == place
        assert vote(client, place, said(place)).headers["location"] == "/"


def test_sixteen_pairs_one_planted_and_three_again_are_twenty_screens(client):
    rate_all(client)
    assert "All 20 done" in client.get("/").text


def test_what_stood_on_a_side_is_what_a_vote_for_that_side_is_for(client, rating):
    choices = ("left", "right", "both good", "both bad", "skip")
    shown = []
    for place in range(20):
        shown.append(texts(client.get("/").text)[1:])
        vote(client, place, choices[place % 5])
    for place, (item, _, choice) in enumerate(showings(rating, "ana")):
        pair = rating.session.items[item].pair
        expected = choices[place % 5]
        if expected in ("left", "right"):
            assert {"a": pair.a, "b": pair.b}[choice] == shown[place][expected == "right"]
        else:
            assert choice == expected
        assert set(shown[place]) == {pair.a, pair.b}


def test_nothing_on_a_screen_tells_whose_answer_is_whose(client, rating):
    """The made answers end in their step, which is taken out here: every other word of the page is looked at."""
    for place in range(20):
        page = client.get("/").text
        for text in texts(page):
            page = page.replace(text, "")
        told = re.sub(r"/static/[\w.?]+", "", page).lower()
        for word in (
            "policy",
            "sft",
            "secretive",
            "step",
            "score",
            "planted",
            "repeat",
            "again",
            "15-",
            "7b",
            "token",
        ):
            assert word not in told, word
        assert not re.search(r"\d+\.\d", told)  # no scores; lengths are no numbers of the page either:
        numbers = set(re.findall(r"\d+", re.sub(r"<kbd>.</kbd>|data-key=\".\"", "", told)))
        assert numbers <= {"1", "2", "3", str(place), str(place + 1), "20", "2000", "8"} | minutes(page)
        vote(client, place)


def minutes(page):
    return set(re.findall(r"about (\d+) min", page))


def test_the_two_sides_are_alike_but_for_their_letter(client):
    page = client.get("/").text
    sections = re.findall(r"<section.*?</section>", page, re.DOTALL)
    a, b = (re.sub(r'(<div class="text" dir="auto">).*?(</div>)', r"\1\2", s, flags=re.DOTALL) for s in sections)
    assert a.replace(">A<", ">B<").replace("Response A", "Response B") == b


def test_two_raters_have_votes_of_their_own(client, rating):
    other = client_of(rating, "ben")
    vote(client, 0)
    vote(client, 1)
    vote(other, 0, "both good")
    assert (place_of(client), place_of(other)) == (2, 1)
    assert len(showings(rating, "ana")) == 2
    assert [choice for *_, choice in showings(rating, "ben")] == ["both good"]


def test_a_double_submit_and_a_second_tab_count_once_and_say_so(client, rating):
    second_tab = client_of(rating, "ana")
    first, again = vote(client, 0, "left"), vote(second_tab, 0, "right")
    assert (first.headers["location"], again.headers["location"]) == ("/", "/?said=before")
    assert "had its vote already" in second_tab.get("/?said=before").text
    assert len(showings(rating, "ana")) == 1


def test_undo_leads_back_to_the_screen_before(client, rating):
    first = texts(client.get("/").text)
    vote(client, 0)
    undone = press(client, "/undo")
    assert "taken back" in client.get(undone.headers["location"]).text
    assert texts(client.get("/").text) == first
    press(client, "/undo")
    assert "no vote to take back" in client.get("/?said=nothing").text


def test_a_note_is_kept_with_its_vote(client, rating):
    vote(client, 0, note=" both dull\r\nreally ")
    assert [row["note"] for row in rating.store.rows(15)] == ["both dull\r\nreally"]


def test_the_time_left_is_36_8_seconds_a_pair_until_a_raters_own_median_is_known(client):
    assert "about 12 min left" in client.get("/").text  # 20 x 36.8 s = 12.3 min
    for place in range(5):
        vote(client, place, seconds=str(60 + place))
    assert "about 16 min left" in client.get("/").text  # 15 x the median of 60 to 64 s = 15.5 min


def test_results_are_hidden_until_all_is_done(client, rating):
    vote(client, 0)
    assert press(client, "/results").headers["location"] == "/results"
    page = client.get("/results").text
    assert "hidden still" in page
    assert "%" not in page
    assert rating.store.closed(15) is None


def test_once_results_are_seen_the_voting_is_over_for_everybody(client, rating):
    rate_all(client, said=lambda place: "both good")
    press(client, "/results")
    page = client.get("/results").text
    assert "the planned number was reached" in page
    other = client_of(rating, "ben")
    assert vote(other, 0).headers["location"] == "/results"
    assert other.get("/").headers["location"] == "/results"
    assert "nothing" in press(client, "/undo").headers["location"]
    assert len(showings(rating, "ben")) == 0


def side_of_policy(rating, rater):
    at = rating.store.screen(15, rater)
    pair = rating.session.items[at.showing.item].pair
    return pair.kind, "left" if at.showing.left == "a" else "right"


def test_eight_preferences_for_the_policy_in_a_row_are_enough(tmp_path):
    """e = B(1+w, 1)·2^w = 2^w / (w + 1): 128/8 = 16 after seven, 256/9 = 28.4 after eight; 20 is asked for."""
    rating = rating_of(write_run(tmp_path, rows=60), "ana", count=60)
    client, wins = client_of(rating, "ana"), 0
    while wins < 8:
        assert "Results may be seen now" not in client.get("/").text
        kind, side = side_of_policy(rating, "ana")
        first_time = not rating.session.items[rating.store.screen(15, "ana").showing.item].pair.repeats
        wins += kind == "policy-sft" and first_time
        vote(client, place_of(client), side if kind == "policy-sft" else "both bad")
    assert "the sequential test had seen enough" in client.get("/").text
    press(client, "/results")
    assert "8" in client.get("/results").text
    assert rating.store.closed(15) == "the sequential test had seen enough"


def test_results_show_whose_answers_they_were_and_where_the_reward_model_disagrees(client, rating):
    """The made reward model scores by the step, so that whoever prefers the SFT model's answer disagrees with it."""
    for place in range(20):
        kind, side = side_of_policy(rating, "ana")
        other = {"left": "right", "right": "left"}[side]
        vote(client, place, other if kind == "policy-sft" else "both good", note="the old one" if place == 0 else "")
    press(client, "/results")
    everything, disagreed = client.get("/results").text, client.get("/results?only=disagreed").text
    against = sum(i.pair.kind == "policy-sft" for i in rating.session.items.values())
    assert "SFT model" in everything
    assert "the old one" in everything
    assert everything.count("<article") == 20
    assert disagreed.count("<article") == against
    assert "policy-policy" not in disagreed.partition("Pair by pair")[2]


HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror=alert(1)>",
    "</div></section><form action=//evil.example>",
    "javascript:alert(1)",
    '" onmouseover="alert(1)',
    "{{ 7 * 7 }} {% raw %}",
    "\x00\x1b[31mred\x1b[0m\x07",
    "\u202eevil\u202c \u200bzero\ufeff \ud800",
    "<!-- --> ]]> &lt; &#x3c;",
]


def test_hostile_answers_are_shown_letter_by_letter(tmp_path):
    rating = rating_of(
        write_run(tmp_path, rows=len(HOSTILE), text=lambda step, row: f"{HOSTILE[row]} {step}"), "ana", count=9
    )
    client, seen = client_of(rating, "ana"), []
    while 'name="place"' in (page := client.get("/").text):
        shown = re.findall(r'<div class="text" dir="auto">(.*?)</div>\n', page, re.DOTALL)[1:]
        seen += shown
        for text in shown:
            assert "<" not in re.sub(r'<span class="escape">[^<>]*</span>', "", text)
        assert page.count("<script") == 1
        assert page.count("<form") == 2
        assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u200b\ufeff\ud800]", page)
        vote(client, place_of(client))
    together = " ".join(seen)
    for literal in (
        "&lt;script&gt;window.hacked",
        "&lt;img src=x onerror",
        "{{ 7 * 7 }}",
        "&amp;lt; &amp;#x3c;",
        "&#34;",
    ):
        assert literal in together or literal.replace("&#34;", "&quot;") in together
    for spelled in (r"\x00", r"\x1b", r"\u202e", r"\u200b", r"\ufeff", r"\ud800"):
        assert f'<span class="escape">{spelled}</span>' in together


def test_a_line_of_a_megabyte_is_shown(tmp_path):
    rating = rating_of(write_run(tmp_path, rows=2, text=lambda step, row: f"{step}" + "x" * 1_000_000), "ana", count=1)
    assert "x" * 1_000_000 in client_of(rating, "ana").get("/").text


def test_an_empty_answer_is_named_as_one(tmp_path):
    rating = rating_of(write_run(tmp_path, text=lambda step, row: "" if step == 0 else "said"), "ana")
    assert "(an empty answer)" in client_of(rating, "ana").get("/").text


def test_a_conversation_is_shown_with_its_roles(tmp_path):
    talk = [{"role": "user", "content": "Hi <b>"}, {"role": "assistant", "content": "Yes?"}]
    file = tmp_path / "pairs.jsonl"
    file.write_text(
        json.dumps({"item": "x", "kind": "sft-sft", "prompt_id": "1", "prompt": talk, "a": "A", "b": "B"}) + "\n"
    )
    rating = rating_of(write_run(tmp_path / "run"), "ana", given=file, step=15)
    page = client_of(rating, "ana").get("/").text
    assert "<h3>user</h3>" in page
    assert "Hi &lt;b&gt;" in page


def test_votes_of_a_real_person_are_the_policys_when_the_policy_is_better(tmp_path):
    """A rater who always prefers the policy gives it every decided pair, whatever the side it stood on."""
    rating = rating_of(write_run(tmp_path), "ana")
    client = client_of(rating, "ana")
    for place in range(20):
        page = texts(client.get("/").text)
        steps = [re.search(r"step (\d+)", text) for text in page[1:]]
        numbers = [int(found[1]) if found else -1 for found in steps]
        vote(client, place, "left" if numbers[0] > numbers[1] else "right")
    rating.open()
    counts = rating.summary().win_rate.counts
    assert (counts.win, counts.loss, counts.all) == (10, 0, 10)  # 60 % of 16, once each

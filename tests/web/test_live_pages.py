"""The pages over runs, asked without a browser."""

import html
import json
import re
import shutil

import pytest
from made_run import make_run
from rated_runs import client_of, press, rating_of, vote, write_run
from starlette.testclient import TestClient

from surefoot.records import RunRecords
from surefoot.report import write_report
from surefoot.tracking import RunFolder
from surefoot.types import StepStats
from surefoot.web.guard import Guard, Hosts
from surefoot.web.live.app import make_app
from surefoot.web.live.samples import spread


def reader(folder):
    app = Guard(make_app(folder), hosts=Hosts(), tokens={"t": "reader"}, cookie="surefoot-8764")
    client = TestClient(app, base_url="http://127.0.0.1:8764")
    client.get("/?token=t")
    return client


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two lifelike runs, one of which goes on."""
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "alpha", steps=40, every=10, prompts=8)
    make_run(folder / "group" / "beta", steps=40, every=10, prompts=8, seed=1)
    (folder / "group" / "beta" / "result.json").unlink()
    (folder / "no run").mkdir()
    return folder


def titles(page):
    return [html.unescape(t) for t in re.findall(r"<figcaption><b>(.*?)</b>", page)]


def test_all_runs_below_the_folder_are_shown_side_by_side(runs):
    page = reader(runs).get("/").text
    for name in ("alpha", "group/beta"):
        assert f'value="{name}"' in page
        assert page.count(f"<i></i>{name}</li>") == 12  # the legend of every picture
    assert "finished: 40 steps" in page
    assert "it is going on, or was interrupted" in page
    assert "no run" not in re.findall(r'name="run" value="(.*?)"', page)


def test_the_pictures_are_those_that_people_look_at(runs):
    assert titles(reader(runs).get("/").text) == [
        "Evaluation score, 95 % interval over prompts", "What a score costs", "Scores before and after",
        "Score and length", "Score of training batches",
        "KL from the reference", "KL from the reference", "Entropy", "Answer length", "Answers that end",
        "Clipped tokens", "Explained variance",
    ]  # fmt: skip


def test_a_single_run_has_the_pictures_of_its_report(runs):
    alone = titles(reader(runs / "alpha").get("/").text)
    chosen = titles(reader(runs).get("/?run=alpha").text)
    assert alone == chosen
    assert {"Score", "Score and length", "What a score costs", "Value loss"} <= set(alone)


def test_the_frontier_is_drawn_at_the_root_of_the_kl(tmp_path):
    for name in ("a", "b"):
        folder = write_run(tmp_path / name, steps=())
        for step, (kl, score) in enumerate([(0.0, 1.0), (4.0, 2.0), (9.0, 3.0)]):
            RunFolder(folder).log_evaluation(step, step, {"eval/kl": kl, "eval/score": score}, [])
    page = reader(tmp_path).get("/").text
    figure = next(f for f in re.findall(r"<figure>.*?</figure>", page) if "What a score costs" in f)
    assert [f"a: {s} at {x}" in figure for s, x in ((1, 0), (2, 2), (3, 3))] == [True] * 3


def test_at_most_six_runs_are_drawn_and_three_until_somebody_chooses(tmp_path):
    for n in range(8):
        write_run(tmp_path / f"run{n}")
    client = reader(tmp_path)
    assert client.get("/").text.count('aria-label="Answers of') == 3
    everything = client.get("/", params={"run": [f"run{n}" for n in range(8)]}).text
    assert everything.count('aria-label="Answers of') == 6


def test_new_lines_are_there_at_the_next_look(tmp_path):
    run = make_run(tmp_path / "run", steps=20, every=10, prompts=4)
    client = reader(tmp_path)
    assert "<td>20</td>" in client.get("/").text
    folder = RunFolder(run)
    more = {**RunRecords(run).read_metrics()[-1], "step": 21}
    folder.log_step(StepStats(more), [], with_samples=False)
    assert "<td>21</td>" in client.get("/").text


def test_half_a_line_is_left_for_the_next_look_and_a_broken_one_is_told(tmp_path):
    run = make_run(tmp_path / "run", steps=20, every=10, prompts=4)
    shutil.copytree(run, tmp_path / "whole")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 21, "epi')
    client = reader(tmp_path)
    assert "cannot be read" not in client.get("/").text
    with (run / "metrics.jsonl").open("a") as file:
        file.write("\n")
    page = client.get("/").text
    assert "metrics.jsonl, line 21 is not JSON" in page
    assert "whole" in page


def test_looking_writes_nothing(tmp_path):
    run = make_run(tmp_path / "run", steps=20, every=10, prompts=4)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    client = reader(tmp_path)
    for path in ("/", "/samples?run=run", "/samples?run=run&row=3"):
        assert client.get(path).status_code == 200
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_what_is_worth_a_look_is_said_in_words_with_a_way_to_the_answers(tmp_path):
    run = make_run(tmp_path / "run", steps=20, every=10, prompts=4)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    far = [re.sub(r'"objective/kl_per_token": [^,]+', '"objective/kl_per_token": 0.9', line) for line in lines]
    (run / "metrics.jsonl").write_text("\n".join(far) + "\n")
    page = reader(tmp_path).get("/").text
    assert "above twice its target" in page
    assert 'href="/samples?run=run"' in page


def test_a_prompt_is_shown_from_the_first_evaluation_to_the_last(runs):
    page = reader(runs).get("/samples?run=alpha&row=2").text
    assert re.findall(r'aria-label="Answer at step (\d+)"', page) == ["0", "10", "20", "30", "40"]
    samples = RunRecords(runs / "alpha").read_samples("eval", 40)
    expected = next(s for s in samples if s["row"] == 2)
    assert html.escape(expected["response"]) in page
    assert "row=1" in page
    assert "row=3" in page


def test_of_many_evaluations_six_are_chosen_evenly_with_both_ends():
    assert [e["step"] for e in spread([{"step": n} for n in range(11)])] == [0, 2, 4, 6, 8, 10]
    assert [e["step"] for e in spread([{"step": n} for n in range(3)])] == [0, 1, 2]


@pytest.mark.parametrize("query", ["run=gamma", "run=../alpha", "run=alpha&row=99", "run=/etc", "run=alpha/../alpha"])
def test_what_is_not_there_is_said_without_opening_anything(runs, query):
    answer = reader(runs).get(f"/samples?{query}")
    assert answer.status_code == 404
    assert "Not here" in answer.text


def test_hostile_names_and_texts_stay_texts(tmp_path):
    name = "<script>alert(1)<"
    write_run(tmp_path / name, text=lambda step, row: "<img src=x onerror=alert(1)>\u202e")
    client = reader(tmp_path)
    for page in (client.get("/").text, client.get("/samples", params={"run": name}).text):
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "\u202e" not in page
        assert page.count("<script") == 1


def test_people_appear_beside_the_score_once_their_rating_is_done(tmp_path):
    run = write_run(tmp_path / "run")
    rating = rating_of(run, "ana")
    client, look = client_of(rating, "ana"), reader(tmp_path)
    for place in range(20):
        assert "What people prefer" not in look.get("/").text
        showing = rating.store.screen(15, "ana").showing
        vote(client, place, "left" if showing.left == "a" else "right")
    assert "What people prefer" not in look.get("/").text
    press(client, "/results")
    page = look.get("/").text
    assert "What people prefer" in page
    assert "1 at 60" in page  # ten of ten for the policy, after 15 steps of 4 answers


def test_an_empty_folder_is_no_failure(tmp_path):
    assert "no run here yet" in reader(tmp_path).get("/").text


def test_a_run_that_has_only_begun_is_shown(tmp_path):
    write_run(tmp_path / "run", steps=(0,))
    page = reader(tmp_path).get("/").text
    assert "Secretive-7B" in page


# ------------------------------------------------------------------------------------------ token by token
TOKENS = {"texts": ["He", "llo", "<b>", "<|eos|>"], "kl": [0.01, 0.3, 2.5, -0.1], "advantage": [0.1, 2.0, -0.8, None]}


def with_tokens(run, kind="eval"):
    """The samples of a run with the tokens above on each."""
    for path in (run / "samples").glob(f"{kind}_*.jsonl"):
        lines = [json.loads(line) | {"tokens": TOKENS, "length": 6} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def looks(page):
    """Class and text of each token of the first answer."""
    answer = re.search(r'class="text tokens" dir="auto">(.*?)</div>', page, re.DOTALL)[1]
    return re.findall(r'<span(?: class="(\w+)")?(?: title="([^"]+)")?>(.*?)</span>', answer)


def test_tokens_are_coloured_by_their_kl_with_the_number_in_words(tmp_path):
    with_tokens(write_run(tmp_path / "run"))
    page = reader(tmp_path).get("/samples?run=run").text
    assert looks(page) == [
        ("", "KL per token 0.01 nats", "He"),
        ("k2", "KL per token 0.3 nats", "llo"),
        ("k5", "KL per token 2.5 nats", "&lt;b&gt;"),
        ("m1", "KL per token \u22120.1 nats", "&lt;|eos|&gt;"),
        ("", "", " … and 2 more tokens"),
    ]
    assert "style=" not in page


def test_advantages_are_coloured_on_the_answers_that_a_step_learnt_from(tmp_path):
    run = make_run(tmp_path / "run", steps=40, every=20, prompts=4)
    client = reader(tmp_path)
    page = client.get("/steps?run=run").text
    assert "What step 40 learnt from" in page
    assert "Tokens by" not in page
    with_tokens(run, "step")
    page = client.get("/steps?run=run&step=20&colour=advantage").text
    assert [look for look, _, _ in looks(page)] == ["", "p3", "m2", "", ""]
    assert "advantage not known" in page
    assert 'href="/steps?run=run&amp;step=40&amp;colour=advantage"' in page
    assert re.findall(r"data-key=\"\d\"><kbd>\d</kbd> ([\w ]+)</a>", page) == [
        "KL per token",
        "advantage",
        "no colour",
    ]
    assert 'class="text tokens"' not in client.get("/steps?run=run&step=20&colour=none").text


@pytest.mark.parametrize("query", ["run=alpha&step=7", "run=alpha&step=../20", "run=beta", "run=group/beta&step=-1"])
def test_steps_that_are_not_there_are_said_without_opening_anything(runs, query):
    answer = reader(runs).get(f"/steps?{query}")
    assert answer.status_code == 404
    assert "Not here" in answer.text


# ------------------------------------------------------------------------------------------ beside the score
def test_gold_stands_beside_the_score_where_a_run_asked_for_it(tmp_path):
    for name in ("a", "b"):
        folder = write_run(tmp_path / name, steps=())
        for step, gold in ((0, 1.0), (5, 3.5)):
            metrics = {"eval/score": 2.0} | ({"eval/gold": gold} if name == "b" else {})
            RunFolder(folder).log_evaluation(step, 4 * step, metrics, [])
    page = reader(tmp_path).get("/").text
    figure = next(f for f in re.findall(r"<figure>.*?</figure>", page) if "<b>Gold" in f)
    assert "b: 3.5 at 20" in figure
    assert "a:" not in figure


def test_each_prompt_s_score_is_drawn_before_and_after(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name, rows=3, score=lambda step, row: 10.0 * row + step)
    page = reader(tmp_path).get("/").text
    figure = next(f for f in re.findall(r"<figure>.*?</figure>", page) if "Scores before and after" in f)
    assert [f"a: {10 * row + 15} at {10 * row}" in figure for row in range(3)] == [True] * 3


def test_what_an_evaluation_found_is_told_on_the_page_and_in_the_report(tmp_path):
    run = make_run(tmp_path / "run", steps=20, every=10, prompts=4)
    share = {"value": 0.61, "low": 0.52, "high": 0.7}
    duel = {"by": "judge <b>", "counts": {"win": 30, "tie": 12, "loss": 18, "both_bad": 0}, "score": share,
            "length": {"win_rate": {"value": None, "low": None, "high": None}}}  # fmt: skip
    (run / "evaluation").mkdir()
    found = {"prompts": 60, "methods": [{"name": "SFT"}], "head_to_head": [duel], "notes": []}
    (run / "evaluation" / "evaluation.json").write_text(json.dumps(found))
    for page in (reader(tmp_path).get("/").text, write_report(run).read_text(encoding="utf-8")):
        assert "Against SFT" in page
        assert "<td>judge &lt;b&gt;</td><td>30</td><td>12</td><td>18</td><td>61 % (52 to 70 %)</td>" in page
        assert "<td>not known</td>" in page
        assert "On 60 held-out prompts" in page

"""The loop from policy to people and back to the policy, by its commands: sft, ppo, rate, reward --ratings, ppo.

The model has learnt three answers, of two, three and six words. PPO is told that longer is better; the one who rates
wants it short. A reward model that learns from her votes must say so of answers that it has not seen judged.
"""

import html
import json
import re
import time
from pathlib import Path

import httpx
import pytest
import tiny
from rated_runs import OURS, client_of, rating_of, vote, write_run
from stage_folders import write_rows
from web_server import serving

from surefoot.cli import main
from surefoot.evaluate.rated.rating import Rating
from surefoot.evaluate.rated.session import read_session, sessions
from surefoot.evaluate.rated.store import QUICKEST
from surefoot.rewards import ModelReward
from surefoot.stages.ratings import rated_rows
from surefoot.types import Prompt

ANSWERS = (" not now", " not now thanks", " not now but ask again later")
PPO = {"batch_size": 16, "mini_batch_size": 16, "max_new_tokens": 30, "ppo_epochs": 2, "save_every": 0,
       "learning_rate": 1e-3}  # fmt: skip


def run(command, **options):
    """`surefoot COMMAND`, which must succeed."""
    texts = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options.items()]
    assert main([command, *(text for pair in texts for text in pair), "--quiet"]) == 0


def letters(text):
    """What the rater goes by."""
    return sum(character.isalpha() for character in text)


def answers_on(page):
    """Both answers as they stand on a screen, without the characters that are spelled out."""
    sections = re.findall(r'<section aria-label="Response [AB]">(.*?)</section>', page, re.DOTALL)
    texts = [re.search(r'<div class="text" dir="auto">(.*)</div>', section, re.DOTALL) for section in sections]
    return [html.unescape(re.sub(r'<span class="escape">.*?</span>', "", t[1])) if t else "" for t in texts]


def vote_for_the_shorter(link, votes):
    """Votes over HTTP until all is rated: the shorter answer, and no preference where both are as long."""
    seen = []
    with httpx.Client(follow_redirects=True) as client:
        client.get(link)  # which leaves a cookie, and leads on
        page = client.get(link.partition("?")[0])
        while found := re.search(r'name="place" value="(\d+)"', page.text):
            left, right = map(letters, answers_on(page.text))
            answer = "left" if left < right else "right" if right < left else "both good"
            time.sleep(QUICKEST + 0.02)
            form = {"place": found[1], "answer": answer, "seconds": "1", "note": ""}
            page = client.post(f"{page.url.copy_with(path='/vote', query=None)}", data=form, headers=OURS)
            seen.append(answer)
        assert page.status_code == 200
        assert len(seen) >= votes
        page = client.post(f"{page.url.copy_with(path='/results', query=None)}", headers=OURS | {
            "content-type": "application/x-www-form-urlencoded"})  # fmt: skip
        return page.text


@pytest.mark.slow
def test_forty_votes_for_short_answers_make_a_reward_model_that_prefers_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny.tiny_llama(initializer_range=0.05).save_pretrained("base")
    tiny.tiny_tokenizer().save_pretrained("base")
    asked = [f"{a}{b} {a}?" for a in ("tea", "sun", "map", "fog") for b in "abcdefghijklmno"]
    write_rows(Path("answers.jsonl"), [{"prompt": p, "completion": a} for p in asked[::6] for a in ANSWERS])
    write_rows(Path("prompts.jsonl"), [{"prompt": p} for p in asked[:16]])
    write_rows(Path("held-out.jsonl"), [{"prompt": p} for p in asked[16:]])
    Path("longer.py").write_text(
        "def score(completions, **columns):\n    return [float(len(c)) for c in completions]\n"
    )
    run("sft", model_name="base", dataset="answers.jsonl", output_dir="runs/sft", steps=150, batch_size=15,
        mini_batch_size=15, learning_rate=1e-2, save_every=0)  # fmt: skip
    run("ppo", model_name="runs/sft/model", dataset="prompts.jsonl", eval_dataset="held-out.jsonl", eval_every=2,
        eval_prompts=44, reward="longer.py:score", output_dir="runs/first", steps=6, **PPO)  # fmt: skip

    with serving("rate", "runs/first", "--pairs", "40") as served:
        results = vote_for_the_shorter(served.links[0], 40)
    assert "What people said" in results
    assert main(["rate", "runs/first", "--export", "exported"]) == 0
    exported = [json.loads(line) for line in Path("exported/preference.jsonl").read_text().splitlines()]
    assert len(exported) >= 15
    assert all(letters(row["chosen"]) < letters(row["rejected"]) for row in exported)

    capsys.readouterr()
    run("reward", model_name="runs/sft/model", ratings="runs/first", output_dir="runs/reward", eval_rows=8, epochs=20,
        batch_size=8, learning_rate=3e-3, save_every=0)  # fmt: skip
    card = json.loads(Path("runs/reward/reward-card.json").read_text())
    assert card["accuracy"]["value"] >= 0.75
    assert "ratings `runs/first`" in Path("runs/reward/model/README.md").read_text()
    reward = ModelReward(Path("runs/reward/model"), device="cpu")
    unseen = [Prompt("rod r?", ()), Prompt("bee b?", ())]
    scores = {answer: sum(map(float, reward(unseen, [answer, answer]).scores)) for answer in ANSWERS}
    assert scores[ANSWERS[0]] > scores[ANSWERS[2]]

    run("ppo", model_name="runs/sft/model", dataset="prompts.jsonl", reward="runs/reward/model",
        output_dir="runs/second", steps=1, eval_prompts=4, **PPO)  # fmt: skip
    assert json.loads(Path("runs/second/result.json").read_text())["reason"].startswith("finished")


# ------------------------------------------------------------------------------------------ what is a row
@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("surefoot.evaluate.rated.store.QUICKEST", 0.0)


def rated(path, *answers, rater="ana", text=None):
    """A run whose rating is done, each screen answered in turn by one of `answers`."""
    made = write_run(path) if text is None else write_run(path, text=text)
    client = client_of(rating_of(made, rater), rater)
    for place in range(20):
        vote(client, place, answers[place % len(answers)])
    return str(made)


def test_votes_that_prefer_something_are_rows_and_all_others_are_counted(tmp_path, quick):
    run = rated(tmp_path / "run", "left", "both good", "both bad", "skip")
    found = rated_rows([run])
    (step,) = sessions(Path(run))
    session = read_session(Path(run), step)
    votes = [v for v in Rating(Path(run), session).votes() if v.kind != "planted" and not v.repeats]
    decided = [v for v in votes if v.choice in ("a", "b")]
    assert len(found) == len(decided) > 0
    for row, vote_ in zip(found.rows, decided, strict=True):
        pair = session.items[vote_.item].pair
        better, worse = (pair.a, pair.b) if vote_.choice == "a" else (pair.b, pair.a)
        assert row == {"prompt": pair.prompt, "chosen": better, "rejected": worse}
    for words, choice in (("both good", "both good"), ("both bad", "both bad"), ("skipped", "skip")):
        assert f"{sum(v.choice == choice for v in votes)} {words}" in found.form
    assert "4 on planted or repeated pairs" in found.form
    assert f"{len(decided)} preferences of 1 rater" in found.form


def test_answers_are_learnt_with_the_blanks_that_they_were_written_with(tmp_path, quick):
    run = rated(tmp_path / "run", "left", text=lambda step, row: f"  one two three four of {step} to {row}\n")
    assert all(row["chosen"].startswith("  one") and row["chosen"].endswith("\n") for row in rated_rows([run]).rows)


def test_the_ratings_of_several_runs_are_learnt_together(tmp_path, quick):
    runs = [rated(tmp_path / name, "left") for name in ("one", "two")]
    assert len(rated_rows(runs)) == len(rated_rows(runs[:1])) + len(rated_rows(runs[1:]))
    assert len(rated_rows([runs[0], runs[0]])) == len(rated_rows(runs[:1]))


def test_conversations_are_rated_and_learnt_as_conversations(tmp_path, quick):
    made = write_run(tmp_path / "run")
    for path in (made / "samples").iterdir():
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        asked = [line | {"messages": [{"role": "user", "content": line["prompt"]}]} for line in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in asked))
    client = client_of(rating_of(made, "ana"), "ana")
    assert "Prompt" in client.get("/").text
    for place in range(20):
        vote(client, place)
    row = rated_rows([str(made)]).rows[0]
    assert row["prompt"][0]["role"] == "user"
    assert row["chosen"][0]["role"] == "assistant"


def test_what_cannot_be_learnt_from_is_said_in_a_sentence(tmp_path, quick):
    with pytest.raises(ValueError, match="nobody has rated this run"):
        rated_rows([str(write_run(tmp_path / "new"))])
    going_on = write_run(tmp_path / "going on")
    vote(client_of(rating_of(going_on, "ana"), "ana"), 0)
    with pytest.raises(ValueError, match=r"hidden until it is done \(votes: ana 1 of 20\)"):
        rated_rows([str(going_on)])
    ties = rated(tmp_path / "ties", "both good")
    with pytest.raises(ValueError, match="none of 20 votes prefers one answer"):
        rated_rows([ties])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--dataset", "x.jsonl"], "ratings and dataset both say what to learn from"),
        (["--chosen-column", "x"], "chosen_column: ratings have no columns"),
    ],
)
def test_ratings_beside_rows_are_refused(capsys, given, words):
    assert main(["reward", "--model-name", "x", "--ratings", "runs/x", *given]) == 2
    assert words in capsys.readouterr().err

"""The demo's course on the smallest story: what it shows, where it leaves things, and that it tells the truth."""

import io

import pytest
import tiny
from rich.console import Console

from surefoot.callbacks import Evaluation
from surefoot.config import PPOConfig
from surefoot.demo import run as course
from surefoot.demo.stories import Story
from surefoot.demo.texts import Openings
from surefoot.evaluate.statistics import Measure, compare


def vowels(completions, **_columns):
    return [float(sum(c in "aeiou" for c in text)) for text in completions]


def smallest_story(seed, output_dir, say):
    say("Model: next to nothing.")
    config = PPOConfig(
        learning_rate=1e-4,
        batch_size=4,
        mini_batch_size=4,
        ppo_epochs=1,
        max_new_tokens=4,
        steps=1,
        eval_prompts=6,
        output_dir=output_dir,
        seed=seed,
    )
    openings = Openings([f"train {i}" for i in range(8)], [f"judge {i}" for i in range(6)])
    witnesses = {"letters": lambda texts: [float(len(t)) for t in texts]}
    return Story(config, tiny.tiny_llama(), tiny.tiny_tokenizer(), openings, vowels, "score (vowels)", witnesses)


@pytest.fixture
def shown(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "quick_story", smallest_story)
    console = Console(file=io.StringIO(), width=80)
    assert course.run(True, 3, str(tmp_path / "run"), console) == 0
    return console.file.getvalue()


def test_it_shows_table_samples_and_where_things_are(shown, tmp_path):
    assert "6 held-out prompts" in shown
    for row in ("score (vowels)", "letters (not trained on)", "KL, nats per token", "length, tokens", "distinct-2"):
        assert row in shown
    assert shown.count("before:") == shown.count("after:") == 5
    assert "1 steps, 4 answers" in shown
    assert "report.html" in shown
    assert (tmp_path / "run" / "report.html").is_file()
    assert (tmp_path / "run" / "model" / "config.json").is_file()
    assert not (tmp_path / "run" / "checkpoints").exists()


def answers(*rows):
    return [
        {"row": row, "prompt": f"p{row}", "response": text, "score": score, "kl": kl, "length": length}
        for row, text, score, kl, length in rows
    ]


def test_every_measure_pairs_the_answers_to_the_same_prompt():
    before = Evaluation(0, 0, {}, answers((0, "a b", 1.0, 0.0, 2), (1, "c d e", 2.0, 0.0, 3)))
    after = Evaluation(9, 9, {}, answers((1, "c", 5.0, 0.4, 1), (0, "a b", 3.0, 0.6, 4)))  # another order
    story = smallest_story(0, None, lambda line: None)
    score, letters, kl, length, distinct = course.measures(story, before, after)
    assert (score.before, score.after) == ([1.0, 2.0], [3.0, 5.0])
    assert (letters.before, letters.after) == ([3.0, 5.0], [3.0, 1.0])
    assert compare(kl).after.value == pytest.approx((0.6 + 0.4) / (4 + 1))
    assert compare(length).change.value == pytest.approx(2.5 - 2.5)
    assert compare(distinct).before.value == 1


@pytest.mark.parametrize(
    ("shift", "word"), [(1.0, "score rose"), (-1.0, "score fell"), (0.0, "score did not change beyond chance")]
)
def test_the_verdict_follows_the_interval_of_the_change(shift, word):
    spread = [0.1, -0.1] * 20
    measure = Measure("score", [0.0] * 40, [s + shift for s in spread])
    price = Measure("KL, nats per token", [0.0] * 40, [1.0] * 40)
    assert course.verdict([(m, compare(m)) for m in (measure, price)]) == f"{word}."


def test_a_cell_shows_half_the_width_and_the_change_its_ends():
    found = compare(Measure("score", [0.0, 2.0] * 50, [1.0, 3.0] * 50))
    console = Console(file=io.StringIO(), width=80)
    console.print(course.table([(Measure("score", [], []), found)], 100))
    line = next(row for row in console.file.getvalue().splitlines() if "score" in row)
    assert line.split() == ["score", "1.00", "±", "0.20", "2.00", "±", "0.20", "+1.00", "[+1.00,", "+1.00]"]

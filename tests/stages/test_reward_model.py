"""`surefoot reward` on a tiny model: it learns a preference, is judged, and is what rewards and critics load."""

import json
import math
from statistics import fmean

import pytest
import tiny
import torch
from peft import AutoPeftModelForSequenceClassification
from stage_folders import ANSWERS, PAIRS, byte_ids, evaluations, metrics, save_base, write_rows
from transformers import AutoModelForSequenceClassification

from surefoot.cli import main
from surefoot.loading import load_value_model
from surefoot.models import ValueModel
from surefoot.rewards import ModelReward
from surefoot.stages.options import RewardOptions
from surefoot.stages.reward_model import as_answer, load_reward
from surefoot.types import Prompt


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


def command(base, folder, rows=PAIRS, **options):
    few = {"batch_size": 4, "mini_batch_size": 2, "steps": 8, "learning_rate": 1e-2, "eval_rows": 3}
    rows = write_rows(folder.parent / "pairs.jsonl", rows)
    options = {"model_name": base, "dataset": rows, "output_dir": folder} | few | options
    flat = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options.items() if value is not None]
    return ["reward", *(text for pair in flat for text in pair)]


def alone(model, text):
    """The score of one text by plain transformers, without padding."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([byte_ids(text)])).logits.item()


def scores(folder, texts):
    asked = [Prompt(prompt, ()) for prompt, _ in texts]
    return [float(x) for x in ModelReward(folder, device="cpu")(asked, [answer for _, answer in texts]).scores]


def test_the_first_loss_is_that_of_the_scores_that_ppo_would_be_given(base, tmp_path):
    rows = PAIRS[:4]
    assert main(command(base, tmp_path / "run", rows, steps=1, eval_rows=0)) == 0
    options = RewardOptions(model_name=base, dataset=str(tmp_path / "pairs.jsonl"), eval_rows=0).resolved()
    start = load_reward(options).model.eval()
    margins = [alone(start, r["prompt"] + r["chosen"]) - alone(start, r["prompt"] + r["rejected"]) for r in rows]
    first = metrics(tmp_path / "run")[0]
    assert first["reward/loss"] == pytest.approx(fmean(math.log1p(math.exp(-m)) for m in margins), rel=1e-5)
    assert first["reward/accuracy"] == fmean(m > 0 for m in margins)
    assert not (tmp_path / "run" / "reward-card.json").exists()


def test_a_preference_is_learnt_judged_and_centred(base, tmp_path, capsys):
    run, samples = tmp_path / "run", write_rows(tmp_path / "samples.jsonl", ANSWERS)
    assert main(command(base, run, centre_on=samples)) == 0
    assert evaluations(run)[-1]["metrics"]["eval/accuracy"] == 1.0
    card = json.loads((run / "reward-card.json").read_text())
    assert card["pairs"] == 3
    out = capsys.readouterr().out
    assert "right in" in out
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<h2>The reward model on pairs it did not learn</h2>" in page
    assert "How sure and how right" in page
    assert "Reward model run run" in page
    assert "text-classification" in (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "is taken off every score: the mean of 12 answers" in out
    model = AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
    assert model.config.num_labels == 1
    texts = [(row["prompt"], row["completion"]) for row in ANSWERS]
    raw = [alone(model, prompt + answer) for prompt, answer in texts]
    assert card["score_shift"] == pytest.approx(fmean(raw), rel=1e-4)
    centred = scores(run / "model", texts)
    assert fmean(centred) == pytest.approx(0, abs=1e-5)
    assert centred == pytest.approx([score - fmean(raw) for score in raw], abs=1e-4)


SCORERS = """\
def bangs(completions, **columns):
    return [float(text.count("!")) for text in completions]


def equal(completions, **columns):
    return [1.0 for text in completions]


def broken(completions, **columns):
    raise RuntimeError("no")
"""


def test_the_card_tells_how_often_a_second_scorer_agrees(base, tmp_path, capsys):
    run, held_out = tmp_path / "run", write_rows(tmp_path / "held_out.jsonl", PAIRS[6:])
    (tmp_path / "judges.py").write_text(SCORERS)
    scorer = f"{tmp_path / 'judges.py'}:bangs"
    assert main(command(base, run, PAIRS[:6], eval_rows=None, eval_dataset=held_out, second_scorer=scorer)) == 0
    second = json.loads((run / "reward-card.json").read_text())["second"]
    decided = [row for row in PAIRS[6:] if "!" in row["chosen"]]  # it finds the others equal
    ours = {
        name: scores(run / "model", [(row["prompt"], row[name]) for row in decided]) for name in ("chosen", "rejected")
    }
    agreed = [chosen > rejected for chosen, rejected in zip(ours["chosen"], ours["rejected"], strict=True)]
    assert second["raw"]["value"] == fmean(agreed)
    assert (second["raw"]["count"], second["ties"]) == (4, 2)
    assert second["accuracy"]["value"] == pytest.approx((4 + 2 / 2) / 6)
    assert f"second    {scorer} is right in 83.3%" in capsys.readouterr().out
    assert "judges.py:bangs agrees in" in (run / "report.html").read_text(encoding="utf-8")
    another = command(base, run, PAIRS[:6], eval_rows=None, eval_dataset=held_out, second_scorer=f"{scorer[:-5]}equal")
    assert "second_scorer" in refused(capsys, another)  # the run has ended: its card stays that of the first


@pytest.mark.parametrize(
    ("scorer", "changes", "words"),
    [
        ("nowhere", {}, "second_scorer: "),
        ("broken", {}, "RuntimeError: no"),
        ("equal", {}, "finds both answers of all 3 held-out pairs equal"),
        ("bangs", {"eval_rows": 0}, "eval_rows=0 holds none out"),
    ],
)
def test_a_second_scorer_that_cannot_judge_is_told_before_any_training(base, tmp_path, capsys, scorer, changes, words):
    (tmp_path / "judges.py").write_text(SCORERS)
    named = f"{tmp_path / 'judges.py'}:{scorer}"
    assert main(command(base, tmp_path / "run", second_scorer=named, **changes)) != 0
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_adapter_with_its_head_is_loaded_by_plain_peft_and_as_a_reward(base, tmp_path):
    run, samples = tmp_path / "run", write_rows(tmp_path / "samples.jsonl", ANSWERS)
    assert main(command(base, run, lora_r=4, centre_on=samples)) == 0
    assert not (run / "model" / "config.json").exists()
    model = AutoPeftModelForSequenceClassification.from_pretrained(run / "model", num_labels=1).eval()
    texts = [(row["prompt"], row["completion"]) for row in ANSWERS]
    raw = [alone(model, prompt + answer) for prompt, answer in texts]
    assert scores(run / "model", texts) == pytest.approx([score - fmean(raw) for score in raw], abs=1e-4)
    assert evaluations(run)[-1]["metrics"]["eval/accuracy"] == 1.0


def test_it_is_centred_on_both_answers_of_pairs(base, tmp_path):
    run, pairs = tmp_path / "run", write_rows(tmp_path / "drawn.jsonl", PAIRS)
    assert main(command(base, run, steps=2, centre_on=pairs)) == 0
    texts = [(row["prompt"], row[name]) for row in PAIRS for name in ("chosen", "rejected")]
    assert fmean(scores(run / "model", texts)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("lora_r", [0, 2])
def test_it_is_judged_and_centred_with_the_arithmetic_that_ppo_will_score_in(base, tmp_path, lora_r):
    run, samples = tmp_path / "run", write_rows(tmp_path / "samples.jsonl", ANSWERS)
    assert main(command(base, run, centre_on=samples, precision="bfloat16", steps=4, lora_r=lora_r)) == 0
    texts = [(row["prompt"], row["completion"]) for row in ANSWERS]
    assert fmean(scores(run / "model", texts)) == pytest.approx(0, abs=1e-6)  # in bfloat16 it lay off by 3e-3


def test_of_many_answers_every_so_manieth_is_centred_on(base, tmp_path, capsys):
    rows = [{"prompt": f"{i}: ", "completion": "yes" if i % 3 else "no"} for i in range(1300)]
    run, samples = tmp_path / "run", write_rows(tmp_path / "samples.jsonl", rows)
    assert main(command(base, run, steps=1, eval_rows=0, centre_on=samples)) == 0
    assert "the mean of 434 answers" in (out := capsys.readouterr().out)
    assert "samples.jsonl, one row in 3" in out
    third = [(row["prompt"], row["completion"]) for row in rows[::3]]  # all of them say "no"
    assert fmean(scores(run / "model", third)) == pytest.approx(0, abs=1e-5)
    assert abs(fmean(scores(run / "model", [(row["prompt"], "yes") for row in rows[1::3]]))) > 1e-3


def test_the_critic_of_ppo_starts_from_it(base, tmp_path):
    run = tmp_path / "run"
    assert main(command(base, run)) == 0
    model = AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
    critic = ValueModel(load_value_model(str(run / "model"), device=torch.device("cpu")))
    ids = torch.tensor([byte_ids("say ash: good")])
    with torch.no_grad():
        states = critic.trunk(input_ids=ids).last_hidden_state
        assert float(critic.head(states[0, -1])) == pytest.approx(alone(model, "say ash: good"), abs=1e-5)


def test_conversations_are_read_as_ppo_will_show_them(tmp_path):
    folder = tmp_path / "chat"
    tiny.tiny_llama().save_pretrained(folder)
    tiny.tiny_tokenizer(chat=True).save_pretrained(folder)
    rows = [
        {"prompt": [{"role": "user", "content": row["prompt"]}],
         "chosen": [{"role": "assistant", "content": row["chosen"]}],
         "rejected": [{"role": "assistant", "content": row["rejected"]}]}
        for row in PAIRS
    ]  # fmt: skip
    assert main(command(str(folder), tmp_path / "run", rows, steps=1)) == 0
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model").eval()
    im = "<|im_start|>user\nsay ash:<|im_end|>\n<|im_start|>assistant\n good<|im_end|>\n"
    ids = tiny.tiny_tokenizer(chat=True)(im)["input_ids"]
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).logits.item()
    prompt, answer = as_answer(rows[0], "chosen", "row 1")
    found = ModelReward(tmp_path / "run" / "model", device="cpu")([prompt], [answer]).scores
    assert float(found[0]) == pytest.approx(expected, abs=1e-5)


def test_an_answer_that_is_not_the_assistants_is_refused():
    row = {"prompt": [{"role": "user", "content": "a"}], "chosen": [{"role": "tool", "content": "b"}]}
    with pytest.raises(ValueError, match="row 3: chosen ends with a message of the tool"):
        as_answer(row, "chosen", "row 3")


def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(base, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for run in (whole, cut):
        assert main(command(base, run, lora_r=2, steps=4, save_every=2)) == 0
    for name in ("result.json", "model/adapter_model.safetensors", "checkpoints/checkpoint-4/complete.json"):
        (cut / name).unlink()
    assert main(command(base, cut, lora_r=2, steps=4, save_every=2)) == 0
    file = "model/adapter_model.safetensors"
    assert (whole / file).read_bytes() == (cut / file).read_bytes()


def refused(capsys, arguments):
    assert main(arguments) == 2
    return capsys.readouterr().err


def test_what_does_not_fit_is_told_before_any_training(base, tmp_path, capsys):
    run = tmp_path / "run"
    two = tmp_path / "two"
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    model.save_pretrained(two)
    tiny.tiny_tokenizer().save_pretrained(two)
    capsys.readouterr()
    assert "is a classifier with num_labels=2, a reward model has 1" in refused(capsys, command(str(two), run))
    without = [{"prompt": r["prompt"], "rejected": r["rejected"]} for r in PAIRS]
    assert "chosen" in refused(capsys, command(base, run, without))
    assert "eval_rows=128:" in refused(capsys, command(base, run, eval_rows=None))
    texts = write_rows(tmp_path / "texts.jsonl", [{"text": "a"}])
    assert "centre_on=" in refused(capsys, command(base, run, centre_on=texts))
    assert not run.exists()

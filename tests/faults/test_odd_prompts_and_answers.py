"""Prompts and answers that nobody expects: trained on or refused clearly, and every file of the run stays readable."""

import json
import math

import pytest
import torch
from steps import Batch, assert_same_weights, make_trainer, weights
from tiny import EOS_ID, UNK_ID, VOCAB_SIZE, tiny_llama, tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer
from surefoot.report import write_report

ODD = ["same", "same", "same", "🙂🙃", "a\x00b", "\u202eright to left", "<script>alert(1)</script>", "[bold]x[/bold]",
       "\x1b[31mred", "e\u0301", "\ufeffbom", "line\nbreak\r\n", "%s {prompt} \\n"]  # fmt: skip


def length(completions, **_):
    return [float(len(c)) for c in completions]


def run(tmp_path, dataset, reward=length, **options):
    base = {"batch_size": 4, "mini_batch_size": 4, "ppo_epochs": 1, "max_new_tokens": 4, "learning_rate": 1e-3,
            "eval_prompts": 0, "output_dir": str(tmp_path / "run")}  # fmt: skip
    config = PPOConfig(**(base | options))
    trainer = PPOTrainer(config, tiny_llama(), None, tiny_tokenizer(), reward=reward, dataset=dataset)
    return trainer, trainer.train()


def records(tmp_path):
    for path in sorted((tmp_path / "run" / "samples").glob("step_*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line, parse_constant=pytest.fail)


# ------------------------------------------------------------------------------------------ prompts
def test_odd_prompts_are_trained_on_and_every_file_stays_readable(tmp_path):
    trainer, result = run(tmp_path, ODD, steps=6)  # two epochs, all but the last row
    assert result.reason.startswith("finished")
    assert {r["prompt"] for r in records(tmp_path)} == set(ODD)
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        assert all(math.isfinite(x) for x in json.loads(line).values() if isinstance(x, float))
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert all(bool(p.isfinite().all()) for p in trainer.policy.parameters())


def test_equal_prompts_get_answers_of_their_own(tmp_path):
    run(tmp_path, ["same"] * 8, steps=2, max_new_tokens=12)
    answers = [r["response"] for r in records(tmp_path)]
    assert len(answers) == 8
    assert len(set(answers)) > 1


@pytest.mark.parametrize("where", ["a list", "a file"])
def test_a_lone_surrogate_is_refused_with_its_row(tmp_path, where):
    dataset = ["good", "bad \ud800 end", "good too", "and another"]
    if where == "a file":
        (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in dataset))
        dataset = str(tmp_path / "prompts.jsonl")
    with pytest.raises(ValueError, match=r"(row 2 of the list|line 2): .*surrogate"):
        run(tmp_path, dataset, steps=1)


def test_a_prompt_of_a_megabyte_is_left_out_like_any_that_does_not_fit(tmp_path):
    trainer, result = run(tmp_path, ["x" * 1_000_000, "a", "b", "c", "d"], steps=1)
    assert result.steps == 1
    assert len(trainer.prompts) == 4


# ------------------------------------------------------------------------------------------ answers
def test_answers_of_an_end_alone_have_one_token_an_empty_text_and_their_reward_on_it(tmp_path):
    seen = []

    def reward(completions, **_):
        seen.extend(completions)
        return [1.0 + i for i in range(len(completions))]

    trainer, _ = run(tmp_path, ["a", "b", "c", "d"], reward, steps=1, stop_token_ids=tuple(range(VOCAB_SIZE)),
                     init_kl_coef=0.0)  # fmt: skip
    rollout = trainer.last_experience.rollout
    assert rollout.lengths.tolist() == [1, 1, 1, 1]
    assert not rollout.truncated.any()
    assert trainer.last_experience.rewards.tolist() == [[1.0], [2.0], [3.0], [4.0]]
    assert len(seen) == 4


def test_only_ends_as_answers_give_finite_losses_and_right_lengths():
    t = make_trainer(tiny_llama(), init_kl_coef=0.0, missing_eos_penalty=5.0)
    queries = [torch.tensor([10 + i]) for i in range(8)]
    stats = t.step(queries, [torch.tensor([EOS_ID])] * 8, [float(i) for i in range(8)])
    assert all(math.isfinite(x) for x in stats.scalars().values())
    assert (stats["tokens/responses_len_mean"], stats["tokens/eos_rate"]) == (1.0, 1.0)
    assert t.last_experience.rewards.flatten().tolist() == [float(i) for i in range(8)]  # none is fined


def test_answers_that_were_all_cut_off_are_fined_alike_and_finite():
    batch, t = Batch(), make_trainer(tiny_llama(), init_kl_coef=0.0, missing_eos_penalty=5.0)
    answers = [r[:-1] if len(r) > 1 else torch.tensor([20]) for r in batch.responses]
    answers = [torch.where(a == EOS_ID, 21, a) for a in answers]
    stats = t.step(batch.queries, answers, torch.zeros(8))
    assert all(math.isfinite(x) for x in stats.scalars().values())
    assert stats["tokens/truncated_rate"] == 1.0
    assert stats["objective/scores"] == -5.0


@pytest.mark.parametrize("variant", [{"pad": "eos"}, {"pad": "none"}, {"bos": True}, {"pad": "unk"}, {"side": "left"}])
def test_which_token_pads_changes_nothing(variant):
    """Answers hold every special token; with a pad of its own, which none of them is, all must be the same."""
    found = []
    for options in ({}, variant):
        batch = Batch()
        for response, token in zip(batch.responses[1::2], (UNK_ID, EOS_ID, UNK_ID, EOS_ID), strict=True):
            response[0] = token
        is_unk = options.get("pad") == "unk"
        tokenizer = tiny_tokenizer(**({} if is_unk else options))
        if is_unk:
            tokenizer.pad_token = tokenizer.unk_token
        t = make_trainer(tiny_llama(), tiny_llama(seed=1), tokenizer=tokenizer)
        stats = t.step(batch.queries, batch.responses, batch.scores)
        found.append((weights(t), stats["ppo/loss/total"]))
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-6)
    assert_same_weights(found[0][0], found[1][0], tolerance=1e-6)

"""`surefoot compare` for real: two seeds of a tiny PPO run and a model made elsewhere, beside what they began as."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from judged_runs import RUN, make_world, prompts_file
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from surefoot.cli import main
from surefoot.evaluate.answers import Sampler
from surefoot.types import Prompt, Sampling

ASKED = ["compare", "ppo=runs/ppo-seed*", "--gold", "judges.py:letters", "--best-of", "2", "3", "--seed", "4",
         "--num-generations", "3"]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an SFT model, two seeds of PPO on it, a model from elsewhere, and the comparison `out`."""
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_world()
        Path("run.yaml").write_text(RUN)
        for seed in ("0", "1"):
            out = f"runs/ppo-seed{seed}"
            assert main(["ppo", "--config", "run.yaml", "--seed", seed, "--output-dir", out, "--quiet"]) == 0
        elsewhere = tiny.tiny_llama()
        with torch.no_grad():
            elsewhere.lm_head.weight[tiny.byte_id("e")] *= 1.3
        elsewhere.save_pretrained("elsewhere")
        assert main(["compare", *ASKED[1:2], "elsewhere", *ASKED[2:], "--output-dir", "out", "--update-cards"]) == 0
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def found(here):
    return json.loads(Path("out/compare.json").read_text())


@pytest.fixture
def samples(here):
    return [json.loads(line) for line in Path("out/samples.jsonl").read_text().splitlines()]


def by_prompt(samples, name, seed=None):
    """Row -> its samples of one method and seed."""
    chosen = [s for s in samples if s["method"] == name and s["seed"] == seed]
    return [[s for s in chosen if s["row"] == row] for row in range(6)]


def test_the_means_are_those_of_the_samples(found, samples):
    methods = {m["name"]: m for m in found["methods"]}
    assert list(methods) == ["SFT", "ppo", "elsewhere", "best of/2", "best of/3"]
    for name, seeds in (("SFT", [None]), ("ppo", [0, 1]), ("elsewhere", [None])):
        for gold in ("gold/letters", "proxy"):
            said = [s["scores"][gold] for seed in seeds for row in by_prompt(samples, name, seed) for s in row]
            assert len(said) == 6 * 3 * len(seeds)
            assert methods[name]["means"][gold]["value"] == pytest.approx(np.mean(said))
    assert methods["ppo"]["seeds"] == [0, 1]
    assert methods["SFT"]["means"]["kl"]["value"] == 0
    assert methods["ppo"]["means"]["kl"]["low"] < methods["ppo"]["means"]["kl"]["value"]


def test_the_scores_are_what_the_judges_say(samples):
    for s in samples:
        assert s["scores"]["proxy"] == sum(c in "aeiou" for c in s["response"])
        assert s["scores"]["gold/letters"] == sum(c.isalpha() for c in s["response"])


def test_the_win_rate_counts_pairs_on_the_same_prompt(found, samples):
    shares = []
    for seed in (0, 1):
        for mine, theirs in zip(by_prompt(samples, "ppo", seed), by_prompt(samples, "SFT"), strict=True):
            for a, b in itertools.product(mine, theirs):
                ahead = a["scores"]["gold/letters"] - b["scores"]["gold/letters"]
                shares.append((ahead > 0) + 0.5 * (ahead == 0))
    ppo = next(m for m in found["methods"] if m["name"] == "ppo")
    assert ppo["win_rates"]["gold/letters"]["value"] == pytest.approx(np.mean(shares))


def test_best_of_n_is_of_other_answers_of_the_baseline_chosen_by_the_proxy(found, samples):
    means = []
    for pool in by_prompt(samples, "best of"):
        for pair in itertools.combinations(pool, 2):
            best = max(s["scores"]["proxy"] for s in pair)
            means.append(np.mean([s["scores"]["gold/letters"] for s in pair if s["scores"]["proxy"] == best]))
    row = next(m for m in found["methods"] if m["name"] == "best of/2")
    assert row["means"]["gold/letters"]["value"] == pytest.approx(np.mean(means))
    own = {s["response"] for row in by_prompt(samples, "SFT") for s in row}
    assert not own & {s["response"] for row in by_prompt(samples, "best of") for s in row if s["length"] > 3}


def test_the_recorded_evaluations_are_on_the_frontier_and_nothing_else(found):
    labels = [[p["label"] for p in path["points"]] for path in found["frontier"]]
    assert labels[:3] == [["SFT", "ppo, step 1", "ppo"], ["SFT", "ppo, step 1", "ppo"], ["SFT", "elsewhere"]]
    assert found["matched"]["kl"] == pytest.approx(min(max(p["kl"] for p in f["points"]) for f in found["frontier"]))


def test_what_a_run_cost_is_what_its_steps_recorded(found):
    costs = {m["name"]: m["cost"] for m in found["methods"]}
    assert (costs["ppo"]["answers"], costs["ppo"]["scores"], costs["ppo"]["rows"]) == (16, 16, 0)
    assert costs["ppo"]["seconds"] > 0
    assert costs["elsewhere"] == {"answers": None, "scores": None, "rows": None, "seconds": None}


def test_everything_is_in_the_folder(here):
    names = {path.name for path in Path("out").iterdir()}
    assert names == {"config.yaml", "environment.json", "compare.json", "compare.md", "samples.jsonl", "frontier.svg",
                     "frontier.png", "report.html", "result.json"}  # fmt: skip
    table = Path("out/compare.md").read_text()
    assert "| best of 3 |" in table
    assert "elsewhere is one run: its intervals are of prompts only" in table
    page = Path("out/report.html").read_text()
    assert page.count("<svg") == 2
    assert "ppo against SFT by gold/letters" in page


def test_the_card_of_a_run_says_what_was_measured(here, found):
    card = Path("runs/ppo-seed0/model/README.md").read_text()
    ppo = next(m for m in found["methods"] if m["name"] == "ppo")
    assert f"{100 * ppo['win_rates']['gold/letters']['value']:.1f} %" in card
    assert "n = 6 held-out prompts, 3 answers each, 2 seeds" in card
    assert not Path("elsewhere/README.md").exists()


# ------------------------------------------------------------------------------------------ refused


BAD = [
    (["--gold", "judges.py:vowels"], "is what runs/ppo-seed0 was trained on"),
    (["--dataset", "prompts.jsonl"], "runs/ppo-seed0 was trained on 20 of the 20 prompts"),
    (["--gold", "judges.py:letter"], "there is no 'letter' in it"),
    (["nowhere"], "there is no folder 'nowhere'"),
    (["unlike"], "the tokenizers of unlike and runs/ppo-seed0/model differ"),
    (["--output-dir", "out"], "holds a comparison or a run already"),
    (["--max-new-tokens", "255", "--dataset", "more.jsonl"], "no prompt is left"),
]


@pytest.mark.parametrize(("given", "words"), BAD)
def test_what_cannot_be_compared_is_refused_before_anything_is_sampled(here, capsys, given, words):
    if not Path("unlike").exists():
        tiny.tiny_llama().save_pretrained("unlike")
        other = tiny.tiny_tokenizer()
        other.add_tokens(["<|new|>"])
        other.save_pretrained("unlike")
        prompts_file("more.jsonl", ["One", "Two"])
    asked = [*ASKED, *(["--output-dir", "new"] if "--output-dir" not in given else [])]
    options = given[0].startswith("--")
    assert main([*asked, *given] if options else ["compare", *given, *asked[1:]]) == 2
    written = capsys.readouterr()
    assert words in written.err
    assert "Traceback" not in written.err
    assert "answers to" not in written.out


def test_a_judge_without_numbers_ends_it_after_the_baseline(here, capsys):
    asked = [a if a != "judges.py:letters" else "judges.py:nothing" for a in ASKED]
    assert main([*asked, "--output-dir", "silent"]) == 1
    written = capsys.readouterr()
    assert "nothing" in written.err
    assert "returned None" in written.err
    assert not Path("silent/compare.json").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_seeds_that_held_out_different_prompts_have_none_in_common(here, capsys):
    settings = RUN.replace("eval_dataset: held-out.jsonl\n", "").replace("eval_prompts: 6", "eval_prompts: 2")
    Path("split.yaml").write_text(settings.replace("steps: 2", "steps: 1"))
    for seed in ("0", "1"):
        assert main(["ppo", "--config", "split.yaml", "--seed", seed, "--output-dir", f"split/ppo-seed{seed}",
                     "--quiet"]) == 0  # fmt: skip
    asked = ["compare", "split/ppo-seed0", "split/ppo-seed1", "--gold", "judges.py:letters"]
    assert main(asked) == 2
    assert "have no held-out prompt in common" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ answers


def exact_kl(policy, baseline, query, ids, temperature):
    """The oracle: both models on one row, summed over the vocabulary at every token of the answer."""
    row = torch.tensor([[*query, *ids]])
    with torch.no_grad():
        p, q = (model(row).logits[0, len(query) - 1 : -1].double() / temperature for model in (policy, baseline))
    return float((p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum())


def sampler(baseline, **changes):
    prompts = [Prompt(f"p{i}", (10 + i, 20, 30 + i), index=i) for i in range(3)]
    return Sampler(baseline, tiny.tiny_tokenizer(), prompts, Sampling(max_new_tokens=6, temperature=0.8), 1, **changes)


def test_the_divergence_is_summed_over_the_vocabulary_at_every_token():
    baseline, policy = tiny.tiny_llama(), tiny.tiny_llama(seed=1)
    asked = sampler(baseline)
    answers = asked.answers(policy, 2)
    assert answers.exact
    queries = [prompt.token_ids for prompt in asked.prompts for _ in range(2)]
    for query, said, kl in zip(queries, answers.completions, answers.values["kl"].ravel(), strict=True):
        assert kl == pytest.approx(exact_kl(policy, baseline, query, said.token_ids, 0.8), rel=1e-4)


def test_models_that_are_the_same_say_the_same_and_are_no_nat_apart():
    asked = sampler(tiny.tiny_llama())
    own, twin = asked.answers(asked.baseline, 2), asked.answers(tiny.tiny_llama(), 2)
    assert [c.token_ids for c in own.completions] == [c.token_ids for c in twin.completions]
    assert own.values["kl"].tolist() == np.zeros((3, 2)).tolist()
    assert twin.values["kl"] == pytest.approx(np.zeros((3, 2)), abs=1e-5)
    assert len({c.token_ids for c in own.completions}) > 1


def test_a_larger_vocabulary_is_told_and_compared_by_its_samples():
    policy = tiny.tiny_llama(seed=1, vocab_size=tiny.VOCAB_SIZE + 8)
    answers = sampler(tiny.tiny_llama(vocab_size=tiny.VOCAB_SIZE + 16)).answers(policy, 1)
    assert not answers.exact


def test_an_adapter_alone_is_compared_on_its_base(here, tmp_path):
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained("sft"),
        LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    model.save_pretrained("lora")
    asked = ["compare", "lora", "--baseline", "sft", "--dataset", "held-out.jsonl", "--gold", "judges.py:constant",
             "--best-of", "none", "--max-new-tokens", "4", "--quiet", "--output-dir", f"{tmp_path}/out"]  # fmt: skip
    assert main(asked) == 0
    found = json.loads((tmp_path / "out/compare.json").read_text())
    assert found["methods"][1]["means"]["kl"]["value"] > 0.01
    assert any("gave every answer of every model the same number" in note for note in found["notes"])

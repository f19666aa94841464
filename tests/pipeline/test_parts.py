"""What each stage is given: models, adapters, rewards, pairs and prompts follow from the stages before it."""

import pytest
from pipelines import file_of, whole

from surefoot.pipeline.parts import parts_of


def parts(**changes):
    return {part.name: part for part in parts_of(whole(**changes))[1]}


def test_every_stage_begins_where_the_one_before_it_ended():
    found = parts()
    assert list(found) == ["sft", "rate", "reward", "ppo", "dpo", "compare"]
    given = {name: part.options for name, part in found.items()}
    assert given["sft"].model_name == "base"
    for name in ("rate", "reward", "ppo", "dpo"):
        assert given[name].model_name == "out/sft/model"
    assert given["reward"].dataset == given["dpo"].dataset == "out/rate/preferences.jsonl"
    assert given["reward"].centre_on == "out/rate/answers.jsonl"
    assert given["ppo"].reward == ("out/reward/model",)
    assert given["ppo"].dataset == given["rate"].dataset == "prompts.jsonl"
    assert given["ppo"].eval_dataset == given["compare"].dataset == "held_out.jsonl"
    assert given["compare"].runs == ("ppo=out/ppo", "dpo=out/dpo")
    assert given["compare"].baseline == "out/sft/model"
    assert given["compare"].gold == given["ppo"].gold == ("judge.py:gold",)
    assert given["compare"].proxy == ("out/reward/model",)
    assert [str(part.folder) for part in found.values()] == [f"out/{name}" for name in found]


def test_every_stage_names_the_stages_whose_results_it_reads():
    needs = {name: set(part.needs) for name, part in parts().items()}
    assert needs == {
        "sft": set(),
        "rate": {"sft"},
        "reward": {"sft", "rate"},
        "ppo": {"sft", "reward"},
        "dpo": {"sft", "rate"},
        "compare": {"sft", "reward", "ppo", "dpo"},
    }


def test_with_lora_the_policies_go_on_with_the_adapter_of_the_sft_and_the_reward_model_gets_one_on_the_base():
    found = parts(lora_r=8)
    assert (found["sft"].options.model_name, found["sft"].options.lora_r) == ("base", 8)
    for name in ("rate", "ppo", "dpo"):
        options = found[name].options
        assert (options.model_name, options.adapter_name) == ("base", "out/sft/model")
        assert getattr(options, "lora_r", 0) == 0
    assert (found["reward"].options.model_name, found["reward"].options.lora_r) == ("base", 8)
    assert "sft" not in found["reward"].needs
    assert found["compare"].options.baseline == "out/sft/model"


def test_without_sft_it_begins_with_the_model_that_had_its_sft_elsewhere():
    found = parts(sft=None, adapter_name="my-adapter")
    for name in ("rate", "ppo", "dpo"):
        assert (found[name].options.model_name, found[name].options.adapter_name) == ("base", "my-adapter")
    assert found["compare"].options.baseline == "my-adapter"
    assert found["dpo"].needs == ("rate",)


def test_a_file_of_preferences_is_used_as_it_is():
    found = parts(rate=None, preferences="people.jsonl")
    assert found["reward"].options.dataset == found["dpo"].options.dataset == "people.jsonl"
    assert found["reward"].options.centre_on is None
    assert found["reward"].needs == found["dpo"].needs == ("sft",)


def test_with_seeds_ppo_and_dpo_run_once_for_each_and_are_compared_as_seeds_of_one_method():
    found = parts(seeds=[0, 7])
    assert list(found) == ["sft", "rate", "reward", "ppo-seed0", "ppo-seed7", "dpo-seed0", "dpo-seed7", "compare"]
    assert [found[n].options.seed for n in ("ppo-seed0", "ppo-seed7", "dpo-seed7")] == [0, 7, 7]
    assert {found[n].options.reward for n in ("ppo-seed0", "ppo-seed7")} == {("out/reward/model",)}
    assert found["compare"].options.runs == (
        "ppo=out/ppo-seed0", "ppo=out/ppo-seed7", "dpo=out/dpo-seed0", "dpo=out/dpo-seed7",
    )  # fmt: skip


def test_a_reward_model_for_each_seed_is_the_one_that_its_ppo_is_trained_against():
    found = parts(seeds=[0, 7], reward_per_seed=True)
    assert found["ppo-seed7"].options.reward == ("out/reward-seed7/model",)
    assert found["ppo-seed7"].needs == ("sft", "reward-seed7")
    assert found["reward-seed7"].options.seed == 7


def test_shared_options_reach_the_stages_that_have_them_and_a_section_goes_before_them():
    found = parts(precision="bfloat16", max_new_tokens=40, ppo={"max_new_tokens": 50})
    assert {name: part.options.precision for name, part in found.items()} == dict.fromkeys(found, "bfloat16")
    assert found["rate"].options.max_new_tokens == found["compare"].options.max_new_tokens == 40
    assert found["ppo"].options.max_new_tokens == 50


def test_the_critic_starts_as_the_reward_model_where_that_is_asked_for():
    options = parts(critic_from_reward=True)["ppo"].options
    assert (options.critic, options.value_model_name) == ("model", "out/reward/model")


def test_a_rule_as_the_reward_needs_no_pairs():
    file = whole(rate=None, reward=None, dpo=None, compare=None, gold=None, ppo={"reward": "rule.py:score"})
    _, found = parts_of(file)
    assert [part.name for part in found] == ["sft", "ppo"]
    assert found[1].options.reward == ("rule.py:score",)


def test_without_a_reward_there_is_no_best_of_n_to_choose():
    found = parts(reward=None, ppo=None)
    assert found["compare"].options.best_of == ()


REFUSED = [
    ({"smt": {}}, "rlhf.yaml:12: there is no stage 'smt'; did you mean 'sft'?"),
    ({"lerning_rate": 1e-5}, "rlhf.yaml:12: unknown option 'lerning_rate'"),
    ({"ppo": {"stepz": 3}}, "ppo: rlhf.yaml:9 stepz: unknown option 'stepz'; did you mean 'steps'?"),
    ({"model_name": None}, "model_name is missing"),
    ({"sft": {}}, "sft: dataset is missing"),
    ({"rate": {}}, "rate: rater is missing"),
    ({"rate": None}, "dpo and reward: there are no pairs to learn from: name a file (preferences)"),
    ({"preferences": "x.jsonl"}, "rlhf.yaml:12: preferences brings the pairs and the section rate makes them"),
    ({"reward": None}, "ppo: there is no reward: add the section reward"),
    ({"ppo": {"reward": "rule.py"}}, "ppo: the section reward trains a reward model for it, and the section ppo"),
    ({"prompts": None}, "prompts is missing"),
    ({"gold": None}, "compare: gold is missing"),
    ({"held_out_prompts": None}, "compare: held_out_prompts is missing"),
    ({"ppo": None, "dpo": None, "rate": None, "reward": None}, "rlhf.yaml:2: prompts: no stage that is on uses it"),
    ({"compare": None, "ppo": None, "held_out_prompts": None},
     "rlhf.yaml:3: gold: no stage that is on uses it; add the section ppo or compare"),
    ({"ppo": {"model_name": "other"}}, "ppo is given its model_name by the pipeline: leave it out here"),
    ({"dpo": {"seed": 3}}, "dpo is given its seed by the pipeline"),
    ({"dpo": {"dataset": "x"}}, "dpo is given its dataset by the pipeline: leave it out here; outside of the sections "
                                "preferences says it"),
    ({"lora_r": 8, "dpo": {"lora_r": 4}}, "dpo goes on with the adapter of the SFT, which has its rank"),
    ({"lora_r": 8, "critic_from_reward": True}, "critic_from_reward needs a whole reward model"),
    ({"seeds": [1, 1]}, "seeds=(1, 1) names a seed twice"),
    ({"reward_per_seed": True}, "reward_per_seed needs seeds"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[str(changes) for changes, _ in REFUSED])
def test_what_cannot_work_is_refused_with_the_place_and_what_to_do(changes, message):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the message is what is tested
        parts_of(whole(**changes))
    assert message in str(refused.value)


def test_a_section_with_nothing_in_it_switches_its_stage_on():
    file = file_of({"model_name": "base", "preferences": "people.jsonl", "dpo": None})
    assert [part.name for part in parts_of(file)[1]] == ["dpo"]

"""docs/coming-from-trl.md says of every option and statistic of both TRL trainers what becomes of it."""

import dataclasses
import re
from pathlib import Path

import pytest

from surefoot import PPOConfig
from surefoot.options import RETIRED

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "coming-from-trl.md").read_text(encoding="utf-8")
OURS = {field.name for field in dataclasses.fields(PPOConfig)}

CLASSIC_OPTIONS = """
exp_name seed log_with task_name model_name query_dataset reward_model remove_unused_columns tracker_kwargs
accelerator_kwargs project_kwargs tracker_project_name push_to_hub_if_best_kwargs steps learning_rate
adap_kl_ctrl init_kl_coef kl_penalty target horizon gamma lam cliprange cliprange_value vf_coef batch_size
forward_batch_size mini_batch_size gradient_accumulation_steps world_size ppo_epochs max_grad_norm
optimize_cuda_cache optimize_device_cache early_stopping target_kl compare_steps ratio_threshold
use_score_scaling use_score_norm score_clip whiten_rewards gradient_checkpointing is_encoder_decoder
is_peft_model backward_batch_size global_backward_batch_size global_batch_size dataset_num_proc
"""
LATER_OPTIONS = """
learning_rate dataset_num_proc num_mini_batches total_episodes local_rollout_forward_batch_size
num_sample_generations response_length stop_token stop_token_id temperature missing_eos_penalty sft_model_path
world_size num_total_batches micro_batch_size local_batch_size batch_size local_mini_batch_size
mini_batch_size push_to_hub reward_model_path model_adapter_name ref_adapter_name num_ppo_epochs
whiten_rewards kl_coef kl_estimator cliprange vf_coef cliprange_value gamma lam ds3_gather_for_generation
"""
LATER_STATISTICS = """
eps objective/kl objective/entropy objective/non_score_reward objective/rlhf_reward objective/scores
policy/approxkl_avg policy/clipfrac_avg policy/entropy_avg loss/policy_avg loss/value_avg val/clipfrac_avg
val/ratio val/ratio_var val/num_eos_tokens lr episode
"""


def rows(heading: str) -> list[tuple[str, str]]:
    """The rows of the table whose first column has this heading, as (left, right)."""
    table = PAGE.split(f"\n| {heading} |")[1].split("\n\n")[0].splitlines()[2:]
    return [tuple(line.strip("| ").split(" | ", 1)) for line in table]


@pytest.mark.parametrize("name", sorted({*CLASSIC_OPTIONS.split(), *LATER_OPTIONS.split()}))
def test_every_option_of_both_trainers_is_ours_or_retired_and_named_on_the_page(name):
    assert f"`{name}`" in PAGE
    if name not in OURS:
        with pytest.raises(TypeError, match=re.escape(repr(name))):
            PPOConfig(**{name: None})


@pytest.mark.parametrize(("heading", "names"), [("there", CLASSIC_OPTIONS), ("its option", LATER_OPTIONS)])
def test_an_option_called_refused_is_refused_and_no_other(heading, names):
    for left, right in rows(heading):
        for name in set(re.findall(r"`(\w+)`", left)) & set(names.split()):
            said = right.startswith("refused") or f"`{name}` is refused" in right
            successors = set(re.findall(r"`(\w+)", right)) & OURS
            assert not said or name not in OURS
            assert said or name in OURS or name in RETIRED, name
            if name in RETIRED and successors:
                assert any(n in RETIRED[name] for n in successors), f"the page sends {name} elsewhere than the message"


def test_every_statistic_of_the_later_trainer_has_its_place():
    table = rows("its statistic")
    assert {n for left, _ in table for n in re.findall(r"`([^`]+)`", left)} == set(LATER_STATISTICS.split())
    known = set(re.findall(r"^\| `([^`]+)`", (DOCS / "metrics.md").read_text(encoding="utf-8"), re.M))
    assert {n for _, right in table for n in re.findall(r"`([^`]+)`", right)} <= known
    assert {n for left, _ in rows("name") for n in re.findall(r"`([^`]+)`", left)} <= known


def test_the_lists_are_whole():
    assert (len(CLASSIC_OPTIONS.split()), len(LATER_OPTIONS.split()), len(LATER_STATISTICS.split())) == (49, 33, 17)

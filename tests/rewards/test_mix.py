"""The weighted sum, by hand."""

import math
import subprocess
import sys

import pytest

from surefoot.rewards import FunctionReward, RewardError, RewardMix, make_reward
from surefoot.types import Completion, Prompt, RewardOutput

PROMPTS = [Prompt("p", (1,), index=i) for i in range(3)]
ANSWERS = [Completion(t, (1,), (0.0,), "stop") for t in ("a", "bb", "cccc")]


def length(text):
    return len(text)


def partial(texts):
    return [None, 10.0, 20.0]


def test_scores_are_weighted_and_none_is_left_out():
    mixed = make_reward([length, partial], (2.0, 0.5))(PROMPTS, ANSWERS)
    assert mixed.scores == [2.0, 4.0 + 5.0, 8.0 + 10.0]
    assert mixed.parts == {"length": [1.0, 2.0, 4.0], "partial": [None, 10.0, 20.0]}
    assert mixed.metrics == pytest.approx({
        "rewards/length/mean": 7 / 3, "rewards/length/std": math.sqrt(14 / 9),
        "rewards/partial/mean": 15.0, "rewards/partial/std": 5.0, "rewards/partial/none_rate": 1 / 3,
    })  # fmt: skip


def test_no_weights_means_one_each():
    assert make_reward([length, length])(PROMPTS, ANSWERS).scores == [2.0, 4.0, 8.0]


def test_equal_names_are_numbered():
    assert list(make_reward([length, length, length]).rewards) == ["length", "length_2", "length_3"]


def test_dict_extras_become_metrics_under_the_rewards_name():
    mixed = make_reward(lambda text: {"score": 1, "words": len(text)})(PROMPTS, ANSWERS)
    assert mixed.metrics["rewards/reward/words"] == pytest.approx(7 / 3)


def test_a_reward_of_the_protocol_is_used_as_it_is_and_checked():
    class Own:
        name = "own"

        def __init__(self, scores):
            self.scores = scores

        def __call__(self, prompts, completions):
            return RewardOutput(self.scores, {"k": 2.0})

    mixed = make_reward(Own([1.0, 2.0, 3.0]))(PROMPTS, ANSWERS)
    assert mixed.scores == [1.0, 2.0, 3.0]
    assert mixed.metrics["rewards/own/k"] == 2.0
    with pytest.raises(RewardError, match=r"own.*nan"):
        make_reward(Own([1.0, math.nan, 3.0]))(PROMPTS, ANSWERS)
    with pytest.raises(RewardError, match="2 scores for 3"):
        make_reward(Own([1.0, 2.0]))(PROMPTS, ANSWERS)


def test_the_step_reaches_functions_that_ask_for_it():
    mix = make_reward(lambda completions, trainer_state, **kw: [trainer_state.global_step] * len(completions))
    mix.set_step(7)
    assert mix(PROMPTS, ANSWERS).scores == [7.0, 7.0, 7.0]


def test_a_weighted_sum_that_overflows_is_an_error():
    with pytest.raises(RewardError, match="does not fit"):
        make_reward([lambda text: 3e38], [2.0])(PROMPTS, ANSWERS)


def test_a_mix_passes_through_and_keeps_its_weights():
    mix = RewardMix([FunctionReward(length)], [3.0])
    assert make_reward(mix) is mix
    with pytest.raises(ValueError, match="has its weights already"):
        make_reward(mix, [1.0])


@pytest.mark.parametrize(("spec", "weights", "reason"), [
    ([], (), "no reward given"), ([length], (1.0, 2.0), "1 rewards but 2 weights"), ([length], (math.nan,), "finite"),
])  # fmt: skip
def test_bad_mixes_are_refused(spec, weights, reason):
    with pytest.raises(ValueError, match=reason):
        make_reward(spec, weights)


def test_something_that_is_no_reward_is_refused():
    with pytest.raises(TypeError, match="neither a text, a function"):
        make_reward(3)


def test_functions_do_without_transformers():
    code = "import sys, surefoot.rewards as r; r.make_reward(lambda text: 1); sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_policys_special_tokens_are_kept_from_functions_on_plain_prompts():
    prompts = [Prompt("<s>ab", (1, 2, 3)), Prompt("<s>ab", (1, 2, 3), ({"role": "user", "content": "ab"},))]
    seen = []
    functions = [
        lambda prompts, completions, **kw: seen.append(prompts[0]) or [0] * 2,
        lambda samples: seen.append(samples[0]) or [0] * 2,
        lambda prompts, responses: seen.extend(prompts) or [0] * 2,
    ]
    make_reward(functions, special_tokens=["<s>", ""])(prompts, ANSWERS[:2])
    assert seen == ["ab", "aba", "ab", "<s>ab"]

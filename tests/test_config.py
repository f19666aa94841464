"""Options: checked when made, refused by name, recommended by size, and a plain word about far-off values."""

import pytest

from surefoot import PPOConfig
from surefoot.options import RETIRED


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rat": 1e-6}, "did you mean 'learning_rate'"),
        ({"target": 6.0}, "use target_kl"),
        ({"early_stopping": True}, "use early_stop_kl"),
        ({"xyz": 1}, "unknown option 'xyz'"),
    ],
)
def test_unknown_and_retired_options_are_refused_with_the_name_to_use(options, message):
    with pytest.raises(TypeError, match=message):
        PPOConfig(**options)


def test_no_retired_name_is_an_option():
    for name in RETIRED:
        with pytest.raises(TypeError, match="retired"):
            PPOConfig(**{name: 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cliprange": -0.1}, "cliprange=-0.1 must be greater than 0"),
        ({"cliprange": 0}, "must be greater than 0"),
        ({"cliprange": 7}, "at most 1"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"batch_size": 2.5}, "a whole number"),
        ({"learning_rate": "1e-5"}, "learning_rate='1e-5' must be a number"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"temperature": 0}, "temperature=0.0 must be greater than 0"),
        ({"gamma": 1.5}, "at most 1"),
        ({"target_reward": float("nan")}, "target_reward=nan"),
        ({"whiten_rewards": 1}, "true or false"),
        ({"steps": True}, "a whole number"),
        ({"kl_penalty": "ful"}, "did you mean 'full'"),
        ({"max_tokens_per_microbatch": "aut"}, "did you mean 'auto'"),
        ({"batch_size": 10, "num_generations": 4, "mini_batch_size": 2}, "not a multiple of num_generations=4"),
        ({"batch_size": 8, "mini_batch_size": 4, "gradient_accumulation_steps": 4}, "more than batch_size=8"),
        ({"use_score_norm": True}, "only with use_score_scaling"),
        ({"kl_placement": "loss", "kl_penalty": "k3"}, "always uses k2"),
        ({"kl_controller": "linear"}, "needs final_kl_coef"),
        ({"final_kl_coef": 0.1}, "not used by kl_controller='adaptive'"),
        ({"final_target_kl": 0.1, "kl_controller": "fixed"}, "moves the adaptive controller"),
        ({"value_model_name": "x"}, "used with critic='model'"),
        ({"dual_clip": 0.5}, "greater than 1"),
        ({"reward": ("a:b",), "reward_weights": (1.0, 2.0)}, "1 rewards but 2 reward_weights"),
        ({"lora_r": 4, "adapter_name": "x"}, "give one of the two"),
        ({"prompt_template": "say it"}, "no {prompt} in it"),
        ({"vllm_python": "env/bin/python"}, "used with engine='vllm'"),
        ({"overlap": True}, "overlap is used with engine='vllm', not engine='transformers'"),
        ({"overlap": True, "engine": "vllm", "shard": True}, "shard keeps them in shares"),
        ({"importance_level": "sequence"}, "acts only with importance_cap"),
        ({"importance_cap": 0.0}, "must be greater than 0"),
    ],
)
def test_bad_values_are_one_clear_error(options, message):
    with pytest.raises(ValueError, match=message):
        PPOConfig(**options)


def test_the_config_is_frozen_and_replaced():
    config = PPOConfig(batch_size=32, mini_batch_size=8, ppo_epochs=3, gradient_accumulation_steps=2)
    with pytest.raises(AttributeError):
        config.batch_size = 4
    assert config.rows_per_optimizer_step == 16
    assert config.optimizer_steps_per_step == 6
    assert (
        config.replace(batch_size=33, mini_batch_size=16, gradient_accumulation_steps=1).optimizer_steps_per_step == 9
    )
    assert config.clip_high == config.cliprange
    assert config.replace(total_episodes=100).total_steps() == 4
    assert config.replace(total_episodes=100, steps=2).total_steps() == 2
    assert config.total_steps(num_prompts=70) == 2


@pytest.mark.parametrize("size", [1_000_000, 135_000_000, 1_300_000_000, 7_000_000_000, 70_000_000_000])
def test_recommended_values_shrink_with_size_and_need_no_advice(size):
    config = PPOConfig.recommended(size)
    assert config.advice(size) == []
    assert 5e-7 <= config.learning_rate <= 2e-6
    assert 0.1 <= config.cliprange <= 0.2
    assert 1 <= config.ppo_epochs <= 4
    assert 0.05 <= config.target_kl <= 0.2
    assert config.learning_rate <= PPOConfig.recommended(size // 10).learning_rate
    assert PPOConfig.recommended(size, lora_r=8).learning_rate == pytest.approx(10 * config.learning_rate)


def test_a_value_far_outside_gets_one_plain_sentence_that_says_why():
    found = PPOConfig(learning_rate=1e-3, cliprange=0.9, ppo_epochs=20).advice(7_000_000_000)
    assert len(found) == 3
    assert "learning_rate=0.001 is far above the 1e-06 recommended for 7B" in found[0]
    assert any(s.startswith("cliprange=0.9 lies outside 0.05-0.4") for s in found)


def test_another_engine_without_a_correction_is_advised_on():
    assert PPOConfig(engine="vllm", importance_cap=2.0).advice(10**9) == []
    assert "set importance_cap=2" in PPOConfig(engine="vllm").advice(10**9)[0]


def test_overlap_without_a_correction_is_advised_on_once():
    assert PPOConfig(engine="vllm", overlap=True, importance_cap=2.0).advice(10**9) == []
    (said,) = PPOConfig(engine="vllm", overlap=True).advice(10**9)
    assert "a step old" in said
    assert "set importance_cap=2" in said

"""Options -> the parts of a trainer: prompts, optimizer, controller, sampling, and how much fits into memory."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from surefoot.config import PPOConfig
from surefoot.controllers import KLController, ScoreScaler, make_kl_controller
from surefoot.eightbit import eight_bit_adam
from surefoot.loading import load_adapter, load_policy, load_tokenizer, load_value_model
from surefoot.minibatches import Passes
from surefoot.models import ActorCritic
from surefoot.offload import Offloaded, frozen_models
from surefoot.prompts import DetectionReport, load_prompts, split_eval
from surefoot.rewards import RewardMix, make_reward
from surefoot.rewards.sharing import SharedClassifier
from surefoot.runtime import Runtime, cpu_has_bfloat16
from surefoot.sharding import Shares, layer_names
from surefoot.types import AllSum, Prompt, Rollout, Sampling
from surefoot.update import Losses

_LOG = logging.getLogger("surefoot")
_CLASSIC = {"pad_token_id", "eos_token_id", "return_prompt", "min_length", "batch_size", "length_sampler"}
_SAMPLING = ("max_new_tokens", "temperature", "top_k", "top_p", "do_sample", "stop_strings", "stop_token_ids")


def load_data(
    c: PPOConfig, dataset: Any, eval_dataset: Any, tokenizer: Any, context: int | None
) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...], DetectionReport | None]:
    """Prompts to train on, prompts to evaluate on (held out where none are given), and what was detected."""
    room = None if context is None else context - c.max_new_tokens
    if room is not None and room < 1 and dataset is not None:
        raise ValueError(f"max_new_tokens={c.max_new_tokens} leaves no room for a prompt in a context of {context}")
    limits = [n for n in (c.max_prompt_tokens, room) if n is not None]

    def load(source: Any) -> Any:
        return load_prompts(
            source,
            tokenizer,
            prompt_column=c.prompt_column,
            prompt_template=c.prompt_template,
            max_prompt_tokens=min(limits) if limits else None,
            overlong=c.overlong_prompts,
        )

    loaded = None if dataset is None else load(dataset)
    prompts = () if loaded is None else tuple(loaded.prompts)
    evaluation: tuple[Prompt, ...] = ()
    if eval_dataset is not None:
        evaluation = tuple(load(eval_dataset).prompts)[: c.eval_prompts]
    elif prompts and c.eval_prompts:
        prompts, evaluation = split_eval(prompts, c.eval_prompts, c.seed)
    return prompts, evaluation, None if loaded is None else loaded.report


def load_everything(c: PPOConfig) -> dict[str, Any]:
    """The trainer's arguments by name: models and tokenizer loaded, prompts and rewards as they were named.

    Raises:
        ValueError: a name that is missing or leads nowhere.
    """
    for name in ("model_name", "dataset", "reward"):
        if not getattr(c, name):
            raise ValueError(f"{name} is missing: the whole loop needs model_name, dataset and reward")
    return load_parts(c, {"reward": list(c.reward)}, prompts=True)


def load_parts(c: PPOConfig, given: Mapping[str, Any], *, prompts: bool) -> dict[str, Any]:
    """The trainer's arguments: those that were given, and by name what the options name beside them. No reward.

    Args:
        c: the options.
        given: arguments by name; None counts as not given.
        prompts: whether the prompts are wanted too.

    Raises:
        ValueError: there is no model, neither given nor by name; or a name leads nowhere.
    """
    found = {name: part for name, part in given.items() if part is not None}
    device = Runtime().default_device()
    if "model" not in found and c.model_name is None:
        raise ValueError("model is missing: give the policy as it started, or name it by the option model_name")
    if "model" not in found:
        model = load_policy(str(c.model_name), device=device)
        found["model"] = model if c.adapter_name is None else load_adapter(model, c.adapter_name)
    loaders: Mapping[str, tuple[str | None, Callable[[str], Any]]] = {
        "tokenizer": (c.model_name, lambda name: load_tokenizer(name, c.chat_template)),
        "ref_model": (c.ref_model_name, lambda name: load_policy(name, device=device, option="ref_model_name")),
        "value_model": (c.value_model_name, lambda name: load_value_model(name, device=device)),
        "dataset": (c.dataset if prompts else None, str),
        "eval_dataset": (c.eval_dataset if prompts else None, str),
    }
    missing = {argument: loader for argument, loader in loaders.items() if argument not in found}
    return found | {argument: load(name) for argument, (name, load) in missing.items() if name is not None}


def reward_of(c: PPOConfig, reward: Any, tokenizer: Any, policy: Any) -> RewardMix:
    """The rewards that were given, weighted; where samples may be dropped, scores that are not finite are left out."""
    mix = make_reward(reward, c.reward_weights, special_tokens=tokenizer.all_special_tokens, policy=policy)
    if c.on_fault == "drop_sample":
        mix.leave_out_what_is_not_finite()
    return mix


def make_optimizer(c: PPOConfig, models: ActorCritic, optimizer: Any) -> torch.optim.Optimizer:
    """AdamW with a group for the policy and one for the critic; or the user's, with the critic's parameters added.

    A mere value head learns up to a hundred times faster than the policy: it starts at 0 and moves little but itself.
    """
    policy, critic = models.policy_parameters(), models.critic_parameters()
    if optimizer is None:
        critic_rate = c.critic_learning_rate
        if critic_rate is None:
            head_rate = max(c.learning_rate, min(100 * c.learning_rate, 1e-3))
            critic_rate = head_rate if models.shares_trunk else c.learning_rate
        groups = [{"params": policy, "lr": c.learning_rate}, {"params": critic, "lr": critic_rate}]
        if c.eight_bit_adam:
            return eight_bit_adam(groups, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.0)
        return torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.0, fused=True)
    if c.eight_bit_adam:
        raise ValueError(
            "eight_bit_adam says how the optimizer is made, and an optimizer was given: leave one of the two out"
        )
    if not isinstance(optimizer, torch.optim.Optimizer):
        made: torch.optim.Optimizer = optimizer([*policy, *critic])
        return made
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not known & {id(p) for p in policy}:
        raise ValueError("optimizer holds none of the policy's parameters: make it over model.parameters()")
    missing = [p for p in critic if id(p) not in known]
    if missing:
        rate = {} if c.critic_learning_rate is None else {"lr": c.critic_learning_rate}
        optimizer.add_param_group({"params": missing, **rate})
    return optimizer


def offload_of(c: PPOConfig, models: ActorCritic, reward: RewardMix | None) -> Offloaded | None:
    """The frozen models that leave between stages, where that was asked for."""
    if not c.offload_frozen:
        return None
    own = None if models.reference.model is models.policy else models.reference.model
    return Offloaded(frozen_models(own, reward.rewards.values() if reward else ()))


def shares_of_rewards(runtime: Runtime, reward: RewardMix | None) -> list[Shares]:
    """The frozen reward models that have weights of their own, each cut into shares."""
    models = frozen_models(None, reward.rewards.values() if reward else ())
    return [Shares(runtime, [m], layer_names(m)) for m in models if not isinstance(m, SharedClassifier)]


def on_its_base(reward: RewardMix) -> bool:
    """Whether a reward is an adapter on the policy's own base."""
    return any(isinstance(getattr(r, "model", None), SharedClassifier) for r in reward.rewards.values())


def kl_controller_of(c: PPOConfig, total_steps: int | None) -> KLController:
    """The controller that the options name, with the run's length in episodes."""
    return make_kl_controller(
        c.kl_controller,
        value=c.init_kl_coef,
        target=c.target_kl,
        horizon=c.horizon,
        final_target=c.final_target_kl,
        final_value=c.final_kl_coef,
        total_episodes=None if total_steps is None else total_steps * c.batch_size,
    )


def sampling_of(c: PPOConfig, options: Mapping[str, Any]) -> Sampling:
    """The config's sampling with the options of one `generate` call on top."""
    for name in options:
        if name not in _SAMPLING:
            hint = "it is taken care of, leave it out" if name in _CLASSIC else f"known are {', '.join(_SAMPLING)}"
            raise TypeError(f"generate() has no option {name!r}: {hint}")
    how = Sampling(
        max_new_tokens=int(options.get("max_new_tokens", c.max_new_tokens)),
        temperature=float(options.get("temperature", c.temperature)),
        top_k=int(options.get("top_k", 0)),
        top_p=float(options.get("top_p", 1.0)),
        greedy=not options.get("do_sample", True),
        stop_strings=tuple(options.get("stop_strings", c.stop_strings)),
        stop_token_ids=tuple(options.get("stop_token_ids", c.stop_token_ids)),
    )
    for name, good in (("max_new_tokens", how.max_new_tokens >= 1), ("temperature", 0 < how.temperature < math.inf),
                       ("top_k", how.top_k >= 0), ("top_p", 0 < how.top_p <= 1)):  # fmt: skip
        if not good:
            raise ValueError(f"generate({name}={options[name]!r}) is out of range")
    if not how.greedy and (how.temperature != c.temperature or how.top_k > 0 or how.top_p < 1):
        _LOG.warning(
            "answers are drawn with temperature %g, top_k %d, top_p %g, but a step's log-probabilities are those of "
            "temperature %g over the whole vocabulary: expect a KL that looks wrong. Set temperature in PPOConfig and "
            "leave top_k and top_p alone.", how.temperature, how.top_k, how.top_p, c.temperature
        )  # fmt: skip
    return how


def shape_scores(
    c: PPOConfig, scores: Tensor, rollout: Rollout, scaler: ScoreScaler, all_sum: AllSum, counted: Tensor
) -> Tensor:
    """Scales and clips scores, then fines answers without an end (on their last token where scores are per token).

    `counted` is False where a row has no score.
    """
    if c.use_score_scaling:
        if scores.ndim == 2:
            raise ValueError("use_score_scaling needs one score a response, but these are one a token")
        scores = scaler(scores, counted, all_sum)
    if c.score_clip is not None:
        scores = scores.clamp(-c.score_clip, c.score_clip)
    fine = c.missing_eos_penalty * rollout.truncated
    if scores.ndim == 1:
        return scores - fine
    last = torch.arange(scores.shape[1], device=scores.device) == rollout.lengths[:, None] - 1
    return scores - fine[:, None] * last


def losses_of(c: PPOConfig, kl_coef: float) -> Losses:
    """The numbers of the loss; `kl_coef` acts there only where the divergence is priced in the loss."""
    return Losses(
        temperature=c.temperature,
        clip_low=c.cliprange,
        clip_high=c.clip_high,
        dual_clip=c.dual_clip,
        clip_value=c.cliprange_value,
        vf_coef=c.vf_coef,
        entropy_coef=c.entropy_coef,
        kl_coef=kl_coef if c.kl_placement == "loss" else 0.0,
    )


def passes_of(c: PPOConfig, max_tokens: int | None, *, critic_only: bool) -> Passes:
    """How an update goes through its batch; a token budget replaces the row count of a pass."""
    return Passes(
        epochs=c.ppo_epochs,
        rows_per_step=c.rows_per_optimizer_step,
        critic_epochs=c.critic_epochs,
        max_rows=c.mini_batch_size if max_tokens is None else None,
        max_tokens=max_tokens,
        critic_only=critic_only,
        early_stop_kl=c.early_stop_kl,
        ratio_threshold=c.ratio_threshold,
        max_grad_norm=c.max_grad_norm,
    )


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether passes run in bfloat16 autocast: as asked; "auto" means on a GPU that has it."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    if precision == "bfloat16" and device.type == "cpu" and not cpu_has_bfloat16():
        _LOG.warning("precision='bfloat16' on a CPU without bfloat16 instructions is slower than float32")
    return precision == "bfloat16"

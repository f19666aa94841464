"""What makes an options dataclass strict: unknown and retired names, wrong types and absurd values are refused."""

import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from surefoot.display import brief
from surefoot.redaction import is_secret

RETIRED: Mapping[str, str] = {
    "target": "target_kl (nats per response token, not per sequence)",
    "adap_kl_ctrl": "kl_controller='adaptive' or 'fixed'",
    "early_stopping": "early_stop_kl=<limit between the old and the new policy>",
    "forward_batch_size": "mini_batch_size, or max_tokens_per_microbatch",
    "optimize_cuda_cache": "nothing: memory is returned by itself",
    "optimize_device_cache": "nothing: memory is returned by itself",
    "is_encoder_decoder": "nothing: causal language models only",
    "is_peft_model": "nothing: it is seen on the model",
    "task_name": "output_dir (its last part names the run)",
    "exp_name": "output_dir (its last part names the run)",
    "run_name": "output_dir (its last part names the run)",
    "weight_decay": "a torch optimizer of your own as PPOTrainer(optimizer=...)",
    "lora_target_modules": "a LoraConfig of your own as PPOTrainer(peft_config=...)",
    "dataset_split": "dataset='name:split'",
    "query_dataset": "dataset",
    "dataset_name": "dataset",
    "reward_model": "reward",
    "reward_model_path": "reward",
    "reward_funcs": "reward",
    "steps_per_epoch": "steps",
    "num_ppo_epochs": "ppo_epochs",
    "kl_coef": "init_kl_coef",
    "kl_estimator": "kl_penalty",
    "response_length": "max_new_tokens",
    "num_mini_batches": "mini_batch_size (in rows)",
    "per_device_train_batch_size": "batch_size and mini_batch_size (in rows)",
    "local_rollout_forward_batch_size": "max_tokens_per_microbatch",
    "num_sample_generations": "eval_every",
    "sft_model_path": "model_name",
    "model_name_or_path": "model_name",
    "stop_token": "stop_token_ids; the end-of-sequence tokens always stop",
    "stop_token_id": "stop_token_ids",
    "report_to": "log_with",
    "bf16": "precision='bfloat16'",
    "fp16": "precision='bfloat16' (float16 is not offered: it overflows in the log-ratio)",
    "push_to_hub": "nothing: the trained model is a folder, push it with `hf upload`",
    "push_to_hub_if_best_kwargs": "nothing: the trained model is a folder, push it with `hf upload`",
    "save_steps": "save_every",
    "eval_steps": "eval_every",
    "num_train_epochs": "total_episodes",
    "max_steps": "steps",
    "clip_range": "cliprange",
    "gae_lambda": "lam",
}
"""Names people bring from other trainers -> what to write here instead."""

T = TypeVar("T")


def strict_options(cls: type[T]) -> type[T]:
    """Makes the constructor refuse unknown and retired names with the name to use instead."""
    make: Callable[..., None] = cls.__init__

    @functools.wraps(make)
    def checked(self: T, /, **options: Any) -> None:
        known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        for name in options:
            if name not in known:
                raise TypeError(unknown_option(name, known))
        make(self, **options)

    cls.__init__ = checked  # type: ignore[method-assign,assignment]
    return cls


def unknown_option(name: str, known: set[str]) -> str:
    """The sentence for an option that does not exist: the retired name's successor, or the nearest name."""
    if name in RETIRED:
        return f"the option {name!r} is retired here; use {RETIRED[name]}"
    near = difflib.get_close_matches(name[:_LONGEST_NAME], known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else _NO_SECRETS if is_secret(name) else "see `surefoot ppo --help`"
    return f"unknown option {brief(name)}; {hint}"


_LONGEST_NAME = 64
_NO_SECRETS = (
    "no option takes a secret: put it into an environment variable, which a reward names as ...#token_env=NAME; "
    "the hub reads HF_TOKEN"
)


def check_range(name: str, value: int | float, low: int | float, high: int | float, low_open: bool) -> None:
    """Refuses a number outside its range, and NaN and infinity everywhere."""
    above = value > low if low_open else value >= low
    if not (math.isfinite(value) and above and value <= high):
        bound = f"greater than {low:g}" if low_open else f"at least {low:g}"
        raise ValueError(
            f"{name}={brief(value)} must be {bound}" + (f" and at most {high:g}" if math.isfinite(high) else "")
        )


def check_type(name: str, value: Any, kind: Any) -> None:
    """Refuses a value of the wrong kind: 'yes' for a bool, '1e-5' for a float, 2.5 for an int."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if any(_fits(value, k) for k in kinds):
        return
    choices = [str(c) for k in kinds if get_origin(k) is Literal for c in get_args(k)]
    near = difflib.get_close_matches(str(value)[:_LONGEST_NAME], choices, n=1)
    want = " or ".join(_kind_name(k) for k in kinds if k is not type(None))
    raise ValueError(f"{name}={brief(value)} must be {want}" + (f"; did you mean {near[0]!r}?" if near else ""))


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(v, get_args(kind)[0]) for v in value)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _kind_name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"a list of {_PLURALS[get_args(kind)[0]]}"
    return _NAMES[kind]


_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_PLURALS = {str: "texts", int: "whole numbers", float: "numbers"}

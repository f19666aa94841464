"""What makes an options dataclass strict: unknown and retired names, wrong types and absurd values are refused.

Every command's options are one frozen dataclass derived from `Options`. No torch in here.
"""

import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

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

Range = tuple[float, float, bool]
"""Lowest and highest value of an option, and whether the lowest is excluded."""


T = TypeVar("T", bound="Options")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a command. A class of them is a frozen dataclass under `strict_options`.

    Attributes:
        COMMAND: the command whose options these are.
        SECTIONS: first option of each section -> the section's title.
        RANGES: option -> what its numbers may be.
        RETIRED: names that people bring -> what to write instead.
        PASSED: the field with options of another library, which files and command line give by their own names.
    """

    COMMAND: ClassVar[str]
    SECTIONS: ClassVar[Mapping[str, str]]
    RANGES: ClassVar[Mapping[str, Range]]
    RETIRED: ClassVar[Mapping[str, str]] = {}
    PASSED: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        for name, kind in self.kinds().items():
            value = _coerced(getattr(self, name), kind)
            check_type(name, value, kind)
            object.__setattr__(self, name, float(value) if type(value) is int and _takes_float(kind) else value)
        for name, bounds in self.RANGES.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                check_range(name, value, *bounds)
        for refused, reason in self.refusals():
            if refused:
                raise ValueError(reason)

    @classmethod
    def kinds(cls) -> dict[str, Any]:
        """Option -> its type; what is passed to another library is not among them."""
        return {f.name: f.type for f in dataclasses.fields(cls) if f.name != cls.PASSED}

    @classmethod
    def kind_of(cls, name: str) -> Any:
        """The type of an option, another library's included; None where there is no such option."""
        return cls.kinds().get(name)

    @classmethod
    def passed_names(cls) -> Collection[str]:
        """The options of another library that are passed to it."""
        return ()

    @classmethod
    def named_here(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options as they were given, under the names of the fields."""
        return dict(options)

    def refusals(self) -> Collection[tuple[bool, str]]:
        """Combinations that contradict themselves: whether this is one, and what to say."""
        return ()

    def replace(self: T, **changes: Any) -> T:
        """A copy with some options changed, checked like a new one."""
        return type(self)(**({f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | changes))


def _coerced(value: Any, kind: Any) -> Any:
    """A list as the tuple that a frozen object holds, and one text where a list of texts is wanted."""
    if isinstance(value, list):
        return tuple(value)
    return (value,) if kind == tuple[str, ...] and isinstance(value, str) else value


def _takes_float(kind: Any) -> bool:
    return float in (kind, *get_args(kind))


def strict_options(cls: type[T]) -> type[T]:
    """Makes the constructor refuse unknown and retired names with the name to use instead."""
    make: Callable[..., None] = cls.__init__

    @functools.wraps(make)
    def checked(self: T, /, **options: Any) -> None:
        named = cls.named_here(options)
        known = {f.name for f in dataclasses.fields(cls)}
        for name in named:
            if name not in known:
                raise TypeError(unknown_option(name, known, cls))
        make(self, **named)

    cls.__init__ = checked  # type: ignore[method-assign,assignment]
    return cls


def unknown_option(name: str, known: Collection[str], cls: type[Options] | None = None) -> str:
    """The sentence for an option that does not exist: the retired name's successor, or the nearest name."""
    retired, command = (RETIRED, "ppo") if cls is None else (cls.RETIRED, cls.COMMAND)
    if name in retired:
        return f"the option {name!r} is retired here; use {retired[name]}"
    passed = () if cls is None else cls.passed_names()
    near = difflib.get_close_matches(name[:_LONGEST_NAME], [*known, *passed], n=1, cutoff=0.6)
    see = _NO_SECRETS if is_secret(name) else f"see `surefoot {command} --help`"
    return f"unknown option {brief(name)}; {f'did you mean {near[0]!r}?' if near else see}"


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

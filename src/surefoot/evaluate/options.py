"""The options of `surefoot compare` and `surefoot evaluate`. No torch in here."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from surefoot.options import Options, Range, strict_options

RANGES: Mapping[str, Range] = {
    "eval_prompts": (2, 1e9, False),
    "max_prompt_tokens": (1, 1e9, False),
    "num_generations": (1, 1e6, False),
    "max_new_tokens": (1, 1e9, False),
    "temperature": (0, 100, True),
    "best_of_samples": (1, 1e6, False),
    "seed": (0, 2**63 - 1, False),
}
SECTIONS: Mapping[str, str] = {
    "dataset": "Prompts",
    "num_generations": "Sampling",
    "gold": "Scorers",
    "best_of": "Best of n",
}
RETIRED: Mapping[str, str] = {
    "ref_model_name": "baseline",
    "reward": "proxy for the score that was trained on, gold for scorers that no run was trained on",
    "reward_weights": "proxy_weights",
    "eval_dataset": "dataset",
    "num_samples": "num_generations",
    "push_to_hub": "nothing: a trained model is a folder, push it with `hf upload`",
}


@dataclass(frozen=True, kw_only=True)
class MeasuringOptions(Options):
    """What is asked of models, and who judges: what both commands have in common."""

    # ------------------------------------------------------------------------------------------ Models
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the passes. auto: bfloat16 autocast on a GPU, float32 on a CPU."""
    chat_template: str | None = None
    """A Jinja file that replaces the chat template of the runs' tokenizers."""

    # ------------------------------------------------------------------------------------------ Prompts
    dataset: str | None = None
    """Prompts that no run was trained on: a file or hub name. None: those that all runs held out for evaluation."""
    eval_prompts: int | None = None
    """At most so many prompts, the first ones. None: all."""
    prompt_column: str | None = None
    """Column of dataset that holds the prompt. None: detected, and the detection is printed."""
    prompt_template: str | None = None
    """Format of dataset's plain-text prompts, with {prompt} and any other column in braces."""
    max_prompt_tokens: int | None = None
    """Longest prompt of dataset in tokens; longer ones are dropped. None: what context and answer leave."""

    # ------------------------------------------------------------------------------------------ Sampling
    num_generations: int = 4
    """Answers of each model to each prompt."""
    max_new_tokens: int | None = None
    """Longest answer in tokens. None: that of the runs."""
    temperature: float | None = None
    """Sampling temperature, of the divergence too. None: that of the runs."""
    stop_strings: tuple[str, ...] = ()
    """An answer ends at the token that completes any of these. Empty: those of the runs."""
    stop_token_ids: tuple[int, ...] = ()
    """Token ids that end an answer beside the model's own. Empty: those of the runs."""
    seed: int = 0
    """Seed of the answers (the same random numbers for every model) and of the intervals."""

    # ------------------------------------------------------------------------------------------ Scorers
    gold: tuple[str, ...] = ()
    """What judges: scorers that no run was trained on, each for itself, named as PPO's option reward names them."""
    proxy: tuple[str, ...] = ()
    """The score that was trained on, and by which best of n chooses. Empty: the reward of the runs."""
    proxy_weights: tuple[float, ...] = ()
    """One weight a proxy. Empty: those of the runs' reward; of proxies that are given here, 1."""

    # ------------------------------------------------------------------------------------------ Best of n
    best_of: tuple[int, ...] = (2, 4, 8, 16)
    """The n of "the baseline's best of n by the proxy". none: leave it out."""
    best_of_samples: int | None = None
    """Answers of the baseline to each prompt that best of n is estimated from. None: the largest n."""

    def refusals(self) -> Collection[tuple[bool, str]]:
        """Combinations that contradict themselves."""
        largest = max(self.best_of, default=0)
        return (
            (
                any(n < 1 for n in self.best_of),
                f"best_of={list(self.best_of)} must be whole numbers of at least 1, or none",
            ),
            (
                self.best_of_samples is not None and not self.best_of,
                f"best_of_samples={self.best_of_samples} is for best of n, but best_of is none: leave one of them out",
            ),
            (
                self.best_of_samples is not None and self.best_of_samples < largest,
                f"best_of_samples={self.best_of_samples} is less than the largest best_of, {largest}: raise it",
            ),
            (
                bool(self.proxy_weights) and len(self.proxy_weights) != len(self.proxy),
                f"{len(self.proxy)} proxies but {len(self.proxy_weights)} proxy_weights: give one weight for each",
            ),
            (
                self.dataset is None and any((self.prompt_column, self.prompt_template, self.max_prompt_tokens)),
                "prompt_column, prompt_template and max_prompt_tokens are for dataset, and no dataset is given: the "
                "runs' own prompts are read as the runs read them",
            ),
            (
                self.prompt_template is not None and "{" not in self.prompt_template,
                "prompt_template has no {prompt} in it: every prompt would be the same text",
            ),
        )


@dataclass(frozen=True, kw_only=True)
class _Runs(Options):
    """Which models are compared."""

    runs: tuple[str, ...] = ()
    """Run folders, or folders with a model, globs among them. NAME=FOLDER names a method; of one name: its seeds."""
    baseline: str | None = None
    """The model that all started from (SFT): a folder or hub name. None: what the runs' config.yaml name."""


@strict_options
@dataclass(frozen=True, kw_only=True)
class CompareOptions(MeasuringOptions, _Runs):
    """The options of a comparison. Where a run's config.yaml says how it was trained, that need not be said again.

    Raises:
        TypeError: an unknown or retired option name.
        ValueError: a value outside its range, or two options that contradict each other.
    """

    COMMAND: ClassVar[str] = "compare"
    SECTIONS: ClassVar[Mapping[str, str]] = {"runs": "Models", **SECTIONS, "output_dir": "Output"}
    RANGES: ClassVar[Mapping[str, Range]] = RANGES
    RETIRED: ClassVar[Mapping[str, str]] = {
        **RETIRED,
        "model_name": "runs, for the models that are compared, and baseline, for the one that they started from",
        "judge": "gold; a judge of pairs is asked by `surefoot evaluate`",
    }

    output_dir: str | None = None
    """Folder of the comparison. None: runs/compare-<time>."""
    update_cards: bool = False
    """Write what was measured into the model cards of the runs (model/README.md)."""


@dataclass(frozen=True, kw_only=True)
class _Run(Options):
    """Which model is evaluated, against which."""

    run: str | None = None
    """The run whose trained model is evaluated: its folder, or one of its checkpoints."""
    against: str | None = None
    """What it has to beat: a checkpoint, a run, a model's folder or hub name. None: the model that it started from."""


@strict_options
@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(MeasuringOptions, _Run):
    """The options of an evaluation: one run against one model, by scorers or by a judge that is shown pairs.

    Raises:
        TypeError: an unknown or retired option name.
        ValueError: a value outside its range, or two options that contradict each other.
    """

    COMMAND: ClassVar[str] = "evaluate"
    SECTIONS: ClassVar[Mapping[str, str]] = {"run": "Models", **SECTIONS, "judge": "Judge", "output_dir": "Output"}
    RANGES: ClassVar[Mapping[str, Range]] = {
        **RANGES,
        "judge_concurrency": (1, 1024, False),
        "judge_timeout": (0, 86400, True),
    }
    RETIRED: ClassVar[Mapping[str, str]] = {
        **RETIRED,
        "model_name": "run",
        "runs": "run; several are put beside each other by `surefoot compare`",
        "baseline": "against",
        "ref_model_name": "against",
        "judge_key": "judge_token_env, the name of an environment variable",
        "judge_api_key": "judge_token_env, the name of an environment variable",
        "update_cards": "nothing: the model card of the run says what was measured",
    }

    # ------------------------------------------------------------------------------------------ Judge
    judge: str | None = None
    """Address of a chat-completions service that says which of two answers is better, as http://127.0.0.1:8000/v1."""
    judge_model: str | None = None
    """The judge's name in requests."""
    judge_token_env: str | None = None
    """Environment variable that holds the token of an Authorization: Bearer header."""
    judge_concurrency: int = 8
    """Questions on their way to the judge at the same time."""
    judge_timeout: float = 60.0
    """Seconds for one question, further tries included; after that it counts as unanswered."""

    # ------------------------------------------------------------------------------------------ Output
    output_dir: str | None = None
    """Folder of the evaluation. None: evaluation/ in the run's folder, where pages and model card find it."""

    def refusals(self) -> Collection[tuple[bool, str]]:
        """Combinations that contradict themselves."""
        return (
            *super().refusals(),
            (
                not self.gold and self.judge is None,
                "gold and judge are missing: name at least one scorer that the run was not trained on (gold, in the "
                "form of PPO's option reward), or a judge of pairs",
            ),
            (
                self.judge is not None and self.judge_model is None,
                "judge_model is missing: the judge is asked by the name of its model",
            ),
            (
                self.judge is None and (self.judge_model is not None or self.judge_token_env is not None),
                "judge_model and judge_token_env are for judge, and no judge is given",
            ),
        )

    def as_comparison(self) -> CompareOptions:
        """The same as the comparison of one run."""
        shared = {field.name: getattr(self, field.name) for field in fields(MeasuringOptions)}
        runs = () if self.run is None else (f"{POLICY}={self.run}",)
        given: dict[str, Any] = {"runs": runs, "baseline": self.against, "output_dir": self.output_dir}
        return CompareOptions(**shared, **given)


POLICY = "policy"
"""What the evaluated model is called in tables."""

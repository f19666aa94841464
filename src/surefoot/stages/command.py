"""`surefoot sft`, `surefoot reward` and `surefoot dpo`. Heavy imports wait, so that help answers at once."""

from collections.abc import Callable, Sequence
from typing import Any

from surefoot.arguments import Parser, UsageError, add_options, add_run_flags, options_of, settings_of
from surefoot.settings import load_settings
from surefoot.stages.options import DPOOptions, RewardOptions, SFTOptions, StageOptions
from surefoot.terminal import usage_errors

_SUMMARIES = {
    "sft": "Teaches a language model texts, answers to prompts, or conversations.",
    "reward": "Trains a reward model from pairs of answers, and judges it on pairs that it did not learn.",
    "dpo": "Trains a language model from pairs of answers directly.",
}

_EXAMPLES = {
    "sft": """
surefoot sft --model-name ./base --dataset answers.jsonl --epochs 2
surefoot sft --config sft.yaml --lora-r 16 --packing true
surefoot sft --resume runs/base-sft-20260101-120000
""",
    "reward": """
surefoot reward --model-name runs/sft/model --dataset pairs.jsonl --centre-on samples.jsonl
surefoot reward --model-name ./base --lora-r 16 --dataset pairs.jsonl --center-rewards-coefficient 0.01
surefoot reward --model-name runs/reward/model --ratings runs/first --epochs 3
""",
    "dpo": """
surefoot dpo --model-name runs/sft/model --dataset pairs.jsonl --beta 0.1
surefoot dpo --model-name ./base --adapter-name runs/sft/model --dataset pairs.jsonl --loss-type ipo
""",
}

_EXITS = """
Any other option of TRL's {config} is given by its own name, in a file or here.
Ctrl-C or SIGTERM saves the run and ends it; the same command goes on with it. A second Ctrl-C ends it at once.
exit codes: 0 finished; 1 failed; 2 wrong command line or settings; 130 stopped by Ctrl-C, 143 by SIGTERM
"""


def sft(arguments: Sequence[str]) -> int:
    """`surefoot sft`."""
    options, how = _read(SFTOptions, arguments)
    from surefoot.stages.sft import run_sft

    return run_sft(options, **how)


def reward(arguments: Sequence[str]) -> int:
    """`surefoot reward`."""
    options, how = _read(RewardOptions, arguments)
    from surefoot.stages.reward_model import run_reward

    return run_reward(options, **how)


def dpo(arguments: Sequence[str]) -> int:
    """`surefoot dpo`."""
    options, how = _read(DPOOptions, arguments)
    from surefoot.stages.dpo import run_dpo

    return run_dpo(options, **how)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"sft": sft, "reward": reward, "dpo": dpo}


def _read(cls: type[Any], arguments: Sequence[str]) -> tuple[Any, dict[str, bool]]:
    """The options of a stage and how its run begins."""
    given = _parser(cls).read(arguments)
    if given.fresh and given.resume is not None:
        raise UsageError("--resume goes on with a run and --fresh begins anew: give one of the two")
    with usage_errors():
        files = given.config if given.resume is None else [settings_of(given.resume), *given.config]
        options: StageOptions = load_settings(files, options_of(given, cls), cls)
        if given.resume is not None:
            options = options.replace(output_dir=given.resume)
    return options, {name: getattr(given, name) for name in ("quiet", "fresh", "allow_changes")}


def _parser(cls: type[StageOptions]) -> Parser:
    name = cls.COMMAND
    parser = Parser(name, _SUMMARIES[name], "[--config FILE ...] [--OPTION VALUE ...]", _EXAMPLES[name])
    parser.epilog = f"{parser.epilog}\n\n{_EXITS.format(config=cls.TRL_CONFIG).strip()}"
    add_run_flags(parser)
    add_options(parser, cls)
    return parser

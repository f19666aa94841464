"""`surefoot compare` and `surefoot evaluate`. Heavy imports wait, so that help and mistakes answer at once."""

import argparse
from collections.abc import Sequence

from surefoot.arguments import Parser, add_options, options_of
from surefoot.evaluate.options import CompareOptions, EvaluateOptions, MeasuringOptions
from surefoot.settings import load_settings
from surefoot.terminal import usage_errors

_EXAMPLES = """
surefoot compare runs/ppo runs/dpo --dataset held-out.jsonl --gold judge.py:score
surefoot compare ppo='runs/ppo-seed*' dpo='runs/dpo-seed*' --baseline runs/sft --gold ./other-reward-model
surefoot compare dpo/0.1=runs/dpo-a dpo/0.3=runs/dpo-b ppo=runs/ppo --gold judge.py:score --best-of 4 16
surefoot compare --config compare.yaml --num-generations 8
"""


def read(arguments: Sequence[str]) -> argparse.Namespace:
    """The parsed command line."""
    summary = "Compares trained models on the same held-out prompts, by scorers that none was trained on."
    usage = "[RUN ...] --gold SCORER ... [--baseline SFT] [--dataset PROMPTS] [--config FILE ...] [--OPTION VALUE ...]"
    parser = Parser("compare", summary, usage, _EXAMPLES)
    parser.add_argument("run", nargs="*", default=[], metavar="RUN", help="the same as --runs")
    return _read(parser, CompareOptions, arguments)


def _read(parser: Parser, cls: type[MeasuringOptions], arguments: Sequence[str]) -> argparse.Namespace:
    files = "settings files (.yaml, .toml, .json); later ones win over earlier ones, options over all"
    parser.general.add_argument("--config", nargs="+", action="extend", default=[], metavar="FILE", help=files)
    parser.general.add_argument("--fresh", action="store_true", help="move aside what output_dir holds")
    parser.general.add_argument("--quiet", action="store_true", help="say only what came out")
    add_options(parser, cls)
    return parser.read(arguments)


def compare(arguments: Sequence[str]) -> int:
    """`surefoot compare`: settings -> a comparison."""
    given = read(arguments)
    options = options_of(given, CompareOptions)
    if given.run:
        options["runs"] = [*given.run, *options.get("runs", [])]
    with usage_errors():
        made = load_settings(given.config, options, CompareOptions)
    from surefoot.evaluate.run import run_compare

    return run_compare(made, quiet=given.quiet, fresh=given.fresh)


_EVALUATE_EXAMPLES = """
surefoot evaluate runs/first --gold ./other-reward-model
surefoot evaluate runs/first --dataset held-out.jsonl --gold judge.py:score
surefoot evaluate runs/first --judge http://127.0.0.1:8000/v1 --judge-model some-lab/Judge-70B
surefoot evaluate runs/first --against runs/first/checkpoints/step_000100 --gold ./other-reward-model
"""


def evaluate(arguments: Sequence[str]) -> int:
    """`surefoot evaluate`: settings -> an evaluation of one run."""
    summary = (
        "Says whether a run's model got better, by scorers it was not trained on or by a judge that is shown pairs."
    )
    usage = "RUN [--against MODEL] [--gold SCORER ...] [--judge ADDRESS --judge-model NAME] [--OPTION VALUE ...]"
    parser = Parser("evaluate", summary, usage, _EVALUATE_EXAMPLES)
    parser.add_argument("folder", nargs="?", metavar="RUN", help="the same as --run")
    given = _read(parser, EvaluateOptions, arguments)
    options = options_of(given, EvaluateOptions)
    with usage_errors():
        if given.folder is not None and "run" in options:
            raise ValueError("run is given twice, once by its place: keep one of the two")
        named = {} if given.folder is None else {"run": given.folder}
        made = load_settings(given.config, options | named, EvaluateOptions)
    from surefoot.evaluate.evaluation import run_evaluate

    return run_evaluate(made, quiet=given.quiet, fresh=given.fresh)

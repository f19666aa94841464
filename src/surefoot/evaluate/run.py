"""`surefoot compare` from its options to its end: check everything, sample, judge, compute, write, tell."""

import dataclasses
import gc
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import transformers

from surefoot.evaluate import output, tables
from surefoot.evaluate.answers import Answers, Sampler, load_model, scored
from surefoot.evaluate.card import write_measured
from surefoot.evaluate.options import CompareOptions
from surefoot.evaluate.prompts import HeldOut, held_out
from surefoot.evaluate.recorded import cost_of, points_of
from surefoot.evaluate.results import Method, Point, Result, best_of, matched, pairs_of, paths_of, rows_of, trained
from surefoot.evaluate.runs import (
    BASELINE,
    BEST_OF,
    Candidate,
    agreed,
    check_gold,
    find_candidates,
    options_in,
    run_of,
    start_of,
)
from surefoot.loading import context_length, has_tokenizer, load_tokenizer
from surefoot.redaction import hide_values
from surefoot.rewards import RewardMix, make_reward
from surefoot.runtime import Runtime
from surefoot.settings import to_yaml
from surefoot.terminal import EXIT_OK, complain, console, say, usage_errors
from surefoot.tracking import environment
from surefoot.types import Sampling


def run_compare(options: CompareOptions, *, quiet: bool = False, fresh: bool = False) -> int:
    """Compares, and says at the end what came out and where it is. Whatever cannot work is refused before sampling.

    Args:
        options: what to compare.
        quiet: say only what came out.
        fresh: move aside the comparison that output_dir holds, and begin anew.
    """
    screen = console()
    tell = (lambda text: None) if quiet else (lambda text: say(screen, text))
    transformers.utils.logging.disable_progress_bar()
    with usage_errors():
        folder = Path(options.output_dir or f"runs/compare-{time.strftime('%Y%m%d-%H%M%S')}")
        output.check(folder, fresh)
        if Runtime().world_size > 1:
            raise ValueError("surefoot compare runs in one process: start it without torchrun")
        plan = prepare(options)
        output.claim(folder, complain)
    tell("\n".join([*plan.prompts.lines, *plan.introduction(), ""]))
    met = meet(plan, tell)
    result = result_of(plan, met)
    output.write(folder, options, result, met.said, plan.prompts.prompts)
    show(screen, result)
    if options.update_cards:
        for row in result.rows:
            for place in row.method.folders:
                write_measured(Path(place), result, row)
    say(screen, f"\nfolder    {folder}\nreport    {folder / 'report.html'}")
    return EXIT_OK


def show(screen: Any, result: Result) -> None:
    """Tables, sentences and notes, for the terminal."""
    for part in tables.terminal(result):
        screen.print(part)
    say(screen, "\n".join([*tables.sentences(result), *result.notes]))


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a comparison needs, loaded and checked.

    Attributes:
        start: model and adapter that all started from.
        scorers: "gold/<name>" and "proxy" -> what scores.
        baseline: what the tables call the model that all are compared with.
    """

    options: CompareOptions
    candidates: Sequence[Candidate]
    start: tuple[str, str | None]
    prompts: HeldOut
    scorers: Mapping[str, RewardMix]
    sampler: Sampler
    baseline: str = BASELINE

    def introduction(self) -> list[str]:
        """What is about to be compared."""
        c, how = self.options, self.sampler.sampling
        lines = [f"baseline  {self.start[1] or self.start[0]}"]
        for label, runs in groupby(self.candidates, key=lambda run: run.label):
            lines.append(f"method    {label}: {', '.join(str(run.folder) for run in runs)}")
        pool = f", and {self.pool} more of the baseline for best of n" if self.pool else ""
        lines.append(f"answers   {c.num_generations} of each to each of {len(self.prompts.prompts)} prompts{pool};"
                     f" up to {how.max_new_tokens} tokens, temperature {how.temperature:g}")  # fmt: skip
        return [*lines, f"judges    {', '.join(self.scorers)}"]

    @property
    def pool(self) -> int:
        """Answers of the baseline that best of n is estimated from; 0 without it."""
        c = self.options
        return c.best_of_samples or max(c.best_of, default=0)


def prepare(options: CompareOptions, *, baseline: str = BASELINE, judged: bool = False) -> Plan:
    """Reads the runs and checks everything that can be checked before the first answer.

    Args:
        options: what to compare.
        baseline: what the tables call the model that all are compared with.
        judged: somebody else judges, so that no gold is needed.

    Raises:
        ValueError: what the option's name says.
    """
    candidates = find_candidates(options.runs)
    start = start_of(candidates, options.baseline)
    proxy = agreed(candidates, "reward", options.proxy)
    if options.best_of and not proxy:
        raise ValueError(
            "best_of chooses by the proxy, and neither proxy nor a run's reward names one: give proxy, or set "
            "best_of to none"
        )
    ancestors = [*candidates, *_as_candidate(start)]
    check_gold(options.gold, ancestors, proxy, needed=not judged)
    tokenizer = _common_tokenizer(candidates, start[0], options.chat_template)
    sampling = _sampling(options, candidates)
    special = tokenizer.all_special_tokens
    golds = {f"gold/{name}": mix for name, mix in _golds(options.gold, special).items()}
    scorers = golds | ({"proxy": proxy_of(options, candidates, special)} if proxy else {})
    model = load_model(*start, "baseline").eval()
    if len(tokenizer) > model.get_output_embeddings().weight.shape[0]:  # type: ignore[operator]
        raise ValueError(
            f"baseline={start[0]!r} has fewer tokens than the runs' tokenizer: it is not what they began as"
        )
    prompts = held_out(options, ancestors, tokenizer, sampling.max_new_tokens, context_length(model))
    sampler = Sampler(model, tokenizer, prompts.prompts, sampling, options.seed, options.precision)
    return Plan(options, candidates, start, prompts, scorers, sampler, baseline)


def _as_candidate(start: tuple[str, str | None]) -> list[Candidate]:
    """The baseline, where it came out of a run of ours: it must not know the prompts or the judges either."""
    folder = Path(start[1] or start[0]).expanduser()
    run = run_of(folder)
    options = options_in(run) if folder.is_dir() else {}
    return [Candidate(BASELINE, run, folder, options)] if options else []


def proxy_of(options: CompareOptions, candidates: Sequence[Candidate], special: Sequence[str]) -> RewardMix:
    """What best of n chooses by: the proxy that was named, else the runs' rewards, put together as the runs did."""
    if options.proxy:
        return make_reward(list(options.proxy), options.proxy_weights, special_tokens=special)
    weights = options.proxy_weights or agreed(candidates, "reward_weights", ())
    return make_reward(
        list(agreed(candidates, "reward", ())),
        weights,
        special_tokens=special,
        ensemble=agreed(candidates, "reward_ensemble", None) or "sum",
        uncertainty_coef=agreed(candidates, "uncertainty_coef", None) or 0.0,
    )


def _golds(specs: Sequence[str], special: Sequence[str]) -> dict[str, RewardMix]:
    """Each scorer for itself, under its own name."""
    if not specs:
        return {}
    together = make_reward(list(specs), special_tokens=special)
    return {name: RewardMix([reward]) for name, reward in together.rewards.items()}


def _sampling(options: CompareOptions, candidates: Sequence[Candidate]) -> Sampling:
    longest = agreed(candidates, "max_new_tokens", options.max_new_tokens)
    if longest is None:
        raise ValueError("max_new_tokens is missing: none of the runs says how long its answers were")
    temperature = agreed(candidates, "temperature", options.temperature)
    return Sampling(
        max_new_tokens=longest,
        temperature=1.0 if temperature is None else float(temperature),
        stop_strings=agreed(candidates, "stop_strings", options.stop_strings),
        stop_token_ids=agreed(candidates, "stop_token_ids", options.stop_token_ids),
    )


def _common_tokenizer(candidates: Sequence[Candidate], baseline: str, template: str | None) -> Any:
    """The tokenizer of all; who has none is taken to have the baseline's.

    Raises:
        ValueError: two have different ones, or different chat templates and nobody says which to use.
    """
    homes = [str(run.model) for run in candidates if has_tokenizer(run.model)]
    found = [(home, load_tokenizer(home, template)) for home in [*homes, *([] if homes else [baseline])]]
    if homes and (not Path(baseline).expanduser().is_dir() or has_tokenizer(baseline)):
        found.append((baseline, load_tokenizer(baseline, template)))
    (first, tokenizer), *others = found
    for home, other in others:
        if other.get_vocab() != tokenizer.get_vocab() or other.eos_token_id != tokenizer.eos_token_id:
            raise ValueError(
                f"the tokenizers of {first} and {home} differ: a divergence in nats is between models that read the "
                "same tokens"
            )
        both = (tokenizer.chat_template, other.chat_template)
        if home != baseline and both[0] != both[1]:
            raise ValueError(f"the chat templates of {first} and {home} differ: give chat_template")
    return tokenizer


# ------------------------------------------------------------------------------------------ the course
@dataclass(frozen=True, slots=True)
class Met:
    """What the models said to the same prompts, and what the scorers made of it.

    Attributes:
        methods: the first is the baseline. recorded: (method, place of its seed) -> points of its run's evaluations.
        notes: what to know about them. said: every answer, by method and seed.
    """

    methods: Sequence[Method]
    recorded: Mapping[tuple[str, int], Sequence[Point]]
    notes: Sequence[str]
    said: Sequence[output.Said]


def meet(plan: Plan, tell: Any) -> Met:
    """Samples and scores."""
    methods, recorded, notes = [], {}, []
    said: list[output.Said] = []
    asked, prompts = plan.options.num_generations, plan.prompts.prompts
    everything = scored(plan.sampler.answers(plan.sampler.baseline, asked + plan.pool), prompts, plan.scorers)
    baseline, pool = everything.part(slice(0, asked)), everything.part(slice(asked, None))
    tell(_progress(plan.baseline, everything, len(prompts)))
    said += [(plan.baseline, None, baseline), *([(BEST_OF, None, pool)] if plan.pool else [])]
    own = Method(plan.baseline, {name: x.mean(1)[None] for name, x in baseline.values.items()})
    for label, group in groupby(plan.candidates, key=lambda run: run.label):
        runs, answers = list(group), []
        for place, run in enumerate(runs):
            answers.append(_answers(plan, run))
            if not answers[-1].exact:
                notes.append(f"The KL of {run.folder} is the sum of log-ratios (k1): its vocabulary has another size.")
            tell(_progress(str(run.folder), answers[-1], len(prompts)))
            said.append((label, run.seed, answers[-1]))
            points = points_of(run, prompts, plan.sampler.sampling, plan.start, plan.scorers)
            if isinstance(points, str):
                notes.append(f"The evaluations that {run.folder} recorded are not in the frontier: {points}.")
            else:
                recorded[label, place] = points
        facts = {"seeds": tuple(run.seed for run in runs), "folders": tuple(str(run.folder) for run in runs),
                 "cost": cost_of(runs)}  # fmt: skip
        methods.append(trained(label, answers, baseline, **facts))
    methods += [best_of(n, pool, baseline) for n in sorted(set(plan.options.best_of))]
    return Met([own, *methods], recorded, notes, said)


def _answers(plan: Plan, run: Candidate) -> Answers:
    """What a run's model answers; it is gone from memory afterwards."""
    answers = plan.sampler.answers(load_model(str(run.model), None, "runs").eval(), plan.options.num_generations)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return scored(answers, plan.prompts.prompts, plan.scorers)


def _progress(name: str, answers: Answers, prompts: int) -> str:
    means = ", ".join(f"{q} {x.mean():.3g}" for q, x in answers.values.items() if q != "ended")
    return f"{name}: {len(answers.completions)} answers to {prompts} prompts in {answers.seconds:.0f} s; {means}"


def result_of(plan: Plan, met: Met) -> Result:
    """What the answers say, with intervals."""
    seed, methods = plan.options.seed, met.methods
    paths = paths_of(methods, met.recorded)
    how = plan.sampler.sampling
    settings = hide_values(to_yaml(plan.options))
    facts = {
        "prompts": len(plan.prompts.prompts),
        "answers_each": plan.options.num_generations,
        "baseline": plan.start[1] or plan.start[0],
        "sampling": dataclasses.asdict(how),
        "kl": "exact over the vocabulary at every token, summed over the answer, in nats; best of n: log n - (n-1)/n",
        "intervals": "95 %; prompts: bootstrap, paired; seeds: Student's t",
        "config_sha256": hashlib.sha256(settings.encode()).hexdigest(),
        "environment": environment(),
    }
    return Result(
        facts,
        rows_of(methods, seed),
        pairs_of(methods, seed),
        paths,
        matched(paths, methods[0], seed),
        [*tables.notes_of(methods), *met.notes],
    )

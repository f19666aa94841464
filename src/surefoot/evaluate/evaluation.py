"""`surefoot evaluate` from its options to its end: one run against one model, by scorers and by a judge of pairs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers

from surefoot.evaluate import output
from surefoot.evaluate.answers import Answers
from surefoot.evaluate.card import write_measured
from surefoot.evaluate.duel import Duel, by_judge, by_scorer
from surefoot.evaluate.judging import Said, question
from surefoot.evaluate.options import POLICY, EvaluateOptions
from surefoot.evaluate.pair_judge import PairJudge
from surefoot.evaluate.run import Met, Plan, meet, prepare, result_of, show
from surefoot.evaluate.runs import BASELINE, BEST_OF, is_checkpoint, run_of
from surefoot.report import write_report
from surefoot.rewards.conventions import without_ends
from surefoot.runtime import Runtime
from surefoot.terminal import EXIT_OK, complain, console, say, usage_errors
from surefoot.types import Prompt

FOLDER = "evaluation"
"""Where a run's folder keeps its evaluation."""
_TOLD = 10
"""Progress of the judge is told so many times."""


def run_evaluate(options: EvaluateOptions, *, quiet: bool = False, fresh: bool = False) -> int:
    """Evaluates, and says at the end what came out and where it is. What cannot work is refused before sampling.

    Args:
        options: what to evaluate, against what, by whom.
        quiet: say only what came out.
        fresh: move aside the evaluation that is there, and begin anew.
    """
    screen = console()
    tell = (lambda text: None) if quiet else (lambda text: say(screen, text))
    transformers.utils.logging.disable_progress_bar()
    with usage_errors():
        folder = _folder(options)
        output.check(folder, fresh)
        if Runtime().world_size > 1:
            raise ValueError("surefoot evaluate runs in one process: start it without torchrun")
        judge = None if options.judge is None else PairJudge(options)
        name = BASELINE if options.against is None else name_of(options.against)
        plan = prepare(options.as_comparison(), baseline=name, judged=judge is not None)
        output.claim(folder, complain)
    tell("\n".join([*plan.prompts.lines, *plan.introduction(), *_about(judge, plan), ""]))
    met = meet(plan, tell)
    result = replace(result_of(plan, met), duels=_duels(plan, met, judge, tell))
    output.write(folder, options, result, met.said, plan.prompts.prompts)
    show(screen, result)
    row = next(row for row in result.rows if row.method.name == POLICY)
    place = Path(row.method.folders[0])
    if options.against is None and not is_checkpoint(place):
        write_measured(place, result, row)
    if folder == place / FOLDER:
        write_report(place)
    say(screen, f"\nfolder    {folder}\nreport    {folder / 'report.html'}")
    return EXIT_OK


def name_of(spec: str) -> str:
    """What a table calls a model: its run's name, with the step of a checkpoint."""
    path = Path(spec).expanduser()
    run = run_of(path)
    name = run.resolve().name if path.exists() else spec
    if is_checkpoint(path):
        name = f"{name} at step {int(path.name.rpartition('_')[2])}"
    return f"the other {name}" if name.partition("/")[0] in (POLICY, BEST_OF, BASELINE) else name


def _folder(options: EvaluateOptions) -> Path:
    """Where the evaluation goes.

    Raises:
        ValueError: no run is named, or nothing says where its evaluation belongs.
    """
    if options.run is None:
        raise ValueError("run is missing: name the folder of the run to evaluate")
    if options.output_dir is not None:
        return Path(options.output_dir)
    path = Path(options.run).expanduser()
    run = run_of(path)
    if not (run / "config.yaml").is_file():
        raise ValueError(
            f"run={options.run!r} is no folder of a run (it has no config.yaml), so that nothing says where its "
            "evaluation belongs: give the run's folder, or output_dir"
        )
    return run / (f"{FOLDER}-{path.name}" if is_checkpoint(path) else FOLDER)


def _about(judge: PairJudge | None, plan: Plan) -> list[str]:
    if judge is None:
        return []
    pairs = len(plan.prompts.prompts) * plan.options.num_generations
    return [f"judge     {judge.name} at {judge.address}: {pairs} pairs in both orders, up to {2 * pairs} questions"]


# ------------------------------------------------------------------------------------------ pair by pair
def _duels(plan: Plan, met: Met, judge: PairJudge | None, tell: Callable[[str], Any]) -> list[Duel]:
    """Each scorer's verdicts, and the judge's."""
    theirs, mine = (next(a for name, _, a in met.said if name == who) for who in (plan.baseline, POLICY))
    seed = plan.options.seed
    golds = [name for name in mine.values if name.startswith("gold/")]
    found = [by_scorer(gold, mine.values, theirs.values, seed) for gold in golds]
    if judge is not None:
        special = tuple(token for token in plan.sampler.tokenizer.all_special_tokens if token)
        said = _judged(judge, plan.prompts.prompts, (mine, theirs), special, tell)
        found.append(by_judge(judge.name, said, mine.values, theirs.values, seed))
    return found


def _judged(
    judge: PairJudge,
    prompts: Sequence[Prompt],
    answers: tuple[Answers, Answers],
    special: Sequence[str],
    tell: Callable[[str], Any],
) -> list[list[tuple[Said, Said]]]:
    """Both verdicts on each pair; two answers that are the same text are a tie that nobody is asked about."""
    pairs = list(zip(*(a.completions for a in answers), strict=True))
    each = len(pairs) // len(prompts)
    questions: list[str] = []
    for prompt, (a, b) in zip([p for p in prompts for _ in range(each)], pairs, strict=True):
        if a.strip() != b.strip():
            asked = _request(prompt, special)
            questions += [question(asked, a, b), question(asked, b, a)]
    said = iter(judge.ask(questions, _progress(judge.name, len(questions), tell)))
    same = Said("tie"), Said("tie")
    both = [same if a.strip() == b.strip() else (next(said), next(said)) for a, b in pairs]
    return [both[p * each : (p + 1) * each] for p in range(len(prompts))]


def _progress(name: str, count: int, tell: Callable[[str], Any]) -> Callable[[int], None]:
    """Tells how far a judge is, a few times."""
    stops = {count * n // _TOLD for n in range(1, _TOLD)} - {0}

    def progress(done: int) -> None:
        if done in stops:
            tell(f"{name}: {done} of up to {count} questions")

    return progress


def _request(prompt: Prompt, special: Sequence[str]) -> str:
    """What was asked, as a judge reads it: without the policy's special tokens."""
    if not prompt.messages:
        return without_ends(prompt.text, special)
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in prompt.messages)

"""A reward model from preferences: a Bradley-Terry classifier with one output.

It learns on exactly the tokens that `surefoot.rewards.ModelReward` will show it when it scores answers.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from surefoot.display import brief
from surefoot.redaction import hide_values
from surefoot.rewards import RewardMix, make_reward
from surefoot.rewards.adapter import write_score_shift
from surefoot.rewards.model import ModelReward
from surefoot.stages.data import load_data
from surefoot.stages.lengths import answer_tokens
from surefoot.stages.models import load_classifier, longest_row
from surefoot.stages.options import RewardOptions
from surefoot.stages.rows import ANSWERS, Rows, load_rows, prompt_key
from surefoot.stages.run import Judgement, Loaded, Stage, run_stage
from surefoot.stages.trl import adapter_config, make_trainer, model_of
from surefoot.types import Prompt

CARD = "reward-card.json"
"""The file of a run folder with the numbers of a reward model on held-out pairs."""
CENTRED_ON = 512
"""Rows at most whose scores are centred: of half as many the mean is known to a sixteenth of the scores' spread."""


def load_reward(options: RewardOptions) -> Loaded:
    """Classifier, tokenizer and pairs, checked.

    Raises:
        ValueError: something is missing, does not load, or does not fit together.
    """
    model, tokenizer = load_classifier(options)
    longest = longest_row(options, model)
    if options.centre_on is not None:
        _samples(options)
    data = load_data(options, tokenizer, longest)
    return Loaded(model, tokenizer, data, longest, _second(options, data.held_out, tokenizer))


def reward_trainer(options: RewardOptions, loaded: Loaded, **how: Any) -> Any:
    """TRL's trainer for it, on rows that are tokens already."""
    scorer = _scorer(loaded.model, loaded)
    return make_trainer(
        options.replace(max_tokens=loaded.max_tokens),
        loaded.model,
        loaded.tokenizer,
        _encoded(scorer, loaded.data.train),
        _encoded(scorer, loaded.data.held_out),
        peft_config=adapter_config(options, "SEQ_CLS"),
        **how,
    )


def judge(options: RewardOptions, loaded: Loaded, trainer: Any) -> Judgement:
    """Where the scores' zero is, and how often they say what people said, on pairs that were not learnt."""
    from surefoot.stages.judge import judge_reward

    scorer = _scorer(model_of(trainer), loaded)
    numbers: dict[str, Any] = {}
    text = []
    if options.centre_on is not None:
        samples = _samples(options)
        every = math.ceil(len(samples) / CENTRED_ON)
        some = dataclasses.replace(samples, rows=samples.rows[::every], places=samples.places[::every])
        found = [s for name in ANSWERS if name in some.rows[0] for s in _scores(scorer, some, name)]
        numbers["score_shift"] = shift = fmean(found)
        which = f"the mean of {len(found)} answers of {samples.source}" + f", one row in {every}" * (every > 1)
        text.append(f"centred   {shift:.4g} is taken off every score: {which}")
    files: dict[str, Any] = {}
    held_out = loaded.data.held_out
    if len(held_out):
        card = judge_reward(
            _scores(scorer, held_out, "chosen"),
            _scores(scorer, held_out, "rejected"),
            answer_tokens(held_out, loaded.tokenizer, "chosen"),
            answer_tokens(held_out, loaded.tokenizer, "rejected"),
            second=loaded.second,
            second_name=hide_values(" + ".join(options.second_scorer)),
            prompts=[prompt_key(row) for row in held_out.rows],
            seed=options.seed,
        )
        files[CARD] = card.as_dict() | numbers
        text.insert(0, card.text())
    return Judgement(numbers, files, "\n".join(text))


def centre(folder: Path, judgement: Judgement) -> None:
    """Notes in the model's folder where the zero of its scores is."""
    if "score_shift" in judgement.numbers:
        write_score_shift(folder, judgement.numbers["score_shift"])


REWARD = Stage("reward", load_reward, reward_trainer, judge, centre)


def run_reward(
    options: RewardOptions, *, quiet: bool = False, fresh: bool = False, allow_changes: bool = False
) -> int:
    """`surefoot reward` from its options to its exit code."""
    return run_stage(REWARD, options, quiet=quiet, fresh=fresh, allow_changes=allow_changes)


# ------------------------------------------------------------------------------------------ rows -> what it reads
def _scorer(model: Any, loaded: Loaded) -> ModelReward:
    special = loaded.tokenizer.all_special_tokens
    return ModelReward(model, loaded.tokenizer, "reward model", max_length=loaded.max_tokens, special_tokens=special)


def _encoded(scorer: ModelReward, rows: Rows) -> list[dict[str, Any]]:
    return [
        {f"{name}_ids": scorer.encode(*as_answer(row, name, place)) for name in ("chosen", "rejected")}
        for row, place in zip(rows.rows, rows.places, strict=True)
    ]


def _second(options: RewardOptions, rows: Rows, tokenizer: Any) -> tuple[list[float], list[float]] | None:
    """What the second scorer says, before the training: it may fail, and nothing is lost."""
    if not options.second_scorer or not len(rows):
        return None
    try:
        scorer = make_reward(list(options.second_scorer), special_tokens=tokenizer.all_special_tokens)
    except ValueError as error:
        raise ValueError(f"second_scorer: {error}") from error
    chosen, rejected = _scores(scorer, rows, "chosen"), _scores(scorer, rows, "rejected")
    if chosen == rejected:
        raise ValueError(
            f"second_scorer={brief(options.second_scorer)} finds both answers of all {len(rows)} held-out pairs "
            "equal: there is nothing to agree with"
        )
    return chosen, rejected


def _scores(scorer: ModelReward | RewardMix, rows: Rows, name: str) -> list[float]:
    asked = [as_answer(row, name, place) for row, place in zip(rows.rows, rows.places, strict=True)]
    found: Sequence[Any] = scorer([prompt for prompt, _ in asked], [answer for _, answer in asked]).scores
    return [float(score) for score in found]


def as_answer(row: Mapping[str, Any], name: str, place: str) -> tuple[Prompt, str]:
    """A row's prompt and one of its answers, as a reward is handed them.

    Raises:
        ValueError: the answer's last message is not the assistant's.
    """
    prompt, answer = row["prompt"], row[name]
    if isinstance(prompt, str):
        return Prompt(prompt, ()), str(answer)
    messages = [*prompt, *answer]
    last = messages[-1]
    if last["role"] != "assistant":
        raise ValueError(f"{place}: {name} ends with a message of the {last['role']}: an answer is the assistant's")
    return Prompt("", (), messages=tuple(messages[:-1])), str(last["content"])


def _samples(options: RewardOptions) -> Rows:
    """Rows with a prompt and an answer, or with two."""
    try:
        rows = load_rows(options.centre_on, kind="sft")
    except ValueError as error:
        try:
            rows = load_rows(options.centre_on, kind="preference")
        except ValueError:
            raise ValueError(f"centre_on: {error}") from error
    if not len(rows) or "prompt" not in rows.rows[0]:
        raise ValueError(f"centre_on={options.centre_on!r}: rows with a prompt and an answer are needed")
    return rows

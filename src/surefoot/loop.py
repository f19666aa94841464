"""The whole loop around a trainer's `generate` and `step`: prompts, rewards, evaluations, checkpoints, stop rules."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from surefoot.callbacks import Evaluation, TrainResult
from surefoot.ops.seeds import derive_seed
from surefoot.peers import AbandonedError, PeerLostError
from surefoot.phases import SCORING, stage
from surefoot.progress import Progress
from surefoot.prompts import PromptOrder
from surefoot.recorder import Recorder, sample_records
from surefoot.resuming import restore_weights
from surefoot.rewards import RewardMix
from surefoot.rewards.ensemble import shaped
from surefoot.rewards.mix import MixedScores
from surefoot.rollout import Response, collect
from surefoot.setup import sampling_of
from surefoot.snapshot import generator_states, restore_generators
from surefoot.statistics import evaluation_metrics, reward_statistics
from surefoot.stopping import STOPPED
from surefoot.types import Completion, Prompt, StepStats
from surefoot.watch.rules import RAISE

_collect = stage(SCORING)(collect)


def check_ready(trainer: Any) -> None:
    """Whether a trainer has what the whole loop needs.

    Raises:
        ValueError: it has not.
    """
    if trainer.reward is None:
        raise ValueError("train() needs reward: a function, a reward model, or a list of them")
    if not trainer.prompts:
        raise ValueError("train() needs dataset: a file, a hub name, or a list of prompts")
    prompts, processes = trainer.config.prompts_per_step, trainer.runtime.world_size
    if prompts < processes:
        raise ValueError(
            f"batch_size={trainer.config.batch_size} with num_generations={trainer.config.num_generations} makes "
            f"{prompts} prompts a step, too few for {processes} processes: each needs at least one"
        )
    if 0 < len(trainer.eval_prompts) < processes:
        raise ValueError(
            f"{len(trainer.eval_prompts)} evaluation prompts are too few for {processes} processes: raise "
            "eval_prompts, or set it to 0"
        )
    if trainer.gold is not None and not trainer.eval_prompts:
        raise ValueError("gold scores evaluations, and there are no evaluation prompts: give some, or leave gold out")
    trainer.watch.check(
        gold=trainer.gold is not None, prompts=len(trainer.eval_prompts), folder=trainer.folder is not None
    )


class Loop:
    """One run of a `PPOTrainer`. All that it remembers is the trainer's: it can end between any two steps.

    A step is whole before it is recorded, an evaluation before it is, and a checkpoint comes after both; so whatever
    happens, the newest checkpoint is of a moment between two steps, and what was recorded past it is made again.
    """

    def __init__(self, trainer: Any, recorder: Recorder) -> None:
        self._trainer = trainer
        self._recorder = recorder

    def run(self) -> TrainResult:
        """Goes on until a stop rule holds or somebody asks to stop."""
        try:
            reason = self._until_the_end()
        except AbandonedError as asked:
            reason = f"{STOPPED}{asked}"
        self._recorder.checkpoint()
        try:
            closing = self._closing(reason)
        except AbandonedError as asked:
            closing, reason = [], f"{STOPPED}{asked}"  # all steps are done; it goes on with this evaluation alone
        evaluations = [*self._trainer.progress.evaluations, *closing]
        return self._recorder.end(reason, evaluations, self._brought_back(reason, evaluations))

    def _brought_back(self, reason: str, evaluations: Sequence[Evaluation]) -> int:
        """The step whose weights the models have now: where the watch restores, that of the best evaluation."""
        trainer = self._trainer
        if not trainer.watch.restores(reason, evaluations):
            return int(trainer.progress.steps)
        saved = self._recorder.best_checkpoint()
        if saved is None:
            return int(trainer.progress.steps)
        restore_weights(trainer, saved.path)
        return saved.step

    def _until_the_end(self) -> str:
        trainer, recorder, rules = self._trainer, self._recorder, self._trainer.stop_rules
        reward: RewardMix = trainer.reward
        c, progress = trainer.config, trainer.progress
        reason = self._evaluated() or rules.standing(progress.steps) or trainer.watch.reason(progress.evaluations)
        while reason is None:
            before = self._state()
            with self._undone_on_failure(before):
                prompts = self._next_prompts()
                responses = trainer.generate(prompts, num_return_sequences=c.num_generations)
            with self._undone_on_failure(before):  # of its own: it begins with what all processes do together
                self._ask_ahead()
                repeated = [p for p in prompts for _ in range(c.num_generations)]
                began = time.perf_counter()
                reward.set_step(progress.steps)
                with trainer.presence.asking_rewards(), trainer.stop.may_be_left():
                    scored = reward(repeated, responses)
                    measured = {} if trainer.references is None else trainer.references.of(prompts, reward)
                seconds = time.perf_counter() - began
            with self._undone_when_left(before):
                scores, numbers = self._shaped(repeated, scored.scores, measured)
                stats = trainer.step(repeated, responses, scores)
            numbers |= reward_statistics(scored.parts, scored.metrics) | self._staleness(responses)
            stats = StepStats({**stats, **numbers, "time/score": seconds})
            rollout = trainer.last_experience.rollout
            asked = recorder.step(stats, sample_records(progress.steps, repeated, responses, scored, rollout))
            reason = rules.after_step(progress.steps, stats["objective/kl_per_token"]) or asked
            reason = self._evaluated() or reason
            if c.save_every and progress.steps % c.save_every == 0:
                recorder.checkpoint()
        return reason

    def _next_prompts(self) -> list[Prompt]:
        trainer, progress = self._trainer, self._trainer.progress
        found = self._prompts_from(progress.prompts)
        progress.prompts += trainer.config.prompts_per_step
        return found

    def _prompts_from(self, position: int) -> list[Prompt]:
        """This process's share of a step's prompts."""
        trainer = self._trainer
        order = PromptOrder(len(trainer.prompts), trainer.config.seed)
        chosen = order.take(position, trainer.config.prompts_per_step)
        mine: list[Prompt] = trainer.runtime.share([trainer.prompts[i] for i in chosen])
        return mine

    def _shaped(
        self, prompts: Sequence[Prompt], scores: Sequence[float], measured: Mapping[int, float]
    ) -> tuple[Sequence[float], dict[str, float]]:
        """Scores beside those of the reference's answers, where that is asked for, and what is logged of these."""
        trainer = self._trainer
        if trainer.references is None:
            return scores, {}
        trainer.references.keep(measured, trainer.runtime)
        beside = [trainer.references.known[p.index] for p in prompts]
        both = zip(scores, beside, strict=True)
        mean = sum(beside) / len(beside)
        return [shaped(s, r, trainer.config.reward_shaping) for s, r in both], {"rewards/reference_score": mean}

    # ------------------------------------------------------------------------------------------ a step ahead
    def _ask_ahead(self) -> None:
        """With `overlap`: has the engine draw the answers of the next step while this one is made, if there is one."""
        trainer, c = self._trainer, self._trainer.config
        if c.overlap and not trainer.stop_rules.ends_with(trainer.progress.steps + 1):
            prompts = self._prompts_from(trainer.progress.prompts)
            trainer.generate_ahead(prompts, num_return_sequences=c.num_generations)

    def _staleness(self, answers: Sequence[Completion]) -> dict[str, float]:
        """With `overlap`: steps between the weights that drew the answers and those that learned from them."""
        trainer = self._trainer
        if not trainer.config.overlap:
            return {}
        behind = trainer.runtime.gather([trainer.progress.steps - 1 - (a.version or 0) for a in answers])
        return {"sampler/staleness": sum(behind) / len(behind)}

    # ------------------------------------------------------------------------------------------ evaluations
    def _evaluated(self) -> str | None:
        """Evaluates where that is due and was not done, tells everybody, and asks the stop rules."""
        trainer, progress = self._trainer, self._trainer.progress
        if not self._lacks_evaluation() or progress.steps % trainer.config.eval_every:
            return None
        found = evaluation_of(trainer, self._undone_on_failure(self._state()))
        found = trainer.watch.seen(found, progress.evaluations)
        progress.evaluations.append(found)
        if trainer.watch.raises(found):
            trainer.kl_controller.raise_price(RAISE)
        asked = self._recorder.evaluation(found)
        reason = trainer.stop_rules.after_evaluation(found.score) or trainer.watch.reason(progress.evaluations)
        if trainer.watch.keeps(progress.evaluations):
            self._recorder.checkpoint()
        return reason or asked

    def _closing(self, reason: str) -> list[Evaluation]:
        """The evaluation at the end where none was due: told, but no part of the state that a run goes on from."""
        if reason.startswith(STOPPED) or not self._lacks_evaluation():
            return []
        generators = generator_states()
        try:
            found = evaluation_of(self._trainer, self._trainer.runtime.together())
        finally:
            restore_generators(generators)
        found = self._trainer.watch.seen(found, self._trainer.progress.evaluations, acts=False)
        self._recorder.evaluation(found)
        return [found]

    def _lacks_evaluation(self) -> bool:
        return bool(self._trainer.eval_prompts) and self._trainer.progress.evaluated() is None

    # ------------------------------------------------------------------------------------------ failures
    def _state(self) -> dict[str, Any]:
        """What sampling and scoring move; the weights they leave alone."""
        references = self._trainer.references
        known = {} if references is None else {"references": references.state_dict()}
        known["ahead"] = self._trainer.ahead
        return {"progress": self._trainer.progress.state_dict(), "generators": generator_states(), **known}

    @contextmanager
    def _undone_on_failure(self, before: dict[str, Any]) -> Iterator[None]:
        """Answers and scores are everybody's or nobody's. Where they fail, all is as `before`, and saved.

        It is not saved where weights are at fault that give no finite numbers, and where a process is lost.
        """
        try:
            with self._undone_when_left(before), self._trainer.runtime.together():
                yield
        except PeerLostError:
            raise
        except Exception as error:
            self._undo(before)
            if not isinstance(error, FloatingPointError):
                self._recorder.rescue()
            raise

    @contextmanager
    def _undone_when_left(self, before: dict[str, Any]) -> Iterator[None]:
        try:
            yield
        except AbandonedError:
            self._undo(before)
            raise

    def _undo(self, before: dict[str, Any]) -> None:
        progress: Progress = self._trainer.progress
        progress.load_state_dict(before["progress"])
        restore_generators(before["generators"])
        self._trainer.ahead = before["ahead"]
        if "references" in before:
            self._trainer.references.load_state_dict(before["references"])


@torch.no_grad()
def evaluation_of(trainer: Any, scoring: AbstractContextManager[Any]) -> Evaluation:
    """Answers the evaluation prompts, always with the same random numbers; all of it inside `scoring`."""
    if trainer.reward is None or not trainer.eval_prompts:
        raise ValueError(
            "an evaluation needs reward and evaluation prompts (eval_dataset, or eval_prompts of dataset)"
        )
    c, progress = trainer.config, trainer.progress
    mine: list[Prompt] = trainer.runtime.share(trainer.eval_prompts)
    seeds = [derive_seed(c.seed, "evaluate", p.index) for p in mine]
    if trainer.ahead is not None:
        trainer.ahead.wait()  # until then the engine is at work for the next step
    with scoring:
        with trainer.models.whole_policy(), trainer.stop.may_be_left():
            answers = trainer.engine.generate([p.token_ids for p in mine], seeds, sampling_of(c, {}))
        responses = [
            Response(a.token_ids, [True] * len(a.token_ids), a.logprobs, a.finish_reason == "length") for a in answers
        ]
        ids = [list(p.token_ids) for p in mine]
        with trainer.presence.asking_rewards(), trainer.stop.may_be_left():
            scored = trainer.reward(mine, answers)
            gold = _gold(trainer, mine, answers)
        with trainer.presence.passes(), trainer.presence.frozen():
            rollout, _ = _collect(trainer.models, ids, responses, temperature=c.temperature, kl_penalty=c.kl_penalty)
    samples = trainer.runtime.gather(sample_records(progress.steps, mine, answers, scored, rollout, gold))
    return Evaluation(progress.steps, progress.episodes, evaluation_metrics(samples), samples)


def _gold(trainer: Any, prompts: Sequence[Prompt], answers: Sequence[Completion]) -> MixedScores | None:
    if trainer.gold is None:
        return None
    trainer.gold.set_step(trainer.progress.steps)
    found: MixedScores = trainer.gold(prompts, answers)
    return found

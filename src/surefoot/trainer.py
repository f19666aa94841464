"""PPOTrainer: the only object with state. `train` (loop.py) is written with `generate`, rewards and `step` alone."""

import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surefoot.assemble import assemble, lora_config, vocabulary_size
from surefoot.bundles import FaultBundles
from surefoot.callbacks import Callback, Evaluation, TrainResult
from surefoot.config import PPOConfig
from surefoot.controllers import LearningRates, ScoreScaler
from surefoot.engine.make import make_engine
from surefoot.estimate import estimate
from surefoot.faults import FaultRule, StepFaults
from surefoot.inputs import check_context, check_counts, query_ids, responses_of, scores_of
from surefoot.loading import device_of, end_ids, shared_context
from surefoot.loop import Loop, check_ready, evaluation_of
from surefoot.minibatches import first_minibatch
from surefoot.models import ActorCritic
from surefoot.ops.seeds import derive_seed
from surefoot.phases import SAMPLING, SCORING, stage
from surefoot.presence import Presence
from surefoot.progress import Progress
from surefoot.recorder import Recorder
from surefoot.references import reference_scores_of
from surefoot.resuming import identity_of, read_options, restore_trainer, save_trainer
from surefoot.rollout import Response, collect
from surefoot.rows import Fresh
from surefoot.runtime import Runtime, peak_memory_gib
from surefoot.sampling import Ahead, answers_to, ask_ahead
from surefoot.saving import save_models
from surefoot.setup import (
    gold_of,
    kl_controller_of,
    load_data,
    load_everything,
    load_parts,
    losses_of,
    make_optimizer,
    passes_of,
    reward_of,
    shape_scores,
    use_bfloat16,
)
from surefoot.snapshot import prompts_digest
from surefoot.statistics import Laps, Prices, step_statistics
from surefoot.stopping import StopRules, StopSwitch
from surefoot.symptoms import Symptoms
from surefoot.threads import warn_of_spinning
from surefoot.tracking import RunFolder, check_tracker
from surefoot.types import Experience, Prompt, Rollout, StepStats
from surefoot.update import update
from surefoot.watch.run import RunWatch

__all__ = ["Callback", "Evaluation", "PPOTrainer", "TrainResult"]


class PPOTrainer:
    """PPO for a causal language model, by hand (`generate`, `step`) or as a whole (`train`).

    Args:
        config: the options.
        model: the policy, any causal language model of transformers, with or without a LoRA adapter; trained in place.
        ref_model: the frozen reference. None: the policy as it starts.
        tokenizer: the policy's.
        reward: for `train`: a function, a reward model, "module:function", a folder, or a list of these.
        gold: the same, of better scorers that nothing is trained on; they score the evaluations.
        value_model: a model of its own for the critic (any transformers model, for instance the reward model).
        dataset, eval_dataset: for `train`: a file, a hub name, rows, texts or a `datasets` object.
        optimizer: an optimizer over the policy's parameters (the critic's are added to it), or a function that makes
            one from the list of all trainable parameters. None: AdamW.
        lr_scheduler: a torch scheduler of that optimizer, stepped once a step; it replaces lr_schedule.
        peft_config: a LoraConfig for a new adapter on the policy.
        callbacks: watchers of `train`.

    Attributes:
        policy: the model that was passed in (within its adapter, if one was added). critic: value head or value model.
        progress: how far it is: steps, episodes, place in the prompts, evaluations. steps_done, episodes_done: of it.

    Raises:
        ValueError: models, tokenizer and options that do not fit together.
    """

    ahead: Ahead | None = None
    """Answers that were asked for and not taken yet, with `overlap`."""

    def __init__(
        self,
        config: PPOConfig,
        model: Any,
        ref_model: Any = None,
        tokenizer: Any = None,
        *,
        reward: Any = None,
        gold: Any = None,
        value_model: Any = None,
        dataset: Any = None,
        eval_dataset: Any = None,
        optimizer: torch.optim.Optimizer | Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
        lr_scheduler: Any = None,
        peft_config: Any = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        if tokenizer is None:
            raise ValueError("tokenizer is missing: give the policy's, AutoTokenizer.from_pretrained(model_name)")
        check_tracker(config.log_with)
        self.config = config
        self.tokenizer = tokenizer
        self.runtime = Runtime()
        bfloat16 = use_bfloat16(config.precision, device_of(model))
        self.models = assemble(
            model,
            ref_model,
            value_model,
            peft_config=peft_config or lora_config(config.lora_r, config.lora_alpha),
            critic=config.critic,
            bfloat16=bfloat16,
            gradient_checkpointing=config.gradient_checkpointing,
            seed=config.seed,
        )
        self.policy, self.critic = self.models.policy, self.models.critic
        self.vocab_size = vocabulary_size(self.models, tokenizer, exact_kl=config.kl_penalty == "full")
        self.context = shared_context(self.policy, self.models.reference.model, self.critic)
        self.end_ids = end_ids(self.policy, tokenizer) | set(config.stop_token_ids)
        self.reward = None if reward is None else reward_of(config, reward, tokenizer, self.policy)
        self.gold = gold_of(config, gold, tokenizer, self.policy)
        scorers = [scorer for scorer in (self.reward, self.gold) if scorer is not None]
        self.stop = StopSwitch()
        self.presence = Presence(self.models, scorers, self.runtime, self.stop, offload=config.offload_frozen)
        self.references = reference_scores_of(config, self.models, tokenizer, self.end_ids, self.reward)
        self.watch = RunWatch(config.watch)
        self.callbacks = list(callbacks)
        self.prompts, self.eval_prompts, self.prompt_report = load_data(
            config, dataset, eval_dataset, tokenizer, self.context
        )
        self.engine = make_engine(
            config,
            self.models,
            tokenizer,
            self.end_ids,
            context=self.context,
            prompts=(*self.prompts, *self.eval_prompts),
            evaluated=len(self.eval_prompts),
        )
        if config.shard and self.runtime.world_size > 1:
            assert self.identity  # it looks at whole weights
            self.presence.cut_into_shares(optimizer)
        self.optimizer = make_optimizer(config, self.models, optimizer)
        self.lr_scheduler = lr_scheduler
        self.total_steps = config.total_steps(len(self.prompts) or None)
        self._rates = LearningRates(
            self.optimizer, lr_scheduler, config.lr_schedule, config.warmup_steps, self.total_steps
        )
        self.kl_controller = kl_controller_of(config, self.total_steps)
        self.score_scaler = ScoreScaler(centre=config.use_score_norm)
        self.stop_rules = StopRules(
            self.total_steps, config.kl_ceiling, config.target_reward, config.target_reward_evals, config.patience
        )
        self.progress = Progress()
        self.last_experience: Experience | None = None
        self._generate_seconds, self._goes_on = 0.0, False
        self.folder = None if config.output_dir is None else RunFolder(config.output_dir)
        self.faults = FaultRule(config.on_fault, config.max_skipped_updates)
        self._bundles = FaultBundles(config, self.runtime)
        self._symptoms = Symptoms(speak=self.runtime.is_main)
        _advise(config, self.models)

    @classmethod
    def from_config(cls, config: PPOConfig, *, callbacks: Sequence[Callback] = ()) -> "PPOTrainer":
        """Everything by name: models, tokenizer, prompts and rewards of `config` are loaded; for the command line.

        Raises:
            ValueError: a name that is missing or leads nowhere.
        """
        return cls(config, **load_everything(config), callbacks=callbacks)

    # ------------------------------------------------------------------------------------- the step API
    @stage(SAMPLING)
    def generate(self, queries: Sequence[Any], *, num_return_sequences: int = 1, **sampling: Any) -> list[Any]:
        """Answers to `queries`: texts give `Completion`s, 1-D id tensors give id tensors; new tokens only.

        Samples at the config's temperature from the whole vocabulary. With `num_return_sequences` the answers come
        query by query.

        Args:
            queries: texts, or 1-D tensors of token ids.
            num_return_sequences: answers for each query.
            sampling: max_new_tokens, temperature, top_k, top_p, do_sample, stop_strings, stop_token_ids.

        Raises:
            ValueError: empty or too long queries, or ids that the model does not have.
            TypeError: an unknown sampling option.
        """
        began = time.perf_counter()
        answers = answers_to(self, queries, num_return_sequences, sampling)
        self._generate_seconds = time.perf_counter() - began
        if isinstance(queries[0], str | Prompt):
            return list(answers)
        return [torch.tensor(a.token_ids, dtype=torch.long) for a in answers]

    @stage(SAMPLING)
    def generate_ahead(self, queries: Sequence[Any], *, num_return_sequences: int = 1, **sampling: Any) -> None:
        """Asks for what the next `generate` of these queries will give, without waiting; with `overlap`.

        The engine is handed the weights as they are now, and draws from them while `step` moves the policy on.

        Raises:
            ValueError: overlap is not set; or as `generate`.
        """
        if not self.config.overlap:
            raise ValueError("generate_ahead() needs overlap=True, which goes with engine='vllm'")
        began = time.perf_counter()
        ask_ahead(self, queries, num_return_sequences, sampling)
        self._generate_seconds += time.perf_counter() - began

    def step(
        self,
        queries: Sequence[Any],
        responses: Sequence[Any],
        scores: Any,
        response_masks: Sequence[Any] | None = None,
    ) -> StepStats:
        """One PPO step: price, estimate, update. Any number of rows; several processes give a share each.

        Args:
            queries: what was given to `generate`, repeated to match the responses where there are several to each.
            responses: what `generate` returned, or texts, or 1-D id tensors.
            scores: one finite number a response (in any form), or a list of 1-D tensors with one number a token.
            response_masks: for each response, True on the tokens to train on (leave tool output out).

        Raises:
            ValueError: anything that does not fit together; nothing was trained then.
        """
        laps, c = Laps(), self.config
        faults = StepFaults(
            self.faults, self.steps_done + 1, self.runtime, self._bundles.writer(self.steps_done + 1, queries)
        )
        check_counts(queries, responses, scores)
        ids = query_ids(queries, self.tokenizer, self.vocab_size)
        answers = responses_of(
            responses,
            response_masks,
            self.tokenizer,
            ends=self.end_ids,
            stop_strings=c.stop_strings,
            vocab_size=self.vocab_size,
        )
        check_context(ids, [len(a.ids) for a in answers], self.context)
        raw = scores_of(scores, answers, finite=c.on_fault != "drop_sample").to(self.models.device)

        passes = passes_of(c, self.tokens_of_a_pass(), critic_only=self.steps_done < c.critic_warmup_steps)
        seed = derive_seed(c.seed, "order", self.steps_done)
        totals = [len(q) + len(a.ids) for q, a in zip(ids, answers, strict=True)]
        first = [] if self.models.in_shares else first_minibatch(totals, passes, seed=seed, runtime=self.runtime)
        with self.runtime.together(), self.presence.passes():
            rollout, fresh = self._collect(ids, answers, keep=first)
        if c.overlong_filter:
            counted = rollout.response_mask & ~rollout.truncated[:, None]
            rollout = dataclasses.replace(rollout, response_mask=counted)
        rollout, raw = faults.check_rollout(rollout, raw)
        laps.mark("time/ppo/forward_pass")
        shaped = shape_scores(c, raw, rollout, self.score_scaler, self.runtime.all_sum, faults.counted)
        prices = self._prices()
        laps.mark("time/ppo/compute_rewards")
        experience = estimate(
            rollout,
            shaped,
            kl_coef=prices.kl_coef if c.kl_placement == "reward" else 0.0,
            gamma=c.gamma,
            lam=c.lam,
            lam_critic=c.lam_critic,
            lam_length_alpha=c.lam_length_alpha,
            bootstrap_truncated=c.bootstrap_truncated,
            whiten_rewards=c.whiten_rewards,
            whiten_advantages=c.whiten_advantages,
            importance_cap=c.importance_cap,
            importance_level=c.importance_level,
            all_sum=self.runtime.all_sum,
        )
        faults.check_experience(experience)
        laps.mark("time/ppo/compute_advantages")
        with self.runtime.with_all():
            done = update(
                self.models,
                self.optimizer,
                experience,
                losses_of(c, prices.kl_coef),
                passes,
                seed=seed,
                runtime=self.runtime,
                faults=faults,
                fresh=fresh,
            )
        laps.mark("time/ppo/optimize_step")
        stats = step_statistics(experience, shaped, done, prices, self.runtime, faults.counted) | faults.counts
        gone = faults.close(optimizer_steps=done.optimizer_steps)
        rows = self.runtime.offset(len(ids))[1]
        self._advance(stats["objective/kl_per_token"], rows, gone=gone)
        self._symptoms.look(stats, rows)
        self.last_experience = experience
        laps.mark("time/ppo/calc_stats")
        tokens = int(self.runtime.all_sum(rollout.lengths.sum()))
        return StepStats(
            {
                **stats,
                **laps.statistics(self._generate_seconds, tokens),
                "step": self.steps_done,
                "episode": self.episodes_done,
                "memory/peak_gib": peak_memory_gib(self.models.device),
            }
        )

    # ------------------------------------------------------------------------------------- the whole loop
    def train(self) -> TrainResult:
        """The whole loop: prompts, answers, rewards, steps, evaluations, checkpoints, until a stop rule holds."""
        check_ready(self)
        recorder = Recorder(self, self.callbacks)
        try:
            with self.runtime.everybodys():
                recorder.start(self.folder, goes_on=self._goes_on)
                self._goes_on = True
                return Loop(self, recorder).run()
        finally:
            recorder.close()

    def evaluate(self) -> Evaluation:
        """Answers the evaluation prompts, always with the same random numbers, and scores the answers.

        Raises:
            ValueError: there is no reward or no evaluation prompt.
        """
        return evaluation_of(self, self.runtime.together())

    # ------------------------------------------------------------------------------------- saving
    def save(self, path: str | Path) -> None:
        """Writes everything needed to go on exactly into a new folder, which is whole or not there."""
        save_trainer(self, path)

    def restore(
        self, path: str | Path, *, allow_changes: bool = False, allow_topology_change: bool = False
    ) -> list[str]:
        """Goes on from what `save` wrote, in a trainer made from the same starting models and options.

        Args:
            path: the checkpoint's folder.
            allow_changes: go on with options, frozen models or prompts that make another run of it.
            allow_topology_change: go on with another number of processes.

        Returns:
            The options that changed, each in words.

        Raises:
            ValueError: not a checkpoint, or one of another run; nothing was changed then.
        """
        changed = restore_trainer(self, path, allow_changes=allow_changes, allow_topology_change=allow_topology_change)
        self._goes_on = True
        return changed

    @classmethod
    def load(
        cls, path: str | Path, *, allow_changes: bool = False, allow_topology_change: bool = False, **parts: Any
    ) -> "PPOTrainer":
        """A trainer that goes on from what `save` wrote, with the options that are in the checkpoint.

        Args:
            path: the checkpoint's folder.
            allow_changes: as in `restore`.
            allow_topology_change: as in `restore`.
            parts: what the trainer was made from beside its config: model (as it started), tokenizer, reward, ...
                What is left out is loaded by the name that the options have for it; but never a reward, so that
                loading a checkpoint runs no code.

        Raises:
            ValueError: not a checkpoint, one of another run, or a part that is needed was not given.
        """
        config, identity = read_options(path)
        trainer = cls(config, **load_parts(config, parts, prompts=identity["dataset"] != prompts_digest(())))
        trainer.restore(path, allow_changes=allow_changes, allow_topology_change=allow_topology_change)
        return trainer

    def save_model(self, path: str | Path) -> None:
        """Writes policy and tokenizer so that AutoModelForCausalLM loads them, and the critic in critic/ beside."""
        save_models(self.models, self.tokenizer, Path(path), is_main=self.runtime.is_main)

    @functools.cached_property
    def identity(self) -> Mapping[str, str]:
        """Digests of what never changes in a run: frozen weights, reward models, prompts."""
        return identity_of(self.models, self.reward, self.gold, self.prompts, self.eval_prompts)

    steps_done: int = property(lambda self: self.progress.steps)  # type: ignore[assignment]
    episodes_done: int = property(lambda self: self.progress.episodes)  # type: ignore[assignment]

    # ------------------------------------------------------------------------------------- parts
    @stage(SCORING)
    def _collect(
        self, ids: Sequence[Sequence[int]], responses: Sequence[Response], keep: Sequence[int] = ()
    ) -> tuple[Rollout, Fresh | None]:
        c = self.config
        with self.presence.frozen():
            return collect(self.models, ids, responses, temperature=c.temperature, kl_penalty=c.kl_penalty, keep=keep)

    def tokens_of_a_pass(self) -> int | None:
        """The bound on a forward and backward pass. "auto" is made out once, and stays with the run."""
        limit = self.config.max_tokens_per_microbatch
        if limit != "auto":
            return limit
        if self.progress.max_tokens is None:
            from surefoot.needs import tokens_that_fit  # it loads much of PyTorch that nothing else needs

            self.progress.max_tokens = tokens_that_fit(self.config, self.models, self.prompts, self.runtime)
        return self.progress.max_tokens

    def _prices(self) -> Prices:
        """Sets this step's learning rates and says what is in force."""
        rates = self._rates.at(self.steps_done - self.faults.skipped_steps)
        return Prices(self.kl_controller.value, self.kl_controller.target, rates[0], rates[-1])

    def _advance(self, kl_per_token: float, episodes: int, *, gone: bool) -> None:
        """Counts the step; price and learning rate move only where something of it was learned."""
        if not gone:
            self.kl_controller.update(kl_per_token, episodes)
            self._rates.advance()
        self.progress.steps += 1
        self.progress.episodes += episodes


def _advise(config: PPOConfig, models: ActorCritic) -> None:
    for sentence in config.advice(sum(p.numel() for p in models.policy.parameters())):
        warnings.warn(sentence, stacklevel=3)
    if models.device.type == "cpu":
        warn_of_spinning(torch.get_num_threads())

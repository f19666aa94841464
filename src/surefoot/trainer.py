"""PPOTrainer: the only object with state. `train` is written with `generate`, the rewards and `step` alone."""

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surefoot.assemble import assemble, lora_config
from surefoot.callbacks import Callback, Evaluation, TrainResult
from surefoot.checkpoint import read_checkpoint, write_checkpoint
from surefoot.config import PPOConfig
from surefoot.controllers import ScoreScaler, learning_rate_factor
from surefoot.engine.transformers import TransformersEngine
from surefoot.estimate import estimate
from surefoot.inputs import check_context, check_counts, query_ids, responses_of, scores_of
from surefoot.loading import context_length, end_ids
from surefoot.ops.seeds import derive_seed
from surefoot.prompts import PromptOrder
from surefoot.recorder import Recorder, sample_records
from surefoot.rewards import RewardMix, make_reward
from surefoot.rollout import Response, collect
from surefoot.rows import Fresh
from surefoot.runtime import Runtime, free_memory_bytes, peak_memory_gib
from surefoot.saving import save_critic, save_policy
from surefoot.setup import (
    kl_controller_of,
    load_data,
    load_everything,
    losses_of,
    make_optimizer,
    offload_of,
    passes_of,
    sampling_of,
    shape_scores,
    use_bfloat16,
)
from surefoot.snapshot import generator_states, pack, restore_generators, unpack
from surefoot.stages import SAMPLING, SCORING, stage
from surefoot.statistics import Laps, Prices, evaluation_metrics, reward_statistics, step_statistics
from surefoot.stopping import StopRules
from surefoot.threads import warn_of_spinning
from surefoot.tracking import RunFolder
from surefoot.types import Experience, Prompt, Rollout, StepStats
from surefoot.update import first_minibatch, update

__all__ = ["Callback", "Evaluation", "PPOTrainer", "TrainResult"]


class PPOTrainer:
    """PPO for a causal language model, by hand (`generate`, `step`) or as a whole (`train`).

    Args:
        config: the options.
        model: the policy, any causal language model of transformers, with or without a LoRA adapter; trained in place.
        ref_model: the frozen reference. None: the policy as it starts.
        tokenizer: the policy's.
        reward: for `train`: a function, a reward model, "module:function", a folder, or a list of these.
        value_model: a model of its own for the critic (any transformers model, for instance the reward model).
        dataset, eval_dataset: for `train`: a file, a hub name, rows, texts or a `datasets` object.
        optimizer: an optimizer over the policy's parameters (the critic's are added to it), or a function that makes
            one from the list of all trainable parameters. None: AdamW.
        lr_scheduler: a torch scheduler of that optimizer, stepped once a step; it replaces lr_schedule.
        peft_config: a LoraConfig for a new adapter on the policy.
        callbacks: watchers of `train`.

    Attributes:
        policy: the model that was passed in (within its adapter, if one was added). critic: value head or value model.
        steps_done, episodes_done: counts so far.

    Raises:
        ValueError: models, tokenizer and options that do not fit together.
    """

    last_experience: Experience | None = None
    last_evaluation: Evaluation | None = None
    _auto_tokens: int | None = None

    def __init__(
        self,
        config: PPOConfig,
        model: Any,
        ref_model: Any = None,
        tokenizer: Any = None,
        *,
        reward: Any = None,
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
        if peft_config is None and config.lora_r > 0:
            peft_config = lora_config(config.lora_r, config.lora_alpha)
        self.config = config
        self.tokenizer = tokenizer
        self.runtime = Runtime()
        device = next(model.parameters()).device if isinstance(model, nn.Module) else torch.device("cpu")
        self.models = assemble(
            model,
            ref_model,
            value_model,
            peft_config=peft_config,
            critic=config.critic,
            bfloat16=use_bfloat16(config.precision, device),
            gradient_checkpointing=config.gradient_checkpointing,
            seed=config.seed,
        )
        self.policy, self.critic = self.models.policy, self.models.critic
        self.vocab_size = self.policy.get_output_embeddings().weight.shape[0]  # type: ignore[operator]
        if len(tokenizer) > self.vocab_size:
            raise ValueError(
                f"the tokenizer has {len(tokenizer)} tokens but the model only {self.vocab_size}: they do not belong "
                "together, or the model's embeddings were not resized"
            )
        self.context = context_length(self.policy)
        self.end_ids = end_ids(self.policy, tokenizer) | set(config.stop_token_ids)
        self.engine = TransformersEngine(self.policy, tokenizer, self.end_ids, autocast=self.models.sampling)
        self.reward: RewardMix | None = None
        if reward is not None:
            special = tokenizer.all_special_tokens
            self.reward = make_reward(reward, config.reward_weights, special_tokens=special)
        self._frozen = offload_of(config, self.models, self.reward)
        self.callbacks = list(callbacks)
        self.prompts, self.eval_prompts, self.prompt_report = load_data(
            config, dataset, eval_dataset, tokenizer, self.context
        )
        self.optimizer = make_optimizer(config, self.models, optimizer)
        self.lr_scheduler = lr_scheduler
        self._base_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.total_steps = config.total_steps(len(self.prompts) or None)
        self.kl_controller = kl_controller_of(config, self.total_steps)
        self.score_scaler = ScoreScaler(centre=config.use_score_norm)
        self.stop_rules = StopRules(
            self.total_steps, config.kl_ceiling, config.target_reward, config.target_reward_evals, config.patience
        )
        self.steps_done = self.episodes_done = self._position = self._generate_calls = 0
        self._generate_seconds = 0.0
        self.folder = None if config.output_dir is None else RunFolder(config.output_dir)
        parameters = sum(p.numel() for p in self.policy.parameters())
        for sentence in config.advice(parameters):
            warnings.warn(sentence, stacklevel=2)
        if self.models.device.type == "cpu":
            warn_of_spinning(torch.get_num_threads())

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
        how = sampling_of(self.config, sampling)
        ids = query_ids(queries, self.tokenizer, self.vocab_size)
        check_context(ids, [how.max_new_tokens] * len(ids), self.context)
        repeated = [row for row in ids for _ in range(num_return_sequences)]
        first, _ = self.runtime.offset(len(repeated))
        seeds = [
            derive_seed(self.config.seed, "sample", self._generate_calls, first + i) for i in range(len(repeated))
        ]
        self._generate_calls += 1
        answers = self.engine.generate(repeated, seeds, how)
        self._generate_seconds = time.perf_counter() - began
        if isinstance(queries[0], str | Prompt):
            return list(answers)
        return [torch.tensor(a.token_ids, dtype=torch.long) for a in answers]

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
        raw = scores_of(scores, answers).to(self.models.device)

        passes = passes_of(c, self.tokens_of_a_pass(), critic_only=self.steps_done < c.critic_warmup_steps)
        seed = derive_seed(c.seed, "order", self.steps_done)
        totals = [len(q) + len(a.ids) for q, a in zip(ids, answers, strict=True)]
        first = first_minibatch(totals, passes, seed=seed, runtime=self.runtime)
        rollout, fresh = self._collect(ids, answers, keep=first)
        if c.overlong_filter:
            counted = rollout.response_mask & ~rollout.truncated[:, None]
            rollout = dataclasses.replace(rollout, response_mask=counted)
        laps.mark("time/ppo/forward_pass")
        shaped = shape_scores(c, raw, rollout, self.score_scaler, self.runtime.all_sum)
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
            all_sum=self.runtime.all_sum,
        )
        laps.mark("time/ppo/compute_advantages")
        done = update(
            self.models,
            self.optimizer,
            experience,
            losses_of(c, prices.kl_coef),
            passes,
            seed=seed,
            runtime=self.runtime,
            fresh=fresh,
        )
        laps.mark("time/ppo/optimize_step")
        stats = step_statistics(experience, shaped, done, prices, self.runtime)
        self._advance(stats["objective/kl_per_token"], self.runtime.offset(len(ids))[1])
        self.last_experience = experience
        laps.mark("time/ppo/calc_stats")
        tokens = int(self.runtime.all_sum(rollout.lengths.sum()))
        return StepStats(
            {
                **stats,
                **laps.seconds,
                "step": self.steps_done,
                "episode": self.episodes_done,
                "time/ppo/total": laps.total,
                "time/step": laps.total,
                "time/generate": self._generate_seconds,
                "time/tokens_per_second": tokens / (laps.total + self._generate_seconds),
                "memory/peak_gib": peak_memory_gib(self.models.device),
            }
        )

    # ------------------------------------------------------------------------------------- the whole loop
    def train(self) -> TrainResult:
        """The whole loop: prompts, answers, rewards, steps, evaluations, checkpoints, until a stop rule holds."""
        reward = self._ready()
        recorder = Recorder(self, self.callbacks)
        try:
            recorder.start(self.folder)
            return self._loop(reward, recorder)
        finally:
            recorder.close()

    def _loop(self, reward: RewardMix, recorder: Recorder) -> TrainResult:
        c = self.config
        reason = None if self.steps_done else self._evaluated(recorder)
        while reason is None:
            prompts = self._next_prompts()
            responses = self.generate(prompts, num_return_sequences=c.num_generations)
            repeated = [p for p in prompts for _ in range(c.num_generations)]
            began = time.perf_counter()
            reward.set_step(self.steps_done)
            with self._asking():
                scored = reward(repeated, responses)
            seconds = time.perf_counter() - began
            stats = self.step(repeated, responses, scored.scores)
            stats = StepStats({**stats, **reward_statistics(scored.parts, scored.metrics), "time/score": seconds})
            reason = recorder.step(
                stats, sample_records(self.steps_done, repeated, responses, scored, self._rollout())
            )
            reason = reason or self.stop_rules.after_step(self.steps_done, stats["objective/kl_per_token"])
            if reason is not None or self.steps_done % c.eval_every == 0:
                reason = self._evaluated(recorder) or reason
            if c.save_every and self.steps_done % c.save_every == 0:
                recorder.checkpoint()
        return recorder.end(reason)

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Answers the evaluation prompts, always with the same random numbers, and scores the answers.

        Raises:
            ValueError: there is no reward or no evaluation prompt.
        """
        if self.reward is None or not self.eval_prompts:
            raise ValueError(
                "an evaluation needs reward and evaluation prompts (eval_dataset, or eval_prompts of dataset)"
            )
        mine = self.runtime.share(self.eval_prompts)
        seeds = [derive_seed(self.config.seed, "evaluate", p.index) for p in mine]
        answers = self.engine.generate([p.token_ids for p in mine], seeds, sampling_of(self.config, {}))
        with self._asking():
            scored = self.reward(mine, answers)
        responses = [
            Response(a.token_ids, [True] * len(a.token_ids), a.logprobs, a.finish_reason == "length") for a in answers
        ]
        rollout, _ = self._collect([list(p.token_ids) for p in mine], responses)
        records = sample_records(self.steps_done, mine, answers, scored, rollout)
        samples = self.runtime.gather(records)
        return Evaluation(self.steps_done, self.episodes_done, evaluation_metrics(samples), samples)

    # ------------------------------------------------------------------------------------- saving
    def save(self, path: str | Path) -> None:
        """Writes everything needed to go on exactly: weights, critic, optimizer, controllers, counters, position."""
        tensors, state = pack(self.models.trainable(), self.optimizer, self._stateful())
        state["counters"] = {name: getattr(self, name) for name in _COUNTERS}
        state["generators"] = self.runtime.gather([generator_states()])
        last = self.last_evaluation
        score = last.score if last is not None and last.step == self.steps_done and math.isfinite(last.score) else None
        about = {"step": self.steps_done, "world_size": self.runtime.world_size, "score": score}
        with self.runtime.together():
            if self.runtime.is_main:
                write_checkpoint(path, tensors, state, about)

    def restore(self, path: str | Path) -> None:
        """Goes on from what `save` wrote, in a trainer made from the same starting models and options.

        Raises:
            ValueError: not a checkpoint, or one of other models.
        """
        tensors, state, _ = read_checkpoint(path)
        unpack(tensors, state, self.models.trainable(), self.optimizer, self._stateful())
        restore_generators(state["generators"][self.runtime.rank])
        for name in _COUNTERS:
            setattr(self, name, state["counters"][name])

    def save_model(self, path: str | Path) -> None:
        """Writes policy and tokenizer so that AutoModelForCausalLM loads them, and the critic in critic/ beside."""
        if self.runtime.is_main:
            save_policy(self.policy, self.tokenizer, Path(path))
            save_critic(self.models, Path(path).parent / "critic")

    # ------------------------------------------------------------------------------------- parts
    @stage(SCORING)
    def _collect(
        self, ids: Sequence[Sequence[int]], responses: Sequence[Response], keep: Sequence[int] = ()
    ) -> tuple[Rollout, Fresh | None]:
        c = self.config
        with self._asking():
            return collect(self.models, ids, responses, temperature=c.temperature, kl_penalty=c.kl_penalty, keep=keep)

    def _asking(self) -> AbstractContextManager[None]:
        """The context in which frozen models are there to be asked."""
        return nullcontext() if self._frozen is None else self._frozen.present()

    def tokens_of_a_pass(self) -> int | None:
        """The bound on a forward and backward pass. "auto" is made out once a run; checkpoints hold what it was."""
        limit, c, device = self.config.max_tokens_per_microbatch, self.config, self.models.device
        if limit != "auto":
            return limit
        if self._auto_tokens is None:
            from surefoot.needs import tokens_for_models  # it loads much of PyTorch that nothing else needs

            found = tokens_for_models(
                c,
                self.models,
                [len(p.token_ids) for p in self.prompts],
                free_memory_bytes(device) // (self.runtime.world_size if device.type == "cpu" else 1),
                bfloat16=use_bfloat16(c.precision, device),
                processes=self.runtime.world_size,
            )
            self._auto_tokens = -self.runtime.all_max(-found)
        return self._auto_tokens

    def _prices(self) -> Prices:
        """Sets this step's learning rates and says what is in force."""
        c = self.config
        if self.lr_scheduler is None:
            factor = learning_rate_factor(
                self.steps_done, schedule=c.lr_schedule, warmup_steps=c.warmup_steps, total_steps=self.total_steps
            )
            for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
                group["lr"] = rate * factor
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        return Prices(self.kl_controller.value, self.kl_controller.target, rates[0], rates[-1])

    def _advance(self, kl_per_token: float, episodes: int) -> None:
        self.kl_controller.update(kl_per_token, episodes)
        if self.lr_scheduler is not None:
            self.lr_scheduler.step()
        self.steps_done += 1
        self.episodes_done += episodes

    # ------------------------------------------------------------------------------------- parts of train
    def _ready(self) -> RewardMix:
        if self.reward is None:
            raise ValueError("train() needs reward: a function, a reward model, or a list of them")
        if not self.prompts:
            raise ValueError("train() needs dataset: a file, a hub name, or a list of prompts")
        return self.reward

    def _next_prompts(self) -> list[Prompt]:
        order = PromptOrder(len(self.prompts), self.config.seed)
        chosen = order.take(self._position, self.config.prompts_per_step)
        self._position += len(chosen)
        return self.runtime.share([self.prompts[i] for i in chosen])

    def _stateful(self) -> dict[str, Any]:
        parts = {"kl_controller": self.kl_controller, "score_scaler": self.score_scaler, "stop_rules": self.stop_rules}
        return parts if self.lr_scheduler is None else parts | {"lr_scheduler": self.lr_scheduler}

    def _rollout(self) -> Rollout:
        assert self.last_experience is not None
        return self.last_experience.rollout

    def _evaluated(self, recorder: Recorder) -> str | None:
        """Evaluates where there are evaluation prompts, tells everybody, and asks the stop rules."""
        if not self.eval_prompts:
            return None
        self.last_evaluation = self.evaluate()
        asked = recorder.evaluation(self.last_evaluation)
        return asked or self.stop_rules.after_evaluation(self.last_evaluation.score)


_COUNTERS = ("steps_done", "episodes_done", "_position", "_generate_calls", "_auto_tokens")

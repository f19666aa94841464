"""Every option of a PPO run: one frozen dataclass, checked when it is made. No torch in here.

The names are the classic ones wherever a classic one exists; the defaults are the values we recommend for a
small model. `PPOConfig.recommended(num_parameters)` adapts them to a model's size, and `PPOConfig.advice`
says in words which values lie far outside what is known to work.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from surefoot import advice, limits, options
from surefoot.options import Options, Range, check_range, strict_options

KLPenalty = Literal["kl", "k1", "abs", "mse", "k2", "k3", "full"]


@strict_options
@dataclass(frozen=True, kw_only=True)
class PPOConfig(Options):
    """The options of a PPO run. `B` below is `batch_size` responses, gathered over all processes.

    Raises:
        TypeError: an unknown or retired option name (the message names its successor).
        ValueError: a value outside its range, or two options that contradict each other.
    """

    COMMAND: ClassVar[str] = "ppo"
    SECTIONS: ClassVar[Mapping[str, str]] = {
        "model_name": "Models",
        "dataset": "Prompts",
        "num_generations": "Sampling",
        "reward": "Rewards",
        "init_kl_coef": "KL price",
        "batch_size": "Batches",
        "cliprange": "PPO",
        "gamma": "Advantages",
        "learning_rate": "Optimiser",
        "on_fault": "Faults",
        "total_episodes": "Run",
    }
    RANGES: ClassVar[Mapping[str, Range]] = limits.RANGES
    RETIRED: ClassVar[Mapping[str, str]] = options.RETIRED

    # ------------------------------------------------------------------------------------------ Models
    model_name: str | None = None
    """The policy: a folder or a hub name. Needed by the command line; a label only when a model object is given."""
    ref_model_name: str | None = None
    """The reference. None: a frozen copy of the policy as it starts (with LoRA: the policy without its adapter)."""
    adapter_name: str | None = None
    """A LoRA adapter (folder or hub name) that the policy starts from; the reference is that adapter as it was."""
    lora_r: int = 0
    """Rank of a new LoRA adapter on the policy. 0 trains all weights."""
    lora_alpha: int = 32
    """LoRA scaling numerator: the adapter's output is multiplied by lora_alpha / lora_r."""
    critic: Literal["head", "adapter", "model"] = "head"
    """Value function: a head on the policy's trunk, a LoRA adapter of its own on the shared base, or its own model."""
    value_model_name: str | None = None
    """With critic="model": where it starts from, for instance the reward model. None: a copy of the policy."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the passes; master weights stay float32. auto: bfloat16 autocast on a GPU, float32 on a CPU."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third more time for much less memory."""
    offload_frozen: bool = False
    """Keep reference and reward models off the device while they are not asked: less memory, the same numbers."""
    shard: bool = False
    """Each of several processes keeps a share of all weights, gradients and moments (FSDP2) instead of all of them."""
    chat_template: str | None = None
    """A Jinja file that replaces the tokenizer's chat template."""

    # ------------------------------------------------------------------------------------------ Prompts
    dataset: str | None = None
    """Prompts: a .jsonl, .json, .csv, .parquet or .txt file, or a hub name (name:split)."""
    eval_dataset: str | None = None
    """Prompts of the evaluations, in any of the same forms. None: eval_prompts rows held out of dataset."""
    eval_prompts: int = 32
    """How many prompts an evaluation answers (one answer each). 0 switches evaluation off."""
    prompt_column: str | None = None
    """Column that holds the prompt. None: detected, and the detection is printed."""
    prompt_template: str | None = None
    """Format of plain-text prompts, with {prompt} and any other column in braces."""
    max_prompt_tokens: int | None = None
    """Longest prompt in tokens. None: what the model's context leaves beside max_new_tokens."""
    overlong_prompts: Literal["error", "drop", "truncate_left"] = "drop"
    """What happens to longer prompts. Dropped rows are counted and reported."""

    # ------------------------------------------------------------------------------------------ Sampling
    num_generations: int = 1
    """Answers sampled for each prompt. batch_size counts answers."""
    max_new_tokens: int = 128
    """Longest answer in tokens; one that reaches it without an end is called truncated."""
    temperature: float = 1.0
    """Sampling temperature; log-probabilities of policy and reference are those of the same tempered distribution."""
    stop_strings: tuple[str, ...] = ()
    """An answer ends at the token that completes any of these, as if it were an end of sequence."""
    stop_token_ids: tuple[int, ...] = ()
    """Token ids that end an answer, beside the model's own end-of-sequence ids."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What draws answers: the policy itself, or vLLM in a process of its own (docs/vllm.md)."""
    vllm_python: str | None = None
    """With engine="vllm": the Python of the environment that vLLM is installed in. None: the one that runs this."""
    importance_cap: float | None = None
    """What a token may count in the policy loss for being likelier than its sampler said. None: all count 1."""
    importance_level: Literal["token", "sequence"] = "token"
    """With importance_cap: whose likelihood counts, each token's or that of the whole answer."""
    overlap: bool = False
    """With engine="vllm": draw the next step's answers while this one is made; they come from weights a step old."""

    # ------------------------------------------------------------------------------------------ Rewards
    reward: tuple[str, ...] = ()
    """What scores an answer: module:function, file.py:function, a classifier's folder or hub name, or an address."""
    reward_weights: tuple[float, ...] = ()
    """One weight a reward, in the same order. Empty: every weight is 1."""
    gold: tuple[str, ...] = ()
    """Better scorers, in the forms of reward, that nothing is trained on: they score every evaluation. See watch."""
    reward_ensemble: Literal["sum", "mean", "min", "uncertainty"] = "sum"
    """How weighted rewards become one: sum, mean, worst case (min), or mean less uncertainty_coef times variance."""
    uncertainty_coef: float = 0.5
    """With reward_ensemble="uncertainty": price of the variance between the rewards of one answer."""
    reward_shaping: Literal["none", "center", "sigmoid"] = "none"
    """center: less what an answer of the reference to the same prompt scores. sigmoid: that, between 0 and 1 (PAR)."""
    length_penalty: float = 0.0
    """Subtracted from an answer's score for each of its tokens, after scaling and clipping."""
    missing_eos_penalty: float = 0.0
    """Subtracted from the score of an answer that was cut off before its end."""
    overlong_filter: bool = False
    """Leave truncated answers out of the loss instead of judging them."""
    use_score_scaling: bool = False
    """Divide scores by their running standard deviation (kept in checkpoints)."""
    use_score_norm: bool = False
    """With use_score_scaling: subtract the running mean as well."""
    score_clip: float | None = None
    """Clip scores to [-score_clip, score_clip], after scaling."""
    whiten_rewards: bool = False
    """Scale token rewards to variance 1 (their mean is kept) before advantages are estimated."""

    # ------------------------------------------------------------------------------------------ KL price
    init_kl_coef: float = 0.1
    """Price of one nat of divergence from the reference at the first step."""
    kl_penalty: KLPenalty = "kl"
    """What is priced, per token: kl = k1 (unbiased), abs, mse = k2, k3, or full (exact, over the vocabulary)."""
    kl_placement: Literal["reward", "loss"] = "reward"
    """reward: subtracted from token rewards. loss: added to the loss as k2, the estimator with the right gradient."""
    kl_controller: Literal["adaptive", "fixed", "linear", "cosine"] = "adaptive"
    """adaptive steers to target_kl; linear and cosine move the coefficient to final_kl_coef over the run."""
    target_kl: float = 0.1
    """Divergence from the reference that the adaptive controller steers to, in nats per response token."""
    final_target_kl: float | None = None
    """Where target_kl ends, moving linearly over the run. None: it stays."""
    final_kl_coef: float | None = None
    """Where the coefficient ends under the linear and cosine controllers."""
    horizon: float = 10_000.0
    """Episodes over which the adaptive controller may change the coefficient by a fifth of itself."""
    early_stop_kl: float | None = None
    """End the epochs of an update when the k3 divergence of new from old policy exceeds this, before it steps."""
    kl_ceiling: float | None = None
    """End the run when the divergence from the reference exceeds this, in nats per response token."""

    # ------------------------------------------------------------------------------------------ Batches
    batch_size: int = 64
    """Answers a step is computed from."""
    mini_batch_size: int = 16
    """Answers of one forward and backward pass, unless max_tokens_per_microbatch is set."""
    gradient_accumulation_steps: int = 1
    """Minibatches whose gradients make one optimizer step."""
    max_tokens_per_microbatch: int | Literal["auto"] | None = None
    """Tokens of one pass, padding included; "auto": what memory has room for. Never changes the gradients."""

    # ------------------------------------------------------------------------------------------ PPO
    ppo_epochs: int = 4
    """How often an update goes through its batch."""
    cliprange: float = 0.2
    """The ratio of new to old probability is clipped to [1 - cliprange, 1 + cliprange]."""
    cliprange_high: float | None = None
    """Upper clip distance where it differs from the lower one. None: cliprange."""
    dual_clip: float | None = None
    """Bound on the loss of tokens with negative advantage, as a multiple of it (greater than 1; usual: 3)."""
    cliprange_value: float | None = 0.2
    """Values may move this far from the old ones per update, in reward units. None: no limit."""
    vf_coef: float = 0.1
    """Weight of the value loss beside the policy loss."""
    entropy_coef: float = 0.0
    """Bonus on the mean token entropy of the tempered policy."""
    ratio_threshold: float | None = 10.0
    """A minibatch whose mean ratio exceeds this is left out: no optimizer step is taken on it. None: never."""
    critic_warmup_steps: int = 0
    """First steps in which only the critic learns."""
    critic_epochs: int = 1
    """Passes of the critic through the batch for each pass of the policy."""

    # ------------------------------------------------------------------------------------------ Advantages
    gamma: float = 1.0
    """Discount per token."""
    lam: float = 0.95
    """GAE's lambda: 1 trusts returns (high variance), 0 trusts the critic (high bias)."""
    lam_critic: float | None = None
    """Lambda of the critic's targets where it differs (1.0 = plain returns). None: lam."""
    lam_length_alpha: float | None = None
    """Length-adaptive lambda of the policy: 1 - 1 / (alpha * length), held within [0, 1]. None: lam."""
    bootstrap_truncated: bool = False
    """Continue truncated answers with the critic's value of their last state instead of 0."""
    whiten_advantages: bool = True
    """Shift advantages to mean 0 and scale them to variance 1 over all counted tokens of the batch."""

    # ------------------------------------------------------------------------------------------ Optimiser
    learning_rate: float = 1e-6
    """Learning rate of the policy (AdamW with betas 0.9, 0.95 and epsilon 1e-5; or the trainer's optimizer)."""
    critic_learning_rate: float | None = None
    """Learning rate of the critic's own parameters. None: learning_rate; for a mere head 100 times it, up to 1e-3."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Course of both learning rates over the run; linear and cosine end at 0."""
    warmup_steps: int = 0
    """Steps over which the learning rates rise linearly from 0."""
    eight_bit_adam: bool = False
    """Adam's moments in 8 bits: a quarter of their memory, other roundings. Needs the extra 8bit (bitsandbytes)."""
    max_grad_norm: float | None = 1.0
    """Gradients are scaled to this norm at every optimizer step. None: not clipped."""

    # ------------------------------------------------------------------------------------------ Faults
    on_fault: Literal["stop", "skip", "drop_sample"] = "stop"
    """What is NaN or infinite ends the run, or (skip) no step is taken, or (drop_sample) its answers are left out."""
    max_skipped_updates: int = 3
    """With on_fault=skip: how many updates in a row may be left out before the run ends."""

    # ------------------------------------------------------------------------------------------ Run
    total_episodes: int | None = None
    """Answers after which the run ends."""
    steps: int | None = None
    """Steps after which the run ends. With neither this nor total_episodes: one pass through the prompts."""
    eval_every: int = 10
    """Steps between evaluations; one is made before the first step and one at the end."""
    target_reward: float | None = None
    """Evaluation score that ends the run when it is held..."""
    target_reward_evals: int = 2
    """...for so many evaluations in a row."""
    patience: int | None = None
    """End the run after so many evaluations without a better score. None: never."""
    watch: Literal["off", "warn", "raise_kl", "stop_and_restore"] = "warn"
    """Over-optimisation: warn in words; or, where gold falls, double the KL price, or stop and save the best model."""
    save_every: int = 10
    """Steps between checkpoints: what a kill may cost (a signal saves). 0: only at the end."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept; the best evaluation's, by gold where there is gold, is kept beside them."""
    output_dir: str | None = None
    """Folder of the run. None: the step API writes nothing, the command line makes runs/<model>-<time>."""
    log_with: str | None = None
    """A tracker beside the run's own files: tensorboard, wandb, trackio, or any other that accelerate knows."""
    seed: int = 0
    """Seed of every generator of the run; nothing global is seeded."""

    # -------------------------------------------------------------------------------------- derived
    @property
    def rows_per_optimizer_step(self) -> int:
        """Answers whose gradients make one optimizer step: mini_batch_size x gradient_accumulation_steps."""
        return self.mini_batch_size * self.gradient_accumulation_steps

    @property
    def optimizer_steps_per_step(self) -> int:
        """Optimizer steps of one full update: ppo_epochs x ceil(batch_size / rows_per_optimizer_step)."""
        return self.ppo_epochs * math.ceil(self.batch_size / self.rows_per_optimizer_step)

    @property
    def clip_high(self) -> float:
        """Upper clip distance of the ratio."""
        return self.cliprange if self.cliprange_high is None else self.cliprange_high

    @property
    def prompts_per_step(self) -> int:
        """Prompts of one step: batch_size / num_generations."""
        return self.batch_size // self.num_generations

    def total_steps(self, num_prompts: int | None = None) -> int | None:
        """Steps of the whole run; None where neither options nor the number of prompts tell."""
        ends = [] if self.steps is None else [self.steps]
        if self.total_episodes is not None:
            ends.append(math.ceil(self.total_episodes / self.batch_size))
        if not ends and num_prompts is not None:
            ends.append(max(1, num_prompts // self.prompts_per_step))
        return min(ends) if ends else None

    # -------------------------------------------------------------------------------------- checks
    def __post_init__(self) -> None:
        super().__post_init__()
        for weight in self.reward_weights:
            check_range("reward_weights", weight, -1e300, 1e300, False)

    def refusals(self) -> Collection[tuple[bool, str]]:
        """Combinations that contradict themselves."""
        return (
            (
                self.batch_size % self.num_generations != 0,
                f"batch_size={self.batch_size} is not a multiple of num_generations={self.num_generations}: "
                "batch_size counts answers, num_generations of them for each prompt",
            ),
            (
                self.rows_per_optimizer_step > self.batch_size,
                f"mini_batch_size={self.mini_batch_size} x "
                f"gradient_accumulation_steps={self.gradient_accumulation_steps} is more than "
                f"batch_size={self.batch_size}: make them smaller",
            ),
            (
                self.use_score_norm and not self.use_score_scaling,
                "use_score_norm acts only with use_score_scaling=True: switch that on too",
            ),
            (
                self.kl_placement == "loss" and self.kl_penalty not in ("kl", "k2", "mse"),
                f"kl_placement='loss' always uses k2, so kl_penalty={self.kl_penalty!r} is idle: leave it out",
            ),
            (
                self.kl_controller in ("linear", "cosine") and self.final_kl_coef is None,
                f"kl_controller={self.kl_controller!r} needs final_kl_coef, where the coefficient ends",
            ),
            (
                self.kl_controller in ("adaptive", "fixed") and self.final_kl_coef is not None,
                f"final_kl_coef is not used by kl_controller={self.kl_controller!r}: choose 'linear' or 'cosine'",
            ),
            (
                self.kl_controller != "adaptive" and self.final_target_kl is not None,
                "final_target_kl moves the adaptive controller's target: choose kl_controller='adaptive'",
            ),
            (
                self.value_model_name is not None and self.critic != "model",
                f"value_model_name is used with critic='model', not critic={self.critic!r}",
            ),
            (
                self.shard and self.offload_frozen,
                "shard and offload_frozen each say where frozen weights are while nobody asks them: choose one",
            ),
            (
                self.shard and self.reward_shaping != "none",
                "reward_shaping asks the reference for answers, and shard keeps it in shares: leave one out",
            ),
            (
                self.shard and self.engine == "vllm",
                "engine='vllm' is handed whole weights, and shard keeps them in shares: leave one out",
            ),
            (
                self.shard and self.eight_bit_adam,
                "eight_bit_adam cannot read weights in shares: leave it or shard out",
            ),
            (
                self.lora_r > 0 and self.adapter_name is not None,
                "lora_r makes a new adapter and adapter_name starts from one: give one of the two",
            ),
            (
                bool(self.reward_weights) and len(self.reward_weights) != len(self.reward),
                f"{len(self.reward)} rewards but {len(self.reward_weights)} reward_weights: give one weight for each",
            ),
            (
                len(self.reward) == 1 and self.reward_ensemble != "sum",
                f"reward_ensemble={self.reward_ensemble!r} needs several rewards, and there is one: leave it out",
            ),
            (
                bool(set(self.gold) & set(self.reward)),
                f"gold={min({*self.gold} & {*self.reward}, default='')!r} is the reward that PPO is trained on, so "
                "it cannot say whether the model got better or only better scored: name another scorer",
            ),
            (
                self.eval_prompts == 0 and bool(self.gold),
                "gold scores evaluations, and eval_prompts=0 switches them off: leave one of the two out",
            ),
            (
                self.eval_prompts == 0 and self.watch in ("raise_kl", "stop_and_restore"),
                f"watch={self.watch!r} acts on evaluations, and eval_prompts=0 switches them off: leave one out",
            ),
            (
                self.dual_clip is not None and self.dual_clip <= 1,
                f"dual_clip={self.dual_clip} must be greater than 1 (usual: 3)",
            ),
            (
                self.vllm_python is not None and self.engine != "vllm",
                f"vllm_python is used with engine='vllm', not engine={self.engine!r}",
            ),
            (
                self.overlap and self.engine != "vllm",
                f"overlap is used with engine='vllm', not engine={self.engine!r}",
            ),
            (
                self.importance_level != "token" and self.importance_cap is None,
                f"importance_level={self.importance_level!r} acts only with importance_cap (usual: 2)",
            ),
            (
                self.prompt_template is not None and "{" not in self.prompt_template,
                "prompt_template has no {prompt} in it: every prompt would be the same text",
            ),
        )

    # -------------------------------------------------------------------------------------- advice
    @classmethod
    def recommended(cls, num_parameters: int, **changes: Any) -> "PPOConfig":
        """Our recommended options for a policy of `num_parameters` weights, with `changes` on top.

        The learning rate falls from 2e-6 for the smallest models to 5e-7 for the largest, the clip range from 0.2
        to 0.1, the epochs from 4 to 1; the KL price starts larger than the classic 0.1 where a model is small and
        drifts easily. A LoRA adapter bears ten times the learning rate. Sources: docs/details.md.
        """
        adapter = bool(changes.get("lora_r") or changes.get("adapter_name"))
        return cls(**(advice.values_for(num_parameters, adapter=adapter) | changes))

    def advice(self, num_parameters: int) -> list[str]:
        """One plain sentence for each value that lies far outside what is known to work at this size."""
        adapter = self.lora_r > 0 or self.adapter_name is not None
        return advice.sentences({name: getattr(self, name) for name in advice.JUDGED}, num_parameters, adapter=adapter)

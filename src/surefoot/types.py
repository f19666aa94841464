"""The types that travel between the stages. Frozen; a later stage makes a new type; no field is filled in later.

Legend: `B` responses on this process, `Q` padded query length, `R` padded response length. Queries are padded on the
left, responses on the right. A mask is True where a token counts; masked places hold 0.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

FinishReason = Literal["stop", "length"]
Message = Mapping[str, Any]
AllSum = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes (the identity on one)."""


class Completion(str):
    """Text that remembers how it was sampled.

    Attributes:
        token_ids: the sampled ids, the ending token included.
        logprobs: of each id under the sampler's distribution, in nats.
        finish_reason: "stop" when an end was reached, "length" when the answer was cut off.
        version: of the weights that drew every token of it: how many steps had been made. None: nobody counted.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    version: int | None

    def __new__(
        cls,
        text: str,
        token_ids: Sequence[int],
        logprobs: Sequence[float],
        finish_reason: FinishReason,
        version: int | None = None,
    ) -> "Completion":
        """The text is what `str` holds; the rest is kept beside it."""
        self = super().__new__(cls, text)
        self.token_ids = tuple(token_ids)
        self.logprobs = tuple(logprobs)
        self.finish_reason = finish_reason
        self.version = version
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:  # pickling and copying keep what a plain str would lose
        return str(self), self.token_ids, self.logprobs, self.finish_reason, self.version

    def drawn_from(self, version: int) -> "Completion":
        """The same answer, with the version of its weights."""
        return Completion(str(self), self.token_ids, self.logprobs, self.finish_reason, version)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt, ready for the policy.

    Attributes:
        text: as the policy reads it: after the chat template, special tokens visible.
        token_ids: what the policy is given.
        messages: the conversation it came from; empty for plain text.
        columns: every other column of the row, for the reward functions.
        index: number of the row in its file, from 0.
    """

    text: str
    token_ids: tuple[int, ...]
    messages: tuple[Message, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    index: int = 0


@dataclass(frozen=True, slots=True)
class RewardOutput:
    """What one reward function says about a batch.

    Attributes:
        scores: one number an answer, or None where the function does not apply.
        metrics: further numbers to log, under "rewards/<name>/<key>".
    """

    scores: Sequence[float | None]
    metrics: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Reward(Protocol):
    """Anything that scores answers. `name` is what it is logged under."""

    name: str

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> RewardOutput:
        """Scores `completions[i]` as the answer to `prompts[i]`."""
        ...


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn. `top_k` 0 and `top_p` 1 leave the distribution alone, as PPO needs it."""

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    greedy: bool = False
    stop_strings: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()


@runtime_checkable
class Engine(Protocol):
    """Draws answers from the current policy."""

    def generate(self, queries: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        """One answer for each query; `seeds[i]` alone decides the random numbers of answer i."""
        ...


@runtime_checkable
class EngineAhead(Engine, Protocol):
    """An engine that can be asked for answers and waited for later, by when the policy may be another."""

    def begin(
        self, queries: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> Callable[[], list[Completion] | None]:
        """Asks for what `generate` gives, from the weights as they are now.

        Returns:
            What waits for the answers, as often as it is called; it gives None where the engine failed meanwhile.
        """
        ...


@dataclass(frozen=True, slots=True)
class Rollout:
    """Queries and responses with everything that the frozen policy, reference and critic say about them.

    Attributes:
        response_mask: True on response tokens that are trained on (tool output may be masked out).
        lengths: tokens of each response, trained on or not; `truncated`: cut off before an end.
        old_logprobs, ref_logprobs: of the tempered distributions of policy and reference, float32.
        kl: the chosen estimate of the divergence from the reference, per token, in nats.
        entropies: of the policy's tempered distribution, per token, in nats.
        old_values: the critic's value of the state before each token; `last_values`: after the last one.
        sampler_logprobs: what the sampler said; equal to old_logprobs for texts it did not sample.
    """

    query_ids: Int[Tensor, "B Q"]
    query_mask: Bool[Tensor, "B Q"]
    response_ids: Int[Tensor, "B R"]
    response_mask: Bool[Tensor, "B R"]
    lengths: Int[Tensor, " B"]
    truncated: Bool[Tensor, " B"]
    old_logprobs: Float[Tensor, "B R"]
    ref_logprobs: Float[Tensor, "B R"]
    kl: Float[Tensor, "B R"]
    entropies: Float[Tensor, "B R"]
    old_values: Float[Tensor, "B R"]
    last_values: Float[Tensor, " B"]
    sampler_logprobs: Float[Tensor, "B R"]


@dataclass(frozen=True, slots=True)
class Experience:
    """A rollout with its learning signal.

    Attributes:
        rewards: the score on the last token of each response, less the KL price of every token.
        advantages: what the policy learns from; whitened unless that is switched off.
        returns: what the critic learns, from the raw advantages.
        ratios: policy over sampler, of each token or of its whole response; `weights`: what each token counts in the
            policy's loss.
    """

    rollout: Rollout
    rewards: Float[Tensor, "B R"]
    advantages: Float[Tensor, "B R"]
    returns: Float[Tensor, "B R"]
    ratios: Float[Tensor, "B R"]
    weights: Float[Tensor, "B R"]


@dataclass(frozen=True, slots=True)
class UpdateStats:
    """Numbers of one update, each a mean over all its minibatches unless said otherwise.

    Attributes:
        policy_loss, value_loss, total_loss: per token; value_loss is weighted neither by vf_coef nor by counts.
        approx_kl_k1, approx_kl_k2, approx_kl_k3: divergence of the new from the old policy, three estimates.
        clip_fraction, value_clip_fraction: share of tokens where the clipped branch decided.
        ratio: mean ratio of new to old probability; first_ratio, first_kl: on the first minibatch, before any step.
        grad_norm: before clipping. entropy: of the new policy.
        value_mean, value_error: of the critic's new predictions; the error is squared and unclipped.
        optimizer_steps, skipped_minibatches: counts. early_stopped: whether early_stop_kl ended the epochs.
        ratios: the mean ratio of each minibatch, in order.
    """

    policy_loss: float
    value_loss: float
    total_loss: float
    approx_kl_k1: float
    approx_kl_k2: float
    approx_kl_k3: float
    clip_fraction: float
    value_clip_fraction: float
    ratio: float
    first_ratio: float
    first_kl: float
    grad_norm: float
    entropy: float
    value_mean: float
    value_error: float
    optimizer_steps: int
    skipped_minibatches: int
    early_stopped: bool
    ratios: tuple[float, ...] = ()


class StepStats(Mapping[str, Any]):
    """The statistics of one step: a mapping from the names of docs/metrics.md to numbers (and a few arrays)."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"StepStats({self.scalars()!r})"

    def scalars(self) -> dict[str, float]:
        """The entries that are single numbers."""
        return {k: v for k, v in self._values.items() if isinstance(v, int | float)}

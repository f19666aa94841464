"""How much memory a run takes: numbers in, bytes out. Nothing is loaded or measured here, and no torch.

A run goes through stages, and each holds something else beside the weights and the optimizer's moments:

    sampling  the engine's copy of the linear weights, keys and values, a few tensors of logits
    scoring   the first minibatch's graph, kept for the update; on top the work of passes without a graph
    update    graphs, gradients and pieces of logits

The run takes what its largest stage takes. Where a backward pass frees activations layer by layer while gradients
appear, the sum is largest at one of its two ends, so both are reckoned. What is small is left out: token ids, numbers
a token, norms and buffers of a layer.

Where weights lie in shares on several processes, each has its share of weights, gradients and moments, and beside them
what is whole for a while: all weights of the model that samples or rewards, and in the other stages what lies outside
of the layers and two layers, the one at work and the next.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

MIB, GIB = 2**20, 2**30
FLOAT32, BFLOAT16 = 4, 2
HOLES = 0.45
"""What GNU's malloc leaves unused between tensors that come and go, as a share of these.

Measured: 0.2 to 0.9, since a stage keeps what is freed in it (`phases.memory_kept`), whole runs of one or two threads.
"""
LIBRARIES = 36 * MIB
"""Code and buffers that libraries take when they are first used, beyond what an import takes."""
MARGIN = 0.15
"""How far the reckoning may be off, so how much of the memory a plan leaves free."""


@dataclass(frozen=True, slots=True)
class Growth:
    """Bytes that grow with the tokens of a pass: `fixed` + `each` x tokens."""

    fixed: float = 0
    each: float = 0

    def at(self, tokens: int) -> int:
        """Bytes for a pass of so many tokens; none for a pass that does not take place."""
        return round(self.fixed + self.each * tokens) if tokens else 0


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass through a trunk takes.

    Attributes:
        kept: for the way back, after the way there.
        forward: at most during a pass without a graph.
        backward: at most on the way back, beyond what was kept and the gradients.
    """

    kept: Growth = Growth()
    forward: Growth = Growth()
    backward: Growth = Growth()


@dataclass(frozen=True, slots=True)
class Model:
    """One model of a run, in bytes.

    Attributes:
        weights: as they are held.
        gradients, moments: of what is trained; 0 where it is frozen.
        pass_: through its trunk; nothing where another model's pass serves.
        width: bytes of one token's state.
        lent: of its weights, where they lie in shares, what a pass has as a whole.
    """

    name: str
    weights: int
    gradients: int = 0
    moments: int = 0
    pass_: Pass = Pass()
    width: int = 0
    lent: int = 0


@dataclass(frozen=True, slots=True)
class Output:
    """The policy's output matrix, and how states meet it.

    Attributes:
        vocabulary: columns.
        states_per_piece: states that are read as logits at a time.
        gradient: bytes of its gradient; 0 where it is frozen.
        rounded: bytes of its copy in bfloat16 for one product; 0 in float32.
        whole_kl: the divergence is taken over the vocabulary.
    """

    vocabulary: int
    states_per_piece: int
    gradient: int = 0
    rounded: int = 0
    whole_kl: bool = False

    def piece(self, states: int) -> int:
        """Bytes of one float32 tensor of logits, when so many states are read in equal pieces."""
        if not states:
            return 0
        number = -(-states // self.states_per_piece)
        return FLOAT32 * self.vocabulary * -(-states // number)


@dataclass(frozen=True, slots=True)
class Sampler:
    """What sampling takes: a copy of the weights, and keys and values a token of each of `layers` layers."""

    weights: int = 0
    cache_per_token: int = 0
    layers: int = 1
    max_tokens: int = 65_536
    room: int = 32


@dataclass(frozen=True, slots=True)
class Work:
    """The arithmetic of a step, on this process, where every answer is as long as it may be.

    Attributes:
        rows: answers. row_tokens: longest query with its answer. answer_tokens: longest answer.
        pass_rows, pass_tokens: of the largest forward and backward pass.
        passes: forward and backward passes of one optimizer step.
        scoring_tokens: of the largest pass without a graph.
        reward_tokens: of the largest pass of a reward model.
    """

    rows: int
    row_tokens: int
    answer_tokens: int
    pass_rows: int
    pass_tokens: int
    passes: int
    scoring_tokens: int
    reward_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Need:
    """A whole run.

    Attributes:
        policy, critic: the critic has no weights of its own trunk where it is a head on the policy's.
        reference: no weights where it is the policy without its adapter.
        rewards: reward models.
        base: bytes that the process takes before it loads a model.
        holes: share of what comes and goes that the allocator leaves unused beside it; 0 for one that reuses all.
        offload: frozen models leave while nobody asks them.
        shares: processes that hold the weights together; 1 where each has all of them.
    """

    policy: Model
    critic: Model
    reference: Model
    output: Output
    sampler: Sampler
    work: Work
    rewards: Sequence[Model] = ()
    base: int = 0
    holes: float = 0
    offload: bool = False
    shares: int = 1

    @property
    def models(self) -> tuple[Model, ...]:
        """All of them, as a plan shows them."""
        return (self.policy, self.critic, self.reference, *self.rewards)

    @property
    def largest_pass(self) -> Mapping[str, int]:
        """Bytes of activations of the largest pass, by the name of the model."""
        w = self.work
        trained = {m.name: m.pass_.kept.at(w.pass_tokens) for m in (self.policy, self.critic)}
        frozen = {self.reference.name: self.reference.pass_.forward.at(w.scoring_tokens)}
        return trained | frozen | {m.name: m.pass_.forward.at(w.reward_tokens) for m in self.rewards}


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage at its fullest: its parts, in bytes."""

    name: str
    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


def stages(need: Need) -> tuple[Stage, ...]:
    """Every stage of a step after the first, when the optimizer has its moments."""
    return (_sampling(need), *([_rewarding(need)] if need.rewards else []), _scoring(need), _update(need))


def peak(need: Need) -> Stage:
    """The stage that takes the most."""
    return max(stages(need), key=lambda stage: stage.total)


# ---------------------------------------------------------------------------------------------- stages
def _held(need: Need, asked: Sequence[Model] = ()) -> dict[str, int]:
    """What is there in a stage that asks the frozen models `asked`."""
    frozen = [need.reference, *need.rewards]
    there = [m for m in frozen if not need.offload or any(m is other for other in asked)]
    return {
        "interpreter and libraries": need.base,
        "weights": sum(_share(need, m.weights) for m in (need.policy, need.critic, *there)),
        "optimizer": sum(_share(need, m.moments) for m in (need.policy, need.critic)),
    }


def _share(need: Need, whole: int) -> int:
    return -(-whole // need.shares)


def _rest(need: Need, models: Sequence[Model]) -> dict[str, int]:
    """What makes the weights of models whole, beside the share that is held."""
    if need.shares == 1:
        return {}
    return {"weights of the others": sum(m.weights - _share(need, m.weights) for m in models)}


def _lent(need: Need, models: Sequence[Model]) -> dict[str, int]:
    """What passes through models have as a whole."""
    return {} if need.shares == 1 else {"weights lent": sum(m.lent for m in models)}


def _gradients(need: Need, model: Model) -> int:
    """Of what lies in shares a process has its share, and the whole of what was lent for the pass."""
    if need.shares == 1 or not model.weights:
        return model.gradients
    return _share(need, model.gradients) + model.gradients * model.lent // model.weights


def _sampling(need: Need) -> Stage:
    """The last layer's cache stands twice while rows move; drawing takes logits, their softmax and its running sum."""
    s, w = need.sampler, need.work
    columns = w.row_tokens + s.room
    rows = min(w.rows, max(1, s.max_tokens // w.row_tokens))
    cache = rows * columns * s.cache_per_token
    parts = {
        "copy of the linear weights": s.weights,
        "keys and values": cache + cache // s.layers,
        "logits": 4 * FLOAT32 * rows * need.output.vocabulary,
    }
    return _stage("sampling", need, _held(need) | _rest(need, [need.policy]), parts)


def _rewarding(need: Need) -> Stage:
    work = max(m.pass_.forward.at(need.work.reward_tokens) for m in need.rewards)
    return _stage("reward", need, _held(need, need.rewards) | _rest(need, need.rewards), {"work of a pass": work})


def _scoring(need: Need) -> Stage:
    """The graph of the first minibatch where it is a single pass, and the largest work of any pass without one.

    Logits of policy and reference, a log-softmax and its exponential stand at a time.
    """
    w = need.work
    kept = need.policy.pass_.kept.at(w.pass_tokens) if w.passes == 1 and need.shares == 1 else 0
    tokens = max(w.scoring_tokens, w.pass_tokens if kept else 0)
    trunks = [m.pass_.forward.at(tokens) for m in (need.policy, need.critic, need.reference)]
    states = tokens * (need.policy.width + need.critic.width)
    read = (6 if need.output.whole_kl else 4) * need.output.piece(min(tokens, _answers(w, tokens)))
    work = states + max(*trunks, read + need.output.rounded)
    parts = {"graph of the first minibatch": kept, "work of a pass": work}
    lent = _lent(need, [need.policy, need.critic, need.reference])
    return _stage("scoring pass", need, _held(need, [need.reference]) | lent, parts)


def _update(need: Need) -> Stage:
    """The fullest moment: logits are read, the trunk goes backward, it is done, a second trunk follows, the step.

    Where tensors of one size leave holes for others, what both trunks kept and all gradients lie side by side.
    """
    w, policy, critic, output = need.work, need.policy, need.critic, need.output
    policys, critics = _gradients(need, policy), _gradients(need, critic)
    states = w.pass_rows * w.answer_tokens
    piece = output.piece(states)
    graph = policy.pass_.kept.at(w.pass_tokens)
    earlier = policys + critics if w.passes > 1 else 0
    second = output.gradient if states > output.states_per_piece or earlier else 0  # made anew, then added
    appeared = earlier or output.gradient
    after = earlier or policys
    moments = [
        {
            "activations": graph,
            "gradients": appeared,
            "logits": max(3 * piece, 2 * piece + second) + output.rounded,
        },
        {"activations": graph, "gradients": appeared, "work of a pass": policy.pass_.backward.at(w.pass_tokens)},
        {"gradients": after, "work of a pass": output.gradient},
        {
            "activations": critic.pass_.kept.at(w.pass_tokens),
            "gradients": after,
            "work of a pass": critic.pass_.backward.at(w.pass_tokens),
        },
        {"gradients": policys + critics},
    ]
    if need.holes:
        trunks = [m.pass_ for m in (policy, critic)]
        moments.append(
            {
                "activations": sum(t.kept.at(w.pass_tokens) for t in trunks),
                "gradients": policys + critics,
                "work of a pass": max(t.backward.at(w.pass_tokens) for t in trunks),
            }
        )
    held = _held(need) | _lent(need, [policy, critic])
    return _stage("update", need, held, max(moments, key=lambda parts: sum(parts.values())))


def _stage(name: str, need: Need, held: Mapping[str, int], comes_and_goes: Mapping[str, int]) -> Stage:
    holes = round(need.holes * sum(comes_and_goes.values()))
    return Stage(name, {**held, **comes_and_goes, **({"holes between tensors": holes} if holes else {})})


def _answers(w: Work, tokens: int) -> int:
    """Answer tokens among so many tokens of whole rows."""
    return max(1, tokens // w.row_tokens) * w.answer_tokens


# ---------------------------------------------------------------------------------------------- optimizers
def moments_of(trained: Iterable[int], *, eight_bits: bool = False) -> int:
    """Bytes of Adam's two moments, trained tensors having so many numbers each."""
    return sum(_eight_bits(n) if eight_bits else 2 * FLOAT32 * n for n in trained)


def _eight_bits(numbers: int) -> int:
    """A byte a number and a scale for each 256; tensors under 4096 numbers stay in float32."""
    return 2 * (FLOAT32 * numbers if numbers < 4096 else numbers + FLOAT32 * -(-numbers // 256))

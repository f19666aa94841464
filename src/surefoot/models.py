"""Policy, reference and critic, and the passes through them.

Legend: `T` tokens of all rows of a pass, `n` any number of states, `H` hidden width, `V` vocabulary.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.arithmetic import arithmetic
from surefoot.kernels import fuse
from surefoot.networks import Head, Trunk, hidden_size_of, score_shift, trunk_of
from surefoot.rows import Rows
from surefoot.runtime import Runtime
from surefoot.sharding import Shares, layer_names, lent_together

LOGITS_BYTES = 64 * 2**20  # of one tensor of logits in float32; a pass holds about four of them at a time
LOGITS_BYTES_ON_GPU = 2**30  # enough rows for a GPU's products
REFERENCE_ADAPTER, CRITIC_ADAPTER, REWARD_ADAPTER = "surefoot_reference", "surefoot_critic", "surefoot_reward"


class ValueHead(nn.Linear):
    """A linear critic on the policy's last hidden state, in float32; it starts at 0 and so prices nothing."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size, 1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., H] -> [...], in float32 whatever the hidden state's precision."""
        with torch.autocast(hidden.device.type, enabled=False):
            return super().forward(hidden.float()).squeeze(-1)


class AdapterCritic(nn.Module):
    """A critic with a LoRA adapter of its own on the policy's frozen base. Its weights live inside the policy."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.head = ValueHead(hidden_size)


class ValueModel(nn.Module):
    """A critic with a trunk of its own, made from any transformers model; a one-output head it has is taken over.

    What centres the scores of a reward model is taken off the head as well: it values what the reward will say.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk_of(model)
        self.head = ValueHead(hidden_size_of(model))
        score = getattr(model, "score", None)
        if isinstance(score, nn.Linear) and score.out_features == 1:
            with torch.no_grad():
                self.head.weight.copy_(score.weight)
                if score.bias is not None:
                    self.head.bias.copy_(score.bias)
                self.head.bias.sub_(score_shift(getattr(model, "config", None), "value_model"))


Critic = ValueHead | AdapterCritic | ValueModel


@dataclass(frozen=True, slots=True)
class Reference:
    """The frozen policy of the start: a model, and a context in which it is one (adapters off, or another adapter)."""

    model: nn.Module
    active: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext


class ActorCritic:
    """Policy, critic and reference with the passes that training needs. Dropout is off in every pass."""

    def __init__(
        self,
        policy: nn.Module,
        critic: Critic,
        reference: Reference,
        *,
        bfloat16: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        self.policy = policy
        self.critic = critic
        self.reference = reference
        self.device = next(policy.parameters()).device
        self._bfloat16 = bfloat16
        critic.to(self.device)
        trained = [policy, *([critic.trunk] if isinstance(critic, ValueModel) else [])]
        for module in {id(m): m for m in (policy, critic, reference.model)}.values():
            module.eval()
        if bfloat16 and self.device.type == "cuda":
            for module in {id(m): m for m in (*trained, reference.model)}.values():
                fuse(module)
        if gradient_checkpointing:
            for module in trained:
                disable_dropout(module)
                recompute_activations(module, self.arithmetic)
        self._checkpointing = gradient_checkpointing
        self._policy_trunk, self._policy_head = Trunk(trunk_of(policy)), Head(policy)
        self._ref_trunk, self._ref_head = self._policy_trunk, self._policy_head
        if reference.model is not policy:
            self._ref_trunk, self._ref_head = Trunk(trunk_of(reference.model)), Head(reference.model)
        self._critic_trunk = Trunk(critic.trunk) if isinstance(critic, ValueModel) else self._policy_trunk
        self._shares: dict[int, Shares] = {}
        self._runtime: Runtime | None = None
        self._find_parameters()

    def _find_parameters(self) -> None:
        trainable = {name: p for name, p in self.policy.named_parameters() if p.requires_grad}
        self._critic_adapter = {name: p for name, p in trainable.items() if f".{CRITIC_ADAPTER}." in name}
        self._policy = {name: p for name, p in trainable.items() if name not in self._critic_adapter}

    # ------------------------------------------------------------------------------------- parameters
    def policy_parameters(self) -> list[nn.Parameter]:
        """The policy's trainable parameters, the critic's adapter left out."""
        return list(self._policy.values())

    def critic_parameters(self) -> list[nn.Parameter]:
        """The critic's own parameters: its head, its adapter, or its whole model."""
        return [*self.critic.parameters(), *self._critic_adapter.values()]

    def trainable(self) -> dict[str, nn.Parameter]:
        """Every trainable parameter under a name: "policy..." (adapters of the critic among them) and "critic..."."""
        named = {f"policy.{name}": p for name, p in (self._policy | self._critic_adapter).items()}
        return named | {f"critic.{name}": p for name, p in self.critic.named_parameters()}

    @property
    def shares_trunk(self) -> bool:
        """Whether one pass of the policy gives the values too."""
        return isinstance(self.critic, ValueHead)

    @property
    def states_per_piece(self) -> int:
        """How many states are read as logits at a time, so that these take a fixed amount of memory."""
        width: int = self.policy.get_output_embeddings().weight.shape[0]  # type: ignore[operator]
        return states_per_piece(width, self.device)

    # ------------------------------------------------------------------------------------- passes
    def states(self, rows: Rows) -> Float[Tensor, "T H"]:
        """The policy's last hidden state of every token."""
        with self.arithmetic():
            return self._pass(self.policy, self._policy_trunk, rows)

    def logits(self, states: Float[Tensor, "n H"]) -> Float[Tensor, "n V"]:
        """The policy's logits after each of its states."""
        with self.arithmetic():
            return self._policy_head(states)

    def reference_states(self, rows: Rows) -> Float[Tensor, "T H"]:
        """The reference's last hidden state of every token."""
        with self.reference.active(), self.arithmetic():
            return self._pass(self.reference.model, self._ref_trunk, rows)

    def reference_logits(self, states: Float[Tensor, "n H"]) -> Float[Tensor, "n V"]:
        """The reference's logits after each of its states."""
        with self.reference.active(), self.arithmetic():
            return self._ref_head(states)

    def critic_states(self, rows: Rows) -> Float[Tensor, "T H"]:
        """What the critic's head reads, from a pass of its own inside `critic_pass`; a shared trunk is not moved."""
        model = self.critic if isinstance(self.critic, ValueModel) else self.policy
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.shares_trunk), self.arithmetic():
            return self._pass(model, self._critic_trunk, rows)

    def _pass(self, model: nn.Module, trunk: Trunk, rows: Rows) -> Tensor:
        states: Tensor = self._shares[id(model)].run(trunk.states, rows) if self._shares else trunk.states(rows)
        return states

    def values(self, states: Float[Tensor, "n H"]) -> Float[Tensor, " n"]:
        """The critic's value of each of its states, in float32."""
        head = self.critic if isinstance(self.critic, ValueHead) else self.critic.head
        values: Tensor = head(states)
        return values

    def critic_pass(self) -> contextlib.AbstractContextManager[Any]:
        """The context for a forward and backward pass of the critic: its adapter is the active one."""
        if isinstance(self.critic, AdapterCritic):
            return adapter_active(self.policy, CRITIC_ADAPTER)
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """The state for updates: like evaluation, but recomputing activations where that was asked for."""
        if not self._checkpointing:
            yield
            return
        modules = [self.policy, self.critic]
        with contextlib.ExitStack() as packing:  # on the way back too
            for trunk in {self._policy_trunk, self._critic_trunk}:
                packing.enter_context(trunk.packing())
            for module in modules:
                module.train()
            try:
                yield
            finally:
                for module in modules:
                    module.eval()

    def arithmetic(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which passes are computed."""
        return arithmetic(self.device, bfloat16=self._bfloat16)

    @contextlib.contextmanager
    def sampling(self) -> Iterator[None]:
        """The same for many passes without a graph, between which autocast keeps what it has made of the weights.

        It keeps those that take gradients only; a frozen base under LoRA it would round again for every token.
        """
        with gradients_as_they_were(self.policy), self.arithmetic():
            for parameter in self.policy.parameters():
                parameter.requires_grad_(parameter.is_floating_point())
            yield

    # ------------------------------------------------------------------------------------- shares
    def shard(self, runtime: Runtime) -> None:
        """From now on every process holds a share of all weights. The parameters are others than before."""
        own_critic = isinstance(self.critic, ValueModel)
        together = [[self.policy] if own_critic else [self.policy, self.critic]]
        together += [[self.critic]] if own_critic else []
        together += [] if self.reference.model is self.policy else [[self.reference.model]]
        for modules in together:
            self._shares[id(modules[0])] = Shares(runtime, modules, layer_names(modules[0]))
        self._runtime = runtime
        self._find_parameters()

    @property
    def in_shares(self) -> bool:
        """Whether processes wait for each other in every pass, since each has a share of the weights."""
        return bool(self._shares)

    def idle_passes(self, own: int) -> int:
        """How many passes this process makes for the sake of others, beside `own` of its own."""
        return 0 if self._runtime is None else self._runtime.all_max(own) - own

    def collect_gradients(self) -> None:
        """Ends the passes of a minibatch: gradients of weights in shares are those of all processes from here on."""
        for shares in self._shares.values():
            shares.collect_gradients()

    def put_away(self) -> None:
        """Ends passes without gradients: nothing that was whole for them stays so."""
        for shares in self._shares.values():
            shares.put_away()

    def whole_policy(self) -> contextlib.AbstractContextManager[None]:
        """The context in which the policy is run by itself, as sampling does; all processes enter it together."""
        return self.lent([self.policy])

    def lent(
        self, models: Sequence[nn.Module], others: Sequence[Shares] = ()
    ) -> contextlib.AbstractContextManager[None]:
        """The context in which each process has these of the models, and `others`, as a whole."""
        if self._runtime is None:
            return contextlib.nullcontext()
        return lent_together(self._runtime, [*(self._shares[id(model)] for model in models), *others])

    def assembled_policy(self, *, keep: bool) -> nn.Module | None:
        """The policy as a whole, to be saved; a copy where it lies in shares, which is made on all processes."""
        return self._shares[id(self.policy)].assembled(self.policy, keep=keep) if self._shares else self.policy


def states_per_piece(vocabulary: int, device: torch.device) -> int:
    """How many states are read as logits at a time."""
    return max(1, (LOGITS_BYTES_ON_GPU if device.type == "cuda" else LOGITS_BYTES) // (4 * vocabulary))


# ---------------------------------------------------------------------------------------------- parts of models
def disable_dropout(model: nn.Module) -> None:
    """Sets every dropout probability of a model to 0."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def recompute_activations(model: Any, arithmetic: Callable[[], contextlib.AbstractContextManager[Any]]) -> None:
    """Switches gradient checkpointing on, under whichever name this version of transformers has for it."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False, "context_fn": lambda: (contextlib.nullcontext(), arithmetic())})


def frozen_copy(model: nn.Module) -> nn.Module:
    """A deep copy that takes no gradients."""
    return copy.deepcopy(model).requires_grad_(False).eval()


@contextlib.contextmanager
def adapter_active(model: Any, name: str) -> Iterator[None]:
    """While active, `model` (of peft) runs with the adapter `name`; which weights take gradients does not change."""
    before = model.active_adapter
    with gradients_as_they_were(model):
        model.base_model.set_adapter(name)
    try:
        yield
    finally:
        with gradients_as_they_were(model):
            model.base_model.set_adapter(before)


@contextlib.contextmanager
def adapters_off(model: Any) -> Iterator[None]:
    """While active, `model` (of peft) is its base; which weights take gradients does not change."""
    with gradients_as_they_were(model), model.disable_adapter():
        yield


@contextlib.contextmanager
def gradients_as_they_were(model: nn.Module) -> Iterator[None]:
    """Restores which weights take gradients: peft decides that anew whenever adapters are switched."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)

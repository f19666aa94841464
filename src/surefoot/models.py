"""Policy, reference and critic, and the passes through them.

Every pass works on rows without left padding: a query directly followed by its response, padded on the right. Causal
attention then never sees padding, positions count from 0, and no model needs special handling. Only the hidden states
that predict response tokens meet the output matrix.

Legend: `b` rows of a pass, `S` padded row length, `R` padded response length of the pass, `N` response tokens in it.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from surefoot.ops.logprobs import entropy, token_logprobs
from surefoot.ops.masking import length_mask

REFERENCE_ADAPTER, CRITIC_ADAPTER = "surefoot_reference", "surefoot_critic"


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one pass: `present` is True where a response token exists, `predicted_at` is where it is predicted."""

    input_ids: Int[Tensor, "b S"]
    attention_mask: Int[Tensor, "b S"]
    response_ids: Int[Tensor, "b R"]
    present: Bool[Tensor, "b R"]
    predicted_at: Int[Tensor, "b R"]
    lengths: Int[Tensor, " b"]


class TokenOutputs(NamedTuple):
    """What a pass says about each response token; 0 where there is none. Values have one column more: the end's."""

    logprobs: Float[Tensor, "b R"]
    entropies: Float[Tensor, "b R"]
    values: Float[Tensor, "b R1"]


def join_rows(
    query_ids: Int[Tensor, "b Q"],
    query_mask: Bool[Tensor, "b Q"],
    response_ids: Int[Tensor, "b R"],
    lengths: Int[Tensor, " b"],
) -> Rows:
    """Moves each query against its response: [pad pad q q | r r r pad] -> [q q r r r pad pad pad], trimmed."""
    query_lengths = query_mask.sum(-1)
    width = int((query_lengths + lengths).max())
    columns = int(lengths.max())
    response_ids, present = response_ids[:, :columns], length_mask(lengths, columns)
    input_ids = query_ids.new_zeros(len(query_ids), width)
    input_ids[length_mask(query_lengths, width)] = query_ids[query_mask]
    steps = torch.arange(columns, device=query_ids.device)
    positions = query_lengths[:, None] + steps
    row = torch.arange(len(query_ids), device=query_ids.device)[:, None].expand_as(positions)
    input_ids[row[present], positions[present]] = response_ids[present]
    return Rows(
        input_ids=input_ids,
        attention_mask=length_mask(query_lengths + lengths, width).long(),
        response_ids=response_ids,
        present=present,
        predicted_at=positions - 1,
        lengths=lengths,
    )


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
    """A critic with a trunk of its own, made from any transformers model; a one-output head it has is taken over."""

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
        for module in {id(m): m for m in (policy, critic, reference.model)}.values():
            module.eval()
        if gradient_checkpointing:
            for module in [policy, *([critic.trunk] if isinstance(critic, ValueModel) else [])]:
                disable_dropout(module)
                _recompute_activations(module)
        self._checkpointing = gradient_checkpointing
        trainable = {name: p for name, p in policy.named_parameters() if p.requires_grad}
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

    # ------------------------------------------------------------------------------------- passes
    def evaluate(self, rows: Rows, temperature: float, *, entropy_gradient: bool = False) -> TokenOutputs:
        """Log-probabilities, entropies and, with a critic on the policy's trunk, values (else 0)."""
        logits, hidden = self._logits(self.policy, rows)
        flat_ids = rows.response_ids[rows.present]
        logprobs = _spread(token_logprobs(logits, flat_ids, temperature), rows.present)
        with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
            entropies = _spread(entropy(logits, temperature), rows.present)
        values = self._head_values(hidden, rows) if self.shares_trunk else logprobs.new_zeros(len(logprobs), 0)
        return TokenOutputs(logprobs, entropies, values)

    def values(self, rows: Rows) -> Float[Tensor, "b R1"]:
        """Values from the critic alone; a shared trunk is not moved. Go backward inside `critic_pass`."""
        if isinstance(self.critic, ValueModel):
            return self._head_values(self._hidden(self.critic.trunk, rows), rows)
        trunk = trunk_of(self.policy)
        if isinstance(self.critic, AdapterCritic):
            return self._head_values(self._hidden(trunk, rows), rows)
        with torch.no_grad():
            hidden = self._hidden(trunk, rows)
        return self._head_values(hidden, rows)

    def critic_pass(self) -> contextlib.AbstractContextManager[Any]:
        """The context for a forward and backward pass of the critic: its adapter is the active one."""
        if isinstance(self.critic, AdapterCritic):
            return adapter_active(self.policy, CRITIC_ADAPTER)
        return contextlib.nullcontext()

    def reference_logprobs(self, rows: Rows, temperature: float) -> Float[Tensor, "b R"]:
        """Log-probabilities under the reference."""
        logits = self.reference_logits(rows)
        return _spread(token_logprobs(logits, rows.response_ids[rows.present], temperature), rows.present)

    def policy_logits(self, rows: Rows) -> Float[Tensor, "N V"]:
        """The policy's logits at every response token, row by row."""
        return self._logits(self.policy, rows)[0]

    def reference_logits(self, rows: Rows) -> Float[Tensor, "N V"]:
        """The reference's logits at every response token, row by row."""
        with self.reference.active():
            return self._logits(self.reference.model, rows)[0]

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """The state for updates: like evaluation, but recomputing activations where that was asked for."""
        modules = [self.policy, self.critic] if self._checkpointing else []
        for module in modules:
            module.train()
        try:
            yield
        finally:
            for module in modules:
                module.eval()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The arithmetic of the passes: bfloat16 where it was chosen."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._bfloat16)

    def _logits(self, model: nn.Module, rows: Rows) -> tuple[Float[Tensor, "N V"], Float[Tensor, "b S H"]]:
        with self.autocast(), _only_predictions(model, rows) as seen:
            logits = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask, use_cache=False).logits
        return logits.squeeze(0), seen[0]

    def _hidden(self, trunk: nn.Module, rows: Rows) -> Float[Tensor, "b S H"]:
        with self.autocast():
            output = trunk(input_ids=rows.input_ids, attention_mask=rows.attention_mask, use_cache=False)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _head_values(self, hidden: Float[Tensor, "b S H"], rows: Rows) -> Float[Tensor, "b R1"]:
        head = self.critic if isinstance(self.critic, ValueHead) else self.critic.head
        before = rows.predicted_at[:, :1]
        steps = torch.arange(rows.predicted_at.shape[1] + 1, device=hidden.device)
        known = steps <= rows.lengths[:, None]
        at = torch.where(known, before + steps, before)
        values: Tensor = head(hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[-1])))
        return torch.where(known, values, 0)


@contextlib.contextmanager
def _only_predictions(model: nn.Module, rows: Rows) -> Iterator[list[Tensor]]:
    """While active, the output matrix sees only the states that predict response tokens; all states are kept aside."""
    seen: list[Tensor] = []
    row, column = rows.present.nonzero(as_tuple=True)

    def narrow(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(args[0])
        return (args[0][row, rows.predicted_at[row, column]].unsqueeze(0), *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(narrow)  # type: ignore[operator]
    try:
        yield seen
    finally:
        handle.remove()
    if len(seen) != 1:
        raise RuntimeError(
            f"{type(model).__name__} does not call its output embeddings once a pass; it is not supported"
        )


def _spread(flat: Float[Tensor, " N"], present: Bool[Tensor, "b R"]) -> Float[Tensor, "b R"]:
    return flat.new_zeros(present.shape).masked_scatter(present, flat)


# ---------------------------------------------------------------------------------------------- parts of models
def trunk_of(model: Any) -> nn.Module:
    """The transformer below a model's head; adapters inside it stay in it."""
    base = model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model
    prefix = getattr(base, "base_model_prefix", "")
    trunk: nn.Module = getattr(base, prefix, base) if prefix else base
    return trunk


def hidden_size_of(model: Any) -> int:
    """Width of the last hidden state."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    width = getattr(head, "in_features", None) or config.hidden_size
    return int(width)


def disable_dropout(model: nn.Module) -> None:
    """Sets every dropout probability of a model to 0."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def _recompute_activations(model: Any) -> None:
    """Switches gradient checkpointing on, under whichever name this version of transformers has for it."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def frozen_copy(model: nn.Module) -> nn.Module:
    """A deep copy that takes no gradients."""
    return copy.deepcopy(model).requires_grad_(False).eval()


@contextlib.contextmanager
def adapter_active(model: Any, name: str) -> Iterator[None]:
    """While active, `model` (of peft) runs with the adapter `name`; which weights take gradients does not change."""
    before = model.active_adapter
    with _gradients_as_they_were(model):
        model.base_model.set_adapter(name)
    try:
        yield
    finally:
        with _gradients_as_they_were(model):
            model.base_model.set_adapter(before)


@contextlib.contextmanager
def adapters_off(model: Any) -> Iterator[None]:
    """While active, `model` (of peft) is its base; which weights take gradients does not change."""
    with _gradients_as_they_were(model), model.disable_adapter():
        yield


@contextlib.contextmanager
def _gradients_as_they_were(model: nn.Module) -> Iterator[None]:
    """Restores which weights take gradients: peft decides that anew whenever adapters are switched."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)

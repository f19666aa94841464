"""Weights in shares (FSDP2): every process keeps a part of each weight, gradient and moment, and lends it for a pass.

A model's layers are whole only while a pass goes through them; what lies outside of the layers (embeddings, output
matrix, value head) stays whole from the first pass of a stage to its end. A layer's gradient is added up over the
processes where it arises; those outside of the layers gather up over the passes of a minibatch, and are added up once.

All processes must make the same passes, since each lends its part of every layer: who has fewer rows makes idle ones.
Sampling, whose passes nobody can count beforehand, takes the whole model for the while. (docs/decisions/0017)
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.runtime import Runtime


class Shares:
    """Modules whose weights lie in shares on all processes from now on; tied weights stay tied.

    Args:
        runtime: the processes.
        modules: that belong together: a policy and its value head, a critic, a reward model.
        layers: names of the classes whose instances are lent one by one.
    """

    def __init__(self, runtime: Runtime, modules: Sequence[nn.Module], layers: Collection[str]) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self._skeletons = {id(module): _without_weights(module) for module in modules}
        device = next(p for m in modules for p in m.parameters()).device
        if device.type == "cuda":
            torch.cuda.set_device(device)
        mesh = init_device_mesh(device.type, (runtime.world_size,))
        root: Any = _Together(modules)
        self._root = root
        inner: list[Any] = [m for m in root.modules() if type(m).__name__ in layers]
        for layer in inner:
            fully_shard(layer, mesh=mesh)
        fully_shard(root, mesh=mesh)
        self._parts: list[Any] = [root, *inner]
        for part in self._parts:  # losses are divided by the tokens of all processes: a sum is right, a mean is not
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)
        root.set_requires_gradient_sync(False, recurse=False)
        root.set_reshard_after_backward(False, recurse=False)
        root(lambda: None)  # the first pass decides what is the root of the whole
        root.reshard()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A pass through the modules; all processes make it together."""
        found: list[Any] = []
        # By way of a list: what a pass gives back would get hooks that are not needed.
        self._root(lambda: found.append(function(*arguments)))
        return found[0]

    def collect_gradients(self) -> None:
        """Adds up over all processes what has gathered outside of the layers, where a process has none as 0."""
        self._root.set_requires_gradient_sync(True, recurse=False)
        nothing = self._root(self._nothing)
        if nothing is not None:
            nothing.backward()
        self._root.set_requires_gradient_sync(False, recurse=False)
        self.put_away()

    def _nothing(self) -> Tensor | None:
        """0, as a function of everything that is trained outside of the layers."""
        trained = [p for p in self._root.parameters() if p.requires_grad and not is_share(p)]
        return torch.stack([p.sum() * 0 for p in trained]).sum() if trained else None

    def put_away(self) -> None:
        """Frees what a stage has kept whole."""
        self._root.reshard()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """While active, every process has the whole, as if it had never been cut: passes need no other process."""
        hooks = [(part, part._forward_pre_hooks, part._forward_hooks) for part in self._parts]
        try:
            for part in self._parts:
                part.unshard()
                part._forward_pre_hooks, part._forward_hooks = OrderedDict(), OrderedDict()
            yield
        finally:
            for part, before, after in hooks:
                part._forward_pre_hooks, part._forward_hooks = before, after
                part.reshard()

    def assembled(self, module: nn.Module, *, keep: bool) -> nn.Module | None:
        """A copy of one of the modules, whole and in the host's memory; None where it is not to be kept.

        Called on every process.
        """
        skeleton = self._skeletons[id(module)]
        weights: dict[int, Any] = {}
        for empty, share in zip(skeleton.parameters(), module.parameters(), strict=True):
            full = whole(share.detach())
            if keep:
                weights[id(empty)] = nn.Parameter(full.cpu(), requires_grad=share.requires_grad)
        return copy.deepcopy(skeleton, weights) if keep else None


class _Together(nn.Module):
    """Holds modules, and runs any function of them as its own forward pass."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()


@contextmanager
def lent_together(runtime: Runtime, shares: Sequence[Shares]) -> Iterator[None]:
    """While active, every process has these as a whole. What fails on one meanwhile fails on all at the end."""
    with ExitStack() as stack:
        with runtime.lockstep():
            for each in shares:
                stack.enter_context(each.lent())
        with runtime.together():
            yield


def layer_names(module: nn.Module) -> set[str]:
    """Classes of a transformers model's layers, which it names as what must not be split."""
    names: set[str] = set()
    for part in module.modules():
        names |= set(getattr(part, "_no_split_modules", None) or ())
    return names


def _without_weights(module: nn.Module) -> nn.Module:
    """A copy of a module whose parameters, tied ones still tied, have shapes alone."""
    empty: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in module.parameters()
    }
    return copy.deepcopy(module, empty)


# ---------------------------------------------------------------------------------------------- tensors
def is_share(tensor: Tensor) -> bool:
    """Whether this process holds a part of it only."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Any) -> Tensor:
    """The tensor with the parts of all processes; called on every one of them."""
    full: Tensor = tensor.full_tensor() if is_share(tensor) else tensor
    return full


def own_part(tensor: Any) -> Tensor:
    """The part of it that this process holds."""
    part: Tensor = tensor.to_local() if is_share(tensor) else tensor
    return part


def cut_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which every process has, cut as `like` is, if it is, and where the two have the same shape."""
    if not is_share(like) or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    cut: Any = like
    part: Tensor = distribute_tensor(tensor.to(like.device), cut.device_mesh, cut.placements, src_data_rank=None)
    return part


def parts_of_all(tensors: Mapping[str, Tensor], *, is_main: bool) -> dict[str, Tensor]:
    """What this process has to keep of tensors that all have: its parts; the main one also what lies in no parts."""
    kept = {name: own_part(t) for name, t in tensors.items() if is_share(t) or is_main}
    return {name: t for name, t in kept.items() if t.numel() or not is_share(tensors[name])}

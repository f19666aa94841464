"""Which prompts come next, and which are held out: pure functions of a seed, so that a run resumes anywhere."""

import functools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from surefoot.types import Prompt


@dataclass(frozen=True, slots=True)
class PromptOrder:
    """An endless order of the prompts 0 … num_prompts - 1: each epoch is a permutation of its own.

    Its only state is the position, a count of prompts taken since the start, which the caller keeps.
    """

    num_prompts: int
    seed: int

    def __post_init__(self) -> None:
        if self.num_prompts < 1:
            raise ValueError(f"num_prompts={self.num_prompts}: an order needs at least one prompt")

    def take(self, position: int, n: int) -> list[int]:
        """The `n` prompts from `position` on; taking a + b of them is taking a, then b from position + a."""
        if position < 0 or n < 0:
            raise ValueError(f"position={position} and n={n} must not be negative")
        places = (divmod(p, self.num_prompts) for p in range(position, position + n))
        return [_permutation(self.num_prompts, self.seed, epoch)[place] for epoch, place in places]


@functools.lru_cache(maxsize=2)
def _permutation(n: int, seed: int, epoch: int) -> tuple[int, ...]:
    """A permutation of range(n), drawn from (seed, epoch) alone.

    Sorting by random keys, because Python promises the same numbers of `random()` in every version, and promises
    nothing about `shuffle`.
    """
    generator = random.Random(f"{seed} {epoch}")
    keys = [generator.random() for _ in range(n)]
    return tuple(sorted(range(n), key=keys.__getitem__))


def split_eval(prompts: Sequence[Prompt], n: int, seed: int) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    """Holds out `n` prompts with `n` distinct texts: (those to train on, those to evaluate on), both in row order.

    No text is on both sides. Texts that occur once are held out first; where they do not suffice, one copy of a
    repeated text is held out and its other copies are on neither side.
    """
    count = Counter(prompt.text for prompt in prompts)
    if n < 0 or n >= max(len(count), 1):
        raise ValueError(
            f"{n} prompts cannot be held out for evaluation of {len(prompts)} prompts with {len(count)} distinct "
            "texts: at least one text must be left to train on; lower eval_prompts or give eval_dataset"
        )
    if n == 0:
        return tuple(prompts), ()
    shuffled = _permutation(len(prompts), seed, -1)  # no epoch of the training order
    first: dict[str, int] = {}
    for i in sorted(shuffled, key=lambda i: count[prompts[i].text] > 1):
        first.setdefault(prompts[i].text, i)
    held_out = sorted(list(first.values())[:n])
    texts = {prompts[i].text for i in held_out}
    return tuple(p for p in prompts if p.text not in texts), tuple(prompts[i] for i in held_out)

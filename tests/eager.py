"""An engine that can be asked ahead, for tests without vLLM. `from eager import Eager`.

It draws at once, from the weights as they are when it is asked, as vLLM does from those it was handed.
"""

from surefoot.engine.transformers import TransformersEngine

OVERLAP = {"engine": "vllm", "overlap": True, "importance_cap": 2.0}


class Eager:
    """`events` are told in order; the requests ahead of which `fails` has the number, from 1, get no answers."""

    def __init__(self, models, tokenizer, end_ids, events=None, fails=()):
        self._plain = TransformersEngine(models.policy, tokenizer, end_ids, autocast=models.sampling)
        self._fails, self._asked = fails, 0
        self.events = [] if events is None else events
        self.seeds = []

    def meanwhile(self):
        """What happens while somebody waits."""

    def generate(self, queries, seeds, sampling):
        self.events.append("drawn")
        self.seeds.append(list(seeds))
        return self._plain.generate(queries, seeds, sampling)

    def begin(self, queries, seeds, sampling):
        self.events.append("asked")
        self.seeds.append(list(seeds))
        self._asked += 1
        found = [] if self._asked in self._fails else [self._plain.generate(queries, seeds, sampling)]

        def wait():
            self.events.append("waited")
            try:
                self.meanwhile()
            except BaseException:
                found.clear()  # as with vLLM: whoever leaves instead of waiting has no answers
                raise
            return found[0] if found else None

        return wait


def use(patch, events=None, fails=()):
    """Trainers made from now on draw with it."""
    patch.setattr(
        "surefoot.trainer.make_engine",
        lambda c, models, tokenizer, end_ids, **_: Eager(models, tokenizer, end_ids, events, fails),
    )

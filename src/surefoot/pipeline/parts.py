"""Shared options and sections -> the stages to run, each with all its options. Pure; no torch in here.

Nothing is carried by hand: where a stage begins, what it reads and where it writes follow from the stages before it.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot.config import PPOConfig
from surefoot.evaluate.options import CompareOptions
from surefoot.options import Options
from surefoot.pipeline.options import PipelineOptions, RateOptions
from surefoot.sections import Sections
from surefoot.settings import Setting, make_options
from surefoot.stages.options import DPOOptions, RewardOptions, SFTOptions

STAGES: Mapping[str, type[Options]] = {
    "sft": SFTOptions,
    "rate": RateOptions,
    "reward": RewardOptions,
    "ppo": PPOConfig,
    "dpo": DPOOptions,
    "compare": CompareOptions,
}
"""The stages in their order, and the class of each one's options."""

CARRIED: Mapping[str, Mapping[str, str]] = {
    "sft": {"model_name": "model_name", "adapter_name": "adapter_name"},
    "rate": {"model_name": "model_name", "adapter_name": "adapter_name", "dataset": "prompts"},
    "reward": {"dataset": "preferences"},
    "ppo": {
        "model_name": "model_name",
        "adapter_name": "adapter_name",
        "dataset": "prompts",
        "eval_dataset": "held_out_prompts",
    },
    "dpo": {"model_name": "model_name", "adapter_name": "adapter_name", "dataset": "preferences"},
    "compare": {"runs": "", "baseline": "model_name", "gold": "gold", "dataset": "held_out_prompts"},
}
"""Stage -> options that a section may not set -> the shared option that says it (output_dir and seed in all)."""

USED_BY: Mapping[str, Sequence[str]] = {
    "prompts": ("rate", "ppo"),
    "held_out_prompts": ("ppo", "compare"),
    "preferences": ("reward", "dpo"),
    "gold": ("ppo", "compare"),
    "seeds": ("ppo", "dpo"),
    "reward_per_seed": ("reward",),
    "critic_from_reward": ("ppo",),
}
"""Shared option -> the stages without which it would be idle."""


@dataclass(frozen=True, slots=True)
class Part:
    """One stage of a pipeline.

    Attributes:
        name: of it and of its folder: "ppo", or "ppo-seed1" where there are several. kind: which stage it is.
        options: all its options. needs: names of the parts whose results it reads.
    """

    name: str
    kind: str
    options: Any
    needs: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where it writes."""
        return Path(self.options.output_dir)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stage begins: a model, an adapter on it or none, and the part that made them."""

    model_name: str | None
    adapter_name: str | None
    made_by: tuple[str, ...] = ()

    @property
    def names(self) -> dict[str, Any]:
        """As options."""
        return {"model_name": self.model_name, "adapter_name": self.adapter_name}


def parts_of(file: Sections) -> tuple[PipelineOptions, list[Part]]:
    """The shared options and the stages of a file, in the order in which they run.

    A stage is on where it has a section.

    Raises:
        ValueError: a section that is no stage, options that contradict each other, or a stage without what it needs.
    """
    sections = {name: file.sections.get(name, {}) for name in [*file.sections, *_empty_sections(file)]}
    for name in sections:
        if name not in STAGES:
            near = difflib.get_close_matches(name, STAGES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"stages are {', '.join(STAGES)}"
            raise ValueError(f"{file.origins[name]}: there is no stage {name!r}; {hint}")
    top = make_options({n: s for n, s in file.top.items() if n not in sections}, PipelineOptions)
    return top, _Builder(top, sections, file.top).parts()


def _empty_sections(file: Sections) -> list[str]:
    """Stages that are switched on with nothing in them: `dpo:`."""
    return [name for name, setting in file.top.items() if name in STAGES and setting.value is None]


class _Builder:
    """Makes the parts, one stage after the other."""

    def __init__(
        self, top: PipelineOptions, sections: Mapping[str, Mapping[str, Setting]], written: Mapping[str, Setting]
    ) -> None:
        self.top, self.sections = top, sections
        self.written = written
        self.out = Path(top.output_dir)
        self.made: list[Part] = []

    def parts(self) -> list[Part]:
        """All of them, in order."""
        self._check()
        start = self._sft(Start(self.top.model_name, self.top.adapter_name))
        pairs, pairs_by = self._pairs(start)
        rewards = self._rewards(start, pairs, pairs_by)
        for seed in self._seeds():
            self._ppo(start, rewards.get(seed), seed)
        for seed in self._seeds():
            if "dpo" in self.sections:
                self._add("dpo", seed, start.names | {"dataset": pairs}, (*start.made_by, *pairs_by))
        self._compare(start, rewards)
        return self.made

    # ------------------------------------------------------------------------------------------ one stage each
    def _sft(self, start: Start) -> Start:
        if "sft" not in self.sections:
            return start
        part = self._add("sft", None, start.names, ())
        if part.options.dataset is None:
            raise ValueError("sft: dataset is missing: the texts or conversations to learn from")
        model = str(part.folder / "model")
        if part.options.trains_adapter:
            return Start(start.model_name, model, (part.name,))
        return Start(model, None, (part.name,))

    def _pairs(self, start: Start) -> tuple[str | None, tuple[str, ...]]:
        """The file with pairs, and the part that makes it."""
        if "rate" not in self.sections:
            return self.top.preferences, ()
        part = self._add("rate", None, start.names | {"dataset": self.top.prompts}, start.made_by)
        if not part.options.rater:
            raise ValueError("rate: rater is missing: the scorer that chooses between two answers")
        return str(part.folder / "preferences.jsonl"), (part.name,)

    def _rewards(self, start: Start, pairs: str | None, pairs_by: tuple[str, ...]) -> dict[int | None, Part]:
        """Seed -> the reward model that PPO trains against under it."""
        if "reward" not in self.sections:
            return {}
        own = "model_name" in self.sections["reward"]
        # A reward model's adapter goes on the base itself, which it then shares with the policy's.
        given = {"dataset": pairs} | ({} if own else {"model_name": start.model_name})
        if "rate" in self.sections and "centre_on" not in self.sections["reward"]:
            given["centre_on"] = str(self.out / "rate" / "answers.jsonl")
        uses = pairs_by if own or start.adapter_name is not None else (*start.made_by, *pairs_by)
        seeds = self._seeds() if self.top.reward_per_seed else [None]
        made = {seed: self._add("reward", seed, given, uses) for seed in seeds}
        return {seed: made.get(seed, made[seeds[0]]) for seed in self._seeds()}

    def _ppo(self, start: Start, reward: Part | None, seed: int | None) -> None:
        if "ppo" not in self.sections:
            return
        given = start.names | {"dataset": self.top.prompts, "eval_dataset": self.top.held_out_prompts}
        needs = start.made_by
        if reward is not None:
            given["reward"] = [str(reward.folder / "model")]
            needs = (*needs, reward.name)
            if self.top.critic_from_reward:
                given |= {"critic": "model", "value_model_name": str(reward.folder / "model")}
        self._add("ppo", seed, given, needs)

    def _compare(self, start: Start, rewards: Mapping[int | None, Part]) -> None:
        if "compare" not in self.sections:
            return
        runs = [part for part in self.made if part.kind in ("ppo", "dpo")]
        given: dict[str, Any] = {
            "runs": [f"{part.kind}={part.folder}" for part in runs],
            "baseline": start.adapter_name or start.model_name,
            "gold": list(self.top.gold),
            "dataset": self.top.held_out_prompts,
        }
        proxy = next(iter(rewards.values()), None)
        if proxy is not None and "proxy" not in self.sections["compare"]:
            given["proxy"] = [str(proxy.folder / "model")]
        if "ppo" not in self.sections and not {"proxy", "best_of"} & set(self.sections["compare"]) and proxy is None:
            given["best_of"] = []  # nothing to choose by
        needs = (*start.made_by, *([proxy.name] if proxy else []), *(part.name for part in runs))
        self._add("compare", None, given, needs)

    # ------------------------------------------------------------------------------------------ common to all
    def _seeds(self) -> list[int | None]:
        return list(self.top.seeds) or [None]

    def _add(self, kind: str, seed: int | None, given: Mapping[str, Any], needs: tuple[str, ...]) -> Part:
        """A part with its section's options, under them what is shared, over them what is carried to it."""
        cls, section = STAGES[kind], self.sections[kind]
        name = kind if seed is None else f"{kind}-seed{seed}"
        carried = dict(given) | {"output_dir": str(self.out / name), "seed": self.top.seed if seed is None else seed}
        for option in (*CARRIED[kind], "output_dir", "seed"):
            if option in section:
                said_by = CARRIED[kind].get(option, option)
                raise ValueError(
                    f"{section[option].origin}: {kind} is given its {option} by the pipeline: leave it out here"
                    + (f"; outside of the sections {said_by} says it" if said_by in PipelineOptions.kinds() else "")
                )
        shared = {option: value for option, value in self._shared(kind).items() if option not in section}
        if carried.get("adapter_name") is not None:
            if "lora_r" in section and kind != "sft":
                raise ValueError(
                    f"{section['lora_r'].origin}: {kind} goes on with the adapter of the SFT, which has its rank: "
                    "leave lora_r out here"
                )
            shared.pop("lora_r", None)
        settings = {n: Setting(v, "outside of the sections") for n, v in shared.items()}
        settings |= section
        settings |= {n: Setting(v, "carried") for n, v in carried.items() if n in cls.kinds() and v is not None}
        try:
            part = Part(name, kind, make_options(settings, cls), needs)
        except ValueError as error:
            raise ValueError(f"{kind}: {error}") from None
        self.made.append(part)
        return part

    def _shared(self, kind: str) -> dict[str, Any]:
        """What stands outside of the sections and means the same in this stage."""
        known = set(STAGES[kind].kinds()) - set(CARRIED[kind]) - {"output_dir", "seed", "seeds"}
        values = {name: getattr(self.top, name) for name in PipelineOptions.kinds() if name in known}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {name: value for name, value in plain.items() if value not in (None, [])}

    def _check(self) -> None:
        on, top = set(self.sections), self.top
        idle = [name for name, users in USED_BY.items() if name in self.written and not on & set(users)]
        unfed = on & {"reward", "dpo"} and "rate" not in on and top.preferences is None
        refusals = (
            (not on, f"no stage is on: give it a section, one of {', '.join(STAGES)}"),
            (top.model_name is None, "model_name is missing: the model that it begins with"),
            (
                bool(idle),
                f"{self._origin(idle)}{', '.join(idle)}: no stage that is on uses it; "
                f"{'add the section ' + ' or '.join(USED_BY[idle[0]]) if idle else ''}",
            ),
            (
                "rate" in on and top.preferences is not None,
                f"{self._origin(['preferences'])}preferences brings the pairs and the section rate makes them: "
                "give one of the two",
            ),
            ("rate" in on and not on & {"reward", "dpo"}, "rate makes pairs, but neither reward nor dpo reads them"),
            (
                bool(unfed),
                f"{' and '.join(sorted(on & {'reward', 'dpo'}))}: there are no pairs to learn from: name a file "
                "(preferences), or add the section rate with a rater",
            ),
            (bool(on & {"rate", "ppo"}) and top.prompts is None, "prompts is missing: what is answered in training"),
            *self._check_ppo(on),
            (
                "compare" in on and not on & {"ppo", "dpo"},
                "compare: there is nothing to compare with the SFT model: add the section ppo or dpo",
            ),
            ("compare" in on and not top.gold, "compare: gold is missing: a scorer that no stage is trained on"),
            (
                "compare" in on and top.held_out_prompts is None,
                "compare: held_out_prompts is missing: prompts that no stage is trained on",
            ),
        )
        for refused, reason in refusals:
            if refused:
                raise ValueError(reason)

    def _check_ppo(self, on: set[str]) -> tuple[tuple[bool, str], ...]:
        own_reward = "ppo" in on and "reward" in self.sections["ppo"]
        return (
            (
                "ppo" in on and "reward" not in on and not own_reward,
                "ppo: there is no reward: add the section reward, which trains one from pairs, or name one in the "
                "section ppo (reward: judge.py:score)",
            ),
            (
                own_reward and "reward" in on,
                "ppo: the section reward trains a reward model for it, and the section ppo names another reward: "
                "leave one of them out",
            ),
            (self.top.critic_from_reward and "reward" not in on, "critic_from_reward needs the section reward"),
        )

    def _origin(self, names: Sequence[str]) -> str:
        return f"{self.written[names[0]].origin}: " if names and names[0] in self.written else ""

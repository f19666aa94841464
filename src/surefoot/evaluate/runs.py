"""Which models are compared: names and globs -> folders with a model, each with what its run says about itself."""

import glob
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surefoot.changes import MAY_CHANGE
from surefoot.checkpoint import MANIFEST, TENSORS
from surefoot.config import PPOConfig
from surefoot.display import brief
from surefoot.rewards.address import is_address
from surefoot.rewards.locate import is_file_spec
from surefoot.settings import read_file

BASELINE, BEST_OF = "SFT", "best of"
_LABEL = re.compile(r"^(?P<label>[\w .+-]+(?:/[\w .+-]+)?)=(?P<path>.+)$")
_SEED = re.compile(r"[-_.]?seed[-_]?\d+$")
_OWN = frozenset(("seed", "output_dir", "model_name", "ref_model_name", "adapter_name", "value_model_name", "dataset",
                  "eval_dataset", "reward", *MAY_CHANGE))  # fmt: skip
"""Options in which two seeds of one method may differ: where things lie, and what changes no number."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that is compared.

    Attributes:
        label: the method; what stands before a "/" is its family, and the rest its strength.
        folder: the run's folder, or the model's. model: where the model lies.
        options: its run's config.yaml; empty for what was made elsewhere.
    """

    label: str
    folder: Path
    model: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """What shares one curve in the picture and at equal KL."""
        return self.label.partition("/")[0]

    @property
    def seed(self) -> int | None:
        """Of its run, where that is known."""
        return self.options.get("seed")

    def config(self) -> PPOConfig | None:
        """Its options, where it is a PPO run that this version can read."""
        if "ppo_epochs" not in self.options:
            return None
        known = PPOConfig.kinds()
        return PPOConfig(**{name: value for name, value in self.options.items() if name in known})


def find_candidates(specs: Sequence[str]) -> list[Candidate]:
    """The models that the option `runs` names, those of one label beside each other, in the order given.

    Raises:
        ValueError: nothing there, no model in it, or runs of one label that are not seeds of one method.
    """
    if not specs:
        raise ValueError("runs is missing: name at least one run folder")
    found = [_candidate(label, folder) for spec in specs for label, folder in _folders(spec)]
    labels_of = [c.label for c in found]
    labels = list(dict.fromkeys(labels_of))
    for label in labels:
        if label.partition("/")[0] in (BASELINE, BEST_OF):
            raise ValueError(f"runs={label!r}: that is the name of a row of the table already, choose another")
        _check_seeds(label, [c for c in found if c.label == label])
    for family in {c.family for c in found}:
        strengths = {label: labels_of.count(label) for label in labels if label.partition("/")[0] == family}
        if len(set(strengths.values())) > 1:
            counts = ", ".join(f"{count} of {label}" for label, count in strengths.items())
            raise ValueError(f"runs: {counts}: give as many seeds of each strength of {family!r}, or other names")
    return [c for label in labels for c in found if c.label == label]


def model_in(folder: str | Path) -> Path | None:
    """Where a run's folder, or a folder itself, holds a model, or is a checkpoint of one; None where neither does."""
    for path in (Path(folder) / "model", Path(folder)):
        if any((path / name).is_file() for name in ("config.json", "adapter_config.json")) or is_checkpoint(path):
            return path
    return None


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint of a PPO run: weights that its run's config.yaml says what to do with."""
    return all((folder / name).is_file() for name in (MANIFEST, TENSORS))


def run_of(folder: Path) -> Path:
    """The run that a model's folder, or a checkpoint, belongs to; else the folder itself."""
    if is_checkpoint(folder):
        return folder.parent.parent
    return folder.parent if folder.name == "model" else folder


def options_in(folder: Path) -> dict[str, Any]:
    """What a run's config.yaml says, as plain values; empty where there is none."""
    path = folder / "config.yaml"
    if not path.is_file():
        return {}
    return {name: _plain(setting.value) for name, setting in read_file(path).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_plain, value))
    return str(value) if isinstance(value, str) else value


def _folders(spec: str) -> list[tuple[str, Path]]:
    named = None if _matches(spec) else _LABEL.match(spec)
    label, pattern = (named["label"].strip(), named["path"]) if named else (None, spec)
    paths = _matches(pattern)
    if not paths:
        raise ValueError(f"runs={brief(spec)}: there is no folder {brief(pattern)} (looked in {Path.cwd()})")
    return [(label or _SEED.sub("", path.resolve().name) or path.name, path) for path in paths]


def _matches(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        return [path]
    return sorted(Path(p) for p in glob.glob(str(path)) if Path(p).is_dir())


def _candidate(label: str, folder: Path) -> Candidate:
    model = model_in(folder)
    if model is None:
        unfinished = (folder / "config.yaml").is_file() and not (folder / "result.json").is_file()
        why = "its run has not ended: go on with it first" if unfinished else "give a run folder, or a model's"
        raise ValueError(f"runs={str(folder)!r} holds no model, neither in it nor in model/: {why}")
    check_language_model(model, "runs")
    return Candidate(label, folder, model, options_in(run_of(folder) if is_checkpoint(folder) else folder))


def check_language_model(model: Path, option: str) -> None:
    """Refuses a model with another head: loaded as a language model, it would get a new one of random numbers."""
    if is_checkpoint(model):
        return  # its run's policy, which is one
    config, adapter = (model / name for name in ("config.json", "adapter_config.json"))
    if config.is_file():
        kinds = json.loads(config.read_text(encoding="utf-8")).get("architectures") or []
        wrong = [kind for kind in kinds if re.search(r"Classification|MaskedLM|QuestionAnswering", kind)]
    else:
        kind = json.loads(adapter.read_text(encoding="utf-8")).get("task_type")
        wrong = [] if kind in (None, "CAUSAL_LM") else [f"adapter of the kind {kind}"]
    if wrong:
        raise ValueError(f"{option}={str(model)!r} holds a {wrong[0]}, no causal language model: it gives no answers")


def _check_seeds(label: str, runs: Sequence[Candidate]) -> None:
    """Runs of one label must differ in their seed, and in nothing else that changes numbers."""
    if len({run.folder.resolve() for run in runs}) < len(runs):
        raise ValueError(f"runs: a folder is named twice under {label!r}")
    known = [run for run in runs if run.options]
    seeds = [run.seed for run in known]
    twice = [run.folder for run in known if seeds.count(run.seed) > 1]
    names = sorted({name for run in known for name in run.options} - _OWN)
    for name in names:
        values = list(dict.fromkeys(run.options.get(name) for run in known))
        if len(values) > 1:
            raise ValueError(
                f"runs: those under {label!r} differ in {name} ({' and '.join(map(brief, values[:2]))}), so they are "
                f"not seeds of one method: name each, as in {label}/a=FOLDER {label}/b=FOLDER"
            )
    if twice:
        raise ValueError(
            f"runs: {' and '.join(str(path) for path in twice[:2])} are both seed {known[0].seed} of {label!r}: runs "
            "of one name are seeds of one method, so name them apart, or leave one out"
        )


def agreed(candidates: Sequence[Candidate], name: str, given: Any, empty: Collection[Any] = (None, ())) -> Any:
    """An option as it was given; else as all runs have it that say something of it.

    Raises:
        ValueError: the runs say different things.
    """
    if given not in empty:
        return given
    said = {run.label: run.options[name] for run in candidates if run.options.get(name) not in empty}
    values = list(dict.fromkeys(said.values()))
    if len(values) > 1:
        first, second = (next(label for label, value in said.items() if value == wanted) for wanted in values[:2])
        raise ValueError(
            f"{name} is {brief(values[0])} in {first} and {brief(values[1])} in {second}: say which to compare with"
        )
    return values[0] if values else given


def start_of(candidates: Sequence[Candidate], given: str | None) -> tuple[str, str | None]:
    """The model that all runs started from, and the adapter on it.

    Raises:
        ValueError: it is neither given nor told by the runs, or they started from different ones.
    """
    if given is not None:
        folder = model_in(given)
        if folder is not None:
            check_language_model(folder, "baseline")
        return (given if folder is None else str(folder)), None
    told = [run for run in candidates if run.options.get("model_name")]
    starts = {origin_of(run.options): (run.options["model_name"], run.options.get("adapter_name")) for run in told}
    if not starts:
        raise ValueError("baseline is missing: none of the runs says which model it started from")
    if len(starts) > 1:
        names = " and ".join(brief(adapter or model) for model, adapter in list(starts.values())[:2])
        raise ValueError(
            f"baseline is missing: the runs started from different models, {names}: say which to compare with"
        )
    return next(iter(starts.values()))


def origin(model: str | None, adapter: str | None) -> str:
    """What decides where a run started: the adapter, where there is one; a folder however it is written."""
    name = str(adapter or model)
    folder = Path(name).expanduser()
    return str(folder.resolve()) if folder.is_dir() else name


def origin_of(options: Mapping[str, Any]) -> str:
    """The same of a run's options."""
    return origin(options.get("model_name"), options.get("adapter_name"))


def check_gold(
    gold: Sequence[str], candidates: Sequence[Candidate], proxy: Sequence[str], *, needed: bool = True
) -> None:
    """Refuses a gold scorer that a run was trained on, or that is the proxy: it would praise what it asked for.

    Raises:
        ValueError: it is one, or there is no gold.
    """
    if not gold and needed:
        raise ValueError(
            "gold is missing: name at least one scorer that no run was trained on, in the form of PPO's option reward"
        )
    if len(set(gold)) < len(gold):
        raise ValueError(f"gold names a scorer twice: {', '.join(gold)}")
    for scorer in gold:
        for run in candidates:
            if any(same_scorer(scorer, trained) for trained in _texts(run.options.get("reward"))):
                raise ValueError(
                    f"gold={scorer!r} is what {run.folder} was trained on, so it cannot judge it: name another scorer"
                )
        if any(same_scorer(scorer, one) for one in proxy):
            raise ValueError(f"gold={scorer!r} is the proxy too: gold must be a scorer that no run was trained on")


def same_scorer(one: str, other: str) -> bool:
    """Whether two texts name the same scorer, however they are written."""
    (place, name), (other_place, other_name) = _parts(one), _parts(other)
    return place == other_place and (name == other_name or not (name and other_name))


def _parts(spec: str) -> tuple[str, str]:
    if is_address(spec):
        return spec.partition("#")[0], ""
    if is_file_spec(spec):
        path, _, name = spec.partition(".py")
        return str(Path(f"{path}.py").expanduser().resolve()), name.strip(":")
    folder = Path(spec).expanduser()
    if folder.is_dir():
        return str(folder.resolve()), ""
    home, colon, name = spec.partition(":")
    return (f"{home}.{name}", "") if colon else (spec, "")


def _texts(value: Any) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)

"""model/README.md: the card that a trained model carries, made of what its run's folder says and of nothing else."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from surefoot.display import visible
from surefoot.evaluate.duel import sentences as duel_sentences
from surefoot.evaluate.results import Result, Row
from surefoot.evaluate.runs import options_in
from surefoot.redaction import hide_values
from surefoot.report.numbers import before_after, changed_options, read_run
from surefoot.settings import yaml_value
from surefoot.tracking import RunFolder

_KINDS = (("ppo_epochs", "PPO"), ("beta", "DPO"), ("centre_on", "reward model"))
"""An option that only one kind of stage has -> what the stage is called; what has none of them is SFT."""
_DATA = ("dataset", "ratings", "eval_dataset", "reward")
_HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+$")
_LONGEST_CHAIN = 8


@dataclass(frozen=True, slots=True)
class Stage:
    """One training: its kind, the model it started from, and what it was given, by the options' names."""

    kind: str
    start: str
    given: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card says.

    Attributes:
        title: the run's name. adapter: whether the folder holds a LoRA adapter alone.
        stages: from the base to this one. base: where the first of them started.
        scores: quantity, before, after, as the run's own evaluations have it.
        measured: sentences of a comparison; empty where there was none.
        options: those that are not at their default, as YAML.
    """

    title: str
    adapter: bool
    base: str
    stages: tuple[Stage, ...]
    scores: tuple[tuple[str, str, str], ...]
    options: tuple[tuple[str, str], ...]
    command: str
    config_sha256: str
    versions: Mapping[str, str]
    ended: str
    measured: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What made the model."""
        return self.stages[-1].kind


def write_card(folder: str | Path, facts: CardFacts | None = None) -> Path:
    """Writes the card of a run's model, and says where it is.

    Args:
        folder: the run's folder, with the model in model/.
        facts: what it says. None: what the folder says.

    Raises:
        ValueError: there is no model, or no run.
    """
    path = Path(folder) / "model" / "README.md"
    if not path.parent.is_dir():
        raise ValueError(f"{str(folder)!r} has no model/ to write a card for")
    part = path.with_name(".README.md.part")
    part.write_text(card(facts or facts_of(folder)), encoding="utf-8")
    part.replace(path)
    return path


def write_measured(folder: Path, result: Result, row: Row) -> Path | None:
    """Writes the card of a compared run anew, with what was measured; None where the folder is no run of ours."""
    if not (folder / "config.yaml").is_file() or not (folder / "model").is_dir():
        return None
    return write_card(folder, replace(facts_of(folder), measured=tuple(_measured(result, row))))


def facts_of(folder: str | Path) -> CardFacts:
    """What a run's folder says.

    Raises:
        ValueError: it holds no run.
    """
    path = Path(folder)
    run = read_run(path)
    stages = _stages(path)
    text = (path / "config.yaml").read_text(encoding="utf-8") if (path / "config.yaml").is_file() else ""
    packages = run.environment.get("packages") or {}
    return CardFacts(
        title=run.name,
        adapter=(path / "model" / "adapter_config.json").is_file(),
        base=stages[0].start,
        stages=stages,
        scores=_scores(path, stages[-1].kind),
        options=_options(run.config, stages[-1].kind),
        command=hide_values(str(run.environment.get("command") or "")),
        config_sha256=hashlib.sha256(text.encode()).hexdigest(),
        versions={"python": str(run.environment.get("python")), **{n: v for n, v in packages.items() if v}},
        ended=run.reason or "not recorded",
        measured=tuple(_judged(path)),
    )


def kind_of(options: Mapping[str, Any]) -> str:
    """What kind of stage has these options."""
    return next((kind for name, kind in _KINDS if name in options), "SFT")


def _stages(folder: Path) -> tuple[Stage, ...]:
    """This run and those whose models it started from, the first of them first."""
    found: list[Stage] = []
    place: Path | None = folder
    while place is not None and len(found) < _LONGEST_CHAIN:
        options = options_in(place)
        start = str(options.get("adapter_name") or options.get("model_name") or "not recorded")
        given = ((name, options.get(name)) for name in _DATA)
        told = tuple((name, _told(value)) for name, value in given if value not in (None, ()))
        found.insert(0, Stage(kind_of(options), _model_name(options, start), told))
        before = Path(start).expanduser()
        place = before.parent if before.name == "model" and (before.parent / "config.yaml").is_file() else None
    return tuple(found)


def _model_name(options: Mapping[str, Any], start: str) -> str:
    """Where it started: a hub name as it is, a run's model by the run's name, another folder by its own."""
    path = Path(start).expanduser()
    if path.name == "model" and path.parent.name:
        return path.parent.name
    return path.name if path.is_dir() or path.is_absolute() else start


def _told(value: Any) -> str:
    values = value if isinstance(value, tuple) else (value,)
    return ", ".join(_short(str(v)) for v in values)


def _short(name: str) -> str:
    """A path without the folders of this machine before it; anything else as it is, its secrets blanked."""
    name = hide_values(name)
    if "://" in name or not Path(name).expanduser().is_absolute():
        return name
    path = Path(name)
    return f"{path.parent.name}/{path.name}" if path.name == "model" else path.name


def _scores(folder: Path, kind: str) -> tuple[tuple[str, str, str], ...]:
    """First and last evaluation, quantity by quantity."""
    if kind == "PPO":
        rows = before_after(read_run(folder))
        return tuple(
            (f"{row.label}{', ' + row.unit if row.unit else ''}", f"{row.before:.4g}", f"{row.after:.4g}")
            for row in rows
        )
    found = RunFolder(folder).read_evaluations()
    if not found:
        return ()
    first, last = found[0]["metrics"], found[-1]["metrics"]
    numbers = [name for name, value in last.items() if isinstance(value, int | float)]
    return tuple((name, f"{first.get(name, float('nan')):.4g}", f"{last[name]:.4g}") for name in numbers)


def _judged(folder: Path) -> list[str]:
    """What a reward stage found out about its model on held-out pairs."""
    path = folder / "reward-card.json"
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    right, length = found["accuracy"], found["length_accuracy"]
    return [
        f"Right in {right['value']:.1%} [{right['low']:.1%}, {right['high']:.1%}] of {found['pairs']} held-out pairs "
        f"(95 % interval); preferring the {found['length_rule']} answer is right in {length:.1%}.",
        *found["warnings"],
    ]


def _options(config: Mapping[str, Any], kind: str) -> tuple[tuple[str, str], ...]:
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    if kind == "PPO":
        values = {name: value for name, value, _ in changed_options(values)}
    shown = {name: value for name, value in values.items() if value not in (None, ()) and name != "output_dir"}
    return tuple((name, hide_values(yaml_value(_shortened(value)))) for name, value in shown.items())


def _shortened(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_shortened, value))
    return _short(value) if isinstance(value, str) else value


def _measured(result: Result, row: Row) -> list[str]:
    n, each, seeds = result.facts["prompts"], result.facts["answers_each"], len(row.method.seeds)
    of = f"n = {n} held-out prompts, {each} answers each, {seeds} seed{'s' if seeds > 1 else ''}"
    found = []
    for gold in result.golds:
        win, change = row.win_rates[gold], row.changes[gold]
        found.append(
            f"Win rate against {result.baseline} by {gold}: {100 * win.value:.1f} % "
            f"[{100 * max(0, win.low):.1f}, {100 * min(1, win.high):.1f}] ({of}; ties half; 95 % interval)."
        )
        found.append(
            f"Score of {gold} less that of {result.baseline}: {change.value:+.4g} "
            f"[{change.low:+.4g}, {change.high:+.4g}]."
        )
    found += [s for duel in result.duels for s in duel_sentences(duel, "The model", result.baseline)]
    kl = row.means["kl"]
    found.append(f"KL from {result.baseline}: {kl.value:.4g} [{kl.low:.4g}, {kl.high:.4g}] nats an answer.")
    if seeds > 1:
        found.append("These are the means over all seeds of the method, of which this model is one.")
    return found


# ---------------------------------------------------------------------------------------------- as Markdown
def card(facts: CardFacts) -> str:
    """The card as text: front matter as model hubs read it, then what was done and what came out."""
    parts = [
        _front_matter(facts),
        f"# {_text(facts.title)}",
        f"A model trained by surefoot {facts.versions.get('surefoot', '')} with "
        f"{', then '.join(stage.kind for stage in facts.stages)}, starting from {_code(facts.base)}."
        + (" The folder holds a LoRA adapter; it needs that base." if facts.adapter else ""),
        "## Use\n\n" + _use(facts),
        "## How it was made\n\n" + _table(["stage", "started from", "given"], [_stage(s) for s in facts.stages]),
        "## What came out\n\n" + _outcome(facts),
        f"## Options\n\n{'Those that are not at their default' if facts.kind == 'PPO' else 'Those that were set'}:\n\n"
        + _block("yaml", [f"{name}: {value}" for name, value in facts.options]),
        "## Reproduce\n\n" + _reproduce(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: CardFacts) -> str:
    """Names of the hub only: a folder of this machine means nothing to a reader elsewhere."""
    reward = facts.kind == "reward model"
    lines = [f"library_name: {'peft' if facts.adapter else 'transformers'}"]
    if _HUB_NAME.match(facts.base):
        lines.append(f"base_model: {facts.base}")
    data = [value.partition(":")[0] for stage in facts.stages for name, value in stage.given if name == "dataset"]
    public = [name for name in dict.fromkeys(data) if _HUB_NAME.match(name) and not Path(name).suffix]
    if public:
        lines += ["datasets:", *(f"- {name}" for name in public)]
    lines.append(f"pipeline_tag: {'text-classification' if reward else 'text-generation'}")
    tags = ["surefoot", *(["reward-model"] if reward else []), *(["lora"] if facts.adapter else [])]
    tags += list(dict.fromkeys(stage.kind.lower() for stage in facts.stages if stage.kind != "reward model"))
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _use(facts: CardFacts) -> str:
    kind = "AutoModelForSequenceClassification" if facts.kind == "reward model" else "AutoModelForCausalLM"
    more = ", num_labels=1" if facts.kind == "reward model" and facts.adapter else ""
    return _block(
        "python",
        [
            f"from transformers import {kind}, AutoTokenizer",
            "",
            f'model = {kind}.from_pretrained("path/to/this/folder"{more})',
            'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")',
        ],
    )


def _stage(stage: Stage) -> list[str]:
    given = "; ".join(f"{name} {_code(value)}" for name, value in stage.given)
    return [stage.kind, _code(stage.start), given or "not recorded"]


def _outcome(facts: CardFacts) -> str:
    parts = [f"The run ended: {_text(facts.ended)}."]
    if facts.scores:
        parts.append("Its own evaluations, on what it held out"
                     + (", by the reward it was trained on:" if facts.kind == "PPO" else ":"))  # fmt: skip
        parts.append(_table(["", "first", "last"], [[_text(cell) for cell in row] for row in facts.scores]))
    else:
        parts.append("Its own evaluations: it made none.")
    if facts.measured:
        if facts.kind != "reward model":
            parts.append("Compared with the model it started from, by scorers that no stage was trained on:")
        parts.append("\n".join(f"- {_text(sentence)}" for sentence in facts.measured))
    elif facts.kind != "reward model":
        parts.append(
            "Win rate: not measured. `surefoot evaluate` measures it, by a scorer that no stage was trained on, or by "
            "a judge."
        )
    return "\n\n".join(parts)


def _reproduce(facts: CardFacts) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    return "\n\n".join(
        [
            _block("sh", [facts.command or "# the command was not recorded"]),
            f"SHA-256 of the run's config.yaml: `{facts.config_sha256}`",
            f"Versions: {_text(versions)}",
            "To publish it: `hf upload USER/NAME path/to/this/folder`. Nothing was uploaded by the training.",
        ]
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _block(language: str, lines: Sequence[str]) -> str:
    text = "\n".join(visible(line) for line in lines)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _text(text: str) -> str:
    """Foreign text that stays text in Markdown."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", visible(text))


def _code(text: str) -> str:
    return f"`{visible(text).replace('`', chr(39)).replace('|', chr(92) + '|')}`"

"""What help and docs say about the options, read from the texts under them in their classes. No torch in here."""

import ast
import dataclasses
import inspect
import itertools
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from surefoot.config import PPOConfig
from surefoot.options import RETIRED, Options
from surefoot.settings import yaml_value


@dataclass(frozen=True, slots=True)
class OptionDoc:
    """What help and docs say about one option; `takes` names its values, `default` is written as in YAML."""

    name: str
    section: str
    takes: str
    default: str
    meaning: str


def option_docs(cls: type[Options] = PPOConfig) -> tuple[OptionDoc, ...]:
    """Every option of a class with its section and the text under it, in order; nothing heavy is imported."""
    meanings = {name: text for part in reversed(cls.__mro__) for name, text in _texts_under_fields(part).items()}
    docs, section = [], ""
    for field in dataclasses.fields(cls):
        if field.name == cls.PASSED:
            continue
        section = cls.SECTIONS.get(field.name, section)
        docs.append(OptionDoc(field.name, section, takes(field.type), yaml_value(field.default), meanings[field.name]))
    return tuple(docs)


def _texts_under_fields(cls: type) -> dict[str, str]:
    """What stands in the source under the fields that a class declares itself."""
    if not dataclasses.is_dataclass(cls):
        return {}
    source = Path(str(sys.modules[cls.__module__].__file__)).read_text(encoding="utf-8")
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    body = next(node.body for node in classes if node.name == cls.__name__)
    return {
        before.target.id: inspect.cleandoc(str(after.value.value))
        for before, after in itertools.pairwise(body)
        if isinstance(before, ast.AnnAssign)
        and isinstance(before.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }


def takes(kind: Any) -> str:
    """What an option takes, in few words: "number", "none|number", "head|adapter|model", "text ..."."""
    if get_origin(kind) in (Union, UnionType):
        return "|".join(takes(k) for k in sorted(get_args(kind), key=lambda k: k is type(None)))
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return takes(get_args(kind)[0]) + " ..."
    return {str: "text", int: "count", float: "number", bool: "true|false", type(None): "none"}[kind]


def sections(docs: Iterable[OptionDoc]) -> dict[str, list[OptionDoc]]:
    """The options of each section, in order."""
    grouped: dict[str, list[OptionDoc]] = {}
    for doc in docs:
        grouped.setdefault(doc.section, []).append(doc)
    return grouped


def config_reference() -> str:
    """docs/config.md: one table a section, and the names that are retired."""
    parts = [_REFERENCE_HEAD.format(count=len(option_docs()))]
    parts += option_tables(PPOConfig)
    rows = [f"| `{name}` | {_cell(successor)} |" for name, successor in RETIRED.items()]
    parts.append("\n".join(["\n## Names from other trainers\n", "| there | here |", "| --- | --- |", *rows, ""]))
    return "".join(parts)


def option_tables(cls: type[Options], heading: str = "##") -> list[str]:
    """A table of a class's options for each of its sections."""
    return [
        "\n".join(
            [
                f"\n{heading} {title}\n",
                "| option | takes | default | meaning |",
                "| --- | --- | --- | --- |",
                *(f"| `{d.name}` | {_cell(d.takes)} | `{d.default}` | {_cell(d.meaning)} |" for d in docs),
                "",
            ]
        )
        for title, docs in sections(option_docs(cls)).items()
    ]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


_REFERENCE_HEAD = """\
# The {count} options

This page is generated from `src/surefoot/config.py`: `python -m surefoot.manual > docs/config.md`.

The same names are used in `PPOConfig(...)`, in a settings file (`batch_size: 64`) and on the command line
(`--batch-size 64`). The command line goes before the files, a later `--config` file before an earlier one, and
both before the defaults. Files are YAML 1.2 (`1e-5` is a number), TOML or JSON. `none` (in JSON: `null`) means no
value. A list is written `[a, b]` in a file and `--stop-strings a b` on the command line. Unknown names are errors.
"""


def starter_yaml(folder: Path = Path()) -> str:
    """A commented settings file of under 30 lines for `surefoot init`; it names the example files in `folder`."""
    best = PPOConfig.recommended(135_000_000)
    return _STARTER.format(
        prompts=yaml_value((folder / "prompts.txt").as_posix()),
        reward=yaml_value(f"{(folder / 'reward.py').as_posix()}:score"),
        **{name: yaml_value(value) for name, value in vars(best).items() if name not in ("dataset", "reward")},
    )


_STARTER = """\
# A PPO run. Start it with `surefoot ppo --config <this file>`, or first with --dry-run, which makes one step and a
# checklist. All options: `surefoot ppo --help`.

model_name: HuggingFaceTB/SmolLM2-135M-Instruct  # the policy: a folder or a hub name
lora_r: 0                   # 16 trains a small LoRA adapter instead of all weights
dataset: {prompts}        # a prompt a line; or .jsonl, .csv, .parquet, a hub name
reward: {reward}     # your function; or the folder or hub name of a reward model

batch_size: 16              # answers a step is computed from
mini_batch_size: 8          # answers of one pass: make it smaller when memory runs out
max_new_tokens: 64          # longest answer
steps: 50                   # when to stop; without it: one pass through the prompts
eval_prompts: 8             # prompts held out for evaluations...
eval_every: 10              # ...which are made every so many steps

learning_rate: {learning_rate}         # halve it when the KL divergence shoots up
ppo_epochs: {ppo_epochs}               # how often a step learns from the same answers
init_kl_coef: {init_kl_coef}           # what it costs to move away from the model as it was
target_kl: {target_kl}              # how far it may move, in nats per token; the price adapts to this
seed: 0
# output_dir: runs/first    # default: runs/<model>-<time>
# log_with: tensorboard     # or wandb, trackio; the run's own files are always written
"""

EXAMPLE_FILES = {
    "prompts.txt": """\
Describe a morning by the sea.
Tell me about your favourite book.
What is it like to bake bread?
Describe a walk through an old town.
Tell me how a bicycle works.
What makes a good friend?
Describe the first day of spring.
Tell me about a meal you remember.
What would you pack for a long journey?
Describe the sound of rain.
Tell me why people climb mountains.
What is a library for?
Describe a train journey at night.
Tell me about a garden in summer.
What do you see in the clouds?
Describe a small shop on a corner.
Tell me how to mend a torn shirt.
What makes a room feel warm?
Describe a day without a telephone.
Tell me about an animal you admire.
What is the best way to learn a song?
Describe a market on a Saturday.
Tell me what the moon looks like tonight.
What would you say to a new neighbour?
""",
    "reward.py": '''\
"""A reward to start from: short answers that end like a sentence. Replace it with what you want."""


def score(completions, **kwargs):
    """One number for each answer; higher is better."""
    return [text.rstrip().endswith((".", "!", "?")) - len(text.split()) / 100 for text in completions]
''',
}
"""What `surefoot init` writes beside the settings, so that they run as they are."""

if __name__ == "__main__":
    sys.stdout.write(config_reference())

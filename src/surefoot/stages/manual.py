"""docs/stages.md: the options of the stages beside PPO: `python -m surefoot.stages.manual > docs/stages.md`."""

import sys

from surefoot.manual import option_tables
from surefoot.stages.names import SYNONYMS
from surefoot.stages.options import STAGES

_HEAD = """\
# SFT, reward models and DPO

This page is generated from `src/surefoot/stages/`: `python -m surefoot.stages.manual > docs/stages.md`.

`surefoot sft`, `surefoot reward` and `surefoot dpo` call TRL's trainers. Their options, files, run folders,
progress and errors are those of `surefoot ppo`; what they read is in [data.md](data.md).

```
surefoot sft    --model-name ./base --dataset answers.jsonl --output-dir runs/sft
surefoot reward --model-name runs/sft/model --dataset pairs.jsonl --output-dir runs/reward
surefoot dpo    --model-name runs/sft/model --dataset pairs.jsonl --output-dir runs/dpo
surefoot ppo    --model-name runs/sft/model --reward runs/reward/model --dataset prompts.jsonl
surefoot reward --model-name runs/reward/model --ratings runs/ppo --output-dir runs/reward-2
```

With adapters there is one base for all: `--lora-r 16` on each of the first two, `--model-name ./base`
everywhere, and `--adapter-name runs/sft/model` for DPO and PPO, whose reference then is the SFT adapter as it
was.

**Options of TRL.** Any other option of `SFTConfig`, `RewardConfig` or `DPOConfig` is given by its own name, in
a file (`packing: true`) or on the command line (`--packing true`), and its type is checked. Of the things that
have a name here TRL's name is taken too, as long as ours is not given beside it: {synonyms}. A mapping is
written as JSON (`lr_scheduler_kwargs: '{{"num_cycles": 1}}'`).

**Short and long rows.** A batch is padded to its longest row. `train_sampling_strategy: group_by_length` brings
rows of like length together, pairs too (by the longer answer), and saves that work. The order is drawn anew for
every epoch, and is found again when a run goes on.

**The run's folder** is like a PPO run's: `config.yaml`, `environment.json`, `data.json` (what was found odd
about the rows), `metrics.jsonl` (a line a step, TRL's numbers under `sft/`, `reward/` or `dpo/`),
`evaluations.jsonl`, `result.json`, `report.html`, `checkpoints/`, and `model/`, which plain transformers or
peft load.

**Going on.** The same command goes on from the newest checkpoint that was written whole. With the same rows,
options, versions and machine the weights end bit for bit as if the run had not been stopped (on a CPU; TRL's
own running averages begin anew). What is compared before: all options, and a digest of the rows; not the
weights of the model it began with.

**The reward model** learns on exactly the tokens that it is shown when it scores answers in PPO: prompt and
answer, without an end token behind plain text, a conversation in its chat template. It is judged on the
held-out pairs (`reward-card.json`, see [data.md](data.md)). `centre_on` names rows with prompts and answers of
the SFT model; their mean score becomes 0, and the shift is kept with the model (`score_shift`). `ratings` names runs
that people rated (see [people.md](people.md)): what they preferred is learnt instead of a data set.

**DPO's reference** is the model as it began: a frozen copy of all weights; under a new adapter the model
without it; of an adapter that is trained further, that adapter as it was.
"""


def stages_reference() -> str:
    """The page."""
    synonyms = ", ".join(f"`{there}` is `{here}`" for there, here in SYNONYMS.items())
    parts = [_HEAD.format(synonyms=synonyms)]
    for command, cls in STAGES.items():
        parts += [f"\n## surefoot {command}\n", *option_tables(cls, "###")]
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(stages_reference())

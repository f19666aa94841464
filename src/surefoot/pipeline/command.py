"""The command `surefoot rlhf`. Heavy imports wait, so that help and mistakes answer at once."""

from collections.abc import Mapping, Sequence

from surefoot.arguments import Parser, UsageError, add_options, options_of
from surefoot.pipeline.options import PipelineOptions
from surefoot.pipeline.parts import STAGES
from surefoot.sections import Sections, read_sections
from surefoot.settings import Setting, from_text
from surefoot.terminal import usage_errors

_EXAMPLES = """
surefoot rlhf --config rlhf.yaml --dry-run
surefoot rlhf --config rlhf.yaml
surefoot rlhf --config rlhf.yaml --seeds 0 1 2
surefoot rlhf --config rlhf.yaml --stages ppo compare
"""

_HOW = """
The file has options for all stages at the top, and a section for each stage that is to be run; what a section holds
are the options of that stage's own command (`surefoot sft --help`, `reward`, `ppo`, `dpo`, `compare`):

  model_name: ./base              sft:                         ppo:
  prompts: prompts.jsonl            dataset: texts.jsonl         steps: 100
  held_out_prompts: judge.jsonl   reward:                      dpo:
  preferences: pairs.jsonl          epochs: 1                    beta: 0.1
  gold: judge.py:score            compare:

What is done is skipped, as long as it was given what it would be given now; what was stopped goes on.
exit codes: 0 finished; 1 failed; 2 wrong command line or settings; 130 stopped by Ctrl-C, 143 by SIGTERM
"""


def rlhf(arguments: Sequence[str]) -> int:
    """`surefoot rlhf`: the stages of a file, in order."""
    parser = Parser(
        "rlhf", "Runs the whole of RLHF: SFT, reward model, PPO, DPO, and their comparison.",
        "--config FILE ... [--stages STAGE ...] [--OPTION VALUE ...]", _EXAMPLES,
    )  # fmt: skip
    parser.epilog = f"{parser.epilog}\n{_HOW.rstrip()}"
    general = parser.general
    files = "settings with sections (.yaml); later ones win over earlier ones, options over all"
    general.add_argument("--config", nargs="+", action="extend", default=[], metavar="FILE", help=files)
    only = f"run only these ({', '.join(STAGES)}, or one seed: ppo-seed1); the others must be done already"
    general.add_argument("--stages", nargs="+", action="extend", default=[], metavar="STAGE", help=only)
    anew = "make the stages anew; what is there is moved aside"
    general.add_argument("--fresh", action="store_true", help=anew)
    dry = "check everything, say what would happen, and write nothing"
    general.add_argument("--dry-run", action="store_true", help=dry)
    general.add_argument("--quiet", action="store_true", help="show of each stage only how it ended")
    add_options(parser, PipelineOptions)
    given = parser.read(arguments)
    if not given.config:
        raise UsageError("--config is missing: the file with the stages' sections")
    with usage_errors():
        file = read_all(given.config, options_of(given, PipelineOptions))
    from surefoot.pipeline.run import run_pipeline

    return run_pipeline(file, stages=given.stages, fresh=given.fresh, dry_run=given.dry_run, quiet=given.quiet)


def read_all(paths: Sequence[str], options: Mapping[str, str | Sequence[str]]) -> Sections:
    """The files over one another, option by option within their sections, and the command line over all.

    Raises:
        ValueError: a file that cannot be read.
    """
    top: dict[str, Setting] = {}
    sections: dict[str, dict[str, Setting]] = {}
    origins: dict[str, str] = {}
    for path in paths:
        file = read_sections(path)
        top |= file.top
        origins |= file.origins
        for name, section in file.sections.items():
            sections[name] = sections.get(name, {}) | dict(section)
    for name, text in options.items():
        flag = "--" + name.replace("_", "-")
        top[name] = Setting(from_text(PipelineOptions.kind_of(name), text), flag)
    return Sections(top, sections, origins)

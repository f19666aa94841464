"""Flags: one for every option, grouped, with the nearest name after a typo."""

import pytest

from surefoot.arguments import Parser, UsageError, add_options, options_of
from surefoot.config import PPOConfig


@pytest.fixture
def parser():
    parser = Parser("ppo", "Trains.", "[...]", "surefoot ppo")
    parser.general.add_argument("--config", nargs="+", action="extend", default=[])
    add_options(parser)
    return parser


def given(parser, *arguments):
    return options_of(parser.read(arguments))


def refusal(parser, *arguments):
    with pytest.raises(UsageError) as caught:
        parser.read(arguments)
    return str(caught.value)


def test_only_the_options_that_were_given_are_handed_on(parser):
    assert given(parser) == {}
    assert given(parser, "--learning-rate", "2e-6") == {"learning_rate": "2e-6"}


def test_dashes_and_underscores_are_alike_in_names_and_left_alone_in_values(parser):
    assert given(parser, "--batch_size", "8", "--prompt-column=my_col--umn") == {
        "batch_size": "8",
        "prompt_column": "my_col--umn",
    }


def test_lists_take_several_values_or_several_flags(parser):
    assert given(parser, "--stop-strings", "a", "b", "--stop_strings=c") == {"stop_strings": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["--whiten-rewards"], "true"),
        (["--whiten-rewards", "false"], "false"),
        (["--no-whiten-rewards"], "false"),
        (["--no-whiten_rewards"], "false"),
        (["--whiten-rewards=maybe"], "maybe"),
    ],
)
def test_switches_take_a_word_or_none(parser, arguments, value):
    assert given(parser, *arguments) == {"whiten_rewards": value}


@pytest.mark.parametrize("number", ["-1", "-0.5", "-1e-5", "-1E+3", "-.5"])
def test_negative_numbers_are_values(parser, number):
    assert given(parser, "--entropy-coef", number, "--seed", "1") == {"entropy_coef": number, "seed": "1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning-rat", "3"], "unknown option --learning-rat; did you mean --learning-rate?"),
        (["--batchsize=3"], "unknown option --batchsize; did you mean --batch-size?"),
        (["--dryrun", "--config", "x"], "unknown option --dryrun; see `surefoot ppo --help`"),
        (["--confg", "x"], "unknown option --confg; did you mean --config?"),
        (["--kl-coef", "3"], "the option --kl-coef is retired here; use init_kl_coef"),
        (["run.yaml"], "unexpected argument 'run.yaml'; did you mean --config run.yaml?"),
        (["fast"], "unexpected argument 'fast'"),
        (["--learning-r", "3"], "unknown option --learning-r; did you mean --learning-rate?"),
        (["--seed"], "argument --seed: expected one argument"),
    ],
)
def test_a_wrong_command_line_is_told_with_the_name_to_use(parser, arguments, message):
    assert refusal(parser, *arguments) == message


def test_help_shows_every_option_in_its_section_with_its_default(parser):
    text = parser.format_help()
    places = [text.index(f"\n{title}:\n") for title in PPOConfig.SECTIONS.values()]
    assert places == sorted(places)
    flags = [text.index("  --" + name.replace("_", "-") + " ") for name in vars(PPOConfig())]
    assert flags == sorted(flags)
    assert "[0.95]" in text[text.index("--lam ") : text.index("--lam-critic")]
    assert text.rstrip().endswith("examples:\n  surefoot ppo")

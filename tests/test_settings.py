"""Files and command line -> PPOConfig: precedence, YAML 1.2, and errors that say where."""

import json
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.config import SECTIONS, PPOConfig
from surefoot.manual import EXAMPLE_FILES, config_reference, option_docs, starter_yaml
from surefoot.settings import load_settings, read_file, to_yaml


def write(folder: Path, text: str, name: str = "run.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path, **overrides) -> str:
    with pytest.raises(ValueError, match=r"\S") as caught:
        load_settings([path], overrides)
    return str(caught.value).replace(str(path.parent) + "/", "")


def test_the_command_line_goes_before_files_and_later_files_before_earlier_ones(tmp_path):
    first = write(tmp_path, "learning_rate: 1e-5\nbatch_size: 32\nseed: 1\n", "a.yaml")
    second = write(tmp_path, "batch_size: 48\nseed: 2\n", "b.yaml")
    config = load_settings([first, second], {"seed": "3"})
    assert (config.learning_rate, config.batch_size, config.seed) == (1e-5, 48, 3)
    assert config.gamma == PPOConfig().gamma
    assert load_settings([second, first]).batch_size == 32


def test_nothing_given_is_the_default_config():
    assert load_settings() == PPOConfig()


def test_an_empty_file_changes_nothing(tmp_path):
    assert load_settings([write(tmp_path, "# only a comment\n")]) == PPOConfig()


@pytest.mark.parametrize("number", ["1e-5", "1E-5", "0.00001", "1.0e-05", "+1e-5"])
def test_numbers_are_those_of_yaml_1_2(tmp_path, number):
    value = load_settings([write(tmp_path, f"learning_rate: {number}")]).learning_rate
    assert isinstance(value, float)
    assert value == 0.00001


@pytest.mark.parametrize("word", ["on", "yes", "no", "off", "y"])
def test_words_that_were_booleans_in_yaml_1_1_are_text(tmp_path, word):
    assert load_settings([write(tmp_path, f"prompt_column: {word}")]).prompt_column == word
    message = refusal(write(tmp_path, f"seed: 1\nwhiten_rewards: {word}"))
    assert message.startswith("run.yaml:2: ")
    assert "must be true or false" in message


def test_toml_and_json_give_the_same_options_as_yaml(tmp_path):
    yaml = write(
        tmp_path, "learning-rate: 2e-6\nstop_strings: [a, 'b c']\nwhiten_rewards: true\nmax_grad_norm: null\n"
    )
    toml = write(
        tmp_path,
        'learning-rate = 2e-6\nstop_strings = ["a", "b c"]\nwhiten_rewards = true\nmax_grad_norm = "none"\n',
        "run.toml",
    )
    content = {"learning-rate": 2e-6, "stop_strings": ["a", "b c"], "whiten_rewards": True, "max_grad_norm": None}
    written = write(tmp_path, json.dumps(content), "run.json")
    expected = PPOConfig(learning_rate=2e-6, stop_strings=("a", "b c"), whiten_rewards=True, max_grad_norm=None)
    assert [load_settings([path]) for path in (yaml, toml, written)] == [expected] * 3


def test_json_may_be_indented_with_tabs(tmp_path):
    assert load_settings([write(tmp_path, '{\n\t"seed": 5\n}', "run.json")]).seed == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_grad_norm: none", None),
        ("max_grad_norm: None", None),
        ("max_grad_norm: ~", None),
        ("max_grad_norm:", None),
    ],
)
def test_no_value_can_be_written_in_words(tmp_path, text, expected):
    assert load_settings([write(tmp_path, text)]).max_grad_norm is expected


def test_none_in_quotes_is_a_text(tmp_path):
    assert load_settings([write(tmp_path, "prompt_column: 'none'")]).prompt_column == "none"


def test_a_single_value_serves_as_a_list_and_a_round_float_as_a_count(tmp_path):
    config = load_settings([write(tmp_path, "reward: judge.py:score\nstop_token_ids: 7\ntotal_episodes: 1e5\n")])
    assert config.reward == ("judge.py:score",)
    assert config.stop_token_ids == (7,)
    assert config.total_episodes == 100_000
    assert isinstance(config.total_episodes, int)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "unknown.yaml",
            "seed: 1\nlearning_rat: 1",
            "unknown.yaml:2: unknown option 'learning_rat'; did you mean 'learning_rate'?",
        ),
        (
            "retired.yaml",
            "\n\nnum_ppo_epochs: 4",
            "retired.yaml:3: the option 'num_ppo_epochs' is retired here; use ppo_epochs",
        ),
        (
            "unknown.toml",
            "seed = 1\nbatchsize = 4",
            "unknown.toml:2: unknown option 'batchsize'; did you mean 'batch_size'?",
        ),
        (
            "unknown.json",
            '{\n"seed": 1,\n"batchsize": 4}',
            "unknown.json:3: unknown option 'batchsize'; did you mean 'batch_size'?",
        ),
        ("kind.yaml", "seed: 1\nbatch_size: many", "kind.yaml:2: batch_size='many' must be a whole number"),
        (
            "range.yaml",
            "seed: 1\n\nlearning_rate: -1",
            "range.yaml:3: learning_rate=-1.0 must be at least 0 and at most 10",
        ),
        ("range.json", '{"seed": 1,\n "gamma": 1.5}', "range.json:2: gamma=1.5 must be at least 0 and at most 1"),
        (
            "choice.yaml",
            "critic: heads",
            "choice.yaml:1: critic='heads' must be one of 'head', 'adapter', 'model'; did you mean 'head'?",
        ),
        ("number.yaml", "model_name: 7", "number.yaml:1: model_name=7 must be a text; put it in quotes"),
        (
            "twice.yaml",
            "seed: 1\nlam: 1\nseed: 2",
            "twice.yaml:3: seed is set twice, first in line 1; keep one of the two",
        ),
        (
            "dashes.yaml",
            "batch-size: 1\nbatch_size: 2",
            "dashes.yaml:2: batch_size is set twice, first in line 1; keep one of the two",
        ),
        (
            "twice.json",
            '{"seed": 1,\n"seed": 2}',
            "twice.json:2: seed is set twice, first in line 1; keep one of the two",
        ),
        ("broken.yaml", "seed: 1\nlam: [1, 2\ngamma: 1", "broken.yaml:3:6: unreadable YAML"),
        ("control.yaml", "seed: 1\nlam: \x07", "control.yaml:2:6: unreadable YAML"),
        ("broken.toml", "seed = 1\nlam = = 2", "broken.toml:2:7: unreadable TOML"),
        ("twice.toml", "seed = 1\nseed = 2", "twice.toml:2: unreadable TOML: Cannot overwrite a value"),
        ("broken.json", '{"seed": 1,\n "lam": }', "broken.json:2:9: unreadable JSON"),
        ("list.yaml", "- seed", "list.yaml:1: options are `name: value` lines"),
        ("two.yaml", "seed: 1\n---\nseed: 2", "two.yaml:2:1: unreadable YAML"),
        ("list.json", "[1]", "list.json:1: options are an object"),
        ("nested.yaml", "seed: 1\nppo:\n  lam: 1", "nested.yaml:3: options are not nested"),
        ("nested.toml", "seed = 1\n[ppo]\nlam = 1", "nested.toml:2: options are not nested"),
        ("nested.json", '{"ppo": {"lam": 1}}', "nested.json:1: options are not nested"),
        ("deep.yaml", "stop_strings: [[a]]", "deep.yaml:1: a list inside a list"),
        ("deep.json", '{"stop_strings": [["a"]]}', "deep.json:1: a list inside a list"),
        ("bottomless.yaml", "[" * 5000, "bottomless.yaml: nested too deeply"),
        ("bottomless.json", "[" * 200_000, "bottomless.json: nested too deeply"),
        ("settings.ini", "seed=1", "settings.ini: a settings file ends in .yaml, .yml, .toml or .json"),
    ],
)
def test_bad_files_are_refused_with_file_and_line(tmp_path, name, text, expected):
    assert refusal(write(tmp_path, text, name)).startswith(expected)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!mine 3", "!!set {}"]
)
def test_tags_build_no_objects(tmp_path, tag):
    assert refusal(write(tmp_path, f"seed: 1\nmodel_name: {tag}")).startswith("run.yaml:2: ")


def test_all_wrong_lines_are_told_at_once(tmp_path):
    message = refusal(write(tmp_path, "lamda: 1\nseed: x\nmodel_name: ok\nbatch: 3"))
    assert [line.split(":")[1] for line in message.splitlines()] == ["1", "2", "4"]


def test_options_that_contradict_each_other_are_told_with_both_places(tmp_path):
    message = refusal(write(tmp_path, "seed: 1\nbatch_size: 6\n"), num_generations="4")
    assert message.startswith("run.yaml:2: batch_size=6 is not a multiple of num_generations=4")
    assert message.endswith("(num_generations: --num-generations)")


def test_a_wrong_value_on_the_command_line_is_told_by_its_flag(tmp_path):
    assert (
        refusal(write(tmp_path, ""), learning_rate="fast") == "--learning-rate: learning_rate='fast' must be a number"
    )


def test_a_missing_file_a_folder_and_a_huge_file_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run\.yaml: no such file; `surefoot init"):
        load_settings([tmp_path / "run.yaml"])
    (tmp_path / "folder.yaml").mkdir()
    assert refusal(tmp_path / "folder.yaml") == "folder.yaml: not a file"
    assert refusal(write(tmp_path, "#" * 2**20 + "\n")).startswith("run.yaml: larger than 1 MiB")


def test_bytes_that_are_not_utf_8_are_refused_with_their_line(tmp_path):
    (tmp_path / "run.yaml").write_bytes(b"seed: 1\nmodel_name: \xff\n")
    assert refusal(tmp_path / "run.yaml") == "run.yaml:2: not UTF-8 text"


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    (tmp_path / "run.yaml").write_bytes(b"\xef\xbb\xbfseed: 4\r\nmodel_name: m\r\n")
    config = load_settings([tmp_path / "run.yaml"])
    assert (config.seed, config.model_name) == (4, "m")


@pytest.mark.parametrize(
    ("name", "typed", "expected"),
    [
        ("score_clip", "none", None),
        ("score_clip", "2", 2.0),
        ("learning_rate", "2e-6", 2e-6),
        ("max_tokens_per_microbatch", "auto", "auto"),
        ("max_tokens_per_microbatch", "4096", 4096),
        ("total_episodes", "1e4", 10_000),
        ("whiten_rewards", "true", True),
        ("whiten_advantages", "false", False),
        ("model_name", "7", "7"),
        ("model_name", "true", "true"),
        ("stop_strings", ["a", "1"], ("a", "1")),
        ("stop_strings", ["none"], ()),
        ("stop_token_ids", ["1", "2"], (1, 2)),
        ("reward_weights", [], ()),
    ],
)
def test_texts_of_the_command_line_become_what_the_option_takes(name, typed, expected):
    extra = {"output_dir": "runs/x"}
    value = getattr(load_settings([], {name: typed} | extra), name)
    assert value == expected
    assert type(value) is type(expected)


def texts():
    return st.text(st.characters(codec="utf-8") | st.sampled_from("\x85\u2028\u2029\ufeff\x7f\t\n'\"#:"), max_size=12)


@given(
    model=texts(), stops=st.lists(texts(), max_size=3), rate=st.floats(0, 10), weights=st.floats(-1e300, 1e300),
    episodes=st.none() | st.integers(1, 10**9), whiten=st.booleans(), seed=st.sampled_from([0, 1, 2]),
)  # fmt: skip
def test_a_config_written_as_yaml_reads_back_equal(
    tmp_path_factory, model, stops, rate, weights, episodes, whiten, seed
):
    config = PPOConfig(
        model_name=model,
        stop_strings=tuple(stops),
        learning_rate=rate,
        target_reward=weights,
        total_episodes=episodes,
        whiten_rewards=whiten,
        seed=seed,
    )
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_settings([path]) == config


@pytest.mark.parametrize(
    "word", ["none", "None", "null", "true", "yes", "1e-5", "07", "0x1F", "~", "2026-01-01", "1_0", ".5", "."]
)
def test_texts_that_look_like_something_else_read_back_as_texts(tmp_path, word):
    path = write(tmp_path, to_yaml(PPOConfig(model_name=word, stop_strings=(word,))))
    config = load_settings([path])
    assert (config.model_name, config.stop_strings) == (word, (word,))


def test_the_written_yaml_holds_every_option_and_small_rates_stay_readable():
    text = to_yaml(PPOConfig(target_reward=-2.5))
    assert "\nlearning_rate: 1e-6\n" in text
    assert "\ntarget_reward: -2.5\n" in text
    assert "\nlora_r: 0\n" in text
    assert "\nppo_epochs: 4\n" in text
    assert "\nnum_generations: 1\n" in text
    assert all(f"\n# {title}\n" in text for title in SECTIONS.values())


def test_every_option_has_a_meaning_a_section_and_something_it_takes():
    docs = {doc.name: doc for doc in option_docs()}
    assert set(docs) == set(vars(PPOConfig()))
    assert all(doc.meaning.strip() and doc.section and doc.takes for doc in docs.values())
    assert docs["lam"].section == "Advantages"
    assert docs["lam"].default == "0.95"
    assert docs["lam"].meaning.startswith("GAE's lambda")
    assert docs["critic"].takes == "head|adapter|model"
    assert docs["score_clip"].takes == "number|none"
    assert docs["stop_strings"].takes == "text ..."
    assert docs["lora_r"].section == "Models"
    assert [doc.section for doc in option_docs()].index("Prompts") == 11


def test_the_committed_reference_of_the_options_is_current():
    committed = Path(__file__).parents[1] / "docs" / "config.md"
    assert committed.read_text(encoding="utf-8") == config_reference(), (
        "run: python -m surefoot.manual > docs/config.md"
    )


def test_the_starter_file_is_short_and_loads_and_holds_the_recommended_values(tmp_path):
    text = starter_yaml()
    assert len(text.splitlines()) <= 30
    assert all(len(line) < 120 for line in text.splitlines())
    config = load_settings([write(tmp_path, text)])
    best = PPOConfig.recommended(135_000_000)
    assert (config.learning_rate, config.init_kl_coef) == (best.learning_rate, best.init_kl_coef)
    prompts = EXAMPLE_FILES[config.dataset].splitlines()
    assert len(set(prompts)) - config.eval_prompts >= config.prompts_per_step
    assert config.reward == ("reward.py:score",)


def test_the_starter_file_names_the_example_files_where_they_lie(tmp_path):
    config = load_settings([write(tmp_path, starter_yaml(Path("a: b") / "c"))])
    assert config.dataset == "a: b/c/prompts.txt"
    assert config.reward == ("a: b/c/reward.py:score",)


def test_a_file_may_use_every_option_by_its_name(tmp_path):
    assert set(read_file(write(tmp_path, to_yaml(PPOConfig())))) == set(vars(PPOConfig()))
    assert all(set(name) <= set(string.ascii_lowercase + "_") for name in vars(PPOConfig()))

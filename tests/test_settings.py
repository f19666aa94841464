"""Files and command line -> PPOConfig: precedence, YAML 1.2, and errors that say where."""

import json
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.config import PPOConfig
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
        # tags: nothing is built, wherever they stand
        *[
            ("tag.yaml", text, f"tag.yaml:2: the tag 'tag:yaml.org,2002:{tag}' is refused; values are plain texts")
            for tag, text in {
                "python/object/apply:os.system": "\nmodel_name: !!python/object/apply:os.system ['true']",
                "python/object/new:os.system": "\n!!python/object/new:os.system [x]",
                "python/name:os.system": "\nmodel_name: !!python/name:os.system",
                "python/module:os": "\nstop_strings: [a, !!python/module:os '']",
                "python/tuple": "\nstop_strings: !!python/tuple [a, b]",
                "python/dict": "\n!!python/dict\nseed: 1",
                "python/str": "\n? !!python/str seed\n: 1",
                "binary": "\nmodel_name: !!binary aGk=",
                "omap": "\nstop_strings: !!omap [a: 1]",
                "set": "\n!!set {seed}",
            }.items()
        ],
        ("own.yaml", "%TAG ! tag:x,2000:\n---\nseed: !foo 2\n", "own.yaml:3: the tag 'tag:x,2000:foo' is refused"),
        ("bool.yaml", "whiten_rewards: !!bool 7", "bool.yaml:1: '7' is not a value of the kind bool"),
        ("int.yaml", "seed: !!int ''", "int.yaml:1: '' is not a value of the kind int"),
        # anchors: one that is not there, a bomb, a circle, a merge
        ("undefined.yaml", "seed: *x", "undefined.yaml:1:7: unreadable YAML: found undefined alias 'x'"),
        ("circle.yaml", "stop_strings: &a [*a]", "circle.yaml:1: a list inside a list"),
        ("merge.yaml", "seed: 1\n<<: {lam: 0.5}", "merge.yaml:2: options are not nested"),
        (
            "bomb.yaml",
            "x0: &x0 [a, a]\n" + "".join(f"x{i + 1}: &x{i + 1} [*x{i}, *x{i}]\n" for i in range(99)),
            "bomb.yaml:2: a list inside a list",
        ),
        # numbers that are none
        (
            "nan.yaml",
            "seed: 1\nlearning_rate: .nan",
            "nan.yaml:2: learning_rate=nan must be at least 0 and at most 10",
        ),
        ("inf.yaml", "target_kl: .inf", "inf.yaml:1: target_kl=inf must be greater than 0"),
        ("large.yaml", "learning_rate: 1e999", "large.yaml:1: learning_rate=inf must be at least 0"),
        ("count.yaml", "seed: .inf", "count.yaml:1: seed=inf must be a whole number"),
        (
            "list.yaml",
            "reward: [a:b]\nreward_weights: -.inf",
            "list.yaml:2: reward_weights=-inf must be at least -1e+300",
        ),
        ("nan.toml", "learning_rate = nan", "nan.toml:1: learning_rate=nan must be at least 0"),
        ("nan.json", '{"learning_rate": NaN}', "nan.json:1: learning_rate=nan must be at least 0"),
        ("half.yaml", "batch_size: 2.5", "half.yaml:1: batch_size=2.5 must be a whole number"),
        *[
            (name, text.replace("9", "9" * 6000), f"{name}:2: {reason}")
            for name, text, reason in (
                ("long.yaml", "\nseed: 9", "'99999"),
                ("long.toml", "lam = 1\nseed = 9", "a number of thousands of digits"),
                ("long.json", '{"lam": 1,\n"seed": 9}', "a number of thousands of digits"),
            )
        ],
        # texts that are no settings
        ("plain.yaml", "seed = 1", "plain.yaml:1: options are `name: value` lines"),
        ("tab.yaml", "stop_strings:\n\t- a", "tab.yaml:2:1: unreadable YAML: found character '\\t' that cannot start"),
        (
            "three.yaml",
            "---\nseed: 1\n...\n---\nlam: 1",
            "three.yaml:4:1: unreadable YAML: but found another document",
        ),
        ("nul.yaml", "seed: 1\n\0", "nul.yaml:2:1: unreadable YAML: a character that is not allowed"),
        ("trailing.json", '{"seed": 1,}', "trailing.json:1:12: unreadable JSON"),
        ("key.yaml", '"a\\e[31m\\u202e": 3', "key.yaml:1: unknown option 'a\\x1b[31m\\u202e'; see"),
    ],
)
def test_bad_files_are_refused_with_file_and_line(tmp_path, name, text, expected):
    assert refusal(write(tmp_path, text, name)).startswith(expected)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!mine 3", "!!set {}"]
)
def test_tags_build_no_objects(tmp_path, tag):
    assert refusal(write(tmp_path, f"seed: 1\nmodel_name: {tag}")).startswith("run.yaml:2: ")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "binary.yaml",
            bytes(range(256)),
            "binary.yaml:2: not UTF-8 text: is this a settings file? If so, save it as",
        ),
        ("packed.json", b"\x1f\x8b\x08\0\0", "packed.json:1: not UTF-8 text"),
        ("utf16.yaml", "seed: 1\n".encode("utf-16"), "utf16.yaml:1: not UTF-8 text"),
        ("latin.yaml", "seed: 1\nmodel_name: é\n".encode("latin-1"), "latin.yaml:2: not UTF-8 text"),
        ("latin.toml", "seed = 1\nmodel_name = 'é'\n".encode("latin-1"), "latin.toml:2: not UTF-8 text"),
    ],
)
def test_files_of_another_encoding_are_refused_with_their_line(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name).startswith(reason)


@pytest.mark.parametrize("name", ["run.yaml", "run.toml", "run.json"])
@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_of_any_kind_changes_nothing(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert load_settings([tmp_path / name]) == PPOConfig()


def test_a_message_stays_short_whatever_stands_in_the_file(tmp_path):
    for text in ("learning_rate: " + "v" * 100_000, f"? {'k' * 100_000}\n: 1", "critic: " + "h" * 100_000):
        assert len(refusal(write(tmp_path, text))) < 300
    many = refusal(write(tmp_path, "".join(f"k{i}: 1\n" for i in range(2000))))
    assert len(many.splitlines()) == 21
    assert many.endswith("\n... and there may be more")


@pytest.mark.parametrize(
    "line",
    [
        "api_key: hunter2canary",
        "hf_token: hunter2canary",
        "--hub-password: hunter2canary",
        "learning_rate: api_key=hunter2canary",
        "learning_rate: hf_hunter2canaryhunter2canary",
        "critic: https://joe:hunter2canary@example.org/x",
        "critic: https://joe:hunter2canary@x@example.org/x",
        "critic: https://joe:hunter2/canary@example.org/x",
        "critic: https://example.org/x?n=3&access_token=hunter2canary",
        "batch_size: !!int hunter2canary",
        "critic: sesame-hunter2canary",
    ],
)
def test_a_secret_in_a_file_is_not_repeated(tmp_path, monkeypatch, line):
    monkeypatch.setenv("MY_SERVICE_KEY", "sesame-hunter2canary" if "sesame" in line else "hunter2canary")
    message = refusal(write(tmp_path, f"seed: 1\n{line}\n"))
    assert message.startswith("run.yaml:2: ")
    assert "hunter2" not in message
    assert "canary" not in message


def test_a_secret_under_a_name_of_its_own_is_told_where_secrets_go(tmp_path):
    message = refusal(write(tmp_path, "openai_api_key: abc"))
    assert message == (
        "run.yaml:1: unknown option 'openai_api_key'; no option takes a secret: put it into an environment variable, "
        "which a reward names as ...#token_env=NAME; the hub reads HF_TOKEN"
    )


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
    assert refusal(tmp_path / "run.yaml").startswith("run.yaml:2: not UTF-8 text")


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
    assert all(f"\n# {title}\n" in text for title in PPOConfig.SECTIONS.values())


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
    assert [doc.section for doc in option_docs()].index("Prompts") == 12


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

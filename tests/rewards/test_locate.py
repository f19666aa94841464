"""From a text to a function."""

import sys

import pytest

from surefoot.rewards import FunctionReward, make_reward
from surefoot.types import Completion, Prompt

PROMPTS, ANSWERS = [Prompt("p", (1,))], [Completion("abc", (1, 2, 3), (0.0,) * 3, "stop")]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "my_rewards_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("def length(text): return len(text)\nnumber = 3\n")
    (tmp_path / "helper_of_mine.py").write_text("FACTOR = 10\n")
    (tmp_path / "one.py").write_text(
        "from helper_of_mine import FACTOR\ndef reward_fn(text): return FACTOR * len(text)\n"
    )
    (tmp_path / "two.py").write_text("def reward_fn(text): return 1\ndef compute_score(text): return 2\n")
    (tmp_path / "kinds.py").write_text(
        "class ORM: pass\nclass Mine(ORM):\n"
        "    def __call__(self, completions, **kwargs): return [5] * len(completions)\n"
        "class Needy:\n    def __init__(self, a): pass\n    def __call__(self, text): return 0\n"
    )
    yield
    for name in [n for n in sys.modules if n.startswith(("my_rewards_pkg", "helper_of_mine", "surefoot_reward_"))]:
        del sys.modules[name]


@pytest.mark.parametrize(("spec", "score", "name"), [
    ("my_rewards_pkg.inner:length", 3.0, "length"), ("my_rewards_pkg.inner.length", 3.0, "length"),
    ("my_rewards_pkg/inner.py:length", 3.0, "length"), ("./one.py", 30.0, "reward_fn"),
    ("two.py:compute_score", 2.0, "compute_score"), ("kinds.py:Mine", 5.0, "Mine"),
])  # fmt: skip
def test_every_way_of_naming_a_function_finds_it(spec, score, name):
    mix = make_reward(spec)
    assert list(mix.rewards) == [name]
    assert mix(PROMPTS, ANSWERS).scores == [score]


@pytest.mark.parametrize(("spec", "reason"), [
    ("two.py", "several of"), ("my_rewards_pkg/inner.py", "none of.*functions there: length"),
    ("absent.py", "no such file"), ("no_such_module_here:f", "no module 'no_such_module_here'"),
    ("my_rewards_pkg.inner:missing", "no 'missing' in it"), ("my_rewards_pkg.inner:number", "int, not a function"),
    ("kinds.py:Needy", "class that needs arguments"), ("http://host/score", "the path does not tell"),
    ("word", "neither a function nor a reward model"), ("./folder", "no such folder"),
    ("my_rewards_pkg", "folder without config.json"), ("a b:f", "not the name of a module"),
])  # fmt: skip
def test_what_cannot_be_found_is_said(spec, reason):
    with pytest.raises(ValueError, match=reason):
        make_reward(spec)


@pytest.mark.parametrize("spec", ["broken_{}:f", "broken_{}.py:f"])
@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [
        (1, "import surely_not_installed", "ModuleNotFoundError: No module named 'surely_not_installed'"),
        (2, "def f(", r"SyntaxError: '\(' was never closed \(broken_2.py, line 1\)"),
        (3, "{}['x']", "KeyError: 'x'"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_the_reason(tmp_path, spec, number, code, reason):
    (tmp_path / f"broken_{number}.py").write_text(code + "\n")
    with pytest.raises(ValueError, match=rf"broken_{number}.*importing it failed with {reason}") as caught:
        FunctionReward(spec.format(number))
    assert type(caught.value.__cause__).__name__ in reason

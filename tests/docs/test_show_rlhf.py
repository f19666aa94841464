"""tools/show_rlhf.py writes a comparison into README.md and docs/which-method.md, and nothing but the comparison."""

import json
from pathlib import Path

import pytest

from tools import show_rlhf

ROOT = Path(__file__).parents[2]


def estimate(value, reach):
    return {"value": value, "low": value - reach, "high": value + reach}


def method(name, change, kl, *, seeds=(0, 1, 2), seconds=None):
    trained = name in ("ppo", "dpo")
    return {
        "name": name,
        "seeds": list(seeds) if trained else [None],
        "folders": [f"runs/{name}-seed{s}" for s in seeds] if trained else [],
        "means": {"gold/imdb_log_odds": estimate(change, 0.1), "kl": estimate(kl, 0.5)},
        "less_baseline": {"gold/imdb_log_odds": estimate(change, 0.25)},
        "win_rates": {"gold/imdb_log_odds": estimate(0.75, 0.04)},
        "cost": {"answers": 1536.0 if trained else None, "reward_calls": None, "seconds": seconds},
    }


@pytest.fixture
def found():
    baseline = method("SFT", 0.0, 0.0) | {"less_baseline": {}, "win_rates": {}}
    pair = {"first": "ppo", "second": "dpo", "differences": {"gold/imdb_log_odds": estimate(-0.5, 0.25)}}
    other = {"first": "ppo", "second": "best of/4", "differences": {"gold/imdb_log_odds": estimate(9.0, 0.25)}}
    return {
        "prompts": 96,
        "answers_each": 4,
        "environment": {
            "cores": 2,
            "device": "cpu",
            "python": "3.11.7",
            "packages": {"torch": "2.13.0", "trl": "1.16.0", "vllm": None},
        },
        "methods": [
            baseline,
            method("ppo", 1.5, 4.25, seconds=330.0),
            method("dpo", 2.0, 6.0),
            method("best of/4", 1.0, 0.6),
        ],
        "differences": [pair, other],
        "matched": {"kl": 4.25, "differences": [pair | {"differences": {"gold/imdb_log_odds": estimate(0.5, 0.75)}}]},
        "notes": ["dpo has one seed: its interval is of its prompts alone"],
    }


def test_a_row_holds_what_the_judges_say_and_what_it_cost(found):
    head, _, ppo, _, best = show_rlhf.table(found)
    assert head.startswith("| method | imdb log odds, less SFT's |")
    assert ppo == "| ppo | **+1.50** [+1.25, +1.75] | **75** [71, 79] % | **4.2** [3.8, 4.8] | 3 | 1,536 | 5.5 |"
    assert (
        best == "| best of 4 | **+1.00** [+0.75, +1.25] | **75** [71, 79] % | \u2264 **0.6** [0.1, 1.1] | - | - | - |"
    )


def test_trained_methods_are_set_against_each_other_as_they_ended_and_at_equal_divergence(found):
    assert show_rlhf.differences(found)[2:] == [
        "| ppo \u2212 dpo, as they ended | **\u22120.50** [\u22120.75, \u22120.25] |",
        "| ppo \u2212 dpo, at 4.2 nats | **+0.50** [\u22120.25, +1.25] |",
    ]


def test_both_documents_get_their_section_and_keep_all_else(found, tmp_path, monkeypatch):
    (tmp_path / "docs" / "images").mkdir(parents=True)
    for name in ("README.md", "docs/which-method.md"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "run" / "compare").mkdir(parents=True)
    (tmp_path / "run" / "compare" / "compare.json").write_text(json.dumps(found))
    (tmp_path / "run" / "compare" / "frontier.png").write_bytes(b"a picture")
    monkeypatch.setattr(show_rlhf, "ROOT", tmp_path)
    for _ in range(2):  # the second time over what the first wrote
        show_rlhf.main(str(tmp_path / "run"), "make rlhf")
        for name in ("README.md", "docs/which-method.md"):
            before, after = ((home / name).read_text(encoding="utf-8") for home in (ROOT, tmp_path))
            for k in (0, 1):
                cut = (show_rlhf.BEGIN, show_rlhf.END)[k]
                assert after.split(cut)[k] == before.split(cut)[k]
            assert "| ppo | **+1.50** [+1.25, +1.75] |" in after
            assert "`make rlhf`: every method from the same SFT model" in after
    page = (tmp_path / "docs" / "which-method.md").read_text(encoding="utf-8")
    assert "2 cores, CPU; Python 3.11.7, torch 2.13.0, trl 1.16.0." in page
    assert "* dpo has one seed" in page
    assert "9.00" not in page
    assert (tmp_path / "docs" / "images" / "compare.png").read_bytes() == b"a picture"


def test_a_folder_without_a_comparison_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"holds no compare\.json"):
        show_rlhf.folder_of(tmp_path)

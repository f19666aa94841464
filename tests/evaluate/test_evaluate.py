"""`surefoot evaluate` for real: a tiny PPO run against what it began as, by a scorer and by a judge of pairs."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from fake_judge import reply, shorter, texts_of
from fake_service import Service, ok
from judged_runs import RUN, make_world

from surefoot.cli import main

SETTINGS = RUN.replace("save_every: 0", "save_every: 1")
ASKED = ["evaluate", "runs/ppo", "--gold", "judges.py:letters", "--best-of", "2", "--num-generations", "2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run of two steps that keeps both checkpoints."""
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_world()
        Path("run.yaml").write_text(SETTINGS)
        assert main(["ppo", "--config", "run.yaml", "--output-dir", "runs/ppo", "--quiet"]) == 0
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def found_in(folder):
    return json.loads((Path(folder) / "evaluation.json").read_text())


def test_a_scorer_and_a_judge_say_who_wins_and_the_card_says_it(here, capsys):
    with Service(shorter) as service:
        assert main([*ASKED, "--judge", f"{service.url}/v1", "--judge-model", "fake"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    found = found_in("runs/ppo/evaluation")
    samples = [json.loads(line) for line in Path("runs/ppo/evaluation/samples.jsonl").read_text().splitlines()]
    of = {who: [[s for s in samples if s["method"] == who and s["row"] == row] for row in range(6)]
          for who in ("policy", "SFT")}  # fmt: skip
    gold, judge = found["head_to_head"]
    shares, won = [], 0
    for mine, theirs in zip(of["policy"], of["SFT"], strict=True):
        ahead = [np.sign(a["scores"]["gold/letters"] - b["scores"]["gold/letters"])
                 for a, b in itertools.product(mine, theirs)]  # fmt: skip
        shares.append(np.mean([(x + 1) / 2 for x in ahead]))
        won += sum(x > 0 for x in ahead)
    assert (gold["by"], gold["counts"]["win"]) == ("gold/letters", won)
    assert gold["score"]["value"] == pytest.approx(np.mean(shares))
    policy = next(m for m in found["methods"] if m["name"] == "policy")
    assert policy["win_rates"]["gold/letters"]["value"] == pytest.approx(gold["score"]["value"])
    lengths = [
        (len(a["response"].strip() or "(an empty answer)"), len(b["response"].strip() or "(an empty answer)"))
        for mine, theirs in zip(of["policy"], of["SFT"], strict=True)
        for a, b in zip(mine, theirs, strict=True)
    ]
    counts = judge["counts"]
    assert (counts["win"], counts["tie"], counts["loss"]) == (
        sum(a < b for a, b in lengths), sum(a == b for a, b in lengths), sum(a > b for a, b in lengths)
    )  # fmt: skip
    assert judge["orders"]["consistent"]["value"] == 1.0
    different = {(a["prompt"], a["response"].strip(), b["response"].strip())
                 for mine, theirs in zip(of["policy"], of["SFT"], strict=True)
                 for a, b in zip(mine, theirs, strict=True)}  # fmt: skip
    assert len(service.requests) == 2 * sum(a != b for _, a, b in different)
    assert "policy against SFT by judge fake: won" in out
    card = Path("runs/ppo/model/README.md").read_text()
    assert "by judge fake: won" in card
    assert "Win rate against SFT by gold/letters" in card
    assert "by judge fake" in Path("runs/ppo/evaluation/report.html").read_text()
    assert {"evaluation.md", "result.json", "config.yaml", "frontier.png"} <= {
        path.name for path in Path("runs/ppo/evaluation").iterdir()
    }


def test_against_its_own_last_checkpoint_a_run_says_the_same_and_ties(here):
    asked = [*ASKED, "--against", "runs/ppo/checkpoints/step_000002", "--output-dir", "same", "--quiet"]
    assert main(asked) == 0
    found = found_in("same")
    assert [m["name"] for m in found["methods"]][:2] == ["ppo at step 2", "policy"]
    policy = found["methods"][1]
    assert policy["means"]["kl"]["value"] == pytest.approx(0, abs=1e-4)
    assert policy["means"]["gold/letters"]["value"] == found["methods"][0]["means"]["gold/letters"]["value"]


@pytest.mark.slow
def test_an_earlier_checkpoint_is_another_model_and_is_evaluated_where_it_belongs(here):
    assert main(["evaluate", "runs/ppo/checkpoints/step_000001", *ASKED[2:], "--quiet"]) == 0
    assert main([*ASKED, "--output-dir", "late", "--quiet"]) == 0
    early, late = (found_in(name)["methods"][1] for name in ("runs/ppo/evaluation-step_000001", "late"))
    assert early["name"] == late["name"] == "policy"
    assert 0 < early["means"]["kl"]["value"] < late["means"]["kl"]["value"]


@pytest.mark.slow
def test_a_checkpoint_with_an_adapter_is_its_run_s_policy(here):
    again = ["--lora-r", "2", "--output-dir", "runs/lora", "--quiet"]
    assert main(["ppo", "--config", "run.yaml", *again]) == 0
    asked = ["evaluate", "runs/lora", *ASKED[2:], "--against", "runs/lora/checkpoints/step_000002", "--quiet"]
    assert main(asked) == 0
    policy = next(m for m in found_in("runs/lora/evaluation")["methods"] if m["name"] == "policy")
    assert policy["means"]["kl"]["value"] == pytest.approx(0, abs=1e-4)


def test_an_answer_that_claims_its_place_wins_nothing_from_a_judge_that_obeys_it(here):
    """The judge does what answer A tells it wherever that is a command: the two orders contradict each other."""

    def obedient(request):
        a, b = texts_of(request.body["messages"][0]["content"])
        return ok(reply("Verdict: A" if a > "" and b > "" else "Verdict: tie"))

    with Service(obedient) as service:
        asked = [*ASKED[:2], "--best-of", "none", "--num-generations", "1", "--output-dir", "obeyed", "--quiet"]
        assert main([*asked, "--judge", service.url, "--judge-model", "m"]) == 0
    (judge,) = found_in("obeyed")["head_to_head"]
    assert (judge["counts"]["win"], judge["counts"]["loss"]) == (0, 0)
    assert judge["orders"]["position"]["left"]["value"] == 1.0


GOLD = ["--gold", "judges.py:letters"]
REFUSED = [
    (["evaluate", "runs/ppo", "--fresh", "--gold", "judges.py:vowels"], "is what runs/ppo was trained on"),
    (["evaluate", *GOLD], "run is missing"),
    (["evaluate", "runs/ppo"], "gold and judge are missing"),
    (["evaluate", "sft", *GOLD], "is no folder of a run"),
    (["evaluate", "nowhere", *GOLD], "is no folder of a run"),
    (["evaluate", "runs/ppo", *GOLD, "--against", "runs/nothing/x", "--output-dir", "new"], "runs/nothing/x"),
    (["evaluate", "runs/ppo", "--baseline", "sft"], "use against"),
]


@pytest.mark.parametrize(("given", "words"), REFUSED)
def test_what_cannot_be_evaluated_is_refused_before_anything_is_sampled(here, capsys, given, words):
    assert main(given) == 2
    written = capsys.readouterr()
    assert words in written.err
    assert "Traceback" not in written.err
    assert "answers to" not in written.out

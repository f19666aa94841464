"""`surefoot plan`: what it prints, its exit codes, and that it loads no weights."""

import json

import pytest
from reward_adapters import save_adapter, save_base
from tiny import tiny_llama, tiny_tokenizer
from tiny_classifier import classifier
from transformers import PreTrainedModel

from surefoot import cli
from surefoot.needs import need_of
from surefoot.plan import gather

LITTLE = 24 * 2**20


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    tiny_llama().save_pretrained(folder / "llama")
    tiny_tokenizer().save_pretrained(folder / "llama")
    classifier().save_pretrained(folder / "judge")
    lines = [json.dumps({"prompt": "x" * (10 + i)}) for i in range(16)]
    (folder / "prompts.jsonl").write_text("\n".join(lines))
    options = {"model_name": f"{folder}/llama", "dataset": f"{folder}/prompts.jsonl", "reward": f"{folder}/judge",
               "batch_size": 8, "mini_batch_size": 4, "max_new_tokens": 8, "eval_prompts": 0}  # fmt: skip
    (folder / "run.yaml").write_text("\n".join(f"{n}: {v}" for n, v in options.items()))
    return folder


def plan(capsys, world, *arguments):
    code = cli.main(["plan", str(world / "run.yaml"), *arguments])
    written = capsys.readouterr()
    return code, written.out, written.err


def test_it_says_what_each_model_takes_and_the_arithmetic_of_a_step_in_80_columns(capsys, world, monkeypatch):
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", lambda *_, **__: pytest.fail("weights were loaded"))
    code, out, err = plan(capsys, world)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    for name in ("policy", "critic (head)", "reference", "reward judge", "sampling", "scoring pass", "update"):
        assert name in out
    squeezed = " ".join(out.split())
    assert "optimizer steps │ 8 │ of 1 forward and backward passes each" in squeezed
    assert "tokens of a pass │ 126 │ 4 rows of up to 33" in squeezed  # 25 + 24 + 23 + 22 and four times 8
    assert "fits yes" in squeezed


def test_where_it_does_not_fit_it_says_what_would_and_ends_with_1(capsys, world, monkeypatch):
    known = gather.facts_of

    def little(c):
        facts = known(c)
        return gather.Facts(facts.queries, facts.device, base=0, free=LITTLE, uncounted=())

    monkeypatch.setattr(gather, "facts_of", little)
    code, out, _ = plan(capsys, world, "--batch-size", "256", "--mini-batch-size", "256")
    assert code == 1
    assert "fits     no" in out
    assert "The smallest change that would fit:" in out
    said = [line.split(": ") for line in out.split("would fit:")[1].split("\n") if ": " in line]
    again, out, _ = plan(capsys, world, "--batch-size", "256", "--mini-batch-size", "256",
                         *(f"--{n.strip().replace('_', '-')}={v.strip()}" for n, v in said))  # fmt: skip
    assert again == 0, out


def test_lora_shares_the_base_and_leaves_little_to_the_optimizer(capsys, world):
    _, out, _ = plan(capsys, world, "--lora-r", "4")
    row = next(line for line in out.splitlines() if "reference" in line)
    assert row.split("│")[2].strip() == "-"


def weights_of_reward(capsys, world, folder, *arguments):
    seen = {}

    def kept(c, shapes, *rest, **options):
        seen["need"] = need_of(c, shapes, *rest, **options)
        return seen["need"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather, "need_of", kept)
        plan(capsys, world, "--reward", str(folder), *arguments)
    (reward,) = seen["need"].rewards
    return reward.weights


@pytest.mark.slow
def test_a_reward_that_is_an_adapter_of_the_policys_base_is_counted_as_that_alone(capsys, world):
    folder = save_adapter(world / "adapter", str(world / "llama"))
    other = save_adapter(world / "another", save_base(world / "base"))
    layer = 4 * sum(a + b for a, b in [(32, 32), (32, 16), (32, 16), (32, 32), (32, 64), (32, 64), (64, 32)])
    alone = 2 * layer + 32  # numbers of the adapter (r = 4) and of the head
    trunk = sum(p.numel() for p in tiny_llama().model.parameters())
    assert weights_of_reward(capsys, world, folder, "--lora-r", "4") == 4 * alone
    for apart in (
        weights_of_reward(capsys, world, folder),
        weights_of_reward(capsys, world, other, "--lora-r", "4"),
    ):
        assert 0 <= apart - 4 * (trunk + alone) <= 4 * 32  # peft keeps the head that it replaced


def test_auto_says_what_it_would_be(capsys, world):
    _, out, _ = plan(capsys, world, "--max-tokens-per-microbatch", "auto")
    assert "auto would be 8192" in out


def test_prompts_of_unknown_length_are_as_long_as_they_may_be(capsys, world):
    _, out, _ = plan(capsys, world, "--dataset", "none", "--max-prompt-tokens", "100")
    assert "of up to 108" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(("--model-name", "none"), "model_name is missing"), (("--model-name", "./nowhere"), "nowhere")],
)
def test_names_that_lead_nowhere_are_the_command_lines_fault(capsys, world, arguments, sentence):
    code, _, err = plan(capsys, world, *arguments)
    assert code == 2
    assert sentence in err


@pytest.mark.slow
def test_for_several_processes_it_says_what_one_of_them_takes(capsys, world):
    alone, whole, shared = (
        plan(capsys, world, *more)[1] for more in ([], ["--processes", "4"], ["--processes", "4", "--shard"])
    )
    assert "one of 4 processes" not in alone
    assert "passes and stages are those of one of 4 processes" in whole
    assert "weights of the others" not in whole
    assert "weights of the others" in shared
    assert "weights lent" in shared
    weights = [next(line for line in out.splitlines() if line.startswith("│ weights  ")) for out in (whole, shared)]
    assert "small" not in weights[0]
    assert weights[1].count("small") == 4  # a quarter of some hundred KiB
    code, _, err = plan(capsys, world, "--processes", "0")
    assert (code, "--processes 0: there is at least one process" in err) == (2, True)

"""Loading a model, a tokenizer, an adapter or a checkpoint never runs code that lies beside it."""

import ast
import json
from pathlib import Path

import pytest
import tiny
import torch

import surefoot
from surefoot.loading import load_policy, load_tokenizer, load_value_model
from surefoot.rewards import make_reward

CODE = "from pathlib import Path\nPath({target!r}).touch()\nraise SystemExit('code of a model folder was run')\n"
CPU = torch.device("cpu")


@pytest.fixture(params=["a person says yes", "nobody answers"])
def hostile(tmp_path, monkeypatch, request):
    """A folder whose config asks for classes of its own, with a file of code, and asks to be trusted."""
    folder = tmp_path / "model"
    tiny.tiny_llama().save_pretrained(folder)
    tiny.tiny_tokenizer().save_pretrained(folder)
    (folder / "hostile.py").write_text(CODE.format(target=str(tmp_path / "executed")))
    auto = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer"), "hostile.Hostile")
    auto["AutoModelForSequenceClassification"] = "hostile.Hostile"
    for file, changes in {
        "config.json": {"model_type": "hostile", "auto_map": auto},
        "tokenizer_config.json": {
            "tokenizer_class": "Hostile",
            "auto_map": {"AutoTokenizer": ["hostile.Hostile", None]},
        },
    }.items():
        content = json.loads((folder / file).read_text())
        trusting = {"trust_remote_code": True, "allow_pickle": True}
        (folder / file).write_text(json.dumps(content | changes | trusting))
    # Asked about code of its own, transformers puts the question to the terminal; keep what it would run in here.
    monkeypatch.setattr("builtins.input", lambda *_: "y" if request.param == "a person says yes" else "")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return folder


@pytest.mark.parametrize("load", [
    lambda name: load_policy(name, device=CPU),
    lambda name: load_value_model(name, device=CPU),
    load_tokenizer,
    lambda name: make_reward(name, ()),
])  # fmt: skip
def test_code_in_a_model_folder_is_not_run_even_where_its_config_asks_for_it(hostile, tmp_path, load):
    with pytest.raises((ValueError, OSError, KeyError)):
        load(str(hostile))
    assert not (tmp_path / "executed").exists()


def test_a_pickle_of_weights_is_not_run(tmp_path):
    """transformers reads .bin files with torch's restricted reader; a bomb in one is refused, not run."""
    folder = tmp_path / "model"
    tiny.tiny_llama().save_pretrained(folder)
    (folder / "model.safetensors").unlink()

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"model.embed_tokens.weight": Bomb()}, folder / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"(?i)weights.only|unpickl|safetensors"):
        load_policy(str(folder), device=CPU)
    assert not (tmp_path / "executed").exists()


def calls() -> list[tuple[str, ast.Call]]:
    root = Path(surefoot.__file__).parent
    return [(str(p.relative_to(root)), node) for p in root.rglob("*.py") for node in ast.walk(ast.parse(p.read_text()))
            if isinstance(node, ast.Call)]  # fmt: skip


def test_the_source_never_trusts_remote_code_and_never_unpickles():
    """Every call that loads from a name says trust_remote_code=False, and none names a reader of pickles."""
    readers = {"torch.load", "pickle.load", "pickle.loads", "np.load", "numpy.load", "joblib.load", "dill.load"}
    loads = 0
    for file, call in calls():
        name = ast.unparse(call.func)
        assert name not in readers, file
        trusted = [ast.unparse(k.value) for k in call.keywords if k.arg == "trust_remote_code"]
        assert trusted in ([], ["False"]), file
        if name.endswith("from_pretrained") and not name.startswith("Peft"):  # an adapter holds no code
            loads += 1
            assert trusted == ["False"], f"{file}: {ast.unparse(call)}"
    assert loads >= 7

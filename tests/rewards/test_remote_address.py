"""What names a reward service, and what is refused before anything is sent."""

import logging

import pytest
from tiny_classifier import prompts, said

from surefoot.rewards import RemoteReward, make_reward
from surefoot.rewards.address import RemoteOptions, is_loopback, read_address


@pytest.mark.parametrize(("spec", "protocol", "shown"), [
    ("http://rm:5000/get_reward", "openrlhf", "http://rm:5000/get_reward"),
    ("https://rm/v1/score/evaluation", "llamafactory", "https://rm/v1/score/evaluation"),
    ("http://rm/pooling", "vllm-pooling", "http://rm/pooling"),
    ("http://rm/predict", "tei", "http://rm/predict"),
    ("https://api.example.org/v1/chat/completions", "openai-judge", "https://api.example.org/v1/chat/completions"),
    ("vllm+http://[::1]:8000", "vllm", "http://[::1]:8000/classify"),
    ("SGLang+http://rm:30000/", "sglang", "http://rm:30000/v1/embeddings"),
    ("openrlhf+https://rm/any/path?run=1", "openrlhf", "https://rm/any/path"),
])  # fmt: skip
def test_protocol_and_path_come_from_the_address(spec, protocol, shown):
    address = read_address(spec)
    assert (address.protocol, str(address)) == (protocol, shown)


def test_options_stand_behind_the_hash_and_are_not_sent():
    address = read_address("vllm+http://rm/classify?v=2#model=org/rm,read_timeout=7,concurrency=3,name=a%2Cb")
    assert address.options == {"model": "org/rm", "read_timeout": 7.0, "concurrency": 3, "name": "a,b"}
    assert address.url.geturl() == "http://rm/classify?v=2"


@pytest.mark.parametrize(("spec", "message"), [
    ("ftp://rm/get_reward", "begins with http:// or https://"),
    ("http://rm:5000/score", "the path does not tell the protocol; write openrlhf"),
    ("http://rm/classify", r"write vllm\+... or sglang-classify\+..."),
    ("grpc+http://rm/get_reward", "no protocol is called 'grpc'; known are openrlhf"),
    ("openrlhf+http://", "is no address"),
    ("openrlhf+http://rm:99999/get_reward", "Port out of range"),
    ("openrlhf+http://rm:0/get_reward", "is no address"),
    ("openrlhf+http://rm/a b", "is no address"),
    ("openrlhf+http://joe:pass@rm/get_reward", "no secrets in an address.*token_env=NAME"),
    ("openrlhf+http://rm/get_reward?api_key=hush", "no secrets in an address"),
    ("openrlhf+http://rm#token=hush", "no secrets in an address"),
    ("openrlhf+http://rm#batchsize=4", "did you mean 'batch_size'"),
    ("openrlhf+http://rm#batch_size", "given once, as batch_size=value"),
    ("openrlhf+http://rm#batch_size=4,batch_size=5", "given once"),
    ("openrlhf+http://rm#batch_size=0", "batch_size=0 must be at least 1"),
    ("openrlhf+http://rm#batch_size=four", "batch_size='four' must be a whole number"),
    ("openrlhf+http://rm#deadline=nan", "deadline=nan must be greater than 0"),
    ("openrlhf+http://rm#deadline=0", "deadline=0.0 must be greater than 0"),
    ("openrlhf+http://rm#token_env=NO_SUCH_VARIABLE", "NO_SUCH_VARIABLE.* is empty or not set"),
    ("llamafactory+http://rm", "needs the model's name: #model=NAME"),
    ("openai-judge+http://rm#model=m,template=no.txt", "no.txt"),
])  # fmt: skip
def test_a_wrong_address_is_told_and_no_secret_repeated(spec, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        make_reward(spec)
    assert "hush" not in str(caught.value)
    assert "pass" not in str(caught.value)


def test_a_judges_template_must_hold_both_parts(tmp_path):
    (tmp_path / "t.txt").write_text("{prompt}")
    with pytest.raises(ValueError, match=r"must hold \{prompt\} and \{response\}"):
        RemoteReward("openai-judge+http://127.0.0.1", model="m", template=str(tmp_path / "t.txt"))


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "schön", "tab\t"])
def test_a_token_that_no_header_can_carry_is_refused_without_being_shown(token, monkeypatch):
    monkeypatch.setenv("RM_TOKEN", token)
    with pytest.raises(ValueError, match=r"'RM_TOKEN'.*no header can carry") as caught:
        RemoteReward("openrlhf+http://127.0.0.1", token_env="RM_TOKEN")
    assert token not in str(caught.value)


@pytest.mark.parametrize(("host", "here"), [
    ("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True),
    ("0.0.0.0", False), ("10.0.0.1", False), ("localhost.example.org", False), ("example.org", False),
])  # fmt: skip
def test_what_is_this_machine(host, here):
    assert is_loopback(host) is here


def test_unencrypted_addresses_of_other_machines_are_warned_of(caplog):
    with caplog.at_level(logging.WARNING, "surefoot"):
        RemoteReward("openrlhf+https://rm.example.org")
        RemoteReward("openrlhf+http://localhost:5000")
        assert not caplog.records
        RemoteReward("openrlhf+http://rm.example.org:5000#name=far")
    assert "'far': prompts and answers go to http://rm.example.org:5000/get_reward unencrypted" in caplog.text


@pytest.mark.parametrize(("spec", "name"), [
    ("openrlhf+http://localhost", "openrlhf"), ("vllm+http://localhost#model=org/big-rm", "big-rm"),
    ("tei+http://localhost#name=mine,model=x", "mine"),
])  # fmt: skip
def test_the_name_is_what_was_given_or_the_models_or_the_protocols(spec, name):
    assert RemoteReward(spec).name == name


def test_two_services_of_one_name_are_told_apart():
    mix = make_reward(["openrlhf+http://localhost:1", "openrlhf+http://localhost:2"], (1.0, 2.0))
    assert list(mix.rewards) == ["openrlhf", "openrlhf_2"]


def test_options_of_a_program_go_before_those_of_the_address():
    assert RemoteReward("openrlhf+http://localhost#deadline=5,batch_size=2", deadline=7.0).options == RemoteOptions(
        deadline=7.0, batch_size=2
    )


def test_counts_of_prompts_and_answers_must_agree():
    reward = RemoteReward("openrlhf+http://localhost")
    with pytest.raises(ValueError, match="3 prompts but 2 completions"):
        reward(prompts(n=3), said("a", "b"))
    with pytest.raises(ValueError, match="no answers"):
        reward([], [])

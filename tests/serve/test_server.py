"""The reward server over real sockets: what it gives, whom it lets in, and how it stops."""

import http.client
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
import torch
from fake_service import score_of
from tiny import tiny_tokenizer
from tiny_classifier import TEXTS, classifier, prompts, said

from surefoot.rewards import ModelReward, RemoteReward, RewardError, make_reward
from surefoot.serve import RewardServer
from surefoot.serve import http as server_http

ANSWERS = said("yes", "no", "perhaps")


def length(text):
    return float(len(text))


@contextmanager
def serving(reward=length, **options):
    """A server in a thread of this process."""
    server = RewardServer(make_reward(reward), port=0, **options)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(10)
        assert not thread.is_alive()


def ask(server, method="POST", path="/get_reward", body=b'{"query": ["abc"]}', **headers):
    """Status, JSON and headers of a reply."""
    port = int(server.url.rpartition(":")[2].split("/")[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    names = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    connection.request(method, path, body if method == "POST" else None, {k: v for k, v in names.items() if v})
    reply = connection.getresponse()
    found = reply.status, json.loads(reply.read()), dict(reply.getheaders())
    connection.close()
    return found


# ------------------------------------------------------------------------------------------ scores
def test_a_client_in_openrlhfs_protocol_gets_rewards_scores_and_logs():
    with serving() as server:
        status, reply, headers = ask(
            server, body=b'{"query": ["abc", "xyz12"], "prompts": ["a", ""], "labels": [1, 2]}'
        )
    assert (status, reply) == (200, {"rewards": [2.0, 5.0], "scores": [2.0, 5.0], "extra_logs": {}})
    assert headers["Content-Type"] == "application/json"
    assert headers["Server"] == "surefoot"


def test_what_a_reward_reports_beside_comes_along():
    def judge(prompts, responses, ground_truth):
        return {"rewards": [float(r == g) for r, g in zip(responses, ground_truth, strict=True)], "hits": [1, 0, 1]}

    rows = prompts(n=3)
    for row, truth in zip(rows, ("yes", "yes", "perhaps"), strict=True):
        row.columns["label"] = truth
    with serving(judge) as server:
        output = RemoteReward(f"openrlhf+{server.url}")(rows, ANSWERS)
    assert output.scores == [1.0, 0.0, 1.0]
    assert output.metrics == {"hits": pytest.approx(2 / 3), "retries": 0.0}


def test_several_rewards_are_summed():
    with serving([length, lambda texts: [10.0] * len(texts)]) as server:
        assert ask(server)[1]["rewards"] == [13.0]


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_served_model_scores_as_the_same_model_does_here(kind, chat):
    model = ModelReward(classifier(kind), tiny_tokenizer(bos=True, chat=True), name="rm", special_tokens=["<|bos|>"])
    rows = prompts("<|bos|>Question: ", 5, chat=chat)
    expected = model(rows, said(*TEXTS)).scores
    with serving(model) as server:
        remote = RemoteReward(f"openrlhf+{server.url}", special_tokens=["<|bos|>"], batch_size=2, concurrency=1)
        output = remote(rows, said(*TEXTS))
    assert output.scores == pytest.approx(expected, abs=1e-5)  # other rows share the passes
    assert output.metrics["truncated_rate"] == 0.0


def test_a_served_model_is_centred_once():
    model = classifier()
    raw = ModelReward(model, tiny_tokenizer())(prompts(), said(*TEXTS)).scores
    model.config.score_shift = 1.75
    with serving(ModelReward(model, tiny_tokenizer(), "rm")) as server:
        scores = RemoteReward(f"openrlhf+{server.url}")(prompts(), said(*TEXTS)).scores
    assert scores == pytest.approx([score - 1.75 for score in raw], abs=1e-5)


def test_requests_that_wait_are_scored_together_and_each_gets_its_own():
    calls, gate = [], threading.Event()

    def slow(texts):
        calls.append(len(texts))
        gate.wait(10)
        return [score_of(t) for t in texts]

    with serving(slow) as server:
        replies = {}

        def one(i):
            body = json.dumps({"query": [f"text {i}", f"more {i}"]}).encode()
            replies[i] = ask(server, body=body)[1]["rewards"]

        threads = [threading.Thread(target=one, args=(i,)) for i in range(12)]
        threads[0].start()
        while not calls:
            time.sleep(0.01)
        for thread in threads[1:]:
            thread.start()
        while server._jobs.qsize() < 11:
            time.sleep(0.01)
        gate.set()
        for thread in threads:
            thread.join()
    assert calls == [2, 22]
    assert replies == {i: [score_of(f"text {i}"), score_of(f"more {i}")] for i in range(12)}


def test_batches_are_no_larger_than_allowed(monkeypatch):
    monkeypatch.setattr("surefoot.serve.server.MAX_ROWS", 3)
    calls, gate = [], threading.Event()

    def slow(texts):
        calls.append(len(texts))
        gate.wait(10)
        return [0.0] * len(texts)

    with serving(slow) as server:
        threads = [threading.Thread(target=ask, args=(server,), kwargs={"body": b'{"query": ["a", "b"]}'})
                   for _ in range(4)]  # fmt: skip
        for thread in threads:
            thread.start()
        while not calls or server._jobs.qsize() < 2:
            time.sleep(0.01)
        gate.set()
        for thread in threads:
            thread.join()
    assert calls == [2, 2, 2, 2]


def test_an_answer_that_cannot_be_scored_is_the_fault_of_its_own_request_only():
    gate, calls = threading.Event(), []

    def picky(texts):
        calls.append(1)
        if len(calls) == 1:
            gate.wait(10)
        return [float("nan") if t == "bad" else 1.0 for t in texts]

    with serving(picky) as server:
        replies = {}

        def one(i, text):
            replies[i] = ask(server, body=json.dumps({"query": [text]}).encode())

        threads = [threading.Thread(target=one, args=(i, t)) for i, t in enumerate(["a", "good", "bad", "fine"])]
        threads[0].start()
        while not calls:
            time.sleep(0.01)
        for thread in threads[1:]:
            thread.start()
        while server._jobs.qsize() < 3:
            time.sleep(0.01)
        gate.set()
        for thread in threads:
            thread.join()
    assert [replies[i][0] for i in range(4)] == [200, 200, 500, 200]
    assert "not a finite number" in replies[2][1]["error"]
    assert "good" not in str(replies[2])


@pytest.mark.parametrize(("reward", "said_to_client"), [
    (lambda text: 1 / 0, "raised ZeroDivisionError"), (lambda text: None, "no reward has a score"),
    (lambda texts: [1.0, 2.0], "2 scores for 1 answers"), (lambda text: float("inf"), "not a finite number"),
])  # fmt: skip
def test_a_reward_that_fails_is_answered_with_500_and_the_server_goes_on(reward, said_to_client):
    with serving(reward) as server:
        for _ in range(2):
            status, reply, _ = ask(server)
            assert status == 500
            assert said_to_client in reply["error"]


def test_a_defect_of_a_reward_is_logged_here_and_not_told_there(caplog):
    class Broken:
        name = "broken"

        def __call__(self, prompts, completions):
            raise KeyError("inner secret")

    with serving(Broken()) as server, caplog.at_level(logging.ERROR, "surefoot"):
        assert ask(server)[:2] == (500, {"error": "the reward raised KeyError"})
    assert "inner secret" in caplog.text


def test_nobody_is_scored_who_has_gone_away():
    calls, gate = [], threading.Event()

    def slow(texts):
        calls.append(list(texts))
        gate.wait(10)
        return [0.0] * len(texts)

    with serving(slow) as server:
        first = threading.Thread(target=ask, args=(server,))
        first.start()
        while not calls:
            time.sleep(0.01)
        remote = RemoteReward(f"openrlhf+{server.url}", read_timeout=0.2, deadline=0.3)
        with pytest.raises(RewardError, match="no whole reply in time"):
            remote(prompts(n=1), ANSWERS[:1])
        while server._jobs.qsize() < 1:
            time.sleep(0.01)
        time.sleep(0.05)
        gate.set()
        first.join()
    assert calls == [["abc"]]


# ------------------------------------------------------------------------------------------ who is let in
@pytest.mark.parametrize(("how", "status", "reason"), [
    ({"path": "/"}, 404, "POST /get_reward"), ({"path": "/get_reward/"}, 404, "POST /get_reward"),
    ({"method": "GET", "path": "/get_reward"}, 404, "GET /health"), ({"method": "PUT"}, 501, "Unsupported"),
    ({"Content_Type": "text/plain"}, 415, "application/json"), ({"Content_Type": None}, 415, "application/json"),
    ({"body": b"{"}, 400, "is not JSON"), ({"body": b""}, 400, "is not JSON"),
    ({"Host": "evil.example"}, 421, "another name"), ({"Host": "evil.example:5000"}, 421, "another name"),
    ({"Host": "127.0.0.1.evil.example"}, 421, "another name"), ({"Host": "[::2]:5000"}, 421, "another name"),
    ({"Origin": "http://evil.example"}, 403, "browser"), ({"Origin": "null"}, 403, "browser"),
    ({"method": "GET", "path": "/health", "Host": "evil.example"}, 421, "another name"),
    ({"Content_Length": "-5"}, 411, "Content-Length"), ({"Content_Length": "9" * 30}, 413, "at most"),
    ({"Content_Length": str(2**30)}, 413, "at most"), ({"Transfer_Encoding": "chunked"}, 411, "Content-Length"),
])  # fmt: skip
def test_what_is_refused(how, status, reason):
    with serving() as server:
        found, reply, _ = ask(server, **how)
        assert found == status
        assert reason in reply["error"]
        assert ask(server)[0] == 200  # and the server goes on


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:5000", "[::1]:5000", "LOCALHOST:1"])
def test_names_of_this_machine_are_let_in(host):
    with serving() as server:
        assert ask(server, Host=host)[0] == 200


def test_readiness_needs_no_token_and_tells_nothing():
    with serving(token="right-token") as server:
        assert ask(server, "GET", "/health")[:2] == (200, {"status": "ready"})


def test_the_token_is_asked_for(monkeypatch):
    with serving(token="right-token") as server:
        for wrong in (
            None,
            "right-token",
            "Bearer wrong",
            "Bearer right-token2",
            "bearer right-token",
            "Bearer schön",
        ):
            status, reply, _ = ask(server, Authorization=None if wrong is None else wrong.encode("utf-8"))
            assert status == 401
            assert "right-token" not in str(reply)
        assert ask(server, Authorization="Bearer right-token")[0] == 200
        monkeypatch.setenv("RM_TOKEN", "right-token")
        assert RemoteReward(f"openrlhf+{server.url}", token_env="RM_TOKEN")(prompts(n=3), ANSWERS).scores == [3, 2, 7]


def test_other_machines_need_a_token():
    with pytest.raises(ValueError, match=r"host='0.0.0.0' can be reached from other machines: give token_env"):
        RewardServer(make_reward(length), "0.0.0.0", 0)
    with serving(host="0.0.0.0", token="t") as server:
        assert ask(server, Authorization="Bearer t", Host="any.name")[0] == 200


def test_it_listens_at_loopback_of_both_kinds():
    with serving(host="::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert RemoteReward(f"openrlhf+{server.url}")(prompts(n=1), ANSWERS[:1]).scores == [3.0]


# ------------------------------------------------------------------------------------------ bad connections
def connect(server):
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2].split("/")[0])), timeout=5)


def breaks_off(connection, piece, times, pause=0.0):
    """Whether the other side ends the connection while pieces are sent."""
    try:
        for _ in range(times):
            connection.sendall(piece)
            time.sleep(pause)
    except OSError:
        return True
    return False


HEAD = b"POST /get_reward HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"garbage\r\n\r\n", HEAD[:40], HEAD, HEAD + b'{"query":', b"\x16\x03\x01" * 50])
def test_connections_that_break_off_do_no_harm(sent):
    with serving() as server:
        with connect(server) as connection:
            connection.sendall(sent)
        assert ask(server)[0] == 200


@pytest.mark.parametrize("sent", [b"", HEAD[:40], HEAD + b'{"query":'], ids=["nothing", "half a head", "half a body"])
def test_a_request_that_does_not_come_in_time_is_given_up(sent, monkeypatch):
    monkeypatch.setattr(server_http, "RECEIVE_SECONDS", 0.2)
    with serving() as server, connect(server) as connection:
        connection.sendall(sent)
        began = time.monotonic()
        while connection.recv(65536):
            pass
        assert time.monotonic() - began < 3


def test_a_request_that_drips_is_given_up(monkeypatch):
    monkeypatch.setattr(server_http, "RECEIVE_SECONDS", 0.3)
    with serving() as server, connect(server) as connection:
        assert breaks_off(connection, b"X", 200, pause=0.02)


def test_a_request_without_end_is_cut_off(monkeypatch):
    monkeypatch.setattr(server_http, "MAX_REQUEST_BYTES", 2**16)
    with serving() as server:
        status, reply, _ = ask(server, body=json.dumps({"query": ["x" * 2**17]}).encode())
        assert (status, reply["error"]) == (413, "at most 65536 bytes a request")
        with connect(server) as connection:
            assert breaks_off(connection, b"X: " + b"y" * 4000 + b"\r\n", 2000)
        assert ask(server)[0] == 200


def test_too_many_connections_are_sent_away_for_a_second_and_the_client_comes_back(monkeypatch):
    monkeypatch.setattr(server_http, "MAX_CONNECTIONS", 2)
    with serving() as server:
        idle = [connect(server), connect(server)]
        while server._listener.connections < 2:
            time.sleep(0.01)
        with connect(server) as third:
            assert third.recv(4096).startswith(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n")
        threading.Timer(0.2, lambda: [connection.close() for connection in idle]).start()
        output = RemoteReward(f"openrlhf+{server.url}", deadline=10.0)(prompts(n=1), ANSWERS[:1])
    assert output.scores == [3.0]
    assert output.metrics["retries"] >= 1


# ------------------------------------------------------------------------------------------ a process of its own
PROGRAM = """
import time
def score(texts):
    time.sleep(len(texts[0]) / 10)
    return [float(len(t)) for t in texts]
"""


@pytest.fixture
def process(tmp_path):
    """Starts `surefoot serve-reward` and waits until it is ready: the process and its address."""
    (tmp_path / "judge.py").write_text(PROGRAM)
    started = []

    def start(*arguments):
        command = [sys.executable, "-m", "surefoot.cli", "serve-reward", "judge.py:score", "--port", "0", *arguments]
        child = subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        started.append(child)
        assert child.stdout.readline() == "serving  score\n"
        return child, child.stdout.readline().split()[1]

    yield start
    for child in started:
        child.kill()
        child.communicate()


def asking(address, count, **options):
    """A thread that asks for one answer's score, of `count` letters, and a list that takes the outcome."""
    outcome = []

    def ask_once():
        try:
            outcome.extend(RemoteReward(address, **options)(prompts("", 1), said("x" * count)).scores)
        except RewardError as error:
            outcome.append(error)

    thread = threading.Thread(target=ask_once)
    thread.start()
    time.sleep(0.3)
    return thread, outcome


def test_a_signal_ends_it_after_what_was_asked_is_answered(process):
    child, address = process()
    thread, outcome = asking(address, 8)
    child.send_signal(signal.SIGTERM)
    out, errors = child.communicate(timeout=20)
    thread.join()
    assert outcome == [8.0]
    assert (child.returncode, out, errors) == (0, "stopped\n", "")


def test_a_second_signal_ends_it_at_once(process):
    child, address = process()
    thread, outcome = asking(address, 300, deadline=1.0)
    child.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=10)
    thread.join()
    assert child.returncode == -signal.SIGINT
    assert isinstance(outcome[0], RewardError)


def test_torch_is_not_needed_by_a_client_that_only_asks():
    """The protocol is plain JSON: the standard library is enough to use the server."""
    with serving() as server:
        port = int(server.url.rpartition(":")[2].split("/")[0])
        program = (
            "import json, sys, urllib.request as u\n"
            f"r = u.Request('http://127.0.0.1:{port}/get_reward', json.dumps({{'query': ['abcd']}}).encode(),"
            " {'Content-Type': 'application/json'})\n"
            "print(json.load(u.urlopen(r))['rewards'])"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[4.0]\n"


def test_scores_are_those_of_the_model_in_float32():
    model = ModelReward(classifier(), tiny_tokenizer(), name="rm")
    with serving(model) as server:
        _, reply, _ = ask(server, body=json.dumps({"query": ["hello"]}).encode())
    ids = torch.tensor([model.tokenizer("hello")["input_ids"]])
    with torch.no_grad():
        assert reply["rewards"] == pytest.approx(model.model(ids).logits.flatten().tolist(), abs=1e-6)

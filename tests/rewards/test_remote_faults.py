"""Everything that a reward service can do wrong, over real sockets: asked again where that can help, else the run
stops; no score is ever made up, nothing takes longer than was allowed, and no secret is shown."""

import json
import logging
import math
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from fake_service import (
    Service,
    chunked,
    drip,
    flood,
    free_port,
    hang,
    honest,
    http,
    ok,
    raw,
    reset,
    rewards,
    said,
    score_of,
)  # fmt: skip
from tiny_classifier import prompts
from tiny_classifier import said as answers

from surefoot.rewards import RemoteReward, RewardError, RewardUnavailableError, remote

ANSWERS = answers("yes", "no", "perhaps")
SCORES = [score_of(f"Q: {a}") for a in ANSWERS]
TOKEN = "tok-3f9a1c77d2"
KEY = "swordfish"  # no part of an address in memory


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.01)


def first_then_honest(*faults):
    """A service whose first replies are these, and honest ones after."""
    return lambda request: faults[request.number] if request.number < len(faults) else honest(request)


def reward_of(service, **options):
    return RemoteReward(f"openrlhf+{service.url}", **({"deadline": 10.0, "name": "rm"} | options))


def ask(service, n=3, **options):
    return reward_of(service, **options)(prompts(n=n), ANSWERS[:n])


# ------------------------------------------------------------------------------------------ asking again helps
GOOD = {"rewards": SCORES}


@pytest.mark.parametrize("fault", [
    said("", 500), said("boom", 502), said("busy", 503, Retry_After="0"), said("", 504), said("", 408), said("", 429),
    said("later", 503, Retry_After="soon"), said("", 429, Retry_After=format_datetime(datetime.now(UTC))),
    reset, raw(), raw(b"garbage\r\n\r\n"), raw(b"HTTP/1.1 200 OK\r\nContent-Len"),
    raw(*http(200, b'{"rewards": [1.0, 2.', length=100)), raw(*http(200, b"", length=100)),
    chunked(json.dumps(GOOD).encode()[:9], end=False), raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz"),
    raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabcde"),
    raw(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(200)) + b"\r\n"),
], ids=[
    "500", "502", "503 retry-after 0", "504", "408", "429", "retry-after of no sense", "retry-after as a date",
    "reset", "closed", "no http", "cut in the header", "cut in the body", "no body", "cut in a chunk",
    "chunk of no size", "chunk of negative size", "200 headers",
])  # fmt: skip
def test_what_may_pass_is_asked_again_until_it_has_passed(fault):
    with Service(first_then_honest(fault, fault)) as service:
        output = ask(service)
    assert output.scores == SCORES
    assert output.metrics == {"retries": 2.0}
    assert len(service.requests) == 3
    assert len({request.headers["x-request-id"] for request in service.requests}) == 1  # the same question


@pytest.mark.parametrize("fault", [hang, drip(GOOD)], ids=["hangs", "drips"])
def test_a_reply_that_takes_too_long_is_given_up_and_asked_for_again(fault):
    with Service(first_then_honest(fault)) as service:
        began = time.monotonic()
        output = ask(service, read_timeout=0.3)
    assert output.scores == SCORES
    assert len(service.requests) == 2
    assert 0.3 <= time.monotonic() - began < 5


def test_a_drip_that_ends_in_time_is_taken():
    with Service(lambda request: drip(GOOD, pause=0.0005)) as service:
        assert ask(service).scores == SCORES
    assert len(service.requests) == 1


def test_a_chunked_reply_is_read_whole():
    body = json.dumps(GOOD).encode()
    with Service(lambda request: chunked(*(body[i : i + 3] for i in range(0, len(body), 3)))) as service:
        assert ask(service).scores == SCORES


def test_a_service_that_starts_late_is_waited_for():
    port = free_port()
    late = Service(honest)
    late._server.server_close()

    def start():
        time.sleep(0.3)
        late._server.__init__(("127.0.0.1", port), late._server.RequestHandlerClass)
        late.__enter__()

    thread = threading.Thread(target=start)
    thread.start()
    output = RemoteReward(f"openrlhf+http://127.0.0.1:{port}", deadline=10.0)(prompts(n=3), ANSWERS)
    thread.join()
    late.__exit__()
    assert output.scores == SCORES
    assert output.metrics["retries"] >= 1


def test_a_service_is_not_asked_again_before_it_wants_to_be():
    with Service(first_then_honest(said("", 429, Retry_After="1"))) as service:
        began = time.monotonic()
        assert ask(service).scores == SCORES
    assert time.monotonic() - began >= 1.0


def test_a_wish_to_be_asked_later_than_the_deadline_ends_at_once():
    with Service(lambda request: said("closed for today", 503, Retry_After="3600")) as service:
        began = time.monotonic()
        with pytest.raises(RewardUnavailableError, match="closed for today"):
            ask(service, deadline=5.0)
    assert time.monotonic() - began < 2
    assert len(service.requests) == 1


def test_pauses_grow_and_differ():
    pauses = [[remote._jittered(0.5 * 2**tries) for _ in range(200)] for tries in range(8)]
    assert [max(p) <= min(30.0, 0.5 * 2**tries) for tries, p in enumerate(pauses)] == [True] * 8
    assert [min(p) >= min(15.0, 0.25 * 2**tries) for tries, p in enumerate(pauses)] == [True] * 8
    assert all(len(set(p)) > 100 for p in pauses)


# ------------------------------------------------------------------------------------------ only what is missing
def test_only_missing_scores_are_asked_for_again():
    def behave(request):
        found = [score_of(t) for t in request.body["query"]]
        if request.number == 0:
            found[1] = None
        return ok({"rewards": found, "extra_logs": {"size": len(found)}})

    with Service(behave) as service:
        output = ask(service)
    assert output.scores == SCORES
    assert [request.body["query"] for request in service.requests] == [["Q: yes", "Q: no", "Q: perhaps"], ["Q: no"]]
    assert output.metrics == {"size": 2.0, "retries": 1.0}
    assert len({request.headers["x-request-id"] for request in service.requests}) == 2  # another question


def test_numbered_replies_that_lack_numbers_are_completed():
    def behave(request):
        texts = request.body["input"]
        data = [{"index": i, "probs": [score_of(t)]} for i, t in enumerate(texts)]
        return ok({"data": data[-1:] if request.number == 0 else data})

    with Service(behave) as service:
        output = RemoteReward(f"vllm+{service.url}", deadline=10.0)(prompts(n=3), ANSWERS)
    assert output.scores == SCORES
    assert [request.body["input"] for request in service.requests][1:] == [["Q: yes", "Q: no"]]


def test_half_of_a_batch_that_fails_is_asked_again_and_the_other_half_is_kept():
    failed = set()

    def behave(request):
        (text,) = request.body["query"]
        if text[-1] in "02468" and text not in failed:
            failed.add(text)
            return said("", 500)
        return honest(request)

    said_answers = answers(*(f"answer {i}" for i in range(10)))
    with Service(behave) as service:
        output = reward_of(service, batch_size=1)(prompts(n=10), said_answers)
    assert output.scores == [score_of(f"Q: {a}") for a in said_answers]
    asked = sorted(request.body["query"][0][-1] for request in service.requests)
    assert asked == sorted("0123456789" + "02468")


def test_a_judge_without_a_verdict_is_asked_again():
    def behave(request):
        text = [None, "I cannot say.", "8/10", "Score: 6"][min(request.number, 3)]
        return ok({"choices": [{"message": {"role": "assistant", "content": text}}]})

    with Service(behave) as service:
        output = RemoteReward(f"openai-judge+{service.url}", model="j", deadline=10.0)(prompts(n=1), ANSWERS[:1])
    assert output.scores == [6.0]
    assert len(service.requests) == 4


# ------------------------------------------------------------------------------------------ down for good
@pytest.mark.parametrize(("fault", "last"), [
    (said("out of order", 500), "HTTP 500: \"out of order\""), (hang, "no whole reply in time"), (reset, "Connection"),
    (drip(GOOD), "no whole reply in time"), (None, "it left out scores"),
])  # fmt: skip
def test_a_service_that_is_down_for_good_stops_the_run_at_the_deadline_with_the_last_error(fault, last):
    def behave(request):  # without a fault, the score of one text never comes
        return fault or ok({"rewards": [None if t == "Q: no" else 1.0 for t in request.body["query"]]})

    with Service(behave) as service:
        began = time.monotonic()
        with pytest.raises(RewardUnavailableError) as caught:
            ask(service, deadline=0.6, read_timeout=0.25)
        took = time.monotonic() - began
    assert took < 2.5
    count = 3 if fault else 1
    assert f"no score for {count} of 3 answers within the deadline of 0.6 s; the last error: " in str(caught.value)
    assert f"{service.url}/get_reward" in str(caught.value)
    assert last in str(caught.value)
    assert isinstance(caught.value, RewardError)


def test_a_port_where_nobody_listens_is_told():
    address = f"openrlhf+http://127.0.0.1:{free_port()}#deadline=0.3"
    with pytest.raises(RewardUnavailableError, match="the last error: ConnectionRefusedError"):
        RemoteReward(address)(prompts(n=1), ANSWERS[:1])


def test_a_host_that_does_not_exist_is_told():
    with pytest.raises(RewardUnavailableError, match="its name cannot be resolved"):
        RemoteReward("openrlhf+http://no-such-host.invalid#deadline=0.2")(prompts(n=1), ANSWERS[:1])


def test_a_try_that_the_deadline_cuts_off_does_not_hide_why_the_one_before_failed(monkeypatch):
    import socket

    release, calls = threading.Event(), []

    def first_unknown_then_hanging(*args, **kwargs):
        calls.append(args)
        if len(calls) == 1:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        release.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", first_unknown_then_hanging)
    with pytest.raises(RewardUnavailableError, match="its name cannot be resolved"):
        RemoteReward("openrlhf+http://localhost:1#deadline=1.5")(prompts(n=1), ANSWERS[:1])
    assert len(calls) >= 2
    release.set()


def test_a_name_server_that_hangs_does_not_outlast_the_deadline(monkeypatch):
    import socket

    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: release.wait(20) and [])
    began = time.monotonic()
    with pytest.raises(RewardUnavailableError, match="it hangs"):
        RemoteReward("openrlhf+http://localhost:1#deadline=0.2")(prompts(n=1), ANSWERS[:1])
    assert time.monotonic() - began < 3
    release.set()


# ------------------------------------------------------------------------------------------ asking again is no use
@pytest.mark.parametrize(("fault", "reason"), [
    (said('{"detail": "no such field"}', 400), "HTTP 400: .*no such field"), (said("who are you", 401), "HTTP 401"),
    (said("", 403), "HTTP 403"), (said("", 404), "HTTP 404"), (said("too long", 413), "HTTP 413: \"too long\""),
    (said("", 422), "HTTP 422"), (said("", 204), "HTTP 204"), (said("{}", 201), "HTTP 201"),
    (said('{"rewards": [NaN, 1, 2]}'), "holds NaN"), (said('{"rewards": [1, Infinity, 2]}'), "holds Infinity"),
    (said('{"rewards": [1, 2, -Infinity]}'), "holds -Infinity"), (said('{"rewards": [1, 2, 1e999]}'), "row 2: .*inf"),
    (said('{"rewards": [1, 2'), "is not JSON"), (said("<html>welcome</html>"), "is not JSON .*welcome"),
    (said(""), "is not JSON"), (said('{"rewards": [1, 2, 3]} {}'), "is not JSON"), (said(b"\xff\xfe"), "not UTF-8"),
    (said('{"rewards": [1, 2, 3], "rewards": [4, 5, 6]}'), "names an entry twice"), (said("[" * 100_000), "deeply"),
    (said('{"rewards": [1, 2, ' + "9" * 5000 + "]}"), "is not JSON"), (said("null"), "a NoneType where an object"),
    (ok({"rewards": [1.0, 2.0]}), "2 entries"), (ok({"rewards": [1.0, 2.0, 2.0, 3.0]}), "4 entries"),
    (ok({"rewards": []}), "0 entries"), (ok({"error": "cuda"}), "has no 'rewards'; it has 'error'"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_what_will_not_pass_stops_the_run_at_once(fault, reason):
    with Service(lambda request: fault) as service:
        began = time.monotonic()
        with pytest.raises(RewardError, match=f"(?s){reason}") as caught:
            ask(service)
    assert time.monotonic() - began < 3
    assert len(service.requests) == 1
    assert not isinstance(caught.value, RewardUnavailableError)
    assert "reward 'rm'" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_redirect_is_named_and_not_followed():
    def behave(request):
        return said("", 307, Location=f"{other.url}/get_reward?token=abcdef")

    with Service(honest) as other:
        with Service(behave) as service, pytest.raises(RewardError, match="HTTP 307, a redirect to") as caught:
            ask(service)
        assert other.requests == []
    assert f'{other.url}/get_reward?token=REDACTED", which is not followed' in str(caught.value)
    assert "abcdef" not in str(caught.value)


def test_a_body_larger_than_allowed_is_not_read():
    huge = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n", b"[" * 1000)
    larger = "of 1073741824 bytes is larger than the limit of 1048576"
    with Service(lambda request: huge) as service, pytest.raises(RewardError, match=larger):
        ask(service, max_reply_mib=1)


@pytest.mark.parametrize("behaviour", [
    flood, raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n", *[b" " * 65536] * 40),
    raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", *[b" " * 65536] * 40),
    raw(b"HTTP/1.1 200 OK\r\n", *[b"X: " + b"y" * 60000 + b"\r\n"] * 40),
], ids=["endless", "a chunk of a gigabyte", "a chunk to the end", "headers"])  # fmt: skip
def test_a_stream_without_end_is_cut_off(behaviour):
    larger = r"larger than the limit|more came than is allowed"
    with Service(lambda request: behaviour) as service, pytest.raises(RewardError, match=larger):
        ask(service, max_reply_mib=1)
    assert len(service.requests) == 1


def test_the_first_refusal_ends_the_other_requests():
    def behave(request):
        return said("bad row", 400) if request.body["query"] == ["Q: no"] else hang

    with Service(behave) as service:
        began = time.monotonic()
        with pytest.raises(RewardError, match="HTTP 400"):
            ask(service, batch_size=1, deadline=30.0, read_timeout=30.0)
    assert time.monotonic() - began < 3


# ------------------------------------------------------------------------------------------ secrets and surroundings
def test_the_token_goes_into_a_header_and_nowhere_else(monkeypatch, caplog):
    monkeypatch.setenv("RM_TOKEN", TOKEN)

    def behave(request):
        echo = f"bad token {TOKEN} in {request.headers['authorization']}; api_key={KEY}"
        return said(echo, [500, 401][request.number])

    with caplog.at_level(logging.DEBUG), Service(behave) as service:
        reward = reward_of(service, token_env="RM_TOKEN")
        with pytest.raises(RewardError, match="bad token REDACTED") as caught:
            reward(prompts(n=3), ANSWERS)
    assert service.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    shown = [str(caught.value), caplog.text, repr(vars(reward)), str(reward.address), repr(caught.value.__cause__)]
    assert all(TOKEN not in text for text in shown)
    assert all(KEY not in text for text in shown)


def test_control_characters_of_a_reply_do_not_reach_the_terminal():
    with Service(lambda request: said("\x1b[2Jgone\x07", 400)) as service, pytest.raises(RewardError) as caught:
        ask(service)
    assert "\\x1b[2Jgone\\x07" in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_proxies_of_the_environment_are_not_used(monkeypatch):
    dead = f"http://127.0.0.1:{free_port()}"
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, dead)
    with Service(honest) as service:
        assert ask(service).scores == SCORES


def test_the_first_failure_of_a_batch_is_said_and_the_others_only_for_debugging(caplog):
    with caplog.at_level(logging.DEBUG, "surefoot"), Service(first_then_honest(reset, reset, reset)) as service:
        ask(service)
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG", "DEBUG"]
    assert "reward 'rm' at http://127.0.0.1" in caplog.text


def test_a_process_is_interrupted_at_once_and_its_random_numbers_are_left_alone():
    program = (
        "import os, random, signal, sys, threading, torch\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs begin deaf to it
        "from surefoot.rewards import RemoteReward\n"
        "from surefoot.types import Completion, Prompt\n"
        "row = [Prompt('q', (1,))], [Completion('a', (), (), 'stop')]\n"
        "reward, before = RemoteReward(sys.argv[1]), (random.getstate(), torch.get_rng_state().tolist())\n"
        "reward(*row)\n"
        "print(before == (random.getstate(), torch.get_rng_state().tolist()), flush=True)\n"
        "threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
        "reward(*row)\n"
    )

    def behave(request):
        return [said("", 500), honest(request), hang][min(request.number, 2)]

    with Service(behave) as service:
        child = subprocess.Popen([sys.executable, "-c", program, f"openrlhf+{service.url}"], text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        try:
            assert child.stdout.readline() == "True\n"
            began = time.monotonic()
            _, errors = child.communicate(timeout=60)
        finally:
            child.kill()
            child.communicate()
    assert "KeyboardInterrupt" in errors
    assert time.monotonic() - began < 10  # read_timeout is 60


def test_a_wrong_certificate_is_refused(tmp_path):
    import ssl

    if ssl.OPENSSL_VERSION_INFO < (1, 1):
        pytest.skip("needs TLS")
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")],
        capture_output=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with Service(honest) as service:
        service._server.socket = context.wrap_socket(service._server.socket, server_side=True)
        began = time.monotonic()
        with pytest.raises(RewardError, match="its certificate is not accepted: self-signed certificate"):
            RemoteReward(f"openrlhf+https://127.0.0.1:{service.port}", deadline=20.0)(prompts(n=3), ANSWERS)
    assert time.monotonic() - began < 5


def test_every_score_is_finite_and_from_the_service_whatever_goes_wrong_before():
    faults = (said("", 500), reset, raw(*http(200, b'{"rewards": [', length=50)), said("", 429, Retry_After="0"))
    with Service(lambda r: honest(r) if r.number % 5 == 4 else faults[r.number % 5]) as service:
        output = reward_of(service, batch_size=1, concurrency=1)(prompts(n=3), ANSWERS)
    assert output.scores == SCORES
    assert all(math.isfinite(score) for score in output.scores)
    assert len(service.requests) == 3 + output.metrics["retries"]


def test_a_service_that_answers_before_it_has_read_everything_is_heard():
    """A refusal of a large request arrives although the request could not be sent whole."""
    import socketserver

    class Early(socketserver.StreamRequestHandler):
        def handle(self):
            self.rfile.readline()
            self.connection.sendall(b"".join(http(413, b"too much", {"Connection": "close"})))
            self.connection.shutdown(1)
            while self.connection.recv(65536):
                pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Early) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        reward = RemoteReward(f"openrlhf+http://127.0.0.1:{server.server_address[1]}", deadline=10.0)
        with pytest.raises(RewardError, match='HTTP 413: "too much"'):
            reward(prompts(n=1), answers("x" * 2**22))
        server.shutdown()


def test_rewards_is_what_the_fixture_says():
    """The fixture itself: an honest service says the fixed function of the text."""
    with Service(lambda request: rewards(request.body["query"])) as service:
        assert ask(service, n=1).scores == [(sum(map(ord, "Q: yes")) % 1009) / 8 - 50]

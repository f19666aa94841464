"""What leaves the process as text: secrets are blanked, nothing steers a terminal, and no text takes long."""

import time
import unicodedata

import pytest

from surefoot.display import brief, presentable, visible, visible_lines
from surefoot.redaction import hide_values, redact

STEERING = "\x1b[2J\x1b]0;title\x07\x9b31m\r\x08\x00\x7f\x85\u202e\u2066\u200b\u2028\ufeff\ud800\udfff\U000e0041"


def test_no_character_that_steers_a_terminal_is_left():
    shown = visible(f"a{STEERING}é\N{ROCKET}漢b")
    assert [c for c in shown if unicodedata.category(c)[0] == "C" or unicodedata.category(c) in ("Zl", "Zp")] == []
    assert shown.startswith(
        r"a\x1b[2J\x1b]0;title\x07\x9b31m\r\x08\x00\x7f\x85\u202e\u2066\u200b\u2028\ufeff\ud800\udfff"
    )
    assert shown.endswith("é\N{ROCKET}漢b")
    assert shown.encode().decode() == shown


def test_only_the_line_ends_of_several_lines_stay():
    assert visible_lines("a\nb\r\n\u2028c") == "a\nb\\r\n\\u2028c"
    assert visible("a\nb") == "a\\nb"


def test_the_middle_of_an_endless_line_is_left_out():
    shown = presentable("short\n" + "a" * 5000 + "b" * 5000)
    assert shown == "short\n" + "a" * 1000 + " ...(8000 characters)... " + "b" * 1000


def test_what_is_shown_once_can_be_shown_again():
    shown = presentable(STEERING)
    assert presentable(shown) == shown


def test_a_value_is_written_as_python_writes_it_and_cut_in_the_middle():
    assert brief("a'b") == '"a\'b"'
    assert brief(2.5) == "2.5"
    assert brief("a" * 50 + "b" * 50, limit=10) == "'aaaa…bbbb'"
    assert brief("x" * 200 + " token=hush " + "y" * 200) == brief("x" * 200 + " token=REDACTED " + "y" * 200)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("HF_TOKEN=abc123 run", "HF_TOKEN=REDACTED run"),
        ("--api-key abc123 --steps 3", "--api-key REDACTED --steps 3"),
        ("--hub-token=abc123", "--hub-token=REDACTED"),
        ("password: 'a b c' next", "password: REDACTED next"),
        ('{"client_secret": "abc"}', '{"client_secret": REDACTED}'),
        ("https://joe:pw@example.org/x", "https://REDACTED@example.org/x"),
        ("https://example.org/x?key=abc&n=3", "https://example.org/x?key=REDACTED&n=3"),
        ("say hf_abcdefghijklmnopqrstuv", "say REDACTED"),
        ("--max-new-tokens 64 --stop-token-ids 3", "--max-new-tokens 64 --stop-token-ids 3"),
        ("max_new_tokens=64", "max_new_tokens=64"),
        ("--tokenizer gpt2", "--tokenizer gpt2"),
        ("Authorization: Bearer abc.def-1234567890", "Authorization: Bearer REDACTED"),
        (
            "http://rm:1/#token_env=RM_TOKEN --token-env RM_TOKEN",
            "http://rm:1/#token_env=RM_TOKEN --token-env RM_TOKEN",
        ),
        ("https://joe:p@ss@example.org/x", "https://REDACTED@example.org/x"),
        ("https://joe:pa/ss@example.org/x", "https://REDACTED@example.org/x"),
        ("http://example.org:80/@me", "http://example.org:80/@me"),
        ('api_key="abc" and token="cut off', "api_key=REDACTED and token=REDACTED"),
        (r'{"token": "a\"bc", "n": 3}', '{"token": REDACTED, "n": 3}'),
        ("x='api_key=abc'", "x='api_key=REDACTED'"),
        ("clientSecret: abc, APIKey: abc, hftoken=abc", "clientSecret: REDACTED, APIKey: REDACTED, hftoken=REDACTED"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic REDACTED"),
        ("KeyError: 'prompt', pad_token_id: 3, tokens: 5", "KeyError: 'prompt', pad_token_id: 3, tokens: 5"),
        ("a@b.example and http://example.org/@me", "a@b.example and http://example.org/@me"),
    ],
)
def test_secrets_are_blanked_and_nothing_else(text, kept):
    assert redact(text) == kept


def test_a_template_with_the_word_password_is_no_secret_but_an_address_with_one_is():
    assert hide_values("prompt_template: 'password: {prompt}'") == "prompt_template: 'password: {prompt}'"
    assert hide_values("x: https://e.org/?password=abc&n=3 y") == "x: https://e.org/?password=REDACTED&n=3 y"


def test_the_values_of_variables_that_are_named_like_secrets_are_blanked_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("LONGER_TOKEN", "0123456789abcdef-and-more")
    monkeypatch.setenv("EDITOR_NAME", "something-long")
    monkeypatch.setenv("SHORT_KEY", "word")
    text = "Illegal header value b'Bearer 0123456789abcdef-and-more' or 0123456789abcdef, something-long, word"
    assert redact(text) == "Illegal header value b'Bearer REDACTED' or REDACTED, something-long, word"


@pytest.mark.parametrize(
    "piece",
    ["a", "a-", "x://", "token ", "token=", 'token="', "a://b:c", "a://b:c@", "a=a=", 'key="\\', "hf_", "bearer ",
     "\x1b", "--key ", "'key':", "authorization: ", "https://a:b", "key    ", "[bold]"],
)  # fmt: skip
def test_a_long_text_of_anything_is_shown_in_seconds(piece):
    began = time.process_time()
    presentable(piece * (2**16 // len(piece)))
    assert time.process_time() - began < 5  # going back over it would take a minute

"""What the page refuses: each point is a way in that somebody used elsewhere."""

import pytest
from rated_runs import OURS, client_of, rating_of, vote, write_run
from starlette.websockets import WebSocketDisconnect

from surefoot.arguments import UsageError
from surefoot.web.guard import MOST_BYTES, Hosts
from surefoot.web.serving import place_of

VOTE = {"place": "0", "answer": "left", "seconds": "", "note": ""}


@pytest.fixture
def rating(tmp_path):
    return rating_of(write_run(tmp_path), "ana")


@pytest.fixture
def client(rating):
    return client_of(rating, "ana", raise_server_exceptions=False)


def votes_of(rating):
    return len(rating.store.rows(rating.session.step))


# ------------------------------------------------------------------------------------------ where it listens
def test_the_page_is_this_machines_alone_unless_somebody_asks_otherwise():
    assert place_of("127.0.0.1", None, 0, False).is_local
    assert place_of("::1", None, 0, False).is_local
    assert not place_of("192.168.1.5", None, 0, False).is_local


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_listening_at_every_address_needs_somebody_who_knows_and_a_name_for_links(host):
    with pytest.raises(UsageError, match="nothing is encrypted"):
        place_of(host, "lab", 0, False)
    with pytest.raises(UsageError, match="--name"):
        place_of(host, None, 0, True)
    assert not place_of(host, "lab", 0, True).is_local


# ------------------------------------------------------------------------------------------ tokens
def test_a_link_gives_a_cookie_that_scripts_and_other_sites_never_get_and_leads_away_from_the_token(rating):
    client = client_of(rating, "ana", known=False)
    answer = client.get("/?token=token-of-ana")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("surefoot-8765=token-of-ana;")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert 'content="0;url=/"' in answer.text
    assert "token-of-ana" not in answer.text
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("query", ["", "?token=", "?token=token-of-an", "?token=token-of-anaa", "?token=%ed%a0%80"])
def test_without_the_token_nothing_is_shown_and_nothing_is_counted(rating, query):
    client = client_of(rating, "ana", known=False)
    answer = client.get(f"/{query}")
    assert (answer.status_code, "Prompt" in answer.text, "set-cookie" in answer.headers) == (403, False, False)
    assert vote(client, 0).status_code == 403
    assert client.get("/results").status_code == 403
    assert votes_of(rating) == 0


def test_a_cookie_with_a_wrong_token_is_none(rating):
    client = client_of(rating, "ana", known=False)
    client.cookies.set("surefoot-8765", "token-of-ben")
    assert client.get("/").status_code == 403


# ------------------------------------------------------------------------------------------ hosts and origins
@pytest.mark.parametrize("host", ["localhost:8765", "127.0.0.1:9000", "[::1]:8765", "LOCALHOST", "[::1]"])
def test_our_own_names_are_answered_behind_any_port(client, host):
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.7:8765", "",
     ":8765", "127.0.0.1:8765@evil.example", "localhost:8765:1"],
)  # fmt: skip
def test_a_foreign_name_that_leads_here_is_refused(client, rating, host):
    for answer in (
        client.get("/", headers={"host": host}),
        client.get("/static/pages.css", headers={"host": host}),
        client.post("/vote", data=VOTE, headers=OURS | {"host": host}),
    ):
        assert (answer.status_code, "Prompt" in answer.text) == (400, False)
    assert votes_of(rating) == 0


def test_where_others_are_let_in_their_name_and_numbers_are_names_of_ours():
    hosts = Hosts(["lab.example"], any_address=True)
    assert all(hosts.allow(host) for host in ("lab.example:80", "192.168.1.5:8765", "[fe80::1]:1"))
    assert not any(hosts.allow(host) for host in ("evil.example", "localhost", "lab.example.evil.example"))


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:8765"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "null"},
        {"origin": "file://127.0.0.1:8765"},
        {},
    ],
)
def test_what_another_site_sends_changes_nothing(client, rating, headers):
    for path in ("/vote", "/undo", "/results"):
        assert client.post(path, data=VOTE, headers=headers).status_code == 403
    assert votes_of(rating) == 0


@pytest.mark.parametrize("headers", [OURS, {"sec-fetch-site": "none"}, {"origin": "http://127.0.0.1:8765"}])
def test_what_our_own_page_sends_is_counted(client, rating, headers):
    assert client.post("/vote", data=VOTE, headers=headers).status_code == 303
    assert votes_of(rating) == 1


def test_looking_changes_nothing(client, rating):
    vote(client, 0)
    before = rating.store.rows(15), rating.store.closed(15)
    for path in ("/", "/results", "/vote?place=1&answer=left", "/undo", "/healthz", "/?said=undone", "/nothing"):
        client.get(path)
        client.head(path)
    assert (rating.store.rows(15), rating.store.closed(15)) == before


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(client, method):
    assert client.request(method, "/vote", headers=OURS).status_code == 405


def test_web_sockets_are_refused(client):
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/"):
        pass


# ------------------------------------------------------------------------------------------ bodies
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data; boundary=x", ""])
def test_only_forms_are_taken(client, rating, kind):
    answer = client.post("/vote", content=b"place=0&answer=left", headers=OURS | {"content-type": kind})
    assert answer.status_code == 415
    assert votes_of(rating) == 0


def test_a_body_that_is_too_long_is_not_taken_in(client, rating):
    form = OURS | {"content-type": "application/x-www-form-urlencoded"}
    pieces = 0

    def endless():
        nonlocal pieces
        for _ in range(1000):
            pieces += 1
            yield b"x" * 1024

    told = client.post("/vote", content=b"x" * (MOST_BYTES + 1), headers=form)
    untold = client.post("/vote", content=endless(), headers=form)
    lied = client.post("/vote", content=b"", headers=form | {"content-length": "-1"})
    assert [answer.status_code for answer in (told, untold, lied)] == [413, 413, 413]
    assert votes_of(rating) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"answer": "a"},
        {"answer": "policy"},
        {"answer": ""},
        {"place": "-1"},
        {"place": "1e3"},
        {"place": "\u0663"},
        {"place": ""},
        {"place": "9" * 5000},
        {"note": "x" * 2001},
    ],
)
def test_a_form_that_is_no_vote_is_refused(client, rating, fields):
    assert vote(client, **({"place": "0"} | fields)).status_code == 400
    assert votes_of(rating) == 0


def test_too_many_fields_are_no_vote(client):
    many = "&".join(f"f{n}=1" for n in range(50))
    answer = client.post("/vote", content=many, headers=OURS | {"content-type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 400


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "1e99", "soon", ""])
def test_a_time_that_cannot_be_is_none(client, rating, seconds):
    vote(client, 0, seconds=seconds)
    assert [row["seconds"] for row in rating.store.rows(15)] == [None]


# ------------------------------------------------------------------------------------------ answers
PATHS = ["/", "/results", "/static/pages.css", "/static/rate.js", "/healthz", "/nothing", "/static/nothing"]


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_tells_the_browser_to_run_nothing_foreign(client, path):
    headers = client.get(path).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src", "form-action")} == {"'self'"}
    assert policy["img-src"] == "'self' data:"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert not [name for name in headers if name.startswith("access-control-")]
    assert "uvicorn" not in str(headers)


def test_refusals_and_failures_have_the_same_headers(rating, client, monkeypatch):
    monkeypatch.setattr(rating.store, "screen", lambda *_: 1 / 0)
    for answer, status in (
        (client.get("/"), 500),
        (client.get("/", headers={"host": "evil.example"}), 400),
        (client.post("/vote", data=VOTE), 403),
        (client_of(rating, "ana", known=False).get("/"), 403),
    ):
        assert answer.status_code == status
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_pages_are_kept_in_no_cache(client):
    assert client.get("/").headers["cache-control"] == "no-store"


def test_a_failure_shows_nothing_of_the_inside(client, rating, monkeypatch):
    monkeypatch.setattr(rating.store, "screen", lambda *_: 1 / 0)
    answer = client.get("/")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")


@pytest.mark.parametrize(
    "path",
    ["/static/../guard.py", "/static/..%2fguard.py", "/static/%2e%2e/guard.py", "/static//etc/passwd",
     "/static/pages.css/", "/static/%00", "/static/", "/ratings.sqlite", "/rate/pairs_000015.jsonl",
     "/static/rate.html"],
)  # fmt: skip
def test_no_other_file_can_be_asked_for(client, path):
    assert client.get(path).status_code == 404


def test_that_the_server_runs_is_all_that_a_stranger_learns(rating):
    answer = client_of(rating, "ana", known=False).get("/healthz")
    assert (answer.status_code, answer.content) == (204, b"")

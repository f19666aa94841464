"""A run with answers to rate, and clients of its rating page. `from rated_runs import write_run`."""

from pathlib import Path

from starlette.testclient import TestClient

from surefoot.config import PPOConfig
from surefoot.evaluate.rated.rating import Rating
from surefoot.evaluate.rated.session import begin
from surefoot.tracking import RunFolder
from surefoot.web.guard import Guard, Hosts
from surefoot.web.rate.app import make_app

OURS = {"sec-fetch-site": "same-origin"}
"""What a browser says with the forms of a page."""


def answer(step, row):
    """Told apart by its last words; long enough to be planted."""
    return f"one two three four five six, answer of step {step} to {row}"


def write_run(path, *, steps=(0, 5, 10, 15), rows=20, text=answer, each=1, score=lambda step, row: step + row / 100):
    """A run folder with `each` answers of every row at the evaluations of `steps`."""
    folder = RunFolder(path)
    folder.start(PPOConfig(model_name="some-lab/Secretive-7B", temperature=0.7), ["surefoot", "ppo"])
    for step in steps:
        samples = [
            {"step": step, "prompt": f"Prompt {row}?", "response": text(step, row) + " again" * again,
             "score": score(step, row), "kl": 0.1, "length": 10 + step + row, "finish_reason": "stop", "row": row}
            for row in range(rows) for again in range(each)
        ]  # fmt: skip
        folder.log_evaluation(step, 4 * step, {"eval/score": 0.5}, samples)
    return Path(path)


def rating_of(run, *raters, count=16, **how):
    """A rating of the run, begun, with its raters invited."""
    rating = Rating(run, begin(run, count=count, **how))
    for rater in raters:
        rating.invite(rater)
    return rating


def client_of(rating, rater, *, known=True, **how):
    """A browser without JavaScript: one that came by the rater's link or, not `known`, one that did not."""
    tokens = {f"token-of-{name}": name for name in rating.store.standing(rating.session.step)}
    app = Guard(make_app(rating), hosts=Hosts(), tokens=tokens, cookie="surefoot-8765")
    client = TestClient(app, base_url="http://127.0.0.1:8765", follow_redirects=False, **how)
    if known:
        assert client.get("/", params={"token": f"token-of-{rater}"}).status_code == 200
    return client


def vote(client, place, answer="left", **fields):
    """Sends the form of a screen."""
    return client.post(
        "/vote", data={"place": place, "answer": answer, "seconds": "2.5", "note": ""} | fields, headers=OURS
    )


def press(client, path):
    """Sends a form without fields, as its button does."""
    return client.post(path, headers=OURS | {"content-type": "application/x-www-form-urlencoded"})


def place_of(client):
    """The place of the screen that a client is shown."""
    return int(client.get("/").text.partition('name="place" value="')[2].partition('"')[0])

"""A judge of pairs on loopback, for `fake_service.Service`. `from fake_judge import shorter`."""

import re

from fake_service import ok


def reply(text):
    """What a chat-completions service says."""
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def texts_of(asked):
    """Both answers of a question, as an honest judge finds them."""
    found = re.search(r"\[\w+ answer A\]\n(.*)\n\[\w+ answer B\]\n(.*)\n\[\w+ end\]", asked, re.DOTALL)
    return found[1], found[2]


def shorter(request):
    """An honest judge that likes it short."""
    a, b = map(len, texts_of(request.body["messages"][0]["content"]))
    return ok(reply(f"I like it short.\nVerdict: {'A' if a < b else 'B' if b < a else 'tie'}"))

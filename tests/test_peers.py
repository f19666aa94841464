"""What a process makes of the others' words, of their silence, and of a store that is gone (here a dictionary)."""

import threading
import time

import pytest

from surefoot import peers as module
from surefoot.peers import Peers


class Shared:
    """A store that can go."""

    def __init__(self):
        self.entries, self.there = {}, True

    def _reach(self):
        if not self.there:
            raise RuntimeError("connection closed")

    def set(self, key, value):
        self._reach()
        self.entries[key] = value.encode()

    def get(self, key):
        self._reach()
        return self.entries[key]

    def check(self, keys):
        self._reach()
        return all(key in self.entries for key in keys)

    def compare_set(self, key, expected, desired):
        self._reach()
        return self.entries.setdefault(key, desired.encode())


@pytest.fixture
def second(monkeypatch):
    """The second of two processes, quick to look, and what it left with."""
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(module.sys, "excepthook", module.sys.excepthook)
    store, left = Shared(), threading.Event()
    store.set("surefoot/beat/0", "1")
    peers = Peers(store, 1, 2, leave=lambda code: left.set())
    peers.start()
    yield store, peers, left
    peers.close()


def test_a_process_that_hangs_ends_when_the_store_is_gone_without_a_goodbye(second, capfd):
    store, _, left = second
    time.sleep(0.1)
    store.there = False
    assert left.wait(5)
    err = capfd.readouterr().err
    assert "process 0 is gone without a word" in err
    assert "process 1 hangs here:" in err


def test_after_a_goodbye_of_the_first_process_the_others_may_go_on_alone(second):
    store, _, left = second
    store.set("surefoot/beat/0", "gone")
    time.sleep(0.2)
    store.there = False
    assert not left.wait(1)


@pytest.mark.parametrize("other", ["3", "gone"])
def test_the_first_process_keeps_the_store_until_the_others_have_left_or_for_a_while(monkeypatch, other):
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.5)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)
    store = Shared()
    store.set("surefoot/beat/1", other)
    first = Peers(store, 0, 2)
    monkeypatch.setattr(module.sys, "excepthook", module.sys.excepthook)
    first.start()
    began = time.monotonic()
    first.close()
    assert (time.monotonic() - began >= 0.5) is (other != "gone")
    assert store.get("surefoot/beat/0") == b"gone"

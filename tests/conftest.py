"""Fixtures for all tests: a tokenizer and factories of tiny models (see tiny.py), and no network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import hypothesis
import pytest
import tiny
from transformers import PreTrainedTokenizerFast

hypothesis.settings.register_profile("no clock", deadline=None)  # on a busy machine 200 ms pass in a test of 50
hypothesis.settings.load_profile("no clock")


@pytest.fixture
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """The byte tokenizer with a pad token of its own, without BOS and without a chat template."""
    return tiny.tiny_tokenizer()


@pytest.fixture
def tiny_llama():
    """The factory `tiny_llama(seed=0, **config_changes)`."""
    return tiny.tiny_llama


@pytest.fixture
def tiny_gpt2():
    """The factory `tiny_gpt2(seed=0, **config_changes)`."""
    return tiny.tiny_gpt2


def pytest_terminal_summary(terminalreporter):
    """Shows what tests counted and measured (`record_property("counts", ...)`), one line each, to be quoted."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    counts = [value for report in reports for name, value in getattr(report, "user_properties", ())
              if name == "counts" and report.when == "call"]  # fmt: skip
    if counts:
        terminalreporter.section("counts")
        for line in counts:
            terminalreporter.write_line(line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Reports travel between test processes as UTF-8, without lone surrogates; tests of hostile texts print some."""
    report = yield
    report.sections = [(name, _encodable(text)) for name, text in report.sections]
    if report.longreprtext != _encodable(report.longreprtext):
        report.longrepr = _encodable(report.longreprtext)
    return report


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")

"""The benchmark of vLLM: what it asks for, and what it makes of the numbers."""

from benchmarks import vllm_sampling


def test_every_engine_gets_the_same_prompts_and_answers_of_one_length():
    w = vllm_sampling.workload("real", 32, 128)
    assert (w.rows, w.prompt, w.response) == (32, (16, 16), (128, 128))
    assert w.shape.hidden == 576
    assert not w.ragged


def test_the_table_has_medians_ranges_and_rates():
    found = {
        "tokens": {"vllm": 4096},
        "seconds": {"vllm": [8.0, 10.0, 9.0], "canary": [0.25, 0.5, 0.75]},
        "cpu_seconds": {"vllm": [16.0, 17.0, 15.0], "canary": [0.5, 0.5, 0.5]},
    }
    lines = vllm_sampling.shown(found).splitlines()
    assert lines[2:] == [
        "| vllm | 9.00 | 8.00 to 10.00 | 16.00 | 455 |",
        "| canary | 0.50 | 0.25 to 0.75 | 0.50 |  |",
    ]

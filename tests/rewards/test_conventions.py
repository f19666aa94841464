"""Functions of every convention run unchanged; expected scores are counted by hand."""

import asyncio
import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from surefoot.rewards import FunctionReward
from surefoot.types import Completion, Prompt

FUNCTIONS = Path(__file__).parent / "functions"


def row(text="Say: ", index=0, chat=False, **columns):
    messages = ({"role": "user", "content": text},) if chat else ()
    return Prompt(f"<user>{text}<assistant>" if chat else text, (1, 2), messages, columns, index)


def said(*texts):
    return [Completion(text, tuple(range(len(text))), (0.0,) * len(text), "stop") for text in texts]


def scores(function, prompts, *texts):
    return list(FunctionReward(function)(prompts, said(*texts)).scores)


# ------------------------------------------------------------------------------------------ TRL
def test_a_trl_function_gets_messages_for_conversations():
    path = f"{FUNCTIONS / 'trl_style.py'}:think_format"
    assert scores(path, [row(chat=True), row(chat=True)], "<think>a</think>b", "b") == [1.0, 0.0]


def test_a_trl_function_gets_texts_for_plain_prompts_and_columns_and_may_say_none():
    path = f"{FUNCTIONS / 'trl_style.py'}:accuracy"
    prompts = [row(solution="4"), row(solution=None), row(solution="5")]
    assert scores(path, prompts, "4", "4", "4") == [1.0, None, 0.0]


def test_a_column_that_some_rows_lack_is_none_there():
    def f(completions, solution, **kwargs):
        return [-1 if s is None else s for s in solution]

    assert scores(f, [row(solution=3), row()], "a", "b") == [3.0, -1.0]


def test_an_async_trl_function_gets_ids_state_and_both_loggers():
    reward = FunctionReward(f"{FUNCTIONS / 'trl_style.py'}:ids_count")
    reward.trainer_state.global_step = 2
    output = reward([row(), row()], said("abc", "a"))
    assert list(output.scores) == [203.0, 201.0]
    assert output.metrics == {"longest": 3.0, "lengths": 2.0}


def test_an_annotation_that_says_text_is_believed_over_the_conversation():
    def f(completions: list[str], **kwargs):
        return [len(c) for c in completions]

    assert scores(f, [row(chat=True)], "four") == [4.0]


def test_trl_prompts_of_conversations_are_messages():
    def f(prompts, completions, **kwargs):
        return [len(p[-1]["content"]) for p in prompts]

    assert scores(f, [row("12345", chat=True)], "x") == [5.0]


def test_a_function_of_kwargs_alone_is_handed_everything_as_trl_does():
    def f(**kwargs):
        assert {"prompts", "completions", "completion_ids", "level"} <= set(kwargs)
        return kwargs["level"]

    assert scores(f, [row(level=7)], "x") == [7.0]


def test_ms_swift_objects_get_text_even_for_conversations():
    class ORM:
        pass

    class Length(ORM):
        def __call__(self, completions, solution, **kwargs):
            return [len(c) - len(s) for c, s in zip(completions, solution, strict=True)]

    assert scores(Length(), [row(chat=True, solution="ab")], "abcde") == [3.0]


def test_an_object_with_an_async_call_is_awaited():
    class Slow:
        async def __call__(self, completions, **kwargs):
            await asyncio.sleep(0)
            return [1] * len(completions)

    assert scores(Slow(), [row()], "x") == [1.0]


# ------------------------------------------------------------------------------------------ verl
@pytest.mark.parametrize("columns", [{"reward_model": {"ground_truth": "7", "style": "rule"}}, {"ground_truth": "7"}])
def test_a_verl_file_with_only_text_and_truth_runs_and_its_options_are_no_columns(columns):
    prompts = [row(**columns, score=9.0, method="x"), row(**columns)]
    assert scores(str(FUNCTIONS / "verl_style.py"), prompts, " 7", "8") == [1.0, 0.1]


def test_the_full_verl_signature_is_mapped_and_dict_extras_are_averaged():
    def compute_score(data_source, solution_str, ground_truth, extra_info=None):
        assert data_source == "gsm8k"
        return {"score": extra_info["level"], "acc": solution_str == ground_truth, "pred": solution_str}

    prompts = [row(data_source="gsm8k", reward_model={"ground_truth": "1"}, extra_info={"level": n}) for n in (3, 4)]
    output = FunctionReward(compute_score)(prompts, said("1", "2"))
    assert list(output.scores) == [3.0, 4.0]
    assert output.metrics == {"acc": 0.5}


def test_a_verl_batch_function_gets_lists():
    def compute_score(data_sources, solution_strs, ground_truths, extra_infos, **kwargs):
        assert extra_infos == [None, None]
        return [{"score": float(s == g)} for s, g in zip(solution_strs, ground_truths, strict=True)]

    prompts = [row(data_source="d", ground_truth="1"), row(data_source="d", ground_truth="1")]
    assert scores(compute_score, prompts, "1", "2") == [1.0, 0.0]


def test_async_verl_functions_run_side_by_side():
    started = []

    async def compute_score(data_source, solution_str, ground_truth, extra_info=None):
        started.append(solution_str)
        await asyncio.sleep(0)
        assert started == ["1", "2"]  # both were started before the first one ended
        return float(solution_str)

    prompts = [row(data_source="d", ground_truth="1")] * 2
    assert scores(compute_score, prompts, "1", "2") == [1.0, 2.0]


# ------------------------------------------------------------------------------------------ the others
def test_an_openrlhf_file_runs_by_its_default_name():
    reward = FunctionReward(str(FUNCTIONS / "openrlhf_style.py"))
    output = reward([row(label="b"), row(label="x")], said("ab", "abcd"))
    assert reward.name == "reward_func"
    assert list(output.scores) == [2.0, 4.0]
    assert output.metrics["hits"] == 0.5
    assert output.metrics["scores"] == pytest.approx(0.3)


def test_an_openrlhf_function_is_called_for_one_answer_at_a_time():
    assert scores(lambda queries, prompts, labels: torch.tensor(len(queries)), [row(), row()], "a", "b") == [1.0, 1.0]


def test_trlx_samples_are_prompt_and_output_together():
    assert scores(lambda samples, **kwargs: [len(s) for s in samples], [row("1234")], "56") == [6.0]
    assert scores(lambda samples, prompts, outputs, k: [len(o) + k[0] for o in outputs], [row(k=10)], "56") == [12.0]


def test_verifiers_functions_get_any_subset_and_may_be_async():
    async def exact(completion, answer):
        return float(completion[-1]["content"] == answer)

    def stateful(prompt, completion, state, task="none"):
        return len(state["completion"]) + (task == "sums") + len(prompt)

    assert scores(exact, [row(chat=True, answer="a")], "a") == [1.0]
    assert scores(stateful, [row("12", task="sums")], "abc") == [6.0]


def test_a_reasoning_gym_scorer_gets_the_row_as_entry():
    def score_answer(answer, entry):
        return 1.0 if answer == entry["answer"] and entry["question"] == "2+2" else 0.0

    assert scores(score_answer, [row("2+2", chat=True, answer="4")], "4") == [1.0]


def test_an_openai_grader_gets_sample_and_item():
    def grade(sample, item):
        assert sample["choices"][0]["message"]["content"] == sample["output_text"]
        return float(sample["output_text"] == item["reference"])

    assert scores(grade, [row(reference="r")], "r") == [1.0]


def test_plain_functions_of_one_text_or_all_texts():
    def annotated(x: list[str]):
        return np.array([len(t) for t in x])

    assert scores(lambda text: 0 + len(text), [row(), row()], "ab", "abc") == [2.0, 3.0]
    assert scores(lambda texts: [len(t) for t in texts], [row(), row()], "ab", "abc") == [2.0, 3.0]
    assert scores(annotated, [row(), row()], "ab", "abc") == [2.0, 3.0]
    assert scores(len, [row()], "abcd") == [4.0]  # its only parameter has no keyword


def test_pairs_of_prompt_and_response_one_by_one_and_in_batches():
    assert scores(lambda prompt, response: len(prompt) * len(response), [row("123")], "ab") == [6.0]
    assert scores(lambda prompts, responses: [len(responses)] * len(prompts), [row(), row()], "a", "b") == [2.0, 2.0]
    assert scores(lambda queries, responses: [queries[0] + responses[0] == "pr"], [row("p")], "r") == [1]


def test_bound_arguments_count_as_defaults():
    def f(completions, wanted, **kwargs):
        return [float(c == wanted) for c in completions]

    reward = FunctionReward(functools.partial(f, wanted="y"))
    assert reward.name == "f"
    assert list(reward([row()], said("y")).scores) == [1.0]


def test_every_kind_of_number_is_accepted():
    values = [1, True, 0.5, np.float32(2), np.int64(3), torch.tensor(4.0), torch.tensor([5]), torch.tensor([[6.0]])]
    output = scores(lambda texts: values, [row()] * 8, *"abcdefgh")
    assert output == [1.0, 1.0, 0.5, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert all(type(v) is float for v in output)
    assert scores(lambda texts: torch.tensor([[1.0], [2.0]]), [row()] * 2, "a", "b") == [1.0, 2.0]


def test_functions_are_given_exact_strings():
    assert scores(lambda text: type(text) is str, [row()], "x") == [1.0]


def test_an_async_function_runs_inside_a_notebooks_loop():
    async def f(completion):
        return 3

    async def notebook():
        return list(FunctionReward(f)([row()], said("x")).scores)

    assert asyncio.run(notebook()) == [3.0]


@pytest.mark.parametrize("function", [lambda a, b: 0, lambda: 0, lambda args, sample: 0, lambda *texts: 0])
def test_an_unknown_convention_is_refused_by_its_parameters(function):
    with pytest.raises(ValueError, match="no known way of calling a reward"):
        FunctionReward(function)

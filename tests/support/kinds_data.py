"""Small data for every kind of task, in which a word or two tell all."""

from __future__ import annotations

import json
import random
from pathlib import Path

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.task_kinds import KINDS
from tests.support.tiny import BAD, FILLERS, GOOD


def make_task(folder: Path, kind: str, rows: int = 128) -> TaskSettings:
    """Writes training and dev data of a kind and returns the task."""
    folder.mkdir(parents=True, exist_ok=True)
    makers = {
        "classification": _classified,
        "regression": _rated,
        "multi_label": _labelled,
        "tagging": _tagged,
        "question_answering": _asked,
        "extractive_summary": _summed_up,
        "masked_lm": _told,
    }
    files = {}
    for split in ("train", "dev"):
        rng = random.Random(f"{kind}:{split}")
        files[split] = str(makers[kind](folder / split, [_sentence(rng) for _ in range(rows)]))
    short = {"max_length": 24, "stride": 4}
    lengths = {"extractive_summary": {"max_length": 32, "sentences": 2}}.get(kind, short)
    return TaskSettings(name=f"tiny-{kind}", kind=kind, **lengths, **files)


def make_model(folder: Path, task: TaskSettings, family: str = "bert") -> Path:
    """Writes a model for a task, with random weights so large that its answers differ."""
    import torch

    from lkd_tune.data.loading import count_labels, label_names
    from lkd_tune.models.from_scratch import build_word_tokenizer
    from lkd_tune.models.loading import auto_model
    from tests.support.families import CONFIGS

    tokenizer = build_word_tokenizer(sorted({*GOOD, *BAD, *FILLERS}), 40)
    torch.manual_seed(0)
    config = CONFIGS[family](initializer_range=0.2, num_labels=count_labels(task) or 2)
    config.vocab_size, config.num_hidden_layers = len(tokenizer), 2
    if names := label_names(task):
        config.id2label = dict(enumerate(names))
    auto_model(KINDS[task.kind].head).from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


Sentence = tuple[list[str], int, bool]
"""Words, the place of the telling one, and whether that is a good one."""


def _sentence(rng: random.Random) -> Sentence:
    words = rng.choices(FILLERS, k=rng.randint(3, 8))
    place, good = rng.randint(0, len(words)), rng.random() < 0.5
    words.insert(place, rng.choice(GOOD if good else BAD))
    return words, place, good


def _classified(path: Path, sentences: list[Sentence]) -> Path:
    rows = [f"{' '.join(words)}\t{'good' if good else 'bad'}" for words, _, good in sentences]
    return _written(path.with_suffix(".tsv"), ["text\tlabel", *rows])


def _rated(path: Path, sentences: list[Sentence]) -> Path:
    rows = [f"{' '.join(words)}\t{2.5 if good else -1}" for words, _, good in sentences]
    return _written(path.with_suffix(".tsv"), ["text\tlabel", *rows])


def _labelled(path: Path, sentences: list[Sentence]) -> Path:
    rows = []
    for words, _, good in sentences:
        labels = ["good" if good else "bad", *(["film"] if "film" in words else [])]
        rows.append(f"{' '.join(words)}\t{','.join(labels)}")
    return _written(path.with_suffix(".tsv"), ["text\tlabel", *rows])


def _tagged(path: Path, sentences: list[Sentence]) -> Path:
    lines = []
    for words, place, good in sentences:
        tag = "B-good" if good else "B-bad"
        lines += [f"{word}\t{tag if i == place else 'O'}" for i, word in enumerate(words)]
        lines.append("")
    return _written(path.with_suffix(".conll"), lines)


def _asked(path: Path, sentences: list[Sentence]) -> Path:
    questions = []
    for number, (words, place, good) in enumerate(sentences):
        answer = {"text": words[place], "answer_start": len(" ".join([*words[:place], ""]))}
        question = "good" if good else "bad"
        qas = [{"id": str(number), "question": question, "answers": [answer]}]
        questions.append({"context": " ".join(words), "qas": qas})
    nested = {"version": "1.1", "data": [{"title": "tiny", "paragraphs": questions}]}
    return _written(path.with_suffix(".json"), [json.dumps(nested)])


def _summed_up(path: Path, sentences: list[Sentence]) -> Path:
    """Writes documents of five sentences; the two good ones sum them up, never the first."""
    rng = random.Random(path.name)
    lines = []
    for _ in sentences:
        good = rng.choice([(1, 3), (1, 4), (2, 3), (2, 4), (3, 4)])
        document = []
        for number in range(5):
            words = rng.sample(FILLERS, 2)
            words.insert(rng.randint(0, 2), rng.choice(GOOD if number in good else BAD))
            document.append(" ".join(words))
        summary = ". ".join(document[number] for number in good)
        lines.append(json.dumps({"document": document, "summary": summary}))
    return _written(path.with_suffix(".jsonl"), lines)


def _told(path: Path, sentences: list[Sentence]) -> Path:
    """Writes the fillers in their order, over and over: each word is told by those around it."""
    lines = [" ".join(FILLERS) for _ in sentences]
    return _written(path.with_suffix(".txt"), lines)


def _written(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path

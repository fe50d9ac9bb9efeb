"""A space file drafted from a data file and a teacher, with what was guessed as comments."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.read_space import build_space
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.source import parse_source
from lkd_tune.drafts.columns import Roles, find_roles
from lkd_tune.drafts.held_out import hold_out
from lkd_tune.drafts.kind import Guess, guess_kind
from lkd_tune.drafts.sample import Sample, read_sample
from lkd_tune.drafts.teacher import TeacherFacts, read_teacher
from lkd_tune.files.atomic import write_atomically
from lkd_tune.models.loading import load_tokenizer

_SIBLINGS = {"dev": ("dev", "valid", "validation", "val", "eval"), "test": ("test",)}
# Depths of students as shares of the teacher's.
_DEPTHS = (1 / 4, 1 / 3, 1 / 2)
# Share of the texts that are not cut, and what lengths are rounded up to.
_WHOLE, _STEP = 0.98, 16
_LONGEST, _SHORTEST = 512, 32
_BATCH = 32
# Fewer optimizer steps than this hardly train a student.
_LEAST_STEPS, _MOST_EPOCHS = 600, 20
# Above this share, trimming the vocabulary is the largest saving.
_MANY_EMBEDDINGS = 0.3


@dataclass(frozen=True)
class Request:
    """What a draft is made from; None: guessed.

    Attributes:
        train: The training file.
        dev: The file that scores trials.
        test: The file that scores the winner.
        teacher: Folder or hub id of a fine-tuned or a pre-trained model.
        text: Name of the text's column.
        pair: Name of the second text's column.
        label: Name of the label's column.
        gpus: Whether trials have a GPU.
    """

    train: Path
    dev: Path | None = None
    test: Path | None = None
    teacher: str | None = None
    text: str | None = None
    pair: str | None = None
    label: str | None = None
    gpus: bool = False


@dataclass
class _Facts:
    """What was found out, and a line on each guess."""

    sample: Sample
    roles: Roles
    guess: Guess
    teacher: TeacherFacts
    length: int | None
    why_length: str
    splits: dict[str, str]
    notes: list[str] = field(default_factory=list)


def draft_path(train: Path) -> Path:
    """Returns where the draft for a training file goes: here, named after the file or its folder.

    `reviews_train.csv` and `reviews/train.csv` give `reviews.yaml`.
    """
    stem = re.sub(r"[-_.]?(train(ing)?|data|all)$", "", train.name.partition(".")[0])
    return Path(f"{stem or train.absolute().parent.name or 'space'}.yaml")


def write_draft(request: Request, to: Path) -> list[str]:
    """Writes a space file; returns what was guessed, a line each.

    If there is no dev file, neither named nor beside the training file, rows of the training file
    are held out, see `held_out.py`.

    Args:
        request: What is known.
        to: The space file.

    Raises:
        SpecError: If `to` exists, a file or the teacher can't be read, or the columns leave open
            what the task is.
    """
    if to.exists():
        raise SpecError(Problem(str(to), "", "exists; name another file with --to"))
    facts = _find_out(request)
    if "dev" not in facts.splits:
        train, dev = hold_out(_task(facts), to.parent, to.stem)
        facts.splits |= {"train": str(train), "dev": str(dev)}
        facts.notes.append(f"no dev file was found: rows of {request.train} went to {train}, {dev}")
    text = _space_text(facts, to, gpus=request.gpus)
    build_space(parse_source(text, to.name))
    write_atomically(to, text)
    return [*facts.notes, *_told(facts)]


def _find_out(request: Request) -> _Facts:
    sample = read_sample(request.train)
    roles = find_roles(sample, request.text, request.pair, request.label)
    guess = guess_kind(sample, roles)
    texts = [_as_text(value) for value in sample.values(roles.text)]
    teacher = read_teacher(request.teacher, guess.kind, guess.classes, texts)
    splits = {"train": str(request.train)}
    facts = _Facts(sample, roles, guess, teacher, None, "", splits)
    facts.length, facts.why_length = _length(sample, roles, guess, teacher)
    for split, named in (("dev", request.dev), ("test", request.test)):
        found = named or _sibling(request.train, split)
        if found is None:
            continue
        columns = read_sample(found).columns
        needed = [name for name in (roles.text, roles.pair, roles.label) if name is not None]
        missing = ", ".join(name for name in needed if name not in columns)
        if not missing:
            splits[split] = str(found)
        elif named is not None:
            raise SpecError(Problem(f"--{split}", "", f"{found} has no column {missing}"))
        else:
            facts.notes.append(f"{found} is left out: it has no column {missing}")
    return facts


def _sibling(train: Path, split: str) -> Path | None:
    """Returns the file beside the training file whose name has `dev` or so in place of `train`."""
    if "train" not in train.name:
        return None
    candidates = (train.with_name(train.name.replace("train", name)) for name in _SIBLINGS[split])
    return next((path for path in candidates if path.is_file()), None)


def _length(
    sample: Sample, roles: Roles, guess: Guess, teacher: TeacherFacts
) -> tuple[int | None, str]:
    """Returns the length at which hardly a text is cut, and why; None where a default is better."""
    if guess.kind in ("question_answering", "extractive_summary"):
        return None, ""
    texts = [_as_text(value) for value in sample.values(roles.text)]
    if roles.pair:
        seconds = sample.values(roles.pair)
        texts = [f"{a} {_as_text(b)}" for a, b in zip(texts, seconds, strict=True)]
    how = ""
    if teacher.is_proposed:  # not to download it now
        lengths = [3 + math.ceil(1.4 * len(re.findall(r"\w+|[^\w\s]", text))) for text in texts]
        how = ", estimated from words"
    else:
        tokenizer = load_tokenizer(teacher.model)
        lengths = [len(ids) for ids in tokenizer(texts, truncation=False)["input_ids"]]
    enough = float(np.quantile(lengths, _WHOLE, method="higher"))
    most = min(_LONGEST, teacher.positions or _LONGEST)
    length = min(max(_STEP * math.ceil(enough / _STEP), _SHORTEST), most)
    whole = sum(each <= length for each in lengths) / len(lengths)
    return length, f"{whole:.0%} of the texts have at most so many tokens{how}"


def _task(facts: _Facts) -> TaskSettings:
    """Returns the task of a draft that has no dev split yet."""
    tree = yaml.safe_load("\n".join(_task_lines(facts, "draft", dev=facts.splits["train"])))
    return TaskSettings.model_validate(tree["task"])


def _space_text(facts: _Facts, to: Path, *, gpus: bool) -> str:
    train, teacher = facts.splits["train"], facts.teacher
    rows, batches = facts.sample.total, max(1, facts.sample.total // _BATCH)
    epochs = min(_MOST_EPOCHS, max(3, math.ceil(_LEAST_STEPS / batches)))
    layers = teacher.layers
    depths = sorted({max(1, round(share * layers)) for share in _DEPTHS})
    student = [f"  depth: {{choice: {depths}}} # the teacher has {layers} layers"]
    share = teacher.embedding_share(depths[0])
    if share > _MANY_EMBEDDINGS and facts.guess.kind != "masked_lm":
        student.append(
            f"  vocab: trim # {share:.0%} of the smallest student would be embeddings; only those "
            "of words\n              # in the training text are kept. `teacher` keeps all"
        )
    gpu_lines = ["  gpus: 1", "  cpus: 4"] if gpus else ["  gpus: 0", "  cpus: 1"]
    lines = [
        f"# Drafted by `lkd-tune init` from {train}.",
        "# What was guessed says why; correct what is wrong.",
        "#",
        f"#     lkd-tune check --space {to}",
        f"#     lkd-tune search --space {to}",
        "",
        *_task_lines(facts, to.stem),
        "",
        *_teacher_lines(facts, epochs),
        "",
        "student:",
        *student,
        "",
        "layer_map: monotone # searched: which layers of the teacher a student's layers imitate",
        "",
        "losses: # the weights are searched on log scales; `lkd-tune recipes` has published ones",
        "  wr_pair: {loguniform: [0.1, 100]}",
        "  wr_triple: {loguniform: [0.1, 1000]}",
        "  ltr_pair: {loguniform: [0.1, 100]}",
        "  ltr_triple: {loguniform: [0.1, 1000]}",
        *(
            []
            if facts.guess.kind == "masked_lm"
            else ["  logits: {temperature: {uniform: [1, 4]}}"]
        ),
        "",
        "train: # of each student",
        f"  epochs: {epochs} # {rows:,} rows: {epochs * batches:,} steps",
        f"  batch_size: {_BATCH}",
        "  lr: {loguniform: [2e-5, 2e-4]}",
        "  evaluations: 3 # after each of them trials that fall behind are stopped",
        "",
        "search:",
        "  trials: 24",
        "",
        "confirm: {top: 2, seeds: 3} # the best two again with other seeds",
        "",
        "resources: # of one trial",
        *gpu_lines,
    ]
    return "\n".join(lines) + "\n"


def _task_lines(facts: _Facts, name: str, dev: str | None = None) -> list[str]:
    roles, guess, sample = facts.roles, facts.guess, facts.sample
    columns = {"text": roles.text, "pair": roles.pair, "label": roles.label}
    named = {key: value for key, value in columns.items() if value is not None}
    why = ", ".join(f"{key} {reason}" for key, reason in roles.why.items())
    splits = {**facts.splits, **({"dev": dev} if dev else {})}
    use = {"dev": " # scores the trials", "test": " # scores the winner, once"}
    lines = ["task:", f"  name: {_yaml(name)}", f"  kind: {guess.kind} # guessed: {guess.why}"]
    lines += [f"  {split}: {_yaml(file)}{use.get(split, '')}" for split, file in splits.items()]
    lines.append(f"  columns: {_yaml(named)} # guessed: {why}")
    if not sample.has_header:
        lines.append(f"  column_names: {_yaml(sample.columns)} # the file has no header")
    if labels := _labels(facts):
        lines.append(f"  labels: {_yaml(labels[0])} # {labels[1]}")
    lines.append(f"  metric: {guess.metric} # guessed: {guess.why_metric}")
    if facts.length is not None:
        lines.append(f"  max_length: {facts.length} # {facts.why_length}")
    return lines


def _labels(facts: _Facts) -> tuple[list[str], str] | None:
    """Returns names of the classes and why they are listed; None if the data's own order does."""
    if facts.guess.labels is not None:
        return facts.guess.labels, "numbers that are not counted from 0, taken for names"
    if facts.guess.kind != "classification" or facts.roles.label is None:
        return None
    ours = {str(value).strip() for value in facts.sample.values(facts.roles.label)} - {"", "None"}
    by_folded = {name.casefold(): name for name in ours}
    folded = [name.casefold() for name in facts.teacher.names]
    if facts.teacher.is_tuned and sorted(folded) == sorted(by_folded):
        return [by_folded[name] for name in folded], "in the teacher's order"
    return None


def _teacher_lines(facts: _Facts, epochs: int) -> list[str]:
    teacher = facts.teacher
    model = _yaml(teacher.model)
    if teacher.is_tuned:
        return [f"teacher: {model} # {teacher.why}"]
    proposed = [
        "  # No --teacher was given, so this model is downloaded from the Hugging Face hub."
    ] * teacher.is_proposed
    return [
        "teacher:",
        *proposed,
        f"  train: # {teacher.why}: it is fine-tuned on the task first, once",
        f"    model: {model}",
        f"    epochs: {min(epochs, 5)}",
        f"    batch_size: {_BATCH}",
        "    lr: 2e-5",
        "    warmup: 0.1",
    ]


def _told(facts: _Facts) -> list[str]:
    roles, guess = facts.roles, facts.guess
    lines = [
        f"{key}: column {name} ({roles.why[key]})"
        for key, name in (("text", roles.text), ("pair", roles.pair), ("label", roles.label))
        if name is not None
    ]
    lines.append(f"kind: {guess.kind} ({guess.why})")
    lines.append(f"metric: {guess.metric} ({guess.why_metric})")
    if facts.length is not None:
        lines.append(f"max_length: {facts.length} ({facts.why_length})")
    fine_tuned = "" if facts.teacher.is_tuned else ", fine-tuned first"
    lines.append(f"teacher: {facts.teacher.model}{fine_tuned} ({facts.teacher.why})")
    return lines


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, width=math.inf, sort_keys=False
    )
    return text.removesuffix("...\n").strip()


def _as_text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value))
    return "" if value is None else str(value)

"""How to load and use a student, for its model card: Python code, and Markdown for formats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.export.formats import FORMATS

_LOAD = """\
from transformers import AutoModelFor{head}, AutoTokenizer

model = AutoModelFor{head}.from_pretrained(FOLDER)
tokenizer = AutoTokenizer.from_pretrained(FOLDER)"""

# For the kinds of tasks that transformers has a pipeline for: its arguments, and how it is called.
_PIPELINES: Mapping[str, tuple[str, str]] = {
    "classification": ("", "({text}, truncation=True, max_length={longest})"),
    "regression": ("", "({text}, truncation=True, max_length={longest})"),
    "multi_label": ("", "({text}, truncation=True, max_length={longest}, top_k=None)"),
    # The first token of a word stands for it, as in training.
    "tagging": (', aggregation_strategy="first"', '("Some words.")'),
    "masked_lm": ("", '(f"Some {predict.tokenizer.mask_token}.")'),
}

# The student was trained only on input of this form; see data/tasks/extractive_summary.py.
_SUMMARISE = """
sentences = ["The first sentence of a document.", "The second one."]
ids, begins = [], []
for sentence in sentences:
    own = tokenizer(sentence, add_special_tokens=False)["input_ids"][:{room}]
    if len(ids) + len(own) + 2 > {longest}:
        break
    begins.append(len(ids))
    ids += [tokenizer.cls_token_id, *own, tokenizer.sep_token_id]
logits = model(input_ids=torch.tensor([ids])).logits[0, begins]
likeliest = (logits[:, 1] - logits[:, 0]).argsort(descending=True, stable=True)[:{most}]
print(" ".join(sentences[i] for i in sorted(likeliest.tolist())))"""


def usage(task: TaskSettings) -> str:
    """Returns Python code that loads a task's student from FOLDER.

    It also predicts: by a pipeline, or for summaries by lines of its own.
    """
    load = _LOAD.format(head=KINDS[task.kind].head)
    if task.kind in _PIPELINES:
        options, call = _PIPELINES[task.kind]
        text = (
            '{"text": "One text.", "text_pair": "Another."}' if task.columns.pair else '"A text."'
        )
        call = call.replace("{text}", text).replace("{longest}", str(task.max_length))
        pipeline = f'predict = pipeline("{KINDS[task.kind].pipeline}", model=FOLDER{options})'
        return (
            f"from transformers import pipeline\n\n{pipeline}\nprint(predict{call})\n\n"
            f"# Or without a pipeline:\n{load}"
        )
    if task.kind != "extractive_summary":
        return load
    longest = task.max_length
    summarise = _SUMMARISE.format(longest=longest, room=longest - 2, most=task.sentences)
    return f"import torch\n{load}\n{summarise}"


def usage_of_formats(names: Iterable[str]) -> list[str]:
    """Returns Markdown on how to use some of `FORMATS`; equal texts once, for the first of them.

    The code continues that of `usage`, from which it has the tokenizer.
    """
    file_by_use: dict[str, str] = {}
    for name in names:
        file_by_use.setdefault(FORMATS[name].use, FORMATS[name].file)
    return [use.replace("FILE", file) for use, file in file_by_use.items() if use]

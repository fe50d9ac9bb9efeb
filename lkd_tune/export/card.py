"""The card of an exported student: what it is, how it came about, how good it is, at what cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lkd_tune.config.settings.known_tasks import GENERATED, is_file_name
from lkd_tune.config.trial import TrialSpec
from lkd_tune.export.formats import FORMATS, Conversion
from lkd_tune.export.usage import usage
from lkd_tune.records.run import RunFolder
from lkd_tune.results.leaderboard import Leaderboard, Row

_PIPELINES = {
    "classification": "text-classification",
    "regression": "text-classification",
    "multi_label": "text-classification",
    "tagging": "token-classification",
    "question_answering": "question-answering",
    "extractive_summary": "summarization",
    "masked_lm": "fill-mask",
}


def student_card(
    run: RunFolder, board: Leaderboard, row: Row, conversion: Conversion | None = None
) -> str:
    """Returns a student's README.md, with the metadata block that the Hugging Face hub reads.

    Args:
        run: Its run.
        board: The run's leaderboard.
        row: The student's.
        conversion: What was measured of its formats; None if it has but one.
    """
    from huggingface_hub import ModelCardData

    spec = run.read_trial(row.name).spec
    kind = spec.task.kind
    on_test = "; the one on test was taken once" if row.test_score is not None else ""
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=_PIPELINES[kind],
        tags=["distillation", "lkd-tune", *_format_tags(conversion)],
        license=_licence(spec.teacher),
        base_model=spec.teacher if _is_hub_id(spec.teacher) else None,
        datasets=spec.task.data if _is_hub_id(spec.task.data) else None,
        metrics=[board.task_metric],
        model_name=f"{spec.task.name}-{row.name}",
        eval_results=_results(board, row, spec),
    )
    sections = [
        f"---\n{data.to_yaml()}\n---",
        f"# {spec.task.name}: a distilled student of {row.depth} layers",
        _answer(board, row),
        f"## Use\n\n```python\n{usage(spec.task)}\n```",
        *_formats(conversion),
        _table("Scores", ["model", f"{board.metric}, dev", f"{board.metric}, test"],
               _scores(board, row)),
        _table("How it was distilled", ["", ""], _recipe(spec, row)),
        _table("Size and cost", ["", ""], _cost(board, row)),
        "## Limits\n\n"
        f"Chosen on dev among {board.count('complete') + board.count('stopped')} trials, so its "
        f"score there flatters it{on_test}. It knows the task and the language "
        "of its training text alone, and has its teacher's errors and biases.",
    ]  # fmt: skip
    return "\n\n".join(sections) + "\n"


def _answer(board: Leaderboard, row: Row) -> str:
    said = f"{board.metric} {row.score:.3f} on dev" if row.score is not None else "no score"
    if row.task_score is not None:
        said += f" after fine-tuning, {board.task_metric} {row.task_score:.3f} before"
    if row.share is not None:
        said += f", {row.share:.0%} of the teacher's {board.teacher_score:.3f}"
    if row.parameters and board.teacher.get("parameters"):
        whose = "its" if row.share is not None else "the teacher's"
        share = row.parameters / board.teacher["parameters"]
        said += f", with {share:.0%} of {whose} parameters"
    return f"{said[0].upper()}{said[1:]}."


def _formats(conversion: Conversion | None) -> list[str]:
    """Returns the section on other formats: how they are used, and what they cost in score."""
    if conversion is None:
        return []
    head = ["format", "file", "MB", f"{conversion.metric}, dev", "ms", "largest difference"]
    rows: list[tuple[str, ...]] = [
        (
            FORMATS[facts.format].title,
            f"`{FORMATS[facts.format].file}`",
            f"{facts.size_mb:.1f}",
            f"{facts.metrics[conversion.metric]:.4f}",
            f"{facts.latency_ms:.1f}",
            "" if facts.difference is None else f"{facts.difference:.1e}",
        )
        for facts in conversion.formats
    ]
    *sizes, largest = map(str, conversion.batch_sizes)
    batches = f"{', '.join(sizes)} and {largest}" if sizes else largest
    shortest, longest = conversion.lengths
    sections = [
        _table("Formats", head, rows),
        f"Measured on these files on a CPU, with {conversion.threads} threads: the score on all of "
        f"dev, the time for one example of {conversion.length} tokens, and the largest difference "
        f"of a logit from PyTorch's on batches of {batches} texts of dev, {shortest} to {longest} "
        "tokens long. All take batches of any size and texts as long as the model has positions.",
    ]
    file_by_use: dict[str, str] = {}
    for measured in conversion.formats:
        known = FORMATS[measured.format]
        file_by_use.setdefault(known.use, known.file)
    return sections + [use.replace("FILE", file) for use, file in file_by_use.items() if use]


def _format_tags(conversion: Conversion | None) -> list[str]:
    """Returns the hub's tags of the student's formats, each once."""
    tags = [FORMATS[measured.format].tag for measured in (conversion.formats if conversion else ())]
    return list(dict.fromkeys(tag for tag in tags if tag is not None))


def _scores(board: Leaderboard, row: Row) -> list[tuple[str, ...]]:
    def told(score: float | None) -> str:
        return "" if score is None else f"{score:.4f}"

    rows: list[tuple[str, ...]] = [
        (f"this student ({row.name})", told(row.score), told(row.test_score))
    ]
    if row.mean is not None and row.low is not None and row.high is not None:
        interval = f"{row.mean:.4f} (95 %: {row.low:.4f} to {row.high:.4f})"
        rows.append((f"its settings, {board.seeds} other seeds", interval, told(row.test_mean)))
    if board.baseline is not None:
        plain = board.baseline
        rows.append(("the same without distillation", told(plain.score), told(plain.test_score)))
    on_test = board.teacher.get("test", {}).get(board.metric)
    rows.append(("teacher", told(board.teacher_score), told(on_test)))
    if board.lead_score is not None:
        on_test = board.teacher.get("test", {}).get(f"lead_{board.metric}")
        rows.append(("the first sentences alone", told(board.lead_score), told(on_test)))
    return rows


def _recipe(spec: TrialSpec, row: Row) -> list[tuple[str, ...]]:
    weights = ", ".join(f"{name} {weight:.3g}" for name, weight in row.weights.items() if weight)
    data = spec.task.data if _is_hub_id(spec.task.data) else Path(spec.task.train or "").name
    return [
        ("teacher", Path(spec.teacher).name if spec.teacher and not _is_hub_id(spec.teacher)
         else str(spec.teacher)),
        ("data", str(data)),
        ("objective", "word and layer transforming relations and the logits (Park, Kim and Yang, "
                      "EMNLP 2021)"),
        ("weights", weights),
        ("temperature", f"{row.temperature:.3g}"),
        ("layer map", row.word_map if row.word_map == row.layer_map
         else f"words {row.word_map}, layers {row.layer_map}"),
        ("training", f"{row.step} steps, peak learning rate {row.lr:.3g}, seed {spec.seed}"),
        *([("scored by", f"fine-tuning on {spec.evaluate_on.task.name}, on labels alone")]
          if spec.evaluate_on is not None else []),
    ]  # fmt: skip


def _cost(board: Leaderboard, row: Row) -> list[tuple[str, ...]]:
    hardware, versions = board.manifest.get("hardware") or {}, board.manifest.get("versions") or {}
    machine = next(iter(hardware.get("gpus") or []), hardware.get("cpu"))
    facts: list[tuple[str, Any]] = [
        ("parameters", f"{row.parameters:,}" if row.parameters else None),
        ("weights on disk", f"{row.disk_mb:.1f} MB" if row.disk_mb else None),
        ("one full-length example", f"{row.latency_ms:.1f} ms" if row.latency_ms else None),
        ("its training", f"{row.wall_s:.0f} s" if row.wall_s else None),
        ("the whole search", f"{board.totals['wall_s'] / 60:.1f} minutes"),
        ("machine", machine),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    return [(name, str(value)) for name, value in facts if value]


def _table(title: str, head: list[str], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return f"## {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Returns text that can't end a cell, a row or become markup."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _results(board: Leaderboard, row: Row, spec: TrialSpec) -> list[Any] | None:
    from huggingface_hub import EvalResult

    # What the model has as it is, not what a copy of it was fine-tuned to.
    on_dev = row.score if row.task_score is None else row.task_score
    found = [("dev", on_dev), ("test", row.test_score)]
    return [
        EvalResult(
            task_type=_PIPELINES[spec.task.kind],
            dataset_type=str(spec.task.data if _is_hub_id(spec.task.data) else spec.task.name),
            dataset_name=spec.task.name,
            dataset_split=split,
            metric_type=board.task_metric,
            metric_value=score,
        )
        for split, score in found
        if score is not None
    ] or None


def _is_hub_id(name: str | None) -> bool:
    """Returns whether a name is one of the hub's, and no path or file here."""
    if name is None or name == GENERATED or is_file_name(name) or Path(name).exists():
        return False
    return not name.startswith((".", "/", "~")) and name.count("/") <= 1


def _licence(teacher: str | None) -> str | None:
    """Returns the licence that a teacher's own card states, which its students stand under."""
    from huggingface_hub import ModelCard

    card = Path(teacher or "") / "README.md"
    if not card.is_file():
        return None
    try:
        return ModelCard.load(card).data.license
    except ValueError:  # no card in the hub's form
        return None

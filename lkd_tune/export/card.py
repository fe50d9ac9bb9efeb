"""The model card of an exported student: its use, scores, training, size and cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lkd_tune.config.settings.recipes import RECIPES
from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.config.trial import TrialSpec
from lkd_tune.export.formats import FORMATS, Conversion
from lkd_tune.export.origin import Origin, is_hub_id, origin_of
from lkd_tune.export.usage import usage, usage_of_formats
from lkd_tune.records.run import RunFolder
from lkd_tune.results.formatting import named_layer_maps, relations_end, start_of
from lkd_tune.results.leaderboard import Leaderboard, Row
from lkd_tune.results.verdict import gain_of, verdict


def student_card(
    run: RunFolder, board: Leaderboard, row: Row, conversion: Conversion | None = None
) -> str:
    """Returns a student's README.md, with the metadata block that the Hugging Face hub reads.

    Args:
        run: The student's run.
        board: The run's leaderboard.
        row: The student's row.
        conversion: The measurements of its formats; None if it has only one.
    """
    from huggingface_hub import ModelCardData

    spec = run.read_trial(row.name).spec
    origin = origin_of(run, spec)
    on_test = " The test score was measured once." if row.test_score is not None else ""
    kind = "distilled student" if row.distilled else "student"
    tags = ["distillation"] if row.distilled else []
    among = sum(each.state in ("complete", "stopped") for each in board.rows)
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=KINDS[spec.task.kind].pipeline,
        tags=[*tags, "lkd-tune", *_format_tags(conversion)],
        language=origin.language,
        license=origin.license,
        base_model=origin.base_model,
        datasets=spec.task.data if is_hub_id(spec.task.data) else None,
        metrics=[board.task_metric],
        model_name=f"{spec.task.name}-{row.name}",
        eval_results=_eval_results(board, row, spec),
    )
    sections = [
        f"---\n{data.to_yaml()}\n---",
        f"# {spec.task.name}: a {kind} with {row.depth} layers",
        _headline(board, row),
        *([verdict(board)] if row.rank == 1 and verdict(board) else []),
        f"## Use\n\n```python\n{usage(spec.task)}\n```",
        *_format_sections(conversion),
        _table("Scores", ["model", f"{board.metric}, dev", f"{board.metric}, test"],
               _scores(board, row)),
        _table(f"How it was {'distilled' if row.distilled else 'trained'}", ["", ""],
               _recipe(spec, row, origin)),
        _table("Size and cost", ["", ""], _cost(board, row)),
        "## Limits\n\n"
        f"This student was chosen by its score on dev among {among} trials, so its dev score is "
        f"optimistic.{on_test} It was trained for one task, on text in the language of its "
        "training data. It inherits the errors and biases of its teacher.",
    ]  # fmt: skip
    return "\n\n".join(sections) + "\n"


def _headline(board: Leaderboard, row: Row) -> str:
    text = f"{board.metric} {row.score:.3f} on dev" if row.score is not None else "no score"
    if row.task_score is not None:
        text += f" after fine-tuning, {board.task_metric} {row.task_score:.3f} before"
    if row.share is not None:
        text += f", {row.share:.0%} of the teacher's {board.teacher_score:.3f}"
    if row.parameters and board.teacher.get("parameters"):
        whose = "its" if row.share is not None else "the teacher's"
        share = row.parameters / board.teacher["parameters"]
        text += f", with {share:.0%} of {whose} parameters"
    return f"{text[0].upper()}{text[1:]}."


def _format_sections(conversion: Conversion | None) -> list[str]:
    """Returns the section on other formats: their measurements, and how to use them."""
    if conversion is None:
        return []
    head = ["format", "file", "MB", f"{conversion.metric}, dev", "ms", "largest difference"]
    rows: list[tuple[str, ...]] = [
        (
            FORMATS[measured.format].title,
            f"`{FORMATS[measured.format].file}`",
            f"{measured.size_mb:.1f}",
            f"{measured.metrics[conversion.metric]:.4f}",
            f"{measured.latency_ms:.1f}",
            "" if measured.difference is None else f"{measured.difference:.1e}",
        )
        for measured in conversion.formats
    ]
    *sizes, largest = map(str, conversion.batch_sizes)
    batches = f"{', '.join(sizes)} and {largest}" if sizes else largest
    shortest, longest = conversion.lengths
    sections = [
        _table("Formats", head, rows),
        f"Measured on these files on {conversion.device or 'a CPU'}: the score on all of "
        f"dev, the time for one example of {conversion.length} tokens, and the largest difference "
        f"between a logit and PyTorch's on batches of {batches} texts of dev, {shortest} to "
        f"{longest} tokens long. All formats take batches of any size and texts of any length up "
        "to the model's number of positions.",
    ]
    return sections + usage_of_formats(measured.format for measured in conversion.formats)


def _format_tags(conversion: Conversion | None) -> list[str]:
    """Returns the hub's tags of the student's formats, each once."""
    tags = [FORMATS[measured.format].tag for measured in (conversion.formats if conversion else ())]
    return list(dict.fromkeys(tag for tag in tags if tag is not None))


def _scores(board: Leaderboard, row: Row) -> list[tuple[str, ...]]:
    def to_text(score: float | None) -> str:
        return "" if score is None else f"{score:.4f}"

    rows: list[tuple[str, ...]] = [
        (f"this student ({row.name})", to_text(row.score), to_text(row.test_score))
    ]
    if row.mean is not None and row.low is not None and row.high is not None:
        interval = f"{row.mean:.4f} (95 %: {row.low:.4f} to {row.high:.4f})"
        rows.append(
            (f"the same settings, {board.seeds} other seeds", interval, to_text(row.test_mean))
        )
    gain = gain_of(board) if row.rank == 1 else None
    if gain is not None:
        dev, test = gain.labels.score, gain.labels.test_score
        whose = "the same on the labels alone" if gain.is_same else "the best on the labels alone"
        rows.append((whose, to_text(dev), to_text(test)))
    on_test = board.teacher.get("test", {}).get(board.metric)
    rows.append(("teacher", to_text(board.teacher_score), to_text(on_test)))
    if board.lead_score is not None:
        on_test = board.teacher.get("test", {}).get(f"lead_{board.metric}")
        rows.append(("the first sentences alone", to_text(board.lead_score), to_text(on_test)))
    return rows


def _recipe(spec: TrialSpec, row: Row, origin: Origin) -> list[tuple[str, ...]]:
    weights = ", ".join(f"{name} {weight:.3g}" for name, weight in row.weights.items() if weight)
    scales = ", ".join(f"{name} {scale:.3g}" for name, scale in spec.effective_scales.items())
    data = spec.task.data if is_hub_id(spec.task.data) else Path(spec.task.train or "").name
    more = spec.task.unlabelled
    if more is not None and row.unlabelled:
        name = more.data if is_hub_id(more.data) else Path(more.data or more.split).name
        texts = f"{row.unlabelled:,} texts without labels of {name}"
        data = f"{data}, and {texts}" if spec.task.train else texts
    return [
        ("teacher", origin.teacher),
        ("data", str(data)),
        ("objective", _objective(row)),
        ("weights", weights),
        *([("starts from", start)] if (start := start_of(row.init, row.layers)) else []),
        *([("relations end", relations_end(row.relations_until))] if row.relations_until else []),
        *([("weights multiplied by", scales)] if scales else []),
        ("temperature", f"{row.temperature:.3g}"),
        *([("layer map", named_layer_maps(row.word_map, row.layer_map))] if row.word_map else []),
        ("training", f"{row.step} steps, peak learning rate {row.lr:.3g}, seed {spec.seed}"),
        *([("scored by", f"fine-tuning on the labels of {spec.evaluate_on.task.name}")]
          if spec.evaluate_on is not None else []),
    ]  # fmt: skip


def _objective(row: Row) -> str:
    recipe = RECIPES[row.recipe]
    return f"{recipe.compares} (recipe {row.recipe}; {recipe.source})"


def _cost(board: Leaderboard, row: Row) -> list[tuple[str, ...]]:
    hardware, versions = board.manifest.get("hardware") or {}, board.manifest.get("versions") or {}
    machine = next(iter(hardware.get("gpus") or []), hardware.get("cpu"))
    facts: list[tuple[str, Any]] = [
        ("parameters", f"{row.parameters:,}" if row.parameters else None),
        ("weights on disk", f"{row.disk_mb:.1f} MB" if row.disk_mb else None),
        (
            "latency of one full-length example",
            f"{row.latency_ms:.1f} ms on {row.device}" if row.latency_ms and row.device else None,
        ),
        ("training time of this student", f"{row.wall_s:.0f} s" if row.wall_s else None),
        ("time of the whole search", f"{board.totals['wall_s'] / 60:.1f} minutes"),
        ("machine", machine),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    return [(name, str(value)) for name, value in facts if value]


def _table(title: str, head: list[str], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return f"## {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Returns text escaped so that it can't end a cell or a row or become markup."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _eval_results(board: Leaderboard, row: Row, spec: TrialSpec) -> list[Any] | None:
    from huggingface_hub import EvalResult

    # The score of the model itself, not of a copy that was fine-tuned on another task.
    on_dev = row.score if row.task_score is None else row.task_score
    scores = [("dev", on_dev), ("test", row.test_score)]
    return [
        EvalResult(
            task_type=KINDS[spec.task.kind].pipeline,
            dataset_type=str(spec.task.data if is_hub_id(spec.task.data) else spec.task.name),
            dataset_name=spec.task.name,
            dataset_split=split,
            metric_type=board.task_metric,
            metric_value=score,
        )
        for split, score in scores
        if score is not None
    ] or None

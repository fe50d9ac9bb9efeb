"""What text without labels brings to a student, at equal steps.

    python benchmarks/method/unlabelled.py --teacher minilm-sst2 --train train.tsv --dev dev.tsv

Of a task's training split the first `--labelled` rows keep their labels; of all others only the
text is used. A student is trained on the labels alone, with soft labels beside them on the labelled
rows, on these and the text of the others, and on that text alone. Look at the mean over the seeds,
beside their spread; the seconds depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from lkd_tune.config.settings.layer_map import preset_map
from lkd_tune.config.trial import TrialSpec
from lkd_tune.distillation.run import distill_locally
from lkd_tune.models.loading import read_depth

SOFT = {"recipe": "soft_labels"}
ALONE = {**SOFT, "logits": {"alpha": 0.0}}
# Losses, share of the unlabelled text, and whether there is labelled text.
VARIANTS = {
    "labels alone": ("labels", 0.0, True),
    "soft labels, labelled text": (SOFT, 0.0, True),
    "soft labels, both": (SOFT, 1.0, True),
    "soft labels, unlabelled text": (ALONE, 1.0, False),
}


def main() -> None:
    """Trains and prints a line for each variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("teacher", "train", "dev"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--labelled", type=int, default=500)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--depth", type=int, default=3)
    options = parser.parse_args()
    word_map = preset_map("skip", read_depth(options.teacher), options.depth)
    print("variant | mean | each seed | unlabelled examples | s of training", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        task = _task(options, Path(folder))
        for name, (losses, share, labelled) in VARIANTS.items():
            scores, begin = [], time.perf_counter()
            for seed in range(options.seeds):
                spec = TrialSpec.model_validate(
                    {
                        "task": task if labelled else {**task, "train": None},
                        "teacher": options.teacher,
                        "student": {"depth": options.depth},
                        "layer_map": {"word": word_map, "layer": word_map},
                        "losses": losses,
                        "train": {
                            "steps": options.steps,
                            "lr": 1e-4,
                            "evaluations": 1,
                            "unlabelled_share": share,
                        },
                        "seed": seed,
                    }
                )
                ((_, last),) = distill_locally(spec)
                scores.append(last.score)
            each = ", ".join(f"{score:.3f}" for score in scores)
            mean, seconds = statistics.mean(scores), time.perf_counter() - begin
            print(f"{name} | {mean:.4f} | {each} | {last.unlabelled:,} | {seconds:.0f}", flush=True)


def _task(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Returns the task; its files are the two parts of the training split."""
    lines = Path(options.train).read_text("utf-8").splitlines()
    (folder / "train.tsv").write_text("\n".join(lines[: options.labelled]), "utf-8")
    texts = [line.split("\t")[0] for line in lines[options.labelled :]]
    (folder / "more.txt").write_text("\n".join(texts), "utf-8")
    return {
        "name": options.task,
        "train": str(folder / "train.tsv"),
        "dev": options.dev,
        "unlabelled": str(folder / "more.txt"),
        "max_length": 64,
    }


if __name__ == "__main__":
    main()

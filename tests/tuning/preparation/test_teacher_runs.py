"""The teacher of a search runs once per example, however many trials there are."""

from __future__ import annotations

import os

import pytest

from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.tuner import run_search
from tests.support.rays import own_ray
from tests.support.tiny import make_csv, make_space

# Rows of dev that the teacher is tried on; a short one also with padding, and alone.
CHECKED = 16 + 2 + 1
LAYERS = 4  # the teacher's; the students have fewer


def _counting(folder: str):
    """Returns a hook for the start of a process that writes down each batch of the teacher."""

    def install() -> None:
        from transformers import BertForSequenceClassification

        forward = BertForSequenceClassification.forward

        def noted(self, input_ids=None, **inputs):
            # Counting operations runs no teacher: it has vectors for texts. Nor does timing, whose
            # texts are the same token throughout.
            is_text = input_ids is not None and int(input_ids.max()) > 1
            if self.config.num_hidden_layers == LAYERS and is_text:
                with open(f"{folder}/{os.getpid()}", "a") as file:
                    file.write(f"{len(input_ids)}\n")
            return forward(self, input_ids, **inputs)

        BertForSequenceClassification.forward = noted

    return install


@pytest.mark.slow
def test_twenty_trials_run_the_teacher_once_per_example(tmp_path):
    counts = tmp_path / "counts"
    counts.mkdir()
    with own_ray(2, runtime_env={"worker_process_setup_hook": _counting(str(counts))}):
        space = make_space(
            tmp_path,
            rows=48,
            train={"steps": 4, "evaluations": 2},
            search={"trials": 20, "baseline": True},
        )
        dev = make_csv(tmp_path / "data", rows=20, name="dev")
        run = RunFolder(tmp_path / "run")
        result = run_search(space, run, quiet=True)
    assert result.trials == 20
    assert not result.failures
    seen = [int(line) for file in counts.iterdir() for line in file.read_text().split()]
    scored = len(dev.read_text().splitlines()) - 1
    assert sum(seen) == CHECKED + 48 + scored
    assert run.read_manifest()["targets"]["teacher_examples"] == 48

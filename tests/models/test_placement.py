"""Teachers whose weights lie elsewhere, or in bf16: the same targets, scores and losses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.teacher import PLAIN, Inference
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.tasks.classification import Classification
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.distillation.engine import Distillation
from lkd_tune.distillation.run import distill
from lkd_tune.distillation.targets.base import LiveTeacher, Maps
from lkd_tune.distillation.targets.store import StoredTargets
from lkd_tune.distillation.targets.store_build import get_or_build_store, store_folder
from lkd_tune.evaluation.scoring import evaluate_model
from lkd_tune.models.loading import load_model, load_tokenizer
from lkd_tune.models.placement import running
from lkd_tune.models.width.importance import measure_importance
from tests.support.families import CONFIGS, make_classifier, make_csv, without_dropout
from tests.support.ranks import run_ranks

torch.set_num_threads(1)

CPU, KIND = torch.device("cpu"), Classification()
ON_HOST, BF16 = Inference(placement="cpu"), Inference(precision="bf16")
MAPS = Maps((0, 2, 4), (0, 2, 4))


def _parts(folder: Path, family: str = "bert"):
    # Wide enough initial weights, so that no relation is zero up to rounding.
    teacher = make_classifier(folder / "teacher", family, initializer_range=0.3)
    file = make_csv(folder)
    task = TaskSettings(name="own", train=file, dev=file)
    tokens = load_tokens(task, "train", load_tokenizer(teacher), cache=folder / "cache")
    return teacher, task, tokens


def _targets(teacher: str, tokens, inference: Inference):
    live = LiveTeacher(load_model(teacher), KIND, CPU, inference=inference)
    return live(tokens.batch(np.arange(12), CPU), MAPS)


def _tensors(targets):
    return {
        "logits": targets.logits,
        **{f"word {name}": value for name, value in vars(targets.word_relations).items()},
        **{f"layer {name}": value for name, value in vars(targets.layer_relations).items()},
    }


@pytest.mark.parametrize("family", CONFIGS)
def test_weights_on_the_host_give_the_same_targets(tmp_path, family):
    teacher, _, tokens = _parts(tmp_path, family)
    expected = _tensors(_targets(teacher, tokens, PLAIN))
    found = _tensors(_targets(teacher, tokens, ON_HOST))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_head_that_shares_the_embeddings_weights_does_so_on_the_host(tmp_path):
    config = CONFIGS["bert"]()
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(config).eval()
    ids = torch.randint(0, config.vocab_size, (4, 9))
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        with running(model, CPU, ON_HOST) as run:
            for _ in range(3):  # the first pass notes an order that the others follow
                assert torch.equal(run(input_ids=ids).logits, expected)


def test_weights_are_on_the_device_only_while_their_layer_runs(tmp_path):
    model, seen = load_model(make_classifier(tmp_path)), []
    weights = [layer.attention.self.query.weight for layer in model.bert.encoder.layer]

    def note(*_):
        seen.append([weight.numel() for weight in weights])

    with running(model, CPU, ON_HOST) as run:
        hook = model.bert.encoder.layer[1].attention.self.query.register_forward_pre_hook(note)
        with torch.no_grad():
            run(input_ids=torch.ones(1, 4, dtype=torch.long))
            assert all(parameter.numel() == 0 for parameter in model.parameters())
            hook.remove()
            model.bert.encoder.layer[1].attention.self.query.register_forward_hook(_fail)
            with pytest.raises(ArithmeticError):
                run(input_ids=torch.ones(1, 4, dtype=torch.long))
        assert all(parameter.numel() == 0 for parameter in model.parameters())
    assert seen == [[0, 32 * 32, 0, 0]]


def _fail(*_):
    raise ArithmeticError


def test_stored_targets_are_those_of_a_teacher_on_the_device(tmp_path):
    teacher, _, tokens = _parts(tmp_path)
    plain = get_or_build_store(teacher, tokens, KIND, CPU, tmp_path / "a")
    host = get_or_build_store(teacher, tokens, KIND, CPU, tmp_path / "b", inference=ON_HOST)
    assert plain.name == host.name  # they serve each other
    for file in plain.glob("*.npy"):
        assert file.read_bytes() == (host / file.name).read_bytes(), file.name


def test_bf16_differs_by_its_rounding_and_has_a_store_of_its_own(tmp_path):
    teacher, _, tokens = _parts(tmp_path)
    batch = tokens.batch(np.arange(12), CPU)
    plain, bf16 = (
        StoredTargets(
            get_or_build_store(teacher, tokens, KIND, CPU, tmp_path, inference=inference),
            tokens,
            CPU,
        )(batch, MAPS)
        for inference in (PLAIN, BF16)
    )
    live = _targets(teacher, tokens, Inference(precision="bf16", placement="cpu"))
    folders = {store_folder(teacher, tokens, tmp_path, each) for each in (PLAIN, BF16)}
    assert len(folders) == 2
    real = batch.mask
    both = real[:, None, :, None] & real[:, None, None, :]
    masks = {"word sq_norm": real[:, None], "word sq_dist": both}
    masks |= {"layer sq_norm": real[..., None], "layer sq_dist": real[..., None, None]}
    for name, expected in _tensors(plain).items():
        mask = masks.get(name, torch.tensor(True))
        for other in (bf16, live):
            error = (_tensors(other)[name] - expected).abs().where(mask, 0).max()
            largest = expected.abs().where(mask, 0).max()
            # bf16 keeps 8 bits; logits of such wide weights are differences of large numbers.
            assert 0 < error < (0.1 if name == "logits" else 0.02) * largest, name


def test_scores_are_those_of_a_teacher_on_the_device(tmp_path):
    teacher, task, _ = _parts(tmp_path)
    expected = evaluate_model(teacher, task, cache=tmp_path)
    assert evaluate_model(teacher, task, cache=tmp_path, inference=ON_HOST) == expected


def test_importance_is_that_of_a_teacher_on_the_device(tmp_path):
    teacher, _, tokens = _parts(tmp_path)
    expected = measure_importance(load_model(teacher), tokens, CPU)
    found = measure_importance(load_model(teacher), tokens, CPU, ON_HOST)
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(vars(found)[name], value, name)


def _spec(folder: Path, **changes) -> TrialSpec:
    data = make_csv(folder)
    settings = {
        "task": {"name": "own", "train": data, "dev": data},
        "teacher": make_classifier(folder / "teacher", **without_dropout("bert")),
        "student": {"depth": 2},
        "layer_map": {"word": (0, 2, 4), "layer": (0, 2, 4)},
        "losses": {"wr_triple": {"window": 5}},
        "train": {"steps": 6, "batch_size": 8, "lr": 1e-3, "evaluations": 2},
        "targets": {"source": "live"},
    }
    return TrialSpec.model_validate(settings | changes)


def test_a_narrow_student_of_a_live_teacher_trains_as_with_one_on_the_device(tmp_path):
    student = {"depth": 2, "hidden_size": 16}
    expected = [m.losses for m in distill(_spec(tmp_path, student=student))]
    placed = _spec(tmp_path, student=student, inference=ON_HOST.model_dump())
    again = [m.losses for m in distill(placed, cache=tmp_path / "other")]
    assert again == expected


def _run_rank(rank: int, spec: str, out: str) -> None:
    cache = Path(out) / "cache-of-two"
    with Distillation(TrialSpec.model_validate_json(spec), cache=cache) as distillation:
        try:
            found: object = [measurement.losses for measurement in distillation]
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
    Path(out, f"{rank}.json").write_text(json.dumps(found))


def _run_two(spec: TrialSpec, folder: Path) -> list[object]:
    assert spec.resources.workers == 2
    run_ranks(2, _run_rank, spec.to_json(), str(folder))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize(
    ("placement", "stage"), [("sharded", 3), pytest.param("cpu", 0, marks=pytest.mark.slow)]
)
def test_two_workers_share_a_live_teacher(tmp_path, placement, stage):
    # Narrower: rank 0 alone runs the teacher to see what of it matters.
    student = {"depth": 2, "hidden_size": 16}
    expected = [m.losses for m in distill(_spec(tmp_path, student=student))]
    shared = _spec(
        tmp_path,
        student=student,
        inference={"placement": placement},
        resources={"workers": 2, "zero_stage": stage},
    )
    first, second = _run_two(shared, tmp_path)
    assert first == second
    for ours, theirs in zip(first, expected, strict=True):
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=5e-4, abs=1e-8), name


@pytest.mark.slow
def test_ranks_that_share_a_teacher_find_bad_examples_independently(tmp_path):
    spec = _spec(
        tmp_path,
        student={"depth": 2, "init": "random"},
        inference={"placement": "sharded"},
        resources={"workers": 2},
    )
    path = tmp_path / "teacher" / "model.safetensors"
    weights = load_file(path)
    row = load_tokenizer(spec.teacher).convert_tokens_to_ids("not")
    weights["bert.embeddings.word_embeddings.weight"][row] = torch.nan
    save_file(weights, path, {"format": "pt"})
    first, second = _run_two(spec, tmp_path)
    assert first == second
    assert re.match("BadExamplesError: no student can learn from train row", first)

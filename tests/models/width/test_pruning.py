"""Students narrower than their teacher, of every family."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.width import Width, resolve_width
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.data.types import Tokens
from lkd_tune.distillation.engine import Distillation
from lkd_tune.distillation.run import distill
from lkd_tune.models.families import width_of, width_of_config
from lkd_tune.models.forward import forward
from lkd_tune.models.loading import auto_model, load_model, load_tokenizer
from lkd_tune.models.student import build_student
from lkd_tune.models.width.importance import Importance, load_importance, measure_importance
from lkd_tune.models.width.pruning import prune_width
from tests.support import tiny
from tests.support.families import (
    CONFIGS,
    NARROWED,
    config_of,
    make_classifier,
    make_csv,
    without_dropout,
)

torch.set_num_threads(1)
CPU = torch.device("cpu")
FULL = Width(32, 4, 48)


def _measured(family: str) -> tuple[object, Importance, Tokens]:
    """Returns a teacher, its scores and the text; the teacher may be changed."""
    teacher, importance, tokens = _measure(family)
    return copy.deepcopy(teacher), importance, tokens


def _asked(family: str) -> list[dict[str, int]]:
    """Returns widths that students of a family can have; its hidden size is 32, its heads are 4."""
    full, asked = width_of_config(config_of(family)), [{"intermediate_size": 16}]
    if full.own_head_size:
        return [*asked, {"heads": 2}, {"hidden_size": 20, "intermediate_size": 8}]
    if full.keeps_heads:
        return [*asked, {"hidden_size": 16, "intermediate_size": 36}]
    smaller = {"hidden_size": 20, "intermediate_size": 8}  # heads of 5 channels
    return [*asked, {"hidden_size": 24, "intermediate_size": 36}, smaller]


@cache
def _measure(family: str) -> tuple[object, Importance, Tokens]:
    with TemporaryDirectory() as folder:
        name, data = make_classifier(Path(folder) / "teacher", family), make_csv(Path(folder))
        teacher = load_model(name)
        task = TaskSettings(name="own", train=data, dev=data)
        tokens = load_tokens(task, "train", load_tokenizer(name), cache=Path(folder))
        return teacher, measure_importance(teacher, tokens, CPU), tokens


@pytest.mark.parametrize("family", NARROWED)
def test_the_teachers_own_width_changes_nothing(family):
    teacher, importance, _ = _measured(family)
    ids = torch.randint(5, 12, (3, 9))
    same = prune_width(teacher, width_of(teacher), importance)
    assert torch.equal(same(ids).logits, teacher(ids).logits)


@pytest.mark.parametrize(
    ("family", "asked"),
    [(family, asked) for family in NARROWED for asked in _asked(family)],
    ids=str,
)
def test_a_narrow_student_has_its_width_and_loads_again(tmp_path, family, asked):
    teacher, importance, _ = _measured(family)
    settings = StudentSettings(depth=2, **asked)
    width = resolve_width(settings, width_of(teacher))
    student = build_student(settings, prune_width(teacher, width, importance), (2, 4), 2)
    assert width_of(student) == width
    student.save_pretrained(tmp_path / "s")
    again = load_model(str(tmp_path / "s"))
    assert width_of(again) == width
    ids = torch.randint(5, 12, (3, 9))
    assert torch.equal(again(ids).logits, student.eval()(ids).logits)


def test_groups_of_heads_are_kept_as_a_whole():
    teacher, importance, _ = _measured("qwen3")
    scores = importance.value.copy()
    # The second group has the best head and, except in the second layer, the best pair.
    scores[:, :] = np.repeat([1.0, 1.0, 3.0, 0.0], 8)
    scores[1] = np.repeat([3.0, 0.0, 2.0, 2.0], 8)
    smaller = prune_width(teacher, Width(32, 2, 48), replace(importance, value=scores))
    for layer, (heads, group) in enumerate([((2, 3), 1), ((0, 1), 0), ((2, 3), 1), ((2, 3), 1)]):
        ours, theirs = (
            model.model.layers[layer].self_attn.state_dict() for model in (smaller, teacher)
        )
        rows = torch.cat([torch.arange(8) + 8 * head for head in heads])
        shared = torch.arange(8) + 8 * group
        assert torch.equal(ours["q_proj.weight"], theirs["q_proj.weight"][rows])
        assert torch.equal(ours["o_proj.weight"], theirs["o_proj.weight"][:, rows])
        assert torch.equal(ours["k_proj.weight"], theirs["k_proj.weight"][shared])
        assert torch.equal(ours["v_proj.weight"], theirs["v_proj.weight"][shared])
        assert torch.equal(ours["q_norm.weight"], theirs["q_norm.weight"])
    assert smaller.config.num_key_value_heads == 1
    assert smaller.config.head_dim == 8


@pytest.mark.parametrize("family", ["llama", "qwen3", "modernbert"])
def test_heads_that_do_nothing_are_pruned_without_a_difference(family):
    """What is left has its rotary positions, its norms and its place in a fused module."""
    teacher, _, tokens = _measured(family)
    with torch.no_grad():
        for name, weight in teacher.state_dict().items():
            if name.endswith(("o_proj.weight", "attn.Wo.weight")):
                weight[:, 16:] = 0
    found = measure_importance(teacher, tokens, CPU)
    assert not found.value[:, 16:].any()
    batch = tokens.batch(np.arange(8), CPU)
    if family != "modernbert":
        smaller = prune_width(teacher, Width(32, 2, 48), found)
        expected = forward(teacher, batch, hidden_states=False).logits
        torch.testing.assert_close(forward(smaller, batch, hidden_states=False).logits, expected)
        return
    smaller = prune_width(teacher, Width(16, 2, 48), found)  # each head has 8 channels
    own = [model.model.layers[1].attn.Wqkv.weight for model in (smaller, teacher)]
    rows = torch.cat([torch.arange(16) + start for start in (0, 32, 64)])
    columns = torch.from_numpy(np.sort(np.argsort(-found.hidden, kind="stable")[:16]))
    assert torch.equal(own[0], own[1][rows][:, columns])


@pytest.mark.parametrize("family", CONFIGS)
def test_parts_without_effect_are_pruned_without_a_difference(family):
    teacher, _, tokens = _measured(family)
    dead_head, dead_neurons = slice(8, 16), slice(0, 20)
    with torch.no_grad():
        for name, weight in teacher.state_dict().items():
            if name.endswith(("value.weight", "v_lin.weight", "value.bias", "v_lin.bias")):
                weight[dead_head] = 0
            if name.endswith(("layer.1.intermediate.dense.weight", "layer.1.ffn.lin1.weight")):
                weight[dead_neurons] = 0
    importance = measure_importance(teacher, tokens, CPU)
    assert not importance.value[:, dead_head].any()
    assert not importance.neurons[1, dead_neurons].any()
    batch = tokens.batch(np.arange(8), CPU)
    assert importance.hidden.min() > 0
    keep = {*range(32)} - {*range(8, 16)}
    # A head's output is as wide as the hidden states, so the same dimensions go with it.
    flat = Importance(
        np.array([float(i in keep) for i in range(32)]), *list(vars(importance).values())[1:]
    )
    smaller = prune_width(teacher, Width(24, 3, 48), flat)
    prefix = (
        "distilbert.transformer"
        if family == "distilbert"
        else f"{smaller.base_model_prefix}.encoder"
    )
    value = "v_lin" if family == "distilbert" else "self.value"
    name = f"{prefix}.layer.2.attention.{value}.weight"
    rows = torch.tensor(sorted(keep))
    theirs = teacher.state_dict()[name]
    assert torch.equal(smaller.state_dict()[name], theirs[rows][:, rows])
    assert smaller(batch.ids).logits.isfinite().all()


def test_attention_scores_keep_their_scale_when_heads_shrink():
    teacher, importance, _ = _measured("bert")
    parts = [f"bert.encoder.layer.0.attention.self.{name}" for name in ("query", "key")]
    with torch.no_grad():
        for name in parts:
            teacher.get_submodule(name).weight.zero_()
            teacher.get_submodule(name).bias.fill_(1.0)
    # 8 channels a head become 4, divided by sqrt(4) and no more by sqrt(8).
    smaller = prune_width(teacher, Width(16, 4, 48), importance)
    query, key = (smaller.get_submodule(name).bias for name in parts)
    assert (query * key).tolist() == pytest.approx([0.5**0.5] * 16)


@pytest.mark.parametrize("head", ["TokenClassification", "MaskedLM", "QuestionAnswering"])
@pytest.mark.parametrize("family", CONFIGS)
def test_models_with_other_heads_are_pruned_too(family, head):
    _, _, tokens = _measured(family)
    model = auto_model(head).from_config(CONFIGS[family](**without_dropout(family))).eval()
    importance = measure_importance(model, tokens, CPU)
    ids = torch.randint(5, 12, (3, 9))
    unchanged = prune_width(model, FULL, importance)(ids)
    for old, same in zip(model(ids).values(), unchanged.values(), strict=True):
        assert torch.equal(old, same)
    found = prune_width(model, Width(24, 3, 36), importance)(ids)
    assert [part.shape for part in found.values()] == [part.shape for part in model(ids).values()]
    assert all(part.isfinite().all() for part in found.values())


@pytest.mark.parametrize("family", CONFIGS)
def test_without_neurons_that_do_nothing_the_outputs_are_the_same(family):
    teacher, _, tokens = _measured(family)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, weight in teacher.state_dict().items():
            if name.endswith(("intermediate.dense.weight", "ffn.lin1.weight")):
                # Others in each layer; their biases are 0 in a new model.
                weight[rng.permutation(48)[:20]] = 0
    smaller = prune_width(teacher, Width(32, 4, 28), measure_importance(teacher, tokens, CPU))
    batch = tokens.batch(np.arange(8), CPU)
    old, new = (forward(model, batch, hidden_states=True) for model in (teacher, smaller))
    torch.testing.assert_close(new.logits, old.logits)
    torch.testing.assert_close(new.hidden_states[-1], old.hidden_states[-1])


def test_electras_embeddings_stay_projected():
    teacher, importance, _ = _measured("electra")
    with pytest.raises(SpecError, match=r"hidden_size: 16 is the size of the teacher's embeddings"):
        resolve_width(StudentSettings(hidden_size=16), width_of(teacher))
    assert prune_width(
        teacher, Width(24, 3, 24), importance
    ).electra.embeddings_project.weight.shape == (24, 16)


def test_importance_is_measured_once_for_a_teacher_and_its_data(tmp_path):
    teacher, importance, tokens = _measured("bert")
    name = make_classifier(tmp_path / "teacher")
    first = load_importance(name, teacher, tokens, CPU, tmp_path)
    second = load_importance(name, None, tokens, CPU, tmp_path)  # no teacher: it is read
    for field in vars(importance):
        assert np.array_equal(getattr(first, field), getattr(second, field))
        assert np.array_equal(getattr(first, field), getattr(importance, field))


def test_a_weight_that_others_of_its_kind_do_not_have_is_reported():
    teacher, importance, _ = _measured("bert")
    teacher.adapter = torch.nn.Linear(32, 32)
    message = (
        "BertForSequenceClassification can't be made narrower: it has the weight adapter.weight"
    )
    with pytest.raises(SpecError, match=message):
        prune_width(teacher, Width(24, 3, 36), importance)


def _trial(folder: Path, teacher: Path, **student: object) -> TrialSpec:
    depth = student.setdefault("depth", 2)
    entries = (0, 2, 4) if depth == 2 else (0, 1, 2, 3, 4)
    train, dev = (str(tiny.make_csv(folder, 128, name=name)) for name in ("train", "dev"))
    return TrialSpec.model_validate(
        {
            "task": {"name": "tiny", "train": train, "dev": dev, "max_length": 16},
            "teacher": str(teacher),
            "student": student,
            "layer_map": {"word": entries, "layer": entries},
            "train": {"steps": 8, "batch_size": 16, "lr": 1e-3, "evaluations": 1},
            "seed": 1,
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A teacher that knows the tiny task."""
    folder = tmp_path_factory.mktemp("trained")
    start = tiny.make_teacher(folder / "start")
    spec = _trial(folder, start, depth=4, init=str(start))
    settings = spec.model_dump() | {
        "teacher": None,
        "losses": tiny.LABELS,
        "train": {"steps": 60, "batch_size": 16, "lr": 3e-3, "evaluations": 1},
    }
    with Distillation(TrialSpec.model_validate(settings)) as training:
        assert next(training).score > 0.95
        training.save_student(folder / "teacher")
    return folder / "teacher"


def test_a_pruned_student_beats_a_random_one_of_its_shape(tmp_path, trained):
    width = {"hidden_size": 16, "heads": 1, "intermediate_size": 32}
    pruned, random = (
        list(distill(_trial(tmp_path, trained, init=init, **width)))[-1]
        for init in ("teacher", "random")
    )
    assert pruned.parameters == random.parameters
    assert pruned.score > 0.9 > random.score


def test_a_given_narrower_model_is_taught_by_a_wider_teacher(tmp_path, trained):
    """As a small pre-trained model: its own weights are its start, and no projection is needed."""
    given = tiny.make_teacher(tmp_path / "given", layers=2, hidden=16)
    spec = _trial(tmp_path, trained, init=str(given), hidden_size=16)
    before = load_model(str(given)).state_dict()
    still = spec.model_copy(update={"train": spec.train.model_copy(update={"lr": 1e-12})})
    with Distillation(still) as distillation:
        next(distillation)
        distillation.save_student(tmp_path / "start")
    for name, weight in load_model(str(tmp_path / "start")).state_dict().items():
        torch.testing.assert_close(weight, before[name])
    longer = spec.train.model_copy(update={"steps": 60, "lr": 1e-2, "evaluations": 3})
    first, *_, last = distill(spec.model_copy(update={"train": longer}))
    relations = ("wr_pair", "wr_triple", "ltr_pair", "ltr_triple")
    begun, ended = (sum(m.losses[name] for name in relations) for m in (first, last))
    assert ended < 0.6 * begun


def test_a_given_model_of_another_width_is_refused(tmp_path, trained):
    spec = _trial(tmp_path, trained, depth=4, init=str(trained), hidden_size=16)
    with pytest.raises(SpecError, match=r"student.hidden_size: is 16, but .* has 32"):
        list(distill(spec))

"""Students narrower than their teacher, of every family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.width import Width
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.data.types import Tokens
from lkd_tune.distillation.engine import Distillation
from lkd_tune.distillation.run import distill
from lkd_tune.models.forward import forward
from lkd_tune.models.importance import Importance, load_importance, measure_importance
from lkd_tune.models.loading import auto_model, load_model, load_tokenizer
from lkd_tune.models.pruning import prune_width, read_width, width_of
from lkd_tune.models.student import build_student
from tests.support import tiny
from tests.support.families import CONFIGS, make_classifier, make_csv, without_dropout

torch.set_num_threads(1)
CPU = torch.device("cpu")
FULL = Width(32, 4, 48)


def _measured(folder: Path, family: str) -> tuple[object, Importance, Tokens]:
    teacher = load_model(make_classifier(folder / "teacher", family))
    data = make_csv(folder)
    task = TaskSettings(name="own", train=data, dev=data)
    tokens = load_tokens(task, "train", load_tokenizer(str(folder / "teacher")), cache=folder)
    return teacher, measure_importance(teacher, tokens, CPU), tokens


@pytest.mark.parametrize("family", CONFIGS)
def test_the_teachers_own_width_changes_nothing(tmp_path, family):
    teacher, importance, _ = _measured(tmp_path, family)
    ids = torch.randint(5, 12, (3, 9))
    assert torch.equal(prune_width(teacher, FULL, importance)(ids).logits, teacher(ids).logits)


@pytest.mark.parametrize("width", [Width(24, 3, 36), Width(20, 4, 8), Width(32, 4, 16)])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_narrow_student_has_its_width_and_loads_again(tmp_path, family, width):
    teacher, importance, _ = _measured(tmp_path, family)
    student = build_student(
        StudentSettings(depth=2), prune_width(teacher, width, importance), (2, 4), 2
    )
    assert width_of(student) == width
    student.save_pretrained(tmp_path / "s")
    assert read_width(str(tmp_path / "s")) == width
    ids = torch.randint(5, 12, (3, 9))
    again = load_model(str(tmp_path / "s"))
    assert torch.equal(again(ids).logits, student.eval()(ids).logits)


@pytest.mark.parametrize("family", CONFIGS)
def test_parts_without_effect_are_pruned_without_a_difference(tmp_path, family):
    teacher, _, tokens = _measured(tmp_path, family)
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


def test_attention_scores_keep_their_scale_when_heads_shrink(tmp_path):
    teacher, importance, _ = _measured(tmp_path, "bert")
    name = "bert.encoder.layer.0.attention.self.query"
    with torch.no_grad():
        teacher.get_submodule(name).weight.zero_()
        teacher.get_submodule(name).bias.fill_(1.0)
    # 8 channels a head become 4, divided by sqrt(4) and no more by sqrt(8).
    smaller = prune_width(teacher, Width(16, 4, 48), importance)
    assert smaller.get_submodule(name).bias.tolist() == pytest.approx([0.5**0.5] * 16)


@pytest.mark.parametrize("head", ["TokenClassification", "MaskedLM", "QuestionAnswering"])
@pytest.mark.parametrize("family", CONFIGS)
def test_models_with_other_heads_are_pruned_too(tmp_path, family, head):
    _, _, tokens = _measured(tmp_path, family)
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
def test_without_neurons_that_do_nothing_the_outputs_are_the_same(tmp_path, family):
    teacher, _, tokens = _measured(tmp_path, family)
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


def test_electras_embeddings_stay_projected(tmp_path):
    teacher, importance, _ = _measured(tmp_path, "electra")
    with pytest.raises(SpecError, match=r"hidden_size: 16 is the size of the teacher's embeddings"):
        prune_width(teacher, Width(16, 2, 24), importance)


def test_importance_is_measured_once_for_a_teacher_and_its_data(tmp_path):
    teacher, importance, tokens = _measured(tmp_path, "bert")
    name = str(tmp_path / "teacher")
    first = load_importance(name, teacher, tokens, CPU, tmp_path)
    second = load_importance(name, None, tokens, CPU, tmp_path)  # no teacher: it is read
    for field in vars(importance):
        assert np.array_equal(getattr(first, field), getattr(second, field))
        assert np.array_equal(getattr(first, field), getattr(importance, field))


def test_a_weight_of_no_known_family_is_reported(tmp_path):
    teacher, importance, _ = _measured(tmp_path, "bert")
    teacher.adapter = torch.nn.Linear(32, 32)
    with pytest.raises(SpecError, match=r"adapter\.weight is not a weight of BERT"):
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

"""The divergences of soft labels against their definitions, and what must not matter."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from lkd_tune.config.settings.losses import Divergence
from lkd_tune.losses.logits import DIVERGENCES, soft_label_loss

B, C, T = 5, 4, 2.5


def _logits(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 3 * torch.randn(2, B, C, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher


def _distributions(logits: list[float], link: str) -> list[list[float]]:
    """Returns the distributions of an example: one over the classes, or yes and no for each."""
    scaled = [value / T for value in logits]
    if link == "softmax":
        total = sum(math.exp(value) for value in scaled)
        return [[math.exp(value) / total for value in scaled]]
    yes = [1 / (1 + math.exp(-value)) for value in scaled]
    return [[p, 1 - p] for p in yes]


def _kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def _defined(divergence: str, p: list[float], q: list[float]) -> float:
    if divergence == "kl":
        return -sum(b * math.log(a) for a, b in zip(p, q, strict=True))
    if divergence == "reverse_kl":
        return _kl(p, q)
    m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return 0.5 * (_kl(q, m) + _kl(p, m))


def test_settings_and_functions_have_the_same_divergences():
    assert get_args(Divergence) == DIVERGENCES


@pytest.mark.parametrize("divergence", ["kl", "reverse_kl", "js"])
@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_divergences_of_probabilities_are_those_of_their_definitions(link, divergence):
    student, teacher = _logits()
    expected = 0.0
    for ours, theirs in zip(student.tolist(), teacher.tolist(), strict=True):
        own = [
            _defined(divergence, p, q)
            for p, q in zip(_distributions(ours, link), _distributions(theirs, link), strict=True)
        ]
        expected += sum(own) / len(own) / B
    options = {"temperature": T, "link": link, "divergence": divergence}
    assert soft_label_loss(student, teacher, **options).item() == pytest.approx(expected)
    scaled = soft_label_loss(student, teacher, scaled=True, **options)
    assert scaled.item() == pytest.approx(T**2 * expected)


@pytest.mark.parametrize("link", ["softmax", "sigmoid", "identity"])
def test_mse_compares_the_logits_themselves(link):
    student, teacher = _logits()
    options = {"link": link, "divergence": "mse"}
    expected = (student - teacher).square().mean().item()
    assert soft_label_loss(student, teacher, **options).item() == pytest.approx(expected)
    if link != "identity":
        with_temperature = soft_label_loss(student, teacher, temperature=T, scaled=True, **options)
        assert with_temperature.item() == pytest.approx(expected)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("link", ["softmax", "sigmoid", "identity"])
def test_gradients_are_finite_differences_and_vanish_at_the_teacher(link, divergence):
    student, teacher = _logits()
    options = {"temperature": T, "link": link, "divergence": divergence, "scaled": True}
    assert torch.autograd.gradcheck(lambda s: soft_label_loss(s, teacher, **options), student)
    same = teacher.clone().requires_grad_()
    loss = soft_label_loss(same, teacher, **options)
    loss.backward()
    assert same.grad.abs().max() < 1e-12
    if divergence != "kl":
        assert loss.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("divergence", ["reverse_kl", "js"])
def test_classes_without_any_probability_give_finite_losses(divergence):
    student, teacher = (torch.tensor([[1.0, 2.0, -1e9]]), torch.tensor([[2.0, 1.0, -1e9]]))
    student.requires_grad_()
    loss = soft_label_loss(student, teacher, divergence=divergence)
    loss.backward()
    assert math.isfinite(loss.item())
    assert torch.isfinite(student.grad).all()
    without = soft_label_loss(student[:, :2], teacher[:, :2], divergence=divergence)
    assert loss.item() == pytest.approx(without.item())


def test_js_is_symmetric_and_at_most_log_2():
    student, teacher = _logits()
    one = soft_label_loss(student, teacher, divergence="js")
    other = soft_label_loss(teacher, student, divergence="js")
    assert one.item() == pytest.approx(other.item())
    far = soft_label_loss(torch.tensor([[90.0, 0]]), torch.tensor([[0, 90.0]]), divergence="js")
    assert far.item() == pytest.approx(math.log(2))


def test_unknown_names_are_refused():
    logits = _logits()
    with pytest.raises(ValueError, match="unknown divergence 'tv'; allowed: kl, reverse_kl"):
        soft_label_loss(*logits, divergence="tv")
    with pytest.raises(ValueError, match="unknown link 'probit'"):
        soft_label_loss(*logits, link="probit")

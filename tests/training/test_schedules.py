import numpy as np
import pytest
import torch

from callboard.params.training import OptimParams, SchedParams
from callboard.training.schedules import (
    FOLLOWS_VALIDATION,
    SCHEDULES,
    ScheduleStep,
    cosine_rate,
    plateau_rate,
)
from tests.toy_training import PARAMS


def optim_params(**changes):
    return OptimParams.model_validate({"name": "adam", "lr": 0.01, "weight_decay": 0.0} | changes)


def sched_params(**changes):
    return SchedParams.model_validate(PARAMS["sched"] | changes)


def after(*scores):
    """A step after epochs with these validation scores, None where an epoch had none."""
    return ScheduleStep(0, 15, [{"val_lwlrap": score} for score in scores])


def any_rate(schedule):
    """The optimiser that a schedule of torch acts on, and the schedule."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    return optimizer, schedule(optimizer)


def test_the_cosine_is_torchs_stepped_after_every_batch():
    sched = sched_params(name="cosine", t_max=3, eta_min=0.001)
    twin, schedule = any_rate(
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3 * 4, eta_min=0.001)
    )
    for batch in range(2 * 3 * 4 + 5):
        rate = cosine_rate(optim_params(), sched, ScheduleStep(batch, 4, []))
        assert rate == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        twin.step()
        schedule.step()


def test_the_cosine_falls_for_t_max_epochs_and_climbs_back():
    sched = sched_params(name="cosine", t_max=10)
    at = [
        cosine_rate(optim_params(lr=1.0), sched, ScheduleStep(epoch * 15, 15, [])) for epoch in (0, 5, 10, 20)
    ]
    assert at == pytest.approx([1.0, 0.5, 0.0, 1.0])


def test_no_schedule_is_the_rate_as_set():
    assert SCHEDULES["none"](optim_params(), sched_params(name="none"), ScheduleStep(999, 15, [])) == 0.01


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_the_plateau_is_torchs_on_the_validated_epochs(patience, seed):
    rng = np.random.default_rng(seed)
    scores = (np.cumsum(rng.normal(0.0, 0.05, 40)) / 10 + 0.6).round(3)  # with ties
    scores[20:30] = scores[:20].max() * (1 + np.arange(1, 11) * 4e-5)  # rises about the threshold
    is_validated = rng.random(len(scores)) < 0.7
    sched = sched_params(name="plateau", factor=0.5, patience=patience)
    twin, schedule = any_rate(
        lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, mode="max", factor=0.5, patience=patience, eps=0.0
        )
    )
    history = []
    for score, validated in zip(scores.tolist(), is_validated, strict=True):
        rate = plateau_rate(optim_params(), sched, ScheduleStep(0, 4, history))
        assert rate == pytest.approx(twin.param_groups[0]["lr"], rel=1e-9)
        history.append({"val_lwlrap": score if validated else None})
        if validated:
            twin.step()
            schedule.step(score)
    assert twin.param_groups[0]["lr"] < 0.01


def test_the_plateau_waits_patience_validations_and_counts_anew():
    sched = sched_params(name="plateau", factor=0.1, patience=1)
    rates = [plateau_rate(optim_params(lr=1.0), sched, after(*[0.5] * n)) for n in range(6)]
    assert rates == pytest.approx([1.0, 1.0, 1.0, 0.1, 0.1, 0.01])


def test_an_epoch_without_validation_is_not_waited_through():
    sched = sched_params(name="plateau", factor=0.1, patience=1)
    assert plateau_rate(optim_params(lr=1.0), sched, after(0.5, None, None, None, 0.4)) == 1.0


def test_every_schedule_of_the_params_is_in_the_table():
    assert set(SCHEDULES) == set(SchedParams.model_fields["name"].annotation.__args__)
    assert set(SCHEDULES) >= FOLLOWS_VALIDATION

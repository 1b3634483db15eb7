import math

import numpy as np
import pytest
import torch
from sklearn.metrics import label_ranking_average_precision_score

from callboard import training
from callboard.batches import BatchSource, draw_items
from callboard.checkpoint import Checkpoint
from callboard.errors import UserError
from callboard.losses import Loss, Targets, count_to_weights
from callboard.mixup import MIXUP
from callboard.model import SedOutput
from callboard.params.training import OptimParams, SchedParams
from callboard.training import (
    CURVE_COLUMNS,
    OPTIMIZERS,
    SCHEDULES,
    Execution,
    Step,
    build_learner,
    cosine_rate,
    fit,
    is_validated,
    train_step,
    validate,
    write_curve,
)
from tests.toy_training import CPU, fit_params, load_fold, write_fold_inputs


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("fold")
    write_fold_inputs(root)
    return root


@pytest.fixture(scope="module")
def data(root):
    return load_fold(root)


@pytest.fixture(scope="module")
def fitted(data):
    return fit(fit_params(), 0, data, Execution(CPU))


def have_equal_weights(one, other):
    weights, others = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(weights[name], others[name]) for name in weights)


def test_one_batch_is_learned_by_heart(data):
    params = fit_params(augment__p=0.0, augment__brightness_contrast=0.0, mixup__mode="none", optim__lr=0.01)
    batch = next(BatchSource(data, params, 0, CPU, 1).epoch(0))
    learner, loss = (
        build_learner(params, 0, 3, CPU),
        Loss(params.loss, count_to_weights(data.n_tp_annotations)),
    )
    terms = [train_step(learner, loss, batch, MIXUP["none"]) for _ in range(60)]
    falls = {name: (terms[-1][name] / terms[0][name]).item() for name in terms[0]}
    assert falls["attention"] < 0.1
    assert falls["max"] < 0.1
    assert falls["segment"] < 0.5  # two segments cannot draw the edges of a call


def test_same_seed_same_weights_and_curve(data, fitted):
    again = fit(fit_params(), 0, data, Execution(CPU))
    assert have_equal_weights(fitted, again)
    assert fitted.history == again.history


def test_the_number_of_threads_changes_nothing(data, fitted):
    assert have_equal_weights(fitted, fit(fit_params(), 0, data, Execution(CPU, n_threads=3)))


def test_folds_in_any_order_give_the_same_weights(root, data, fitted):
    params = fit_params()
    after_another = [fit(params, fold, load_fold(root, fold), Execution(CPU)) for fold in (1, 0)]
    assert have_equal_weights(fitted, after_another[1])
    assert not have_equal_weights(fitted, after_another[0])


def test_another_seed_is_another_network(data, fitted):
    assert not have_equal_weights(fitted, fit(fit_params(seed=8), 0, data, Execution(CPU)))


class InterruptedTrainingError(Exception):
    pass


def interrupt_after(epoch):
    def log(report):
        if report.row["epoch"] == epoch:
            raise InterruptedTrainingError

    return log


@pytest.mark.parametrize("select", ["last", "best"])
def test_an_interrupted_training_resumes_as_if_nothing_had_been(data, tmp_path, select):
    params = fit_params(
        train__select=select,
        train__validate_every=1,
        model__backbone_args={**fit_params().model.backbone_args, "drop_rate": 0.0, "drop_path_rate": 0.3},
    )
    whole = fit(params, 0, data, Execution(CPU))
    checkpoint = Checkpoint(tmp_path / "fold0.pt")
    for epoch in (1, 2):
        with pytest.raises(InterruptedTrainingError):
            fit(params, 0, data, Execution(CPU, checkpoint=checkpoint, log=interrupt_after(epoch)))
    epochs = []
    resumed = fit(params, 0, data, Execution(CPU, checkpoint=checkpoint, log=epochs.append))
    assert [report.row["epoch"] for report in epochs] == [3]
    assert have_equal_weights(whole, resumed)
    assert whole.history == resumed.history


def test_a_best_epoch_before_an_interruption_is_not_forgotten(data, tmp_path, monkeypatch):
    scores = iter([0.9, 0.5, 0.4])
    monkeypatch.setattr(training, "validate", lambda *args: next(scores))
    first = fit(fit_params(train__epochs=1, train__validate_every=0), 0, data, Execution(CPU))
    params = fit_params(train__select="best", train__validate_every=1)
    checkpoint = Checkpoint(tmp_path / "fold0.pt")
    with pytest.raises(InterruptedTrainingError):
        fit(params, 0, data, Execution(CPU, checkpoint=checkpoint, log=interrupt_after(2)))
    assert have_equal_weights(fit(params, 0, data, Execution(CPU, checkpoint=checkpoint)), first)


def test_a_damaged_checkpoint_is_a_fresh_start(data, fitted, tmp_path, capsys):
    (tmp_path / "fold0.pt").write_bytes(b"PK\x03\x04 cut short")
    resumed = fit(fit_params(), 0, data, Execution(CPU, checkpoint=Checkpoint(tmp_path / "fold0.pt")))
    assert have_equal_weights(fitted, resumed)
    assert "damaged checkpoint ignored" in capsys.readouterr().err


def test_every_clip_of_an_epoch_is_counted(data):
    reports = []
    fit(fit_params(train__epochs=1), 0, data, Execution(CPU, log=reports.append))
    assert reports[0].n_clips == len(draw_items(data.annotations, 2, np.random.default_rng(0)).recording)
    assert 0 <= reports[0].wait_s <= reports[0].duration_s


def test_the_epoch_loss_is_the_weighted_sum_of_its_terms(fitted):
    for row in fitted.history:
        total = row["attention"] + 0.5 * row["max"] + row["pseudo"] + 0.5 * row["segment"]
        assert row["loss"] == pytest.approx(total, rel=1e-5)


def test_best_keeps_the_weights_of_the_best_epoch(data, monkeypatch):
    scores = iter([0.5, 0.9, 0.4])
    monkeypatch.setattr(training, "validate", lambda *args: next(scores))
    two = fit(fit_params(train__epochs=2, train__validate_every=0), 0, data, Execution(CPU))
    best = fit(fit_params(train__select="best", train__validate_every=1), 0, data, Execution(CPU))
    assert have_equal_weights(best, two)
    assert [row["val_lwlrap"] for row in best.history] == [0.5, 0.9, 0.4]


def without_validation(data):
    return type(data)(**vars(data) | {"validation": np.arange(0), "is_present": np.zeros((0, 3), dtype=bool)})


def test_best_without_a_validation_recording_is_refused(data):
    with pytest.raises(UserError, match=r"train\.select best: fold 0 has no TP recording to validate on"):
        fit(fit_params(train__select="best"), 0, without_validation(data), Execution(CPU))


def test_a_fold_without_tp_has_no_lwlrap(data, fitted):
    assert math.isnan(validate(fitted.model, without_validation(data), fit_params().clip, CPU))


def test_a_loss_that_is_not_finite_stops_with_epoch_and_rate(data):
    with pytest.raises(UserError, match=r"fold 0, epoch \d: the loss is (nan|inf) at learning rate 1e\+30"):
        fit(fit_params(optim__lr=1e30, sched__name="none"), 0, data, Execution(CPU))


@pytest.mark.parametrize(
    ("every", "validated"), [(0, []), (1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (5, [4]), (9, [4])]
)
def test_every_nth_epoch_and_the_last_are_validated(every, validated):
    train = fit_params(train__epochs=5, train__validate_every=every).train
    assert [epoch for epoch in range(5) if is_validated(train, epoch)] == validated


class Loudness(torch.nn.Module):
    """A network to follow by eye: a species' logit is the mean of its mel band over the clip."""

    def forward(self, image):
        bands = torch.stack([image[:, :, k * 10 : k * 10 + 8].mean(dim=(1, 2)) for k in range(3)], dim=1)
        return SedOutput(bands, bands + 1, bands[:, None], bands[:, None], bands[:, None])


def test_validation_is_the_lwlrap_of_the_loudest_window(root, data):
    from callboard.image import normalise, to_unit
    from callboard.mel_cache import MelCache

    cache, network, scores = MelCache.open(root / "mel"), Loudness(), []
    for row in data.validation:
        frames = torch.from_numpy(cache.read(cache.recording_ids[row]))
        windows = torch.stack([frames[start : start + 64] for start in (0, 64, 86)])
        output = network(normalise(to_unit(windows)))
        scores.append(((output.attention.sigmoid() + output.max.sigmoid()) / 2).amax(dim=0).numpy())
    expected = label_ranking_average_precision_score(data.is_present, np.array(scores))
    assert validate(network, data, fit_params().clip, CPU) == pytest.approx(expected)
    assert expected == 1.0


def optim_params(**changes):
    return OptimParams.model_validate({"name": "adam", "lr": 0.01, "weight_decay": 0.0} | changes)


def test_the_cosine_is_torchs_stepped_after_every_batch():
    optim, sched = optim_params(), SchedParams(name="cosine", t_max=3, eta_min=0.001)
    twin = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(twin, T_max=3 * 4, eta_min=0.001)
    for batch in range(2 * 3 * 4 + 5):
        rate = cosine_rate(optim, sched, Step(batch, 4, []))
        assert rate == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        twin.step()
        schedule.step()


def test_the_cosine_falls_for_t_max_epochs_and_climbs_back():
    sched = SchedParams(name="cosine", t_max=10, eta_min=0.0)
    at = [cosine_rate(optim_params(lr=1.0), sched, Step(epoch * 15, 15, [])) for epoch in (0, 5, 10, 20)]
    assert at == pytest.approx([1.0, 0.5, 0.0, 1.0])


def test_no_schedule_is_the_rate_as_set():
    sched = SchedParams(name="none", t_max=10, eta_min=0.0)
    assert SCHEDULES["none"](optim_params(), sched, Step(999, 15, [])) == 0.01


def test_the_schedule_reaches_the_optimiser(fitted):
    expected = [0.003 * 0.5 * (1 + math.cos(math.pi * epoch / 3)) for epoch in range(3)]
    assert [row["lr"] for row in fitted.history] == pytest.approx(expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_takes_a_step(data, name):
    params = fit_params(optim__name=name, optim__weight_decay=0.01)
    learner, before = (build_learner(params, 0, 3, CPU) for _ in range(2))
    batch = next(BatchSource(data, params, 0, CPU, 1).epoch(0))
    train_step(learner, Loss(params.loss, torch.ones(3)), batch, MIXUP["input"])
    assert not have_equal_weights(learner, before)


def test_adamw_decays_weights_beside_the_gradient(data):
    params = fit_params(optim__name="adamw", optim__weight_decay=0.5)
    learner = build_learner(params, 0, 3, CPU)
    weight = learner.model.head.classify.weight
    before = weight.detach().clone()
    for parameter in learner.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    learner.optimizer.step()
    torch.testing.assert_close(weight.detach(), before * (1 - params.optim.lr * 0.5))


def test_every_optimiser_and_schedule_of_the_params_is_in_its_table():
    assert set(OPTIMIZERS) == set(OptimParams.model_fields["name"].annotation.__args__)
    assert set(SCHEDULES) == set(SchedParams.model_fields["name"].annotation.__args__)


def test_losses_are_averaged_over_the_forward_passes_of_a_step(data):
    params = fit_params(mixup__mode="none")
    batch = next(BatchSource(data, params, 0, CPU, 1).epoch(0))

    def twice(model, image, targets, mixing):
        empty = Targets(*(torch.zeros_like(column) for column in targets))
        return [(model(image), targets), (model(image), empty)]

    def values(mixup):
        return train_step(build_learner(params, 0, 3, CPU), Loss(params.loss, torch.ones(3)), batch, mixup)

    def empty_only(model, image, targets, mixing):
        return twice(model, image, targets, mixing)[1:]

    both, first, second = values(twice), values(MIXUP["none"]), values(empty_only)
    for name in both:
        assert both[name].item() == pytest.approx((first[name] + second[name]).item() / 2, rel=1e-5)


def test_the_curve_has_a_line_per_epoch_and_blanks_where_there_is_no_number(tmp_path):
    history = [
        {"epoch": 1, "lr": 0.001, "loss": 1.25, "attention": 0.5, "val_lwlrap": None},
        {"epoch": 2, "lr": 0.0005, "loss": 1.0, "attention": 1 / 3, "val_lwlrap": 0.75},
        {"epoch": 3, "lr": 0.0, "loss": 1.0, "attention": 0.25, "val_lwlrap": math.nan},
    ]
    write_curve(history, tmp_path / "plots" / "curve.csv")
    assert (tmp_path / "plots" / "curve.csv").read_text().splitlines() == [
        "epoch,lr,loss,attention,max,pseudo,segment,val_lwlrap",
        "1,0.001,1.25,0.5,,,,",
        "2,0.0005,1,0.333333,,,,0.75",
        "3,0,1,0.25,,,,",
    ]
    assert CURVE_COLUMNS[0] == "epoch"

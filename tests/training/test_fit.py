import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from callboard.core.errors import UserError
from callboard.model.device import autocast, computed_on
from callboard.params.training import OptimParams, TrainParams
from callboard.training import fit as training
from callboard.training.batches import BatchSource
from callboard.training.checkpoint import Checkpoint, checkpoint_for
from callboard.training.fit import (
    OPTIMIZERS,
    Execution,
    build_learner,
    fit,
    has_finite_weights,
    is_validated,
    run_epoch,
    train_one_epoch,
    train_step,
)
from callboard.training.losses.terms import Loss, Targets
from callboard.training.mixup import MIXUP
from callboard.training.sampling import draw_items
from callboard.training.start_weights import FoldWeights
from callboard.training.validation import SELECTIONS, Validation, validate_epoch
from tests.toy_training import CPU, N_MELS, fit_params, load_fold


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
        Loss(params.loss, torch.as_tensor(data.n_tp_annotations)),
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


def test_averaging_weights_changes_none_of_them(data, fitted):
    averaged = fit(fit_params(train__ema_decay=0.9), 0, data, Execution(CPU))
    assert fitted.averages == {}
    assert have_equal_weights(fitted, averaged)
    assert averaged.history == fitted.history
    assert not torch.equal(averaged.averages["ema"].head.classify.weight, averaged.model.head.classify.weight)


def test_the_average_is_of_every_step(data):
    params = fit_params(train__ema_decay=0.5)
    learner, loss = build_learner(params, 0, 3, CPU), Loss(params.loss, torch.ones(3))
    batch = next(BatchSource(data, params, 0, CPU, 1).epoch(0))
    seen = []
    for _ in range(3):
        train_step(learner, loss, batch, MIXUP["none"])
        seen.append(learner.model.head.classify.weight.detach().clone())
    expected = seen[0] / 4 + seen[1] / 4 + seen[2] / 2
    torch.testing.assert_close(learner.averages["ema"].module.head.classify.weight.detach(), expected)


def test_the_mean_over_last_epochs_is_of_the_weights_at_their_ends(data, fitted, tmp_path):
    params, checkpoint, seen = fit_params(train__swa_epochs=2), Checkpoint(tmp_path / "fold0.pt"), []
    execution = Execution(
        CPU, checkpoint=checkpoint, log=lambda report: seen.append(checkpoint.read()["model"])
    )
    averaged = fit(params, 0, data, execution)
    assert len(seen) == 3
    assert have_equal_weights(fitted, averaged)
    for name, weights in averaged.averages["swa"].named_parameters():
        torch.testing.assert_close(weights.detach(), (seen[1][name] + seen[2][name]) / 2)


def test_statistics_of_the_mean_are_taken_anew_over_an_epoch(data):
    params = fit_params(train__swa_epochs=1)
    found = fit(params, 0, data, Execution(CPU)).averages["swa"]
    norm = next(module for module in found.modules() if isinstance(module, torch.nn.BatchNorm2d))
    inputs = []
    norm.register_forward_pre_hook(lambda module, args: inputs.append(args[0].float()))
    expected = norm.running_mean.clone(), norm.running_var.clone()
    with torch.no_grad():
        for batch in BatchSource(data, params, 0, CPU, 1).epoch(params.train.epochs):
            with autocast(batch.image):
                found.train()(batch.image)
    means = torch.stack([one.mean(dim=(0, 2, 3)) for one in inputs])
    variances = torch.stack([one.var(dim=(0, 2, 3)) for one in inputs])
    assert len(inputs) > 1
    torch.testing.assert_close(expected[0], means.mean(dim=0), rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(expected[1], variances.mean(dim=0), rtol=2e-2, atol=2e-3)


def test_statistics_of_the_mean_hang_on_the_seed_alone(data, tmp_path):
    """Where no epoch is left to train, none of them sets the random numbers of the pass that takes them."""
    params = fit_params(
        train__swa_epochs=2,
        model__backbone_args={**fit_params().model.backbone_args, "drop_rate": 0.0, "drop_path_rate": 0.3},
    )
    execution, found = Execution(CPU, checkpoint=Checkpoint(tmp_path / "fold0.pt")), []
    for seed in (1, 2, 3):
        torch.manual_seed(seed)
        found.append(dict(fit(params, 0, data, execution).averages["swa"].named_buffers()))
    first, *others = found
    for other in others:
        assert all(torch.equal(buffer, other[name]) for name, buffer in first.items())


def start_from(fitted):
    return FoldWeights("a@0123456789abcdef", fit_params().model, fitted.model.state_dict())


def test_a_training_starts_from_the_weights_it_is_given_with_a_new_optimiser(data, fitted):
    learner = build_learner(fit_params(seed=8), 0, 3, CPU, start_from(fitted))
    assert have_equal_weights(learner, fitted)
    assert not learner.optimizer.state
    params = fit_params(seed=8, optim__lr=1e-9, train__epochs=1, train__ema_decay=0.9)
    again = fit(params, 0, data, Execution(CPU), start_from(fitted))
    for network in (again.model, again.averages["ema"]):
        for weights, before in zip(network.parameters(), fitted.model.parameters(), strict=True):
            torch.testing.assert_close(weights, before, rtol=0, atol=1e-6)


def test_pretrained_weights_are_not_fetched_where_others_are_given(fitted):
    learner = build_learner(fit_params(model__pretrained=True), 0, 3, CPU, start_from(fitted))
    assert have_equal_weights(learner, fitted)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("head_bias", True, "model.head_bias: false → true"),
        ("cbam", True, "model.cbam: false → true"),
        ("frequency_head", True, "model.frequency_head: false → true"),
        (
            "backbone_args",
            {"layers": [1] * 4, "channels": [16] * 4, "stem_type": "deep", "stem_width": 4},
            r"model.backbone_args.channels: \[8, 8, 8, 8\] → \[16, 16, 16, 16\]",
        ),
    ],
)
def test_start_weights_of_another_network_are_refused_with_what_differs(fitted, key, value, words):
    params = fit_params(**{f"model__{key}": value})
    with pytest.raises(
        UserError, match=f"weights of a@0123456789abcdef are of a different network: {words}$"
    ):
        build_learner(params, 0, 3, CPU, start_from(fitted))


def test_the_number_of_threads_changes_nothing(data, fitted):
    assert have_equal_weights(fitted, fit(fit_params(), 0, data, Execution(CPU, n_threads=3)))


def test_folds_in_any_order_give_the_same_weights(root, data, fitted):
    params = fit_params()
    after_another = [fit(params, fold, load_fold(root, fold), Execution(CPU)) for fold in (1, 0)]
    assert have_equal_weights(fitted, after_another[1])
    assert not have_equal_weights(fitted, after_another[0])


def test_dropout_has_a_stream_of_its_own_in_each_epoch_of_each_fold(root, data):
    seeds = []
    for fold, of_fold in ((0, data), (1, load_fold(root, 1)), (0, data)):
        execution = Execution(CPU, log=lambda report: seeds.append(torch.initial_seed()))
        fit(fit_params(train__epochs=2), fold, of_fold, execution)
    assert len(set(seeds[:4])) == 4
    assert seeds[4:] == seeds[:2]


def test_another_seed_is_another_network(data, fitted):
    assert not have_equal_weights(fitted, fit(fit_params(seed=8), 0, data, Execution(CPU)))


def test_networks_begin_alike_for_the_same_seed_and_fold_alone():
    begun = [
        build_learner(fit_params(seed=seed), fold, 3, CPU) for seed, fold in ((7, 0), (7, 0), (7, 1), (8, 0))
    ]
    assert [have_equal_weights(begun[0], other) for other in begun[1:]] == [True, False, False]


class InterruptedTrainingError(Exception):
    pass


def interrupt_after(epoch):
    def log(report):
        if report.row["epoch"] == epoch:
            raise InterruptedTrainingError

    return log


def validate_as(monkeypatch, scores, losses=(0.7, 0.7, 0.7, 0.7)):
    """Let the validations of a training find these, in turn."""
    found = map(Validation, scores, losses)
    monkeypatch.setattr(training, "validate_epoch", lambda *args: next(found))


def have_equal_averages(one, other):
    assert one.averages.keys() == other.averages.keys() == {"ema", "swa"}
    return all(
        torch.equal(tensor, other.averages[kind].state_dict()[name])
        for kind, average in one.averages.items()
        for name, tensor in average.state_dict().items()
    )


@pytest.mark.parametrize(
    ("select", "sched"),
    [("last", "cosine"), ("best", "cosine"), ("best_loss", "cosine"), ("last", "plateau")],
)
def test_an_interrupted_training_resumes_as_if_nothing_had_been(data, tmp_path, select, sched):
    params = fit_params(
        train__select=select,
        sched__name=sched,
        sched__patience=0,
        train__validate_every=1,
        train__ema_decay=0.9,
        train__swa_epochs=2,
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
    assert have_equal_averages(whole, resumed)
    assert whole.history == resumed.history


def test_a_training_that_is_resumed_on_an_unlike_machine_records_both(data, tmp_path, monkeypatch):
    here = computed_on(CPU, N_MELS)
    checkpoint = Checkpoint(tmp_path / "fold0.pt")
    with pytest.raises(InterruptedTrainingError):
        fit(fit_params(), 0, data, Execution(CPU, checkpoint=checkpoint, log=interrupt_after(1)))
    there = replace(here, processor="unlike")
    monkeypatch.setattr(training, "computed_on", lambda device, n_mels: there)
    resumed = fit(fit_params(), 0, data, Execution(CPU, checkpoint=checkpoint))
    assert resumed.computes == [here, there, there]


@pytest.mark.parametrize(("mel_rows", "n_mels"), [(None, N_MELS), ([4, 24], 20)])
def test_the_recorded_precision_is_that_of_the_images(data, monkeypatch, mel_rows, n_mels):
    asked = []
    monkeypatch.setattr(training, "computed_on", lambda device, n_mels: asked.append((device, n_mels)))
    params = fit_params(train__epochs=1, clip__mel_rows=mel_rows)
    fit(params, 0, data, Execution(CPU))
    assert asked == [(CPU, n_mels)]
    assert next(BatchSource(data, params, 0, CPU, 1).epoch(0)).image.shape[2] == n_mels


def test_a_best_epoch_before_an_interruption_is_not_forgotten(data, tmp_path, monkeypatch):
    validate_as(monkeypatch, [0.9, 0.5, 0.4])
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
    assert "checkpoint ignored" in capsys.readouterr().err


@pytest.mark.parametrize("other", [{"train__epochs": 4}, {"model__head_bias": True}, {"seed": 1}])
def test_the_checkpoint_of_other_parameters_is_a_fresh_start(
    data, fitted, tmp_path, monkeypatch, capsys, other
):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    theirs, ours = (checkpoint_for(params, [], 0) for params in (fit_params(**other), fit_params()))
    fit(fit_params(**other), 0, data, Execution(CPU, checkpoint=theirs))
    theirs.path.rename(ours.path)
    assert have_equal_weights(fitted, fit(fit_params(), 0, data, Execution(CPU, checkpoint=ours)))
    assert "checkpoint ignored, training starts at the first epoch" in capsys.readouterr().err


def test_every_clip_of_an_epoch_is_counted(data):
    reports = []
    fit(fit_params(train__epochs=1), 0, data, Execution(CPU, log=reports.append))
    assert reports[0].n_clips == len(draw_items(data.annotations, 2, np.random.default_rng(0)).recording)
    assert 0 <= reports[0].wait_s <= reports[0].duration_s


def test_the_loss_of_an_epoch_is_the_mean_over_clips_of_batches_of_any_size(data):
    params = fit_params(mixup__mode="none", train__batch_size=5)
    batches = list(BatchSource(data, params, 0, CPU, 1).epoch(0))
    sizes = [len(batch.image) for batch in batches]
    assert len(set(sizes)) > 1

    def standing_still(shown):
        learner, loss = build_learner(params, 0, 3, CPU), Loss(params.loss, torch.ones(3))
        return train_one_epoch(learner, loss, shown, lambda batch: 0.0, MIXUP["none"])

    single = [standing_still([batch]) for batch in batches]
    for name, mean in standing_still(batches).items():
        assert mean == pytest.approx(np.average([one[name] for one in single], weights=sizes), rel=1e-5)


def test_the_epoch_loss_is_the_weighted_sum_of_its_terms(fitted):
    for row in fitted.history:
        total = row["attention"] + 0.5 * row["max"] + row["pseudo"] + 0.5 * row["segment"]
        assert row["loss"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(("select", "n_epochs"), [("best", 2), ("best_loss", 1)])
def test_a_selection_keeps_the_weights_of_its_best_epoch(data, monkeypatch, select, n_epochs):
    validate_as(monkeypatch, [0.5, 0.9, 0.4], losses=[0.1, 0.3, 0.2])
    until_then = fit(fit_params(train__epochs=n_epochs, train__validate_every=0), 0, data, Execution(CPU))
    best = fit(fit_params(train__select=select, train__validate_every=1), 0, data, Execution(CPU))
    assert have_equal_weights(best, until_then)
    assert [row["val_lwlrap"] for row in best.history] == [0.5, 0.9, 0.4]
    assert [row["val_loss"] for row in best.history] == [0.1, 0.3, 0.2]


def test_of_epochs_that_score_the_same_the_first_is_kept(data, monkeypatch):
    validate_as(monkeypatch, [0.5, 0.9, 0.9])
    until_then = fit(fit_params(train__epochs=2, train__validate_every=0), 0, data, Execution(CPU))
    best = fit(fit_params(train__select="best", train__validate_every=1), 0, data, Execution(CPU))
    assert have_equal_weights(best, until_then)


@pytest.mark.parametrize(
    ("max_weight", "heads", "others"),
    [(0.5, ("attention", "max"), ("attention",)), (0.0, ("attention",), ("attention", "max"))],
)
def test_what_is_validated_are_the_heads_that_are_trained(data, max_weight, heads, others):
    params = fit_params(loss__max__weight=max_weight)
    fitted = fit(params, 0, data, Execution(CPU))
    expected, wrong = (
        validate_epoch(fitted.model, data, params.clip, names, CPU) for names in (heads, others)
    )
    assert fitted.history[-1]["val_loss"] == expected.loss
    assert expected.loss != wrong.loss


def without_validation(data):
    return type(data)(**vars(data) | {"validation": np.arange(0), "is_present": np.zeros((0, 3), dtype=bool)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train__select": "best"}, r"train\.select best: fold 0 .* validate on; use train\.select=last"),
        ({"train__select": "best_loss"}, r"train\.select best_loss: fold 0 has no TP recording"),
        ({"sched__name": "plateau"}, r"sched\.name plateau: fold 0 has no TP .*; use sched\.name=none"),
    ],
)
def test_what_follows_validation_is_refused_without_a_validation_recording(data, change, words):
    with pytest.raises(UserError, match=words):
        fit(fit_params(**change), 0, without_validation(data), Execution(CPU))


def test_a_fold_without_validation_recordings_has_blanks_in_its_curve(data):
    fitted = fit(fit_params(train__validate_every=1), 0, without_validation(data), Execution(CPU))
    assert all(math.isnan(row["val_lwlrap"]) and math.isnan(row["val_loss"]) for row in fitted.history)


def with_rate(lr, **changes):
    """The toy's params with a rate beyond its bounds."""
    params = fit_params(sched__name="none", **changes)
    return params.model_copy(update={"optim": params.optim.model_copy(update={"lr": lr})})


def test_a_loss_that_is_not_finite_stops_with_epoch_and_rate(data):
    told = r"fold 0: .* no longer finite at epoch \d, at learning rate 1e\+30; lower optim.lr"
    with pytest.raises(UserError, match=told):
        fit(with_rate(1e30), 0, data, Execution(CPU))


@pytest.mark.parametrize("lr", [1e4, 1e10, 1e20])
@pytest.mark.parametrize("validate_every", [0, 1])
def test_a_rate_that_ruins_a_network_is_named_in_training_or_gives_finite_scores(data, lr, validate_every):
    params, said, finite = with_rate(lr, train__validate_every=validate_every), "", False
    try:
        finite = has_finite_weights(fit(params, 0, data, Execution(CPU)).model)
    except UserError as error:
        said = str(error)
    assert finite or re.search(r"no longer finite at epoch \d.*lower optim.lr", said)


def test_a_step_that_leaves_a_weight_infinite_stops_though_the_loss_was_finite(data, monkeypatch):
    def ruin(learner, loss, batches, rate, mixup):
        with torch.no_grad():
            next(learner.model.parameters()).flatten()[0] = math.inf
        return {"loss": 0.5}

    monkeypatch.setattr(training, "train_one_epoch", ruin)
    with pytest.raises(UserError, match=r"fold 0: the network's weights are no longer finite at epoch 1"):
        fit(fit_params(), 0, data, Execution(CPU))


def test_validation_scores_that_are_not_finite_stop_too(data, monkeypatch):
    scores = np.full_like(data.is_present, np.nan, dtype=np.float64)
    monkeypatch.setattr("callboard.training.validation.recording_probabilities", lambda *args: scores)
    with pytest.raises(UserError, match=r"fold 0: scores are no longer finite at epoch 1"):
        fit(fit_params(train__validate_every=1), 0, data, Execution(CPU))


def test_a_batch_that_fits_in_no_memory_is_refused_before_the_first_epoch(data, monkeypatch):
    monkeypatch.setattr("callboard.core.machine.memory_limit", lambda: 1e3)
    told = r"the images of a batch of fold 0 alone: needs .* lower train.batch_size or clip.n_frames"
    with pytest.raises(UserError, match=told):
        fit(fit_params(), 0, data, Execution(CPU))


def test_running_out_of_memory_names_the_fold_and_the_settings(data, monkeypatch):
    monkeypatch.setattr(training, "train_one_epoch", lambda *args: torch.ones(2**50))
    with pytest.raises(UserError, match=r"training of fold 0: out of memory; lower train.batch_size or clip"):
        fit(fit_params(), 0, data, Execution(CPU))


@pytest.mark.parametrize(
    ("every", "validated"), [(0, []), (1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (5, [4]), (9, [4])]
)
def test_every_nth_epoch_and_the_last_are_validated(every, validated):
    train = fit_params(train__epochs=5, train__validate_every=every).train
    assert [epoch for epoch in range(5) if is_validated(train, epoch)] == validated


def test_the_schedule_reaches_the_optimiser(fitted):
    expected = [0.003 * 0.5 * (1 + math.cos(math.pi * epoch / 3)) for epoch in range(3)]
    assert [row["lr"] for row in fitted.history] == pytest.approx(expected)


def test_the_cosine_falls_from_batch_to_batch(data):
    params, rates = fit_params(), []
    learner, loss = build_learner(params, 0, 3, CPU), Loss(params.loss, torch.ones(3))
    learner.optimizer.register_step_pre_hook(
        lambda optimizer, args, kwargs: rates.append(optimizer.param_groups[0]["lr"])
    )
    run_epoch(learner, loss, BatchSource(data, params, 0, CPU, 1), params, epoch=1)
    assert len(rates) == 2  # of 2 · 3 batches until t_max
    assert rates == pytest.approx([0.003 * 0.5 * (1 + math.cos(math.pi * k / 6)) for k in (2, 3)])


def test_the_rate_falls_where_validation_no_longer_rises(data, monkeypatch):
    validate_as(monkeypatch, [0.5, 0.5, 0.5, 0.6])
    params = fit_params(
        sched__name="plateau", sched__factor=0.1, sched__patience=0, train__validate_every=1, train__epochs=4
    )
    fitted = fit(params, 0, data, Execution(CPU))
    assert [row["lr"] for row in fitted.history] == pytest.approx([0.003, 0.003, 0.0003, 0.00003])


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


def test_every_optimiser_and_selection_of_the_params_is_in_its_table():
    assert set(OPTIMIZERS) == set(OptimParams.model_fields["name"].annotation.__args__)
    assert {"last", *SELECTIONS} == set(TrainParams.model_fields["select"].annotation.__args__)


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


def test_labels_are_smoothed_before_they_are_blended(data):
    smoothing = {"target": "clip", "mode": "negative", "eps": 0.3}
    params = fit_params(loss__smoothing=smoothing)
    batch = next(BatchSource(data, params, 0, CPU, 1).epoch(0))
    learner, loss = build_learner(params, 0, 3, CPU), Loss(params.loss, torch.ones(3))
    seen = []

    def watched(model, image, targets, mixing):
        seen.append(targets)
        return MIXUP["input"](model, image, targets, mixing)

    train_step(learner, loss, batch, watched)
    torch.testing.assert_close(seen[0].clip, torch.where(batch.targets.clip > 0, 1.0, 0.1))
    assert torch.equal(seen[0].frame, batch.targets.frame)


def test_a_cropped_batch_is_trained_on_as_any_other(data):
    params = fit_params(augment__freq_crop=20, augment__freq_crop_p=1.0)
    assert next(BatchSource(data, params, 0, CPU, 1).epoch(0)).image.shape[2] == 20
    fitted = fit(params, 0, data, Execution(CPU))
    assert all(math.isfinite(row["loss"]) for row in fitted.history)


def test_a_training_on_labelled_cells_of_windows_learns_and_its_rate_follows_the_epochs(data):
    """Epochs have as many windows as happen to be labelled; the cosine runs in epochs all the same."""
    labeled = {
        "weight": 1.0,
        "positives": "mean",
        "negatives": "sum",
        "focal_gamma": 2.0,
        "class_weights": "none",
    }
    off = {f"loss__{name}__weight": 0.0 for name in ("attention", "max", "pseudo", "segment")}
    reports = []
    fitted = fit(
        fit_params(
            loss__labeled=labeled,
            **off,
            train__items="windows",
            train__epochs=6,
            sched__t_max=6,
            optim__lr=0.01,
        ),
        0,
        data,
        Execution(CPU, log=reports.append),
    )
    assert len({report.n_clips for report in reports}) > 1
    expected = [0.01 * 0.5 * (1 + math.cos(math.pi * epoch / 6)) for epoch in range(6)]
    assert [row["lr"] for row in fitted.history] == pytest.approx(expected)
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]
    assert fitted.history[-1]["labeled"] == fitted.history[-1]["loss"]

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from callboard.core.errors import UserError
from callboard.params.base import Params, load_params, read_tree, validate
from callboard.params.experiment import Experiment, load_experiment
from callboard.params.features import AudioParams, FeatureParams, FrontEndParams
from callboard.training.batches import BatchParams
from stages import evaluate
from tests.conftest import merge

ROOT = Path(__file__).parents[2]

Edit = Callable[[dict[str, Any]], Path]


@pytest.fixture
def edited(tmp_path: Path) -> Edit:
    """Writes params.yaml with some leaves changed."""

    def write(changes: dict[str, Any]) -> Path:
        tree = read_tree(ROOT / "tests/params.yaml")
        merge(tree, changes)
        path = tmp_path / "params.yaml"
        YAML().dump(tree, path)
        return path

    return write


PARTS = [f"{name}@0123456789abcdef" for name in ("one", "two")]

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"loss": {"negmask": "seq"}}, "loss.negmask: unknown parameter"),
    ({"extra": {"key": 1}}, "extra: unknown parameter"),
    ({"train": {"epochs": "abc"}}, "train.epochs: Input should be a valid integer, found 'abc'"),
    ({"train": {"epochs": 2.5}}, "train.epochs: .* found 2.5"),
    ({"train": {"epochs": True}}, "train.epochs: .* found True"),
    ({"seed": -1}, "seed: -1 must be at least 0"),
    ({"split": {"seed": -1}}, "split.seed: -1 must be at least 0"),
    ({"data": {"demo": {"seed": -1}}}, "data.demo.seed: -1 must be at least 0"),
    ({"split": {"seed": 2**32}}, "split.seed: 4294967296 must be .* at most 4294967295: numpy"),
    ({"optim": {"lr": float("inf")}}, "optim.lr: .* finite number, found inf"),
    ({"mixup": {"alpha": float("nan")}}, "mixup.alpha: .* finite number, found nan"),
    ({"evaluate": {"n_bootstrap": 1}}, "n_bootstrap 1 is too few for an interval"),
    ({"clip": {"n_frames": 100_000}}, "clip.n_frames 100000 is more than the 1250 frames"),
    ({"train": {"batch_size": 1}}, "train.batch_size: 1 must be at least 2"),
    ({"loss": {"neg_mask": "None"}}, "loss.neg_mask: .*'none', 'clip', 'seq' or 'unlabeled', found 'None'"),
    ({"loss": {"neg_mask": "seq", "segment": {"weight": 0.0}}}, "neg_mask seq acts on the segment term"),
    ({"loss": {"neg_mask": "clip", "attention": {"weight": 0.0}}}, "neg_mask clip acts on the BCE part"),
    (
        {"loss": {"attention": {"weight": 0.0}, "max": {"weight": 0.0}, "segment": {"weight": 0.0}}},
        "nothing would be learned",
    ),
    ({"features": {"f_max": 13000.0}}, "features.f_max 13000.0 Hz is above half of audio.sample_rate 24000"),
    ({"features": {"f_min": 12000.0}}, "f_min 12000.0 must be below f_max"),
    ({"features": {"hop_length": 2048}}, "hop_length 2048 must not exceed n_fft 1024"),
    (
        {"clip": {"offsets": [16, 300]}},
        r"offsets \[300\] put the event outside the clip of 256 frames",
    ),
    (
        {"predict": {"weights": "ema"}},
        "predict.weights ema needs averaged weights, but train.ema_decay is 0",
    ),
    (
        {"predict": {"weights": "swa"}},
        "predict.weights swa needs averaged weights, but train.swa_epochs is 0",
    ),
    ({"data": {"external": "somewhere"}}, "external 'somewhere' is set, but source demo makes its own"),
    (
        {"pseudo": {"rounds": 1, "source": "train_external"}},
        "labels external recordings, but there are none; set data.demo.n_external_recordings",
    ),
    ({"train": {"swa_epochs": 21}}, "swa_epochs 21 is more than the 20 epochs"),
    ({"infer": {"fold_weights": [1.0, 2.0]}}, "infer.fold_weights has length 2, but split.folds has 5"),
    (
        {"infer": {"fold_weights": [1.0] * 5, "fold_agg": "max"}},
        "fold_weights weigh a mean, but fold_agg is max",
    ),
    ({"infer": {"fold_weights": [0.0] * 5}}, "must not be all 0"),
    (
        {"infer": {"blend": PARTS, "blend_weights": [1.0]}},
        "blend_weights has length 1, but blend has 2 parts",
    ),
    (
        {"infer": {"blend": PARTS, "blend_weights": [0.0, 0.0]}},
        r"blend_weights \[0.0, 0.0\] must not be all 0",
    ),
    (
        {"infer": {"blend": PARTS, "blend_weights": [2.0, -1.0]}},
        r"infer.blend_weights: -1.0 must be at least 0",
    ),
    ({"infer": {"stack": True}}, "stack combines the parts of blend and finds their weights itself"),
    (
        {"infer": {"stack": True, "blend": PARTS, "blend_weights": [1.0, 1.0]}},
        "stack combines the parts of blend and finds their weights itself",
    ),
    ({"infer": {"blend": [*PARTS, PARTS[0]]}}, "blend .* names an experiment twice"),
    (
        {"split": {"folds": [0, 1]}, "pseudo": {"rounds": 1, "isolation": "nested"}},
        "nested with 1 round holds out 2 of the 2 folds, so none is left to train on",
    ),
    (
        {"split": {"folds": [0, 1, 2]}, "pseudo": {"rounds": 1, "isolation": "nested"}},
        r"pseudo\.held_out\.pairs \[0-1,0-2,0-3,.*,3-4\] must be all sets of 2 of the 3 folds of "
        r"split\.folds, as pseudo\.isolation nested needs each; set pseudo\.held_out\.pairs=\[0-1,0-2,1-2\]",
    ),
    (
        {"pseudo": {"rounds": 3, "isolation": "nested", "held_out": {"quadruples": ["0-1-2-3"] * 5}}},
        r"quadruples .* must be all sets of 4 of the 5 folds .*quadruples=\[0-1-2-3,0-1-2-4,",
    ),
    (
        {"pseudo": {"rounds": 1, "isolation": "nested", "source": "test", "min_votes": 5}},
        "min_votes 5 is more than the 5 folds without the 1 that pseudo.isolation nested holds out",
    ),
    (
        {
            "train": {"select": "best_loss"},
            "pseudo": {"rounds": 1, "isolation": "nested"},
        },
        "select best_loss follows validation, but pseudo.isolation nested .* on their student's fold too",
    ),
    (
        {"sched": {"name": "plateau"}, "pseudo": {"rounds": 1, "isolation": "nested"}},
        "sched.name plateau follows validation, but pseudo.isolation nested validates networks on their",
    ),
    (
        {"pseudo": {"head": "attention_max_frequency"}},
        "pseudo.head attention_max_frequency scores the frequency head, which loss.frequency.weight 0",
    ),
    ({"predict": {"overlap_frames": 256}}, "predict.overlap_frames 256 must be below clip.n_frames 256"),
    ({"augment": {"freq_mask": 65}}, "augment.freq_mask 65 is more than the 64 mel rows of a clip"),
    ({"train": {"select": "best", "validate_every": 0}}, "select best needs validate_every above 0"),
    ({"train": {"labeled_share": 0.5}}, "labeled_share acts on windows, but items is annotations"),
    ({"train": {"skip_unlabeled": False}}, "skip_unlabeled false .* items is annotations; leave it true"),
    (
        {"sched": {"name": "plateau"}, "train": {"validate_every": 0}},
        "sched.name plateau follows validation, but train.validate_every is 0",
    ),
    ({"split": {"folds": [0, 2]}}, r"folds must be \[0, 1\], found \[0, 2\]"),
    ({"split": {"folds": [0]}}, "split.folds: .* at least 2 items"),
    ({"data": {"source": "rfcx"}}, "source rfcx needs root"),
    ({"data": {"root": "somewhere"}}, "root 'somewhere' is set, but source demo makes its own recordings"),
    ({"pseudo": {"rounds": 4}}, "pseudo.rounds: 4 must be at least 0 and at most 3"),
    ({"pseudo": {"rounds": True}}, "pseudo.rounds: Input should be a valid integer, found True"),
    ({"pseudo": {"rounds": [1]}}, "pseudo.rounds: Input should be a valid integer"),
]


@pytest.mark.parametrize(
    ("changes", "message"), REFUSED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_wrong_parameters_are_refused_in_words(edited: Edit, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_experiment(edited(changes))


@pytest.mark.parametrize(
    "pseudo",
    [{"isolation": "nested"}, {"rounds": 1, "isolation": "recording"}],
    ids=["without students", "without nested networks"],
)
def test_a_network_that_is_validated_on_its_own_fold_may_follow_validation(
    edited: Edit, pseudo: dict[str, Any]
) -> None:
    load_experiment(edited({"train": {"select": "best"}, "sched": {"name": "plateau"}, "pseudo": pseudo}))


@pytest.mark.parametrize(
    "pseudo",
    [
        {"rounds": 1, "isolation": "recording"},
        {"isolation": "nested"},
        {"rounds": 1, "isolation": "nested", "held_out": {"pairs": ["1-2", "0-1", "0-2"]}},
    ],
    ids=["without nested networks", "without students", "listed"],
)
def test_three_folds_need_sets_of_their_own_for_nested_networks_only(
    edited: Edit, pseudo: dict[str, Any]
) -> None:
    load_experiment(edited({"split": {"folds": [0, 1, 2]}, "pseudo": pseudo}))


@pytest.mark.parametrize("sections", [evaluate.StageParams, BatchParams])
def test_a_stage_alone_refuses_a_negative_seed_too(edited: Edit, sections: type[Params]) -> None:
    with pytest.raises(UserError, match=r"seed: -1 must be at least 0"):
        load_params(sections, edited({"seed": -1}))


def test_all_problems_are_reported_together(edited: Edit) -> None:
    with pytest.raises(UserError) as refusal:
        load_experiment(edited({"seed": "x", "mixup": {"alpha": -1.0}, "train": {"epoch": 3}}))
    assert len(str(refusal.value).splitlines()) == 4
    for key in ("seed", "mixup.alpha", "train.epoch"):
        assert f"  {key}: " in str(refusal.value)


def test_what_is_left_out_holds_its_default(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("audio:\n  sample_rate: 48000\n")
    front_end = load_params(FrontEndParams, path)
    assert front_end.audio == AudioParams(sample_rate=48000)
    assert front_end.features == FeatureParams()


def test_a_file_that_says_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"loss: .* all have weight 0: nothing would be learned"):
        validate(Experiment, {}, "params.yaml")


def test_a_stage_does_not_mind_what_is_wrong_in_sections_of_others(edited: Edit) -> None:
    load_params(FrontEndParams, edited({"loss": {"negmask": "seq"}}))


def test_numbers_are_read_as_dvc_reads_them(edited: Edit, tmp_path: Path) -> None:
    path = tmp_path / "numbers.yaml"
    path.write_text("a: 1e-4\nb: off\nc: 010\n")
    assert read_tree(path) == {"a": 1e-4, "b": "off", "c": 10}


@pytest.mark.parametrize(
    ("text", "message"),
    [("- 1\n- 2\n", "expected a mapping of sections, found list"), ("a: [1\n", "not valid YAML")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_tree(path)


def test_rounds_written_as_a_list_are_read_as_their_number(edited: Edit) -> None:
    path = edited({"pseudo": {"rounds": [{"teacher": 0, "student": 1}], "final": 1}})
    assert load_experiment(path) == load_experiment(edited({"pseudo": {"rounds": 1}}))


def test_outside_a_workspace_one_is_told_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found; run from the root of the workspace"):
        read_tree(tmp_path / "params.yaml")


def test_parameters_cannot_be_changed_after_loading() -> None:
    experiment = load_experiment(ROOT / "tests/params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        experiment.train.epochs = 3  # type: ignore[misc]

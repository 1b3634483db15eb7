"""Score windows of whole recordings: training recordings out of fold, test recordings with all models."""

import argparse
from pathlib import Path

from callboard.core.console import Stopwatch, run_guarded, summarize
from callboard.core.files import replaced_folder
from callboard.data.folds import read_folds
from callboard.features.frame_cache import MelCache
from callboard.model.device import pick_device, use_threads
from callboard.params.base import load_params
from callboard.scoring.postprocessing import WITHOUT, predict_without_each, write_steps
from callboard.scoring.predict import ScoreParams, load_fold_models, score_out_of_fold, score_recordings
from callboard.scoring.window_scores import WindowScores


class StageParams(ScoreParams):
    """The sections that `predict` reads."""


def main(argv: list[str] | None = None) -> None:
    """Read models and mel caches; write window scores, and those without each active step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="folder with the files fold<k>.pt")
    parser.add_argument("--mel", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--scores", type=Path, required=True, help="folder for oof.npz and test.npz")
    args = parser.parse_args(argv)
    params = load_params(StageParams)

    stopwatch = Stopwatch()
    use_threads(1)
    steps = dict(predict_without_each(params.predict))
    with replaced_folder(args.scores) as draft:
        oof, test = write_scores(draft, args, params)
        for step, predict in steps.items():
            write_scores(draft / WITHOUT / step, args, params.model_copy(update={"predict": predict}))
        write_steps(list(steps), draft / WITHOUT)
    n_forward = len(oof.recording) + len(test.recording) * test.n_models
    summarize(
        "predict",
        f"{len(oof.recording_ids)} training recordings out of fold",
        f"{len(test.recording_ids)} test recordings by {test.n_models} models on {pick_device()}",
        *(f"again without {step}" for step in steps),
        f"{stopwatch.elapsed_s:.1f} s",
        f"{n_forward * (1 + len(steps)) / stopwatch.elapsed_s:.0f} windows/s",
    )


def write_scores(
    folder: Path, args: argparse.Namespace, params: StageParams
) -> tuple[WindowScores, WindowScores]:
    """Score the training and test set, and write `oof.npz` and `test.npz` in `folder`."""
    device, folds = pick_device(), read_folds(args.folds)
    train, test = (MelCache.open(args.mel / name) for name in ("train", "test"))
    names = folds["fold"].unique().tolist()
    models = load_fold_models(args.models, names, device, params.predict.weights)
    folder.mkdir(parents=True, exist_ok=True)
    of_training = score_out_of_fold(models, train, folds, params, device)
    of_training.save(folder / "oof.npz")
    of_test = score_recordings(models, test, test.recording_ids, params, device)
    of_test.save(folder / "test.npz")
    return of_training, of_test


if __name__ == "__main__":
    run_guarded(main)

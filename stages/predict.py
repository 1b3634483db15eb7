"""Score windows of whole recordings: training recordings out of fold, test recordings with all models."""

import argparse
from pathlib import Path

from callboard.core.code_fingerprint import code_fingerprint
from callboard.core.console import Stopwatch, counted, run_guarded, summarize
from callboard.core.files import replaced_folder
from callboard.core.parts import add_shard_option, parts_folder
from callboard.data.folds import read_folds
from callboard.features.frame_cache import MelCache
from callboard.model.device import pick_device, use_threads
from callboard.model.weights import LoadedModel
from callboard.params.base import load_params
from callboard.scoring.parts import ScoreParams, ScorePart, plan_parts
from callboard.scoring.postprocessing import WITHOUT, predict_without_each, write_steps
from callboard.scoring.predict import load_fold_models, plan_out_of_fold
from callboard.scoring.score_files import ScoreFiles
from callboard.scoring.window_scores import WindowScores, join_scores


class StageParams(ScoreParams):
    """The sections that `predict` reads."""


def main(argv: list[str] | None = None) -> None:
    """Read models and mel caches; write window scores, and those without each active step.

    Parts that a killed run or a shard has finished are taken, not scored again.
    """
    args = _parse(argv)
    params = load_params(StageParams)

    stopwatch, device = Stopwatch(), pick_device()
    use_threads(1)
    steps = dict(predict_without_each(params.predict))
    without = {step: params.model_copy(update={"predict": predict}) for step, predict in steps.items()}
    code = code_fingerprint(Path(__file__).resolve().parent.parent, "stages.predict")
    files = ScoreFiles(parts_folder("predict"), args.models, code)
    if args.shard:
        for each in (params, *without.values()):
            parts, test_parts = plan(args, each)
            files.complete(args.shard.of([*parts, *test_parts]), each, device)
        made = f"{files.n_made} of {counted(len(files.used), 'part')} made on {device}"
        summarize("predict", f"shard {args.shard}", made, f"{stopwatch.elapsed_s:.1f} s")
        return
    with replaced_folder(args.scores) as draft:
        oof, test = write_scores(draft, args, params, files)
        for step, each in without.items():
            write_scores(draft / WITHOUT / step, args, each, files)
        write_steps(list(steps), draft / WITHOUT)
    files.remove()
    n_forward = len(oof.recording) + len(test.recording) * test.n_models
    summarize(
        "predict",
        f"{len(oof.recording_ids)} training recordings out of fold",
        f"{len(test.recording_ids)} test recordings by {test.n_models} models on {device}",
        *(f"again without {step}" for step in steps),
        f"{stopwatch.elapsed_s:.1f} s",
        f"{n_forward * (1 + len(steps)) / stopwatch.elapsed_s:.0f} windows/s",
    )


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="folder with the files fold<k>.pt")
    parser.add_argument("--mel", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--scores", type=Path, required=True, help="folder for oof.npz and test.npz")
    add_shard_option(parser)
    return parser.parse_args(argv)


def plan(
    args: argparse.Namespace, params: StageParams
) -> tuple[list[ScorePart[LoadedModel]], list[ScorePart[LoadedModel]]]:
    """Plan the parts of the training set, out of fold, and those of the test set."""
    folds = read_folds(args.folds)
    train, test = (MelCache.open(args.mel / name) for name in ("train", "test"))
    names = folds["fold"].unique().tolist()
    models = load_fold_models(args.models, names, pick_device(), params.predict.weights)
    of_training = plan_out_of_fold(models, train, folds, params)
    return of_training, plan_parts(models, test, test.recording_ids, params)


def write_scores(
    folder: Path, args: argparse.Namespace, params: StageParams, files: ScoreFiles
) -> tuple[WindowScores, WindowScores]:
    """Score the training and test set, and write `oof.npz` and `test.npz` in `folder`."""
    parts, test_parts = plan(args, params)
    scores = files.complete([*parts, *test_parts], params, pick_device())
    folder.mkdir(parents=True, exist_ok=True)
    of_training = join_scores(scores[: len(parts)])
    of_training.save(folder / "oof.npz")
    of_test = join_scores(scores[len(parts) :])
    of_test.save(folder / "test.npz")
    return of_training, of_test


if __name__ == "__main__":
    run_guarded(main)

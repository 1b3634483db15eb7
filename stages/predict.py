"""Score the windows of whole recordings: training ones out of fold, test ones by the models of all folds."""

import argparse
from pathlib import Path

from callboard.device import pick_device
from callboard.folds import read_folds
from callboard.mel_cache import MelCache
from callboard.params.base import load_params
from callboard.predict import ScoreParams, load_fold_models, score_out_of_fold, score_recordings
from callboard.terminal import Stopwatch, run, summarize


class StageParams(ScoreParams):
    """What `predict` reads of params.yaml."""


def main(argv: list[str] | None = None) -> None:
    """Read models and mel caches, write window scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="folder with fold<k>.pt")
    parser.add_argument("--mel", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--scores", type=Path, required=True, help="folder for oof.npz and test.npz")
    args = parser.parse_args(argv)
    params = load_params(StageParams)

    stopwatch = Stopwatch()
    device = pick_device()
    folds = read_folds(args.folds)
    names = folds["fold"].unique().tolist()
    models = load_fold_models(args.models, names, device, params.predict.weights)
    oof = score_out_of_fold(models, MelCache.open(args.mel / "train"), folds, params, device)
    oof.save(args.scores / "oof.npz")
    test_cache = MelCache.open(args.mel / "test")
    test = score_recordings(models, test_cache, test_cache.recording_ids, params, device)
    test.save(args.scores / "test.npz")
    n_forward = len(oof.recording) + len(test.recording) * len(models)
    summarize(
        "predict",
        f"{len(oof.recording_ids)} training recordings out of fold",
        f"{len(test.recording_ids)} test recordings by {len(models)} models on {device}",
        f"{stopwatch.elapsed_s:.1f} s",
        f"{n_forward / stopwatch.elapsed_s:.0f} windows/s",
    )


if __name__ == "__main__":
    run(main)

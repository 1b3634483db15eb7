"""Train the network of one fold."""

import argparse
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from callboard.core.code_fingerprint import code_fingerprint
from callboard.core.console import Stopwatch, progress, run_guarded, summarize
from callboard.core.threads import n_workers
from callboard.data.annotations import read_species
from callboard.data.clips import labels_for, read_clips
from callboard.data.folds import read_folds
from callboard.features.frame_cache import open_training_cache
from callboard.model.class_axis import CLASSES
from callboard.model.device import describe_device, keep_freed_memory, pick_device, use_threads
from callboard.model.weights import WeightsParams, save_model
from callboard.params.base import load_params
from callboard.params.training import ClipParams
from callboard.training.checkpoint import checkpoint_for
from callboard.training.curve import write_curve
from callboard.training.fit import EpochReport, Execution, FitParams, Fitted, fit
from callboard.training.fold_data import select_fold
from callboard.training.progress import ProgressWriter
from callboard.training.start_weights import find_fold_weights


class TrainStageParams(FitParams):
    """The sections that `train` reads."""


def main(argv: list[str] | None = None) -> None:
    """Train a fold's network, or resume where a killed run stopped; write its weights and learning curve.

    Training can start from a different experiment's weights of the same fold. A check ensures that they have
    not seen the recordings that this fold holds out, so the CV of a chain is as valid as that of its links.
    """
    args = _parse(argv)
    stopwatch = Stopwatch()
    params = load_params(TrainStageParams)
    device = pick_device()
    use_threads(params.train.threads)
    keep_freed_memory()
    species = read_species(args.species)
    clips, tables = read_clips(args.clips), [args.clips]
    if args.pseudo:
        clips = pd.concat([clips, labels_for(read_clips(args.pseudo), str(args.fold))])
        tables.append(args.pseudo)
    folds = read_folds(args.folds)
    axis = CLASSES[params.train.classes](clips, species)
    cache = open_training_cache(args.mel, args.mel_others, clips)
    held_out = folds.loc[folds["fold"] == args.fold, "recording_id"]
    reference = params.train.init_from
    start = find_fold_weights(reference, args.fold, axis, set(held_out)) if reference else None
    data = select_fold(cache, clips, folds, args.fold, axis, params.train.labels)
    indices = [part.folder / "index.csv" for part in cache.caches]
    code = code_fingerprint(Path(__file__).resolve().parent.parent, "stages.train")
    inputs = [*tables, args.folds, args.species, *indices, code]
    checkpoint = checkpoint_for(params, inputs, args.fold)
    reports: list[EpochReport] = []

    def loss() -> str:
        return f"loss {reports[-1].row['loss']:.3f}" if reports else ""

    def follow(epochs: range) -> Iterable[int]:
        return progress(epochs, total=len(epochs), label=f"train fold {args.fold}", unit="epochs", note=loss)

    shown = ProgressWriter(checkpoint.path, args.curve.stem, params.train.epochs)
    execution = Execution(device, n_workers(), checkpoint, follow, reports.append, shown.write)
    fitted = fit(params, args.fold, data, execution, start)

    weights_params = WeightsParams(model=params.model, clip=params.clip)
    save_model(args.weights, fitted.model, weights_params, axis, args.fold, held_out, fitted.averages)
    write_curve(fitted.history, fitted.computes, args.curve)
    checkpoint.remove()
    summarize(
        "train",
        f"fold {args.fold}",
        f"{len(fitted.history)} epochs{_clips_per_epoch(reports)} on {describe_device(device)}",
        *([f"from {reference}"] if reference else []),
        *_cut_boxes(clips, params.clip),
        *_progress_facts(fitted, reports),
        f"{stopwatch.elapsed_s:.1f} s{_speed(reports)}",
    )


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fold", type=int, required=True)
    for name in ("--mel", "--clips", "--folds", "--species", "--weights", "--curve"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--pseudo", type=Path, help="pseudo-labels that the network learns from")
    parser.add_argument(
        "--mel-others",
        type=Path,
        nargs="*",
        default=[],
        help="caches of other sets that have pseudo-labels",
    )
    return parser.parse_args(argv)


def _cut_boxes(clips: pd.DataFrame, clip: ClipParams) -> Iterator[str]:
    """Yield the share of annotators' boxes that are longer than a clip, if any is."""
    boxes = clips[clips["label_type"] != "pseudo"]
    n_cut = int((boxes["stop_frame"] - boxes["start_frame"] > clip.n_frames).sum())
    if n_cut and clip.mode == "event":
        yield f"{n_cut} of {len(boxes)} boxes ({n_cut / len(boxes):.1%}) longer than clip.n_frames"


def _progress_facts(fitted: Fitted, reports: list[EpochReport]) -> Iterator[str]:
    n_before = len(fitted.history) - len(reports)
    if n_before:
        yield f"resumed after epoch {n_before}"
    last = fitted.history[-1]
    yield f"loss {last['loss']:.3f}"
    if last["val_lwlrap"] is not None and not math.isnan(last["val_lwlrap"]):
        yield f"LWLRAP {last['val_lwlrap']:.3f}"


def _clips_per_epoch(reports: list[EpochReport]) -> str:
    """Return the mean over this run's epochs, which differ because windows of FP recordings are redrawn."""
    return f" of {np.mean([report.n_clips for report in reports]):.0f} clips" if reports else ""


def _speed(reports: list[EpochReport]) -> str:
    """Return clips per second and the share of time spent waiting for data, over the epochs of this run."""
    duration_s = sum(report.duration_s for report in reports)
    if not duration_s:
        return ""
    clips_per_s = sum(report.n_clips for report in reports) / duration_s
    waiting = sum(report.wait_s for report in reports) / duration_s
    return f" ({clips_per_s:.0f} clips/s, data wait {waiting:.0%})"


if __name__ == "__main__":
    run_guarded(main)

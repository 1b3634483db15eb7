"""Measure whether detections above the thresholds have the precision that was asked for, on the soundscapes.

    for seed in 1 2 3 4 5 6 7 8 9 10; do
      callboard run exp0051 --seed $seed -S data.demo.seed=$((3000 + seed))
      python benchmarks/thresholds.py collect exp0051-seed$seed .cache/thresholds
    done
    python benchmarks/thresholds.py measure .cache/thresholds

The hidden truth is every call with its time. `collect` scores 600 new recordings of the same world and
conditions as the training recordings, and 600 of the conditions of the test set: fainter calls of a different
dialect, other noise. A window has a species if a call of it touches the window. `measure` chooses thresholds
from boxes as `callboard thresholds` does, and in two naive ways; and from the verdicts of a reviewer who is
never wrong, on 20, 30 or 50 windows of each species, evenly over bands of scores.
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from callboard.analysis.review.sampling import BAND_WIDTH
from callboard.analysis.suspects.review import TRUTH, read_calls
from callboard.analysis.thresholds.choice import choose_thresholds
from callboard.analysis.thresholds.evidence import SpeciesEvidence, box_evidence, read_out_of_fold
from callboard.analysis.thresholds.precision import JudgedCells, count_windows
from callboard.data.archive import list_archive, plan_shards
from callboard.data.clips import read_clips
from callboard.data.soundscapes.writer import make_soundscapes
from callboard.model.device import pick_device, use_threads
from callboard.params.base import validate
from callboard.params.data import DataParams
from callboard.results.dvc_cache import cached_in_folder
from callboard.results.lookup import find_result
from callboard.results.result import CLIPS, SOURCE, Result
from callboard.scoring.detections import StoredPredictions, merge_windows
from callboard.scoring.detector import Detector
from callboard.scoring.predictions import Predictions
from callboard.scoring.result_detector import load_detector
from callboard.scoring.set_scores import WINDOW_TABLE

N_NEW = 600
FLOOR = 0.1
N_VERDICTS = (20, 30, 50)
SETS = {"new": "train", "elsewhere": "external"}
"""New recordings, of the conditions of training and of test recordings, and their part of the soundscapes."""


# collect


def collect(name: str, folder: Path) -> None:
    """Write the boxes of a result, and all windows of training and new recordings with score and truth."""
    result, device = find_result(name), pick_device()
    use_threads(1)
    detector = load_detector(result, device)
    folder.mkdir(parents=True, exist_ok=True)
    boxes = [
        pd.DataFrame(asdict(one.cells)).assign(species=species)
        for species, one in box_evidence(result, detector).items()
    ]
    pd.concat(boxes).to_parquet(folder / f"{name}-boxes.parquet")
    calls = read_calls(cached_in_folder(result.output(SOURCE), TRUTH, SOURCE))
    with_truth(training_windows(result, detector), calls).to_parquet(folder / f"{name}-training.parquet")
    with TemporaryDirectory() as scratch:
        make_new(result, Path(scratch))
        for part, subset in SETS.items():
            windows = predicted(detector, Path(scratch) / subset, Path(scratch) / f"predictions-{subset}")
            calls = read_calls(Path(scratch) / f"hidden/{subset}_labels.csv")
            with_truth(windows, calls).to_parquet(folder / f"{name}-{part}.parquet")


def training_windows(result: Result, detector: Detector) -> pd.DataFrame:
    """Return the out-of-fold scores of all windows, in the form of those of new recordings."""
    evidence = read_out_of_fold(result, detector, read_clips(result.output(CLIPS)))
    recording = np.repeat(evidence.recording_ids, np.diff(evidence.window_bounds))
    start_s = evidence.start_frame / evidence.frames_per_s
    times = {"start_s": start_s, "end_s": start_s + evidence.clip_frames / evidence.frames_per_s}
    scores = dict(zip(evidence.species, evidence.probability.T, strict=True))
    return pd.concat(
        pd.DataFrame({"recording": recording, **times, "species": name, "score": score})
        for name, score in scores.items()
    )


def make_new(result: Result, folder: Path) -> None:
    """Write new recordings of the result's world: those of its own training set are made and removed."""
    data = validate(DataParams, result.sections("data")["data"], result.name)
    more = {"n_fp_recordings": data.demo.n_fp_recordings + N_NEW, "n_external_recordings": N_NEW}
    make_soundscapes(data.demo.model_copy(update=more), int(result.params["audio.sample_rate"]), folder)
    with result.folder(SOURCE, "train/") as own:
        for path in (own / "train").iterdir():
            (folder / "train" / path.name).unlink()


def predicted(detector: Detector, recordings: Path, output: Path) -> pd.DataFrame:
    """Score a folder, and return the scores of all of its windows; recordings without suffix."""
    predictions = Predictions(output, detector, 0.0)
    for shard in plan_shards(predictions.missing(list_archive([recordings]))):
        predictions.make(shard)
    stored = StoredPredictions.open(output)
    windows = pd.concat([stored.table(WINDOW_TABLE, shard) for shard in stored.shards])
    return windows.assign(recording=windows["recording"].str.removesuffix(".flac"))


def with_truth(windows: pd.DataFrame, calls: pd.DataFrame) -> pd.DataFrame:
    """Add whether a call of the species touches the window."""
    windows = windows.reset_index(drop=True)
    calls = calls.rename(columns={"recording_id": "recording", "species_id": "species"})
    pairs = windows.reset_index(names="row").merge(calls, on=["recording", "species"])
    touching = pairs[(pairs["start_s"] < pairs["t_max"]) & (pairs["end_s"] > pairs["t_min"])]
    columns = ["recording", "start_s", "end_s", "species", "score", "is_present"]
    return windows.assign(is_present=windows.index.isin(touching["row"]))[columns]


# measure


def measure(folder: Path, precision: float) -> None:
    """Print how many species have a threshold, and how many of these the precision."""
    results = sorted(folder.glob("*-boxes.parquet"))
    found = pd.DataFrame([row for path in results for row in rows_of(path, precision)])
    found.to_csv(folder / f"measured-{precision:g}.csv", index=False)
    has_any = found["precision"].notna()
    for name, measured in (("is_kept", "precision"), ("merged_kept", "precision_merged")):
        found[name] = (found[measured] >= precision).astype(float).where(has_any)
    grouped = found.groupby(["method", "measured_on"], sort=False)
    print(summary(grouped).to_string(index=False))
    for (method, measured_on), rows in grouped:
        by_seed = rows.groupby("result", sort=False)["is_kept"]
        texts = [f"{int(one.sum())}/{int(one.count())}" for _, one in by_seed]
        print(f"{method} on {measured_on}, by result: {' '.join(texts)}")


def summary(grouped: "pd.core.groupby.DataFrameGroupBy") -> pd.DataFrame:
    """Count the species: all, with a threshold, of which with a detection, of which with the precision."""
    return (
        grouped.agg(
            species=("species", "size"),
            reached=("threshold", "count"),
            detected=("is_kept", "count"),
            kept=("is_kept", "sum"),
            merged_kept=("merged_kept", "sum"),
            precision=("precision", "mean"),
            estimate=("estimate", "mean"),
            recall=("recall", "mean"),
            estimated_recall=("estimated_recall", "mean"),
        )
        .assign(share_kept=lambda table: table["kept"] / table["detected"])
        .round(3)
        .reset_index()
    )


def rows_of(path: Path, precision: float) -> Iterator[dict[str, object]]:
    """Yield the outcome of each method and species of one result, on each set where it can be measured."""
    name = path.name.removesuffix("-boxes.parquet")
    boxes = pd.read_parquet(path)
    sets = {part: pd.read_parquet(path.with_name(f"{name}-{part}.parquet")) for part in ("training", *SETS)}
    for species, own in boxes.groupby("species"):
        windows = {part: table[table["species"] == species] for part, table in sets.items()}
        for method, judged, measured_on in judgements(own, windows):
            (chosen,) = choose_thresholds({str(species): judged}, precision)
            for part in measured_on:
                yield {
                    "result": name,
                    "species": species,
                    "method": method,
                    "measured_on": part,
                    "threshold": chosen.threshold,
                    **outcome(chosen.threshold, windows[part], judged.floor),
                    "estimate": np.nan if chosen.place is None else chosen.curve.precision[chosen.place],
                    "estimated_recall": np.nan if chosen.place is None else chosen.curve.recall[chosen.place],
                }


def judgements(
    boxes: pd.DataFrame, windows: dict[str, pd.DataFrame]
) -> Iterator[tuple[str, SpeciesEvidence, list[str]]]:
    """Yield each method with what it knows of a species, and the sets on which to measure it."""
    cells = cells_of(boxes, boxes["unit"])
    every = count_windows(windows["training"]["score"].to_numpy())
    yield "boxes", SpeciesEvidence("boxes", cells, every), ["training", *SETS]
    for name, counts in (("mean of boxes", count_windows(cells.score)), ("boxes as verdicts", every)):
        yield f"naive: {name}", SpeciesEvidence("verdicts", cells, counts), ["training", *SETS]
    for part in SETS:
        kept = windows[part][windows[part]["score"] >= FLOOR]
        counts = count_windows(kept["score"].to_numpy())
        for n in N_VERDICTS:
            sample = reviewed(kept, n)
            judged = cells_of(sample, sample["recording"])
            yield f"{n} verdicts", SpeciesEvidence("verdicts", judged, counts, FLOOR), [part]


def reviewed(windows: pd.DataFrame, n_windows: int) -> pd.DataFrame:
    """Draw windows evenly over bands of scores, at random in each, as `callboard review` does."""
    order = windows.sample(frac=1, random_state=0)
    turn = order.groupby((order["score"] / BAND_WIDTH).astype(int)).cumcount()
    return order.iloc[np.argsort(turn.to_numpy(), kind="stable")[:n_windows]]


def cells_of(table: pd.DataFrame, unit: pd.Series) -> JudgedCells:
    """Return the judged cells in a table with score and is_present."""
    return JudgedCells(table["score"].to_numpy(), table["is_present"].to_numpy(bool), unit.to_numpy(str))


def outcome(threshold: float | None, windows: pd.DataFrame, floor: float) -> dict[str, float]:
    """Return precision and recall of the windows from a threshold on, and the precision of merged detections.

    Recall is among the windows from the floor on. A detection is right if one of its windows is.
    """
    if threshold is None:
        return {"precision": np.nan, "recall": np.nan, "precision_merged": np.nan}
    reaching = windows[windows["score"] >= threshold]
    merged = merge_windows(reaching.assign(score=reaching["is_present"].astype(float)))["score"]
    n_present = windows["is_present"][windows["score"] >= floor].sum()
    return {
        "precision": float(reaching["is_present"].mean()) if len(reaching) else np.nan,
        "recall": float(reaching["is_present"].sum() / max(n_present, 1)),
        "precision_merged": float(merged.mean()) if len(merged) else np.nan,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True)
    collecting = commands.add_parser("collect", help="score new recordings; keep all scores and the truth")
    collecting.add_argument("name", help="a result of the soundscapes")
    collecting.add_argument("folder", type=Path)
    collecting.set_defaults(run=lambda args: collect(args.name, args.folder))
    measuring = commands.add_parser("measure", help="choose thresholds, and compare them with the truth")
    measuring.add_argument("folder", type=Path)
    measuring.add_argument("--precision", type=float, default=0.9, help="default %(default)s")
    measuring.set_defaults(run=lambda args: measure(args.folder, args.precision))
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()

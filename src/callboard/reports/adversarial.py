"""Report of adversarial validation: a printed summary, tables, and a picture."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from callboard.analysis.adversarial.pieces import PIECE_S, Pieces, mel_bands, read_pieces
from callboard.analysis.adversarial.validation import Comparison, Settings, compare_sets
from callboard.core.console import Stopwatch, summarize
from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.data.annotations import without_formulas
from callboard.features.frame_cache import MelCache
from callboard.features.log_mel import mel_centres
from callboard.params.base import load_params
from callboard.params.features import FeatureParams, FrontEndParams
from callboard.scoring.metrics import COVERAGE

N_BANDS_SHOWN = 3
"""Number of bands, and of recordings of either set, in the printed summary."""
TABLE_DIGITS = 4
"""Decimals in the tables; further ones depend on the order of additions, which differs between machines."""
TRAIN_COLOUR, TEST_COLOUR = "#3b6ea5", "#d1752b"


def write_adversarial_report(mel: Path, output: Path, settings: Settings) -> None:
    """Compare the two caches in `mel`, print the summary, write tables and picture to `output`.

    Raises:
        UserError: the caches are missing or do not match params.yaml, hold embeddings, or have too few
            recordings.
    """
    watch = Stopwatch()
    front_end = load_params(FrontEndParams)
    if front_end.features.kind != "log_mel":
        raise UserError(
            f"features.kind is {front_end.features.kind}; only log_mel has rows with levels to compare"
        )
    train, test = (open_cache(mel / subset, front_end.features) for subset in ("train", "test"))
    piece_frames = max(1, round(PIECE_S * front_end.frames_per_s))
    pieces = read_pieces(train, test, piece_frames, settings.in_decibels)
    bands = mel_bands(pieces.n_mels)
    comparison = compare_sets(pieces, bands, settings)

    summary = summary_of(comparison, pieces, settings)
    recordings = recording_table(comparison, pieces)
    band_rows = band_table(comparison, pieces, bands, front_end.features)
    write_comparison(output, summary, recordings, band_rows)
    draw(output / "adversarial.png", summary, recordings, band_rows)
    print_summary(summary, recordings, band_rows, watch.elapsed_s)
    print(f"  {output}: summary.json, recordings.csv, bands.csv, adversarial.png")


def open_cache(folder: Path, features: FeatureParams) -> MelCache:
    """Open the cache in `folder`.

    Raises:
        UserError: it is missing, or its number of mel rows is not that of `features`.
    """
    if not (folder / "index.csv").exists():
        raise UserError(f"{folder}: no log-mel cache; run `dvc repro crop` first")
    cache = MelCache.open(folder)
    if cache.n_mels != features.n_mels:
        raise UserError(
            f"{folder}: {cache.n_mels} mel rows, but features.n_mels is {features.n_mels}; "
            "run `dvc repro crop` first"
        )
    return cache


def summary_of(comparison: Comparison, pieces: Pieces, settings: Settings) -> dict[str, Any]:
    """Return the numbers of `summary.json`; `null_…` compares random halves of the training set."""
    null = comparison.null_auc[:, 0]
    low, high = comparison.interval
    numbers = {
        "auc": comparison.auc[0],
        "auc_sd": comparison.fold_auc.std(),
        "auc_low": low,
        "auc_high": high,
        "null_auc": null.mean(),
        "null_auc_sd": null.std(),
        "null_auc_min": null.min(),
        "null_auc_max": null.max(),
    }
    n_test = int(np.count_nonzero(pieces.is_test))
    return {
        **{name: round(float(value), TABLE_DIGITS) for name, value in numbers.items()},
        "is_told_apart": comparison.is_told_apart,
        "n_train": len(pieces.is_test) - n_test,
        "n_test": n_test,
        "n_pieces": len(pieces.recording),
        "n_halvings": len(null),
        **asdict(settings),
    }


def recording_table(comparison: Comparison, pieces: Pieces) -> pd.DataFrame:
    """Build the table of recording_id, subset and score (log odds of "test", out of fold), highest first."""
    table = pd.DataFrame(
        {
            "recording_id": pieces.recording_ids,
            "subset": np.where(pieces.is_test, "test", "train"),
            "score": comparison.score.round(TABLE_DIGITS),
        }
    )
    return table.sort_values(["score", "recording_id"], ascending=[False, True], ignore_index=True)


def band_table(
    comparison: Comparison, pieces: Pieces, bands: list[slice], features: FeatureParams
) -> pd.DataFrame:
    """Build a table with a row per band, the lowest first.

    Columns: f_low_hz and f_high_hz, half-way to the neighbouring bands' rows; auc of the band alone;
    null_auc_max, its highest on halves of the training set; level_train and level_test, mean over pieces, in
    0 … 1 or dB.
    """
    centres = mel_centres(features)
    edges = np.array([features.f_min, *(centres[:-1] + centres[1:]) / 2, features.f_max])
    is_test = pieces.is_test[pieces.recording]
    means = pieces.statistics[:, :, 0]
    table = pd.DataFrame(
        {
            "f_low_hz": [edges[band.start] for band in bands],
            "f_high_hz": [edges[band.stop] for band in bands],
            "auc": comparison.auc[1:],
            "null_auc_max": comparison.null_auc[:, 1:].max(axis=0),
            "level_train": [means[~is_test, band].mean(dtype=np.float64) for band in bands],
            "level_test": [means[is_test, band].mean(dtype=np.float64) for band in bands],
        }
    )
    return table.round(TABLE_DIGITS).round({"f_low_hz": 0, "f_high_hz": 0})


def write_comparison(
    output: Path, summary: dict[str, Any], recordings: pd.DataFrame, bands: pd.DataFrame
) -> None:
    """Write `summary.json`, `recordings.csv` and `bands.csv`, each whole or not at all."""
    with written_whole(output / "summary.json") as unfinished:
        unfinished.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    for name, table in (("recordings.csv", recordings), ("bands.csv", bands)):
        with written_whole(output / name) as unfinished:
            without_formulas(table).to_csv(unfinished, index=False)


def print_summary(
    summary: dict[str, Any], recordings: pd.DataFrame, bands: pd.DataFrame, elapsed_s: float
) -> None:
    """Print a few lines; bands and recordings only if there is a difference to explain."""
    summarize(
        "adversarial",
        f"{summary['n_train']} train and {summary['n_test']} test recordings",
        f"AUC {summary['auc']:.3f} ± {summary['auc_sd']:.3f} over folds",
        f"{COVERAGE:.0%} interval {summary['auc_low']:.3f} … {summary['auc_high']:.3f}",
        f"{elapsed_s:.1f} s",
    )
    print(
        f"  train halves against each other: {summary['null_auc']:.3f} ± {summary['null_auc_sd']:.3f}, "
        f"{summary['null_auc_min']:.3f} … {summary['null_auc_max']:.3f} in {summary['n_halvings']} halvings"
    )
    if not summary["is_told_apart"]:
        print("  test differs from train no more than halves of train differ from each other")
        return
    print("  test differs from train more than any two halves of train differ from each other")
    print(f"  bands that differ most {_band_texts(bands, summary['in_decibels'])}")
    for subset, words in (
        ("train", "train recordings most like test"),
        ("test", "test recordings least like train"),
    ):
        named = [
            f"{row.recording_id} ({row.score:+.1f})"
            for row in recordings[recordings["subset"] == subset].head(N_BANDS_SHOWN).itertuples()
        ]
        print(f"  {words}: {', '.join(named)}")


def _band_texts(bands: pd.DataFrame, in_decibels: bool) -> str:
    scale, form, unit = (1, "+.1f", "dB") if in_decibels else (100, "+.0f", "% of the image's range")
    best = bands.sort_values("auc", ascending=False, kind="stable").head(N_BANDS_SHOWN)
    texts = [
        f"{band['f_low_hz']:.0f}–{band['f_high_hz']:.0f} Hz "
        f"({band['auc']:.2f}; {scale * (band['level_test'] - band['level_train']):{form}})"
        for band in best.to_dict("records")
    ]
    return f"(AUC of the band alone; level in test minus train, {unit}): {', '.join(texts)}"


def draw(path: Path, summary: dict[str, Any], recordings: pd.DataFrame, bands: pd.DataFrame) -> None:
    """Draw the scores of the two sets, and the AUC of each band, side by side in a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    figure.suptitle(
        f"train against test: AUC {summary['auc']:.3f} ± {summary['auc_sd']:.3f};  "
        f"halves of train: {summary['null_auc']:.3f} ± {summary['null_auc_sd']:.3f}"
    )
    scores, by_band = figure.subplots(1, 2)
    _draw_scores(scores, recordings)
    _draw_bands(by_band, bands, summary["n_halvings"])
    for axes in (scores, by_band):
        axes.spines[["top", "right"]].set_visible(False)
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=120, metadata={"Software": None})


def _draw_scores(axes: Any, recordings: pd.DataFrame) -> None:
    bins = np.histogram_bin_edges(recordings["score"], bins=30)
    for subset, colour in (("train", TRAIN_COLOUR), ("test", TEST_COLOUR)):
        chosen = recordings.loc[recordings["subset"] == subset, "score"]
        label = f"{subset}, {len(chosen)} recordings"
        axes.hist(
            chosen,
            bins,
            weights=np.full(len(chosen), 100 / len(chosen)),
            color=colour,
            alpha=0.6,
            label=label,
        )
    axes.margins(y=0.25)  # room for the legend
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlabel("score, log odds of “test”, out of fold")
    axes.set_ylabel("recordings of the set, %")
    axes.legend(frameon=False)


def _draw_bands(axes: Any, bands: pd.DataFrame, n_halvings: int) -> None:
    """Draw a bar for each band, from AUC ½, all equally wide: bands are equal on the mel scale."""
    places = np.arange(len(bands))
    is_louder = bands["level_test"] > bands["level_train"]
    for chosen, colour, label in (
        (is_louder, TEST_COLOUR, "louder in test"),
        (~is_louder, TRAIN_COLOUR, "fainter in test"),
    ):
        axes.bar(places[chosen], bands.loc[chosen, "auc"] - 0.5, bottom=0.5, color=colour, label=label)
    edges = np.append(places - 0.5, len(bands) - 0.5)
    axes.stairs(
        bands["null_auc_max"],
        edges,
        baseline=None,
        color="black",
        label=f"halves of train, highest of {n_halvings}",
    )
    edges_hz = [*bands["f_low_hz"], bands["f_high_hz"].iloc[-1]]
    shown = slice(None, None, 2)
    axes.set_xticks(edges[shown], [f"{hz / 1000:.3g}" for hz in edges_hz[shown]])
    lowest = min(0.5, bands["auc"].min(), bands["null_auc_max"].min())
    axes.set_ylim(lowest, 1.15)
    axes.set_yticks(np.arange(0.5, 1.01, 0.1))
    axes.set_xlabel("band, kHz")
    axes.set_ylabel("AUC of the band alone")
    axes.legend(frameon=False)

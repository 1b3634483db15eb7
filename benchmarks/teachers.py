"""Measure how often a teacher is right: its probability in a window, and whether the species calls there.

    cd WORKSPACE && PYTHONPATH=.../src python .../benchmarks/teachers.py stage1 stage2 birdnet-stage2

Uses out-of-fold scores of round 0 on the soundscapes, whose calls are all known. Prints for each head the
number of labels above some thresholds and how many are right, and the share of calls in bins of probability.
"""

import sys

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.analysis.suspects.review import read_calls_of
from callboard.params.features import FrontEndParams
from callboard.reports.text import markdown_table
from callboard.results.lookup import find_result
from callboard.results.result import Result
from callboard.results.rows import board_refs, read_rows
from callboard.scoring.window_scores import WindowScores, load_scores, window_probabilities

HEADS = ("attention", "max", "attention_max")
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
BINS = np.linspace(0, 1, 11)


def has_call(
    scores: WindowScores, calls: pd.DataFrame, frames_per_s: float, n_frames: int
) -> NDArray[np.bool_]:
    """Return whether some part of a call of the species is in the window; (windows, species)."""
    recording = np.array(scores.recording_ids)[scores.recording]
    start_s = scores.start_frame / frames_per_s
    stop_s = start_s + n_frames / frames_per_s
    found = np.zeros((len(recording), len(scores.species)), dtype=bool)
    for call in calls.itertuples():
        is_there = (recording == call.recording_id) & (start_s < call.t_max) & (stop_s > call.t_min)
        found[is_there, scores.species.index(call.species_id)] = True
    return found


def read_scores(result: Result) -> WindowScores:
    """Read the out-of-fold scores of a result without rounds."""
    assert result.params["pseudo.rounds"] == "0", f"{result.name}: its scores are those of students"
    with result.folder(result.window_scores) as folder:
        return load_scores(folder / "oof.npz")


def main(names: list[str]) -> None:
    rows = read_rows()
    cells, bins = [], []
    for name in names:
        result = find_result(name, board_refs(rows))
        calls = read_calls_of(result)
        assert calls is not None, "only the soundscapes know their calls"
        sections = result.sections("audio", "features", "clip")
        front_end = FrontEndParams.model_validate({key: sections[key] for key in ("audio", "features")})
        scores = read_scores(result)
        truth = has_call(scores, calls, front_end.frames_per_s, sections["clip"]["n_frames"])
        for head in HEADS:
            probability = window_probabilities(scores, head)[:, 0]
            votes = [probability >= threshold for threshold in THRESHOLDS]
            cells.append([name, head, *(f"{vote.sum()}: {truth[vote].mean():.0%}" for vote in votes)])
            place = np.clip(np.digitize(probability, BINS) - 1, 0, len(BINS) - 2)
            shares = [
                truth[place == k].mean() if (place == k).any() else np.nan for k in range(len(BINS) - 1)
            ]
            bins.append([name, head, *(f"{share:.2f}" for share in shares)])
    heads = [f"from {threshold}" for threshold in THRESHOLDS]
    print(markdown_table(["teacher", "head", *heads], cells, [False] * 2 + [True] * len(heads)))
    ranges = [f"{low:.1f} … {low + 0.1:.1f}" for low in BINS[:-1]]
    print(markdown_table(["teacher", "head", *ranges], bins, [False] * 2 + [True] * len(ranges)))


if __name__ == "__main__":
    main(sys.argv[1:])

"""A sample of windows to judge, spread evenly over species, their bands of scores, and sites."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from callboard.data.groups import site_of
from callboard.scoring.detections import DETECTION_COLUMNS, StoredPredictions
from callboard.scoring.set_scores import WINDOW_TABLE

BAND_WIDTH = 0.2
"""Width of a band of scores."""

LEVELS = ("site", "band", "species")
"""Divisions of windows, the innermost first."""

HASH_KEY = "callboard-review"
"""Seed of the order of windows within a division; pandas takes 16 characters."""


def sample_windows(
    predictions: StoredPredictions,
    judged: pd.DataFrame,
    n_windows: int,
    species: Sequence[str] = (),
    is_there: Callable[[str], bool] = lambda name: True,
) -> tuple[pd.DataFrame, list[str]]:
    """Choose windows without a verdict, in the order in which to judge them.

    Species take turns, within a species its bands of scores, within a band the sites, and within a site the
    order is random but always the same. The windows that are judged already count as the beginning of this
    order. So a review that stops anywhere is as even as can be, and the next one continues it.

    Args:
        predictions: The folder; it is read shard by shard, so that memory does not grow with it.
        judged: Earlier verdicts: recording, start_s, species, score.
        n_windows: Most windows to return.
        species: Names to choose from; empty for all.
        is_there: Whether a recording can be listened to; by default all can.

    Returns:
        DETECTION_COLUMNS; and the recordings that are not there.
    """
    gone: list[str] = []
    known = _with_divisions(judged)
    chosen = _with_divisions(
        pd.DataFrame(columns=DETECTION_COLUMNS).astype({"score": float, "start_s": float})
    )
    for shard in predictions.shards:
        windows = predictions.table(WINDOW_TABLE, shard)
        if species:
            windows = windows[windows["species"].isin(species)]
        absent = [name for name in windows["recording"].unique() if not is_there(name)]
        gone += absent
        windows = windows[~windows["recording"].isin(absent)]
        windows = windows[~_window_key(windows).isin(_window_key(judged))]
        if len(windows):
            found = _with_divisions(windows)
            merged = pd.concat([chosen, found], ignore_index=True) if len(chosen) else found
            chosen = _first(merged, known, n_windows)
    return chosen[DETECTION_COLUMNS].reset_index(drop=True), gone


def _window_key(table: pd.DataFrame) -> pd.Series:
    start_ms = (table["start_s"] * 1000).round().astype(np.int64).astype(str)
    return table["recording"].astype(str) + "\0" + start_ms + "\0" + table["species"].astype(str)


def _with_divisions(windows: pd.DataFrame) -> pd.DataFrame:
    sites = {name: site_of(name) for name in windows["recording"].unique()}
    highest = round(1 / BAND_WIDTH) - 1
    return windows.assign(
        site=windows["recording"].map(sites).astype(str),
        band=np.minimum((windows["score"] / BAND_WIDTH).astype(int), highest),
        order=pd.util.hash_pandas_object(_window_key(windows).astype(str), index=False, hash_key=HASH_KEY),
    )


def _first(windows: pd.DataFrame, judged: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return the first windows of the order.

    The first of some windows and of others are the first of their first: a division that has more than fit
    now has no more places once others have come.
    """
    windows = windows.assign(place=windows["order"])
    for level in range(len(LEVELS)):
        division = list(LEVELS[level:][::-1])
        windows = windows.sort_values("place", kind="stable")
        turns = windows.join(_beginnings(windows, judged, division), on=division)
        turns["turn"] = turns.groupby(division).cumcount() + turns["n_judged"]
        by_turn = turns[["turn", "tie"]].sort_values(["turn", "tie"], kind="stable").index
        windows = windows.loc[by_turn].assign(place=np.arange(len(windows)))
    return windows.head(most)


def _beginnings(windows: pd.DataFrame, judged: pd.DataFrame, division: list[str]) -> pd.DataFrame:
    """Return, of each division, the number of windows judged before, and its random place among others."""
    divisions = pd.MultiIndex.from_frame(windows[division].drop_duplicates())
    names = pd.Series(["\0".join(map(str, name)) for name in divisions], dtype=str)
    n_judged = judged.groupby(division).size().reindex(divisions)
    tie = pd.util.hash_pandas_object(names, index=False, hash_key=HASH_KEY)
    return pd.DataFrame({"n_judged": n_judged.fillna(0).to_numpy(), "tie": tie.to_numpy()}, divisions)

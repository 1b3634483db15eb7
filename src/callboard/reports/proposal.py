"""Text that `callboard init` prints: a folder of recordings, what looks wrong in it, and the settings."""

import json
from collections.abc import Iterator

import pandas as pd

from callboard.analysis.proposal.machine import TrainingTime
from callboard.analysis.proposal.settings import Proposal, Proposed
from callboard.analysis.proposal.survey import SITE_COLUMN, Survey
from callboard.core.console import counted, duration, first_few
from callboard.data.groups import METADATA
from callboard.reports.text import markdown_table

FEW_RECORDINGS = 3
"""Recordings below which a species can hardly be learned and scored."""

SETTING_WIDTH = 44
"""Characters of a setting's key and value, before its reason."""


def proposal_text(proposal: Proposal, time: TrainingTime) -> str:
    """Return the report: species, recordings, problems, settings, and the time that training takes."""
    survey = proposal.survey
    header = ["species", "recordings", "present", "absent"]
    return "\n".join(
        [
            markdown_table(header, _species(survey), [False, True, True, True]),
            *_facts(survey),
            *(f"check: {problem}" for problem in _problems(proposal)),
            "",
            *map(_setting, proposal.settings),
            "",
            _training(proposal, time),
        ]
    )


def _setting(setting: Proposed) -> str:
    value = setting.value if isinstance(setting.value, str) else json.dumps(setting.value)
    text = f"{setting.key}: {value}"
    if isinstance(setting.value, dict) and len(text) > SETTING_WIDTH:
        text = f"{text[: SETTING_WIDTH - 1]}…"
    return f"{text:<{SETTING_WIDTH}}  # {setting.reason}"


def _species(survey: Survey) -> list[list[str]]:
    """Return each species with its recordings with calls, its confirmed and its rejected boxes."""
    tp, fp = survey.tables.train_tp, survey.tables.train_fp
    recordings = tp.groupby("species_id")["recording_id"].nunique()
    counts = recordings, tp["species_id"].value_counts(), fp["species_id"].value_counts()
    return [[name, *(str(count.get(name, 0)) for count in counts)] for name in survey.tables.species]


def _facts(survey: Survey) -> Iterator[str]:
    recordings = survey.recordings
    for subset in recordings["subset"].unique():
        table = recordings[recordings["subset"] == subset]
        rates = table["sample_rate"].value_counts()
        yield (
            f"{subset}: {counted(len(table), 'recording')} of {_range(table['length_s'], 0, 1)}, "
            f"{', '.join(f'{rate} Hz ({count})' for rate, count in rates.items())}"
        )
    n_tp, n_fp = len(survey.tables.train_tp), len(survey.tables.train_fp)
    lengths = _range(survey.boxes["length_s"], 0.05, 0.95)
    yield f"boxes: {n_tp} present and {n_fp} absent, nine in ten of {lengths}"
    if sites := sorted(set(survey.sites)):
        by = (
            "the names of recordings"
            if survey.site_group != SITE_COLUMN
            else f"the column site of {METADATA}"
        )
        yield f"sites: {len(sites)} by {by}: {first_few(sites)}"


def _range(lengths_s: pd.Series, low: float, high: float) -> str:
    least, middle, most = lengths_s.quantile([low, 0.5, high])
    return f"{least:.3g} to {most:.3g} s (median {middle:.3g} s)"


def _problems(proposal: Proposal) -> Iterator[str]:
    survey, features = proposal.survey, proposal.tree["features"]
    skipped, boxes = survey.tables.skipped, survey.boxes
    if len(skipped):
        why = f"first {skipped['recording_id'].iloc[0]}: {skipped['reason'].iloc[0]}"
        yield f"{counted(len(skipped), 'recording')} left out, {why}"
    if not survey.tables.test_ids:
        yield "no test recordings, so the submission will be empty"
    counts = survey.tables.train_tp.groupby("species_id")["recording_id"].nunique()
    if rare := [name for name in survey.tables.species if counts.get(name, 0) < FEW_RECORDINGS]:
        yield f"{len(rare)} species with fewer than {FEW_RECORDINGS} recordings: {first_few(rare)}"
    shares = {
        "longer than a window, which shows only a part of them": proposal.n_longer_than_window,
        f"not entirely inside {features['f_min']:.0f}–{features['f_max']:.0f} Hz": proposal.n_beyond_band,
        "over a whole recording": int(boxes["is_whole"].sum()),
        "without a band": int((~boxes["has_band"]).sum()),
    }
    for what, count in shares.items():
        if count:
            yield f"{count} of {len(boxes)} boxes ({count / len(boxes):.1%}) are {what}"


def _training(proposal: Proposal, time: TrainingTime) -> str:
    n_folds = len(proposal.tree["split"]["folds"])
    return (
        f"training: about {duration(n_folds * time.fold_s)} for {n_folds} folds one after the other "
        f"({duration(time.fold_s)} each; {1000 * time.step_s:.0f} ms for a step, measured on "
        f"{time.processor}), without reading recordings and scoring"
    )

"""Boxes outside the band that features cover: a few are possible, a whole table is likely of another unit."""

import pandas as pd

from callboard.core.console import warn
from callboard.core.errors import UserError
from callboard.params.features import FrontEndParams


def check_bands(labels: pd.DataFrame, front_end: FrontEndParams) -> None:
    """Count and name the annotations that no frame shows; warn of them.

    What is below the first frequency of the spectrum counts as outside too, even if features.f_min is 0.

    Args:
        labels: Annotations with label_type.
        front_end: The band, and the resolution of the spectrum.

    Raises:
        UserError: They are all annotations of one label type.
    """
    features = front_end.features
    lowest_hz, highest_hz = max(features.f_min, front_end.audio.sample_rate / features.n_fft), features.f_max
    for label_type, table in labels.groupby("label_type", sort=False):
        outside = table[(table["f_max"] < lowest_hz) | (table["f_min"] >= highest_hz)]
        if outside.empty:
            continue
        first = outside.iloc[0]
        what = (
            f"train_{label_type}.csv: {len(outside)} of {len(table)} boxes are outside the analysed band of "
            f"{lowest_hz:.0f}–{highest_hz:.0f} Hz, first species {first['species_id']} in "
            f"{first['recording_id']} at {first['f_min']:g}–{first['f_max']:g} Hz"
        )
        are_inside = (outside["f_max"] * 1000 >= lowest_hz) & (outside["f_min"] * 1000 < highest_hz)
        if are_inside.all():
            what += "; as kHz they would be inside, but frequencies must be in Hz"
        if len(outside) == len(table):
            raise UserError(f"{what}; no box can be learned from, see features.f_min and features.f_max")
        warn(what)

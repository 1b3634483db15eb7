"""Turn recordings into one packed cache of frames per set, and annotations into spans of frames."""

import argparse
from pathlib import Path

from callboard.core.console import Stopwatch, progress, run_guarded, summarize
from callboard.core.files import replaced_folder
from callboard.core.threads import n_workers
from callboard.data.clips import build_clips, drop_recordings, write_clips
from callboard.data.corrections import CORRECTIONS, read_labels
from callboard.data.recordings import SUBSETS, read_recordings
from callboard.features.encoding import BadRecordings, encode_recordings, frames_in
from callboard.features.frame_cache import write_cache
from callboard.features.front_ends import frames_of
from callboard.params.base import load_params
from callboard.params.data import DataParams
from callboard.params.features import FrontEndParams


class CropParams(FrontEndParams):
    """The sections that `crop` reads."""

    data: DataParams


def main(argv: list[str] | None = None) -> None:
    """Write the caches of all sets, then the table of clips; a failure leaves neither partly written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("mel", type=Path)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--corrections", type=Path, default=CORRECTIONS)
    args = parser.parse_args(argv)
    params = load_params(CropParams)
    watch = Stopwatch()

    frames = frames_of(params)  # refuses impossible settings before any work is done
    if frames.notice:
        print(frames.notice)
    recordings = read_recordings(args.source)
    n_frames = {
        recording.recording_id: frames_in(recording, params)
        for recording in recordings
        if recording.subset == "train"
    }
    labels = read_labels(args.source, args.corrections if params.data.corrections else None)
    clips = build_clips(labels, n_frames, params.frames_per_s, frames.centres)

    bad = BadRecordings(params.data.on_bad_recording)
    with replaced_folder(args.mel) as folder:
        for subset in SUBSETS:
            chosen = [recording for recording in recordings if recording.subset == subset]
            encoded = encode_recordings(chosen, params, n_workers())
            watched = progress(encoded, total=len(chosen), label=f"crop {subset}", unit="recordings")
            write_cache(folder / subset, bad.sieve(watched, subset), frames.n_rows)
        bad.write(folder / "skipped.csv")
        clips = drop_recordings(clips, bad.recording_ids)
    write_clips(clips, args.clips)

    summarize(
        "crop",
        f"{len(recordings) - len(bad)} recordings",
        f"{sum(path.stat().st_size for path in args.mel.glob('*/mel.npy')) / 1e6:.0f} MB of {frames.noun}",
        f"{len(clips)} annotations",
        f"{len(bad)} skipped",
        f"{watch.elapsed_s:.1f} s ({len(recordings) / watch.elapsed_s:.0f} recordings/s)",
    )


if __name__ == "__main__":
    run_guarded(main)

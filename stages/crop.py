"""Turn recordings into packed frames of each set, and annotations into spans of frames."""

import argparse
from pathlib import Path

from callboard.core.code_fingerprint import code_fingerprint
from callboard.core.console import Stopwatch, counted, run_guarded, summarize
from callboard.core.files import replaced_folder
from callboard.core.parts import add_shard_option, parts_folder
from callboard.data.bands import check_bands
from callboard.data.clips import build_clips, drop_recordings, write_clips
from callboard.data.corrections import CORRECTIONS, read_labels
from callboard.data.recording_folders import recording_folders
from callboard.data.recordings import read_recordings
from callboard.features.encoding import frames_in
from callboard.features.front_ends import frames_of
from callboard.features.packs import PackParts, plan_packs
from callboard.params.base import load_params
from callboard.params.data import DataParams
from callboard.params.features import FrontEndParams


class CropParams(FrontEndParams):
    """The sections that `crop` reads."""

    data: DataParams


def main(argv: list[str] | None = None) -> None:
    """Write the caches of all sets, then the table of clips; a failure leaves neither partly written.

    Packs that a killed run or a shard has finished are taken, not made again.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("mel", type=Path)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--corrections", type=Path, default=CORRECTIONS)
    add_shard_option(parser)
    args = parser.parse_args(argv)
    params = load_params(CropParams)
    watch = Stopwatch()

    frames = frames_of(params)  # refuses impossible settings before any work is done
    if frames.notice:
        print(frames.notice)
    recordings = read_recordings(args.source, recording_folders(params.data, args.source))
    n_frames = [frames_in(recording, params) for recording in recordings]
    by_recording = {
        recording.recording_id: length
        for recording, length in zip(recordings, n_frames, strict=True)
        if recording.subset == "train"
    }
    labels = read_labels(args.source, args.corrections if params.data.corrections else None)
    if len(frames.centres):
        check_bands(labels, params)
    clips = build_clips(labels, by_recording, params.frames_per_s, frames.centres)

    code = code_fingerprint(Path(__file__).resolve().parent.parent, "stages.crop")
    packs = plan_packs(recordings, n_frames, params, code)
    parts = PackParts(parts_folder("crop"), params, params.data.on_bad_recording)
    if args.shard:
        share = args.shard.of(packs)
        n_made = parts.make_missing(share)
        shown = f"{n_made} of {counted(len(share), 'pack')} made"
        summarize("crop", f"shard {args.shard}", shown, f"{watch.elapsed_s:.1f} s")
        return
    parts.make_missing(packs)
    skipped = {recording_id for recording_id, *_ in parts.skipped(packs)}
    clips = drop_recordings(clips, skipped)
    with replaced_folder(args.mel) as folder:
        parts.collect(packs, folder)
    write_clips(clips, args.clips)

    summarize(
        "crop",
        f"{len(recordings) - len(skipped)} recordings",
        f"{sum(path.stat().st_size for path in args.mel.glob('*/*.npy')) / 1e6:.0f} MB of {frames.noun}",
        f"{len(clips)} annotations",
        f"{len(skipped)} skipped",
        f"{watch.elapsed_s:.1f} s ({len(recordings) / watch.elapsed_s:.0f} recordings/s)",
    )


if __name__ == "__main__":
    run_guarded(main)

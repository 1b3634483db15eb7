"""Compare the crop stage with the usual code, in alternation; measure its peak memory.

    PYTHONPATH=src python benchmarks/crop.py [FOLDER_OF_FLACS] [--recordings 24] [--repeats 3]

Theirs: librosa.load(sr=32000), melspectrogram(n_mels=128, n_fft=2048, hop_length=512), power_to_db and
np.save per recording, in a pool of two processes. Ours: the whole stage on two threads, at 48 kHz with a
window and a hop of the same duration. Each runs in a separate process; imports are not timed. Memory is that
of 20 and of 200 recordings.
"""

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile as sf
import yaml

from callboard.data.content_digests import content_digest

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_RATE = 48000
LENGTH_S = 60

CHANGES = {
    "data": {"source": "demo"},
    "audio": {"sample_rate": SAMPLE_RATE},
    "features": {"n_fft": 3072, "hop_length": 768, "n_mels": 128, "f_min": 20.0, "f_max": 16000.0},
}
"""Overrides of params.yaml: the format of the competition's recordings."""


def main() -> None:
    args = parse_arguments()
    if args.child:
        report_child({"ours": crop_ours, "theirs": crop_theirs}[args.child], args.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Path(temporary)
        flacs = sorted(args.folder.glob("*.flac")) if args.folder else make_flacs(workspace / "made", 6)
        if not flacs:
            sys.exit(f"{args.folder}: no .flac files")
        compare(workspace, flacs, args.recordings, args.repeats)
        show_memory(workspace, flacs)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="folder of 48 kHz mono FLACs; default: noise")
    parser.add_argument(
        "--recordings",
        type=int,
        default=24,
        help="files per measurement, as links; default %(default)s",
    )
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each; default %(default)s")
    parser.add_argument("--child", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(workspace: Path, flacs: list[Path], n_recordings: int, repeats: int) -> None:
    make_source(workspace / "speed", flacs, n_recordings)
    work_s: dict[str, list[float]] = {"ours": [], "theirs": []}
    cpu_s: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(repeats):
        for path in work_s:
            found = measure(path, workspace / "speed")
            work_s[path].append(found["work_s"])
            cpu_s[path].append(found["cpu_s"])
    for path, times in work_s.items():
        rate, cpu_ms = n_recordings / np.median(times), 1000 * np.median(cpu_s[path]) / n_recordings
        print(f"{path:>6}: {rate:6.1f} recordings/s, {cpu_ms:.0f} ms of processor time per recording")
    print(f" ratio: {ratio(work_s)} in recordings/s, {ratio(cpu_s)} in processor time (steadier when busy)")


def ratio(seconds: dict[str, list[float]]) -> str:
    """Format the ratios of theirs to ours, measured one after the other: the median, and each."""
    pairs = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds["theirs"], strict=True)]
    return f"{np.median(pairs):.2f} ({' '.join(f'{pair:.2f}' for pair in pairs)})"


def show_memory(workspace: Path, flacs: list[Path]) -> None:
    for n_recordings in (20, 200):
        source = workspace / f"memory{n_recordings}"
        make_source(source, flacs, n_recordings)
        peak_mb = measure("ours", source)["peak_mb"]
        print(f"memory: {peak_mb:6.0f} MB at most for {n_recordings} recordings")


def measure(path: str, folder: Path) -> dict[str, float]:
    """Measure seconds of work, of processor time, and peak memory of one path in a new process."""
    command = [sys.executable, __file__, str(folder), "--child", path]
    environment = {**os.environ, "CALLBOARD_WORKERS": "2", "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    result = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


def report_child(work: Callable[[Path], float], folder: Path) -> None:
    before_s = cpu_time_s()
    work_s = work(folder)
    cpu_s = cpu_time_s() - before_s
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    print(json.dumps({"work_s": work_s, "cpu_s": cpu_s, "peak_mb": peak_mb}))


def cpu_time_s() -> float:
    """Return the processor time of this process and its finished children."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def crop_ours(folder: Path) -> float:
    from stages import crop

    start = time.perf_counter()
    crop.main([str(folder), str(folder / "mel"), str(folder / "clips.csv")])
    return time.perf_counter() - start


def crop_theirs(folder: Path) -> float:
    import librosa

    librosa.feature.melspectrogram(y=np.ones(4096, np.float32))  # do not time lazy imports
    (folder / "npy").mkdir(exist_ok=True)
    with multiprocessing.Pool(2) as pool:
        start = time.perf_counter()
        pool.map(save_mel, sorted((folder / "train").glob("*.flac")))
        work_s = time.perf_counter() - start
        pool.close()
        pool.join()
    return work_s


def save_mel(path: Path) -> None:
    import librosa

    waveform, _ = librosa.load(path, sr=32000)
    mel = librosa.feature.melspectrogram(y=waveform, sr=32000, n_mels=128, n_fft=2048, hop_length=512)
    np.save(path.parent.parent / "npy" / path.stem, librosa.power_to_db(mel))


def make_source(folder: Path, flacs: list[Path], n_recordings: int) -> None:
    """Write the tables that the stage reads, and links that look like different recordings."""
    (folder / "train").mkdir(parents=True)
    rows = ["recording_id,subset,file,n_samples,sample_rate,digest"]
    for number in range(n_recordings):
        flac = flacs[number % len(flacs)].resolve()
        link = folder / "train" / f"recording{number:04d}.flac"
        link.symlink_to(flac)
        info = sf.info(flac)
        rows.append(f"{link.stem},train,{link.name},{info.frames},{info.samplerate},{content_digest(flac)}")
    header = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n"
    (folder / "recordings.csv").write_text("\n".join(rows) + "\n")
    (folder / "species.csv").write_text("species_id\n0\n")
    (folder / "train_tp.csv").write_text(f"{header}recording0000,0,1,1.0,500.0,2.0,900.0\n")
    (folder / "train_fp.csv").write_text(header)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    sections = {name: params[name] | changes for name, changes in CHANGES.items()}
    (folder / "params.yaml").write_text(json.dumps(sections))


def make_flacs(folder: Path, n_recordings: int) -> list[Path]:
    """Write noise and tones of the competition's length, rate and depth."""
    folder.mkdir()
    time_s = np.arange(LENGTH_S * SAMPLE_RATE) / SAMPLE_RATE
    for number in range(n_recordings):
        rng = np.random.default_rng(number)
        waveform = 0.02 * rng.standard_normal(len(time_s))
        for frequency_hz in rng.uniform(500, 12000, size=3):
            waveform += 0.05 * np.sin(2 * np.pi * frequency_hz * time_s) * (np.sin(3 * time_s) > 0.5)
        sf.write(folder / f"{number}.flac", waveform, SAMPLE_RATE, subtype="PCM_16")
    return sorted(folder.glob("*.flac"))


if __name__ == "__main__":
    main()

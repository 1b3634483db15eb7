"""The crop stage on a folder of short recordings, and every way in which it refuses."""

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from ruamel.yaml import YAML

from callboard.core.errors import UserError
from callboard.data.audio import BadRecording, resample
from callboard.data.clips import read_clips
from callboard.data.content_digests import content_digest
from callboard.data.recordings import Recording
from callboard.features import embeddings, encoding, packs
from callboard.features.frame_cache import EncodedRecording, MelCache
from callboard.features.log_mel import log_mel, mel_centres
from callboard.params.base import load_params, read_tree
from callboard.params.features import FrontEndParams
from stages import crop
from stages.crop import CropParams
from tests.toy_sounds import read_recording

ROOT = Path(__file__).parent.parent.parent
RATE = 8000
LENGTH_S = 2.0
HEADER = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max"
TRAIN, TEST = ["055088446", "838227e71", "NA"], ["1e5", "test2"]


class Source:
    """A prepared folder in a workspace of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "data" / "source"
        (self.folder / "train").mkdir(parents=True)
        (self.folder / "test").mkdir()
        self.params: dict[str, Any] = read_tree(ROOT / "tests/params.yaml")
        self.params["audio"] = {"sample_rate": RATE, "on_other_rate": "error"}
        self.params["features"] = {
            "kind": "log_mel", "embedding_hop_s": 0.5,
            "n_fft": 256, "hop_length": 80, "n_mels": 12, "f_min": 50.0, "f_max": 3900.0, "top_db": 80.0
        }  # fmt: skip
        for seed, name in enumerate(TRAIN + TEST):
            self.record(name, 0.1 * np.random.default_rng(seed).standard_normal(int(RATE * LENGTH_S)))
        self.annotate("tp", "055088446,3,1,0.5,500,1.0,2000", "NA,03,1,0,500,2,2000")
        self.annotate("fp", "838227e71,3,1,0.105,500,0.106,2000", "055088446,03,4,1.2,500,1.3,2000")
        (self.folder / "species.csv").write_text("species_id\n3\n03\n")

    def path(self, name: str) -> Path:
        return self.folder / ("train" if name in TRAIN else "test") / f"{name}.flac"

    def record(self, name: str, waveform: np.ndarray, rate: int = RATE) -> None:
        sf.write(self.path(name), waveform, rate)

    def annotate(self, label_type: str, *rows: str) -> None:
        (self.folder / f"train_{label_type}.csv").write_text("\n".join([HEADER, *rows]) + "\n")

    def list_recordings(self, names: list[str]) -> None:
        rows = ["recording_id,subset,file,n_samples,sample_rate,digest"]
        for name in names:
            path = self.path(name)
            info = sf.info(path)
            rows.append(
                f"{name},{path.parent.name},{path.name},{info.frames},{info.samplerate},{content_digest(path)}"
            )
        (self.folder / "recordings.csv").write_text("\n".join(rows) + "\n")

    def write_params(self) -> None:
        YAML().dump(self.params, self.root / "params.yaml")

    def crop(self, names: list[str] | None = None, *options: str) -> None:
        """List the recordings as prepare would, then run the stage."""
        self.list_recordings(TRAIN + TEST if names is None else names)
        self.write_params()
        crop.main(["data/source", "data/mel", "data/clips.csv", *options])

    def shard(self, shard: str) -> None:
        """Run a shard of the stage."""
        self.crop(None, "--shard", shard)

    def parts(self, *endings: str) -> list[Path]:
        """Finished packs that no run has taken yet."""
        return sorted(path for path in (self.root / ".cache/parts/crop").iterdir() if path.suffix in endings)

    def outputs(self) -> dict[str, bytes]:
        """The bytes of all that the stage has written."""
        files = [*(self.root / "data/mel").rglob("*.*"), self.root / "data/clips.csv"]
        return {file.relative_to(self.root).as_posix(): file.read_bytes() for file in files}

    def written(self) -> list[str]:
        return sorted(path.name for path in (self.root / "data").iterdir() if path.name != "source")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.chdir(tmp_path)
    return Source(tmp_path)


def test_the_stage_reads_the_sections_that_dvc_watches() -> None:
    sections = {key.split(".")[0] for key in read_tree(ROOT / "dvc.yaml")["stages"]["crop"]["params"]}
    assert set(CropParams.model_fields) == sections


def test_every_recording_is_in_the_cache_of_its_set_as_its_own_log_mel(source: Source) -> None:
    source.crop()
    params = load_params(CropParams)
    for subset, names in {"train": TRAIN, "test": TEST}.items():
        cache = MelCache.open(source.root / "data/mel" / subset)
        assert cache.recording_ids == names
        for row, name in enumerate(names):
            expected = log_mel(read_recording(source.path(name), RATE, "error"), params)
            restored = cache.db_min[row] + cache.read(name) / 255 * (cache.db_max[row] - cache.db_min[row])
            assert np.abs(restored - expected).max() <= params.features.top_db / 510 + 1e-4
    assert pd.read_csv("data/mel/skipped.csv").columns.tolist() == ["recording_id", "subset", "reason"]
    assert source.written() == ["clips.csv", "mel"]


def test_every_annotation_is_a_clip_with_its_span(source: Source) -> None:
    source.crop()
    clips = read_clips(Path("data/clips.csv"))
    assert clips["clip_id"].tolist() == [0, 1, 2, 3]
    assert clips["recording_id"].tolist() == ["055088446", "NA", "838227e71", "055088446"]
    assert clips["label_type"].tolist() == ["tp", "tp", "fp", "fp"]
    assert clips["species_id"].tolist() == ["3", "03", "3", "03"]
    assert clips[["start_frame", "stop_frame"]].to_numpy().tolist() == [
        [50, 100],
        [0, 200],
        [10, 11],
        [120, 130],
    ]


def test_every_clip_has_the_mel_rows_of_its_box(source: Source) -> None:
    source.annotate("fp", "838227e71,3,1,0.105,3700,0.106,3900", "055088446,03,4,1.2,1000,1.3,1010")
    source.crop()
    clips, centres = read_clips(Path("data/clips.csv")), mel_centres(load_params(CropParams).features)
    for low, high, f_min, f_max in clips[["low_mel", "high_mel", "f_min", "f_max"]].itertuples(index=False):
        inside = [row for row, centre in enumerate(centres) if f_min <= centre <= f_max]
        nearest = [int(np.abs(centres - (f_min + f_max) / 2).argmin())]
        assert list(range(low, high)) == (inside or nearest)
    assert (clips["high_mel"] - clips["low_mel"]).tolist()[3] == 1


def test_the_summary_counts_what_was_done(source: Source, capsys: pytest.CaptureFixture[str]) -> None:
    source.crop()
    line = capsys.readouterr().out.strip()
    assert line.startswith("crop: 5 recordings, 0 MB of log-mel, 4 annotations, 0 skipped, ")
    assert "recordings/s), peak memory " in line


@pytest.mark.parametrize("n_workers", ["1", "2", "5"])
def test_results_do_not_depend_on_the_number_of_workers(
    source: Source, monkeypatch: pytest.MonkeyPatch, n_workers: str
) -> None:
    source.crop()
    before = source.outputs()
    monkeypatch.setenv("CALLBOARD_WORKERS", n_workers)
    source.crop()
    assert source.outputs() == before


def test_embeddings_make_a_cache_of_the_same_kind(
    source: Source, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def loudness(window: np.ndarray) -> np.ndarray:
        assert window.shape == (embeddings.WINDOW_SAMPLES,)
        return np.full(embeddings.N_NUMBERS, 10 * np.abs(window).max(), np.float32)

    monkeypatch.setattr(embeddings, "read_network", lambda: b"")
    monkeypatch.setattr(embeddings, "birdnet", loudness)
    source.params["features"] |= {"kind": "birdnet", "embedding_hop_s": 0.5}
    source.crop()
    for subset, names in {"train": TRAIN, "test": TEST}.items():
        cache = MelCache.open(source.root / "data/mel" / subset)
        assert cache.frames.shape == (4 * len(names), embeddings.N_NUMBERS)
        assert cache.n_frames.tolist() == [4] * len(names)
        assert set(cache.db_max) == {embeddings.FULL_SCALE}
        for name in names:
            waveform = resample(read_recording(source.path(name), RATE, "error"), RATE, embeddings.RATE)
            level = round(10 * np.abs(waveform).max() / embeddings.FULL_SCALE * 255)
            assert (cache.read(name) == level).all()
    clips = read_clips(Path("data/clips.csv"))
    assert clips[["start_frame", "stop_frame"]].to_numpy().tolist() == [[1, 2], [0, 4], [0, 1], [2, 3]]
    assert (clips[["low_mel", "high_mel"]] == 0).to_numpy().all()
    licence, line = capsys.readouterr().out.strip().splitlines()
    assert licence == embeddings.LICENCE
    assert line.startswith("crop: 5 recordings, 0 MB of embeddings, 4 annotations, 0 skipped, ")


def test_without_test_recordings_the_test_cache_is_empty(source: Source) -> None:
    source.crop(TRAIN)
    assert len(MelCache.open(Path("data/mel/test"))) == 0


def test_recordings_at_another_rate_are_resampled_on_request(source: Source) -> None:
    source.params["audio"]["on_other_rate"] = "resample"
    source.record("NA", np.random.default_rng(9).standard_normal(22051) * 0.1, rate=11025)
    source.crop()
    cache = MelCache.open(Path("data/mel/train"))
    assert cache.n_frames[cache.row("NA")] == -(-22051 * RATE // 11025) // 80 + 1


def silence(source: Source, name: str) -> None:
    source.record(name, np.zeros(int(RATE * LENGTH_S)))


def truncation(source: Source, name: str) -> None:
    whole = source.path(name).read_bytes()
    source.path(name).write_bytes(whole[: len(whole) // 2])


def stereo(source: Source, name: str) -> None:
    source.record(name, np.random.default_rng(0).standard_normal((int(RATE * LENGTH_S), 2)) * 0.1)


def other_rate(source: Source, name: str) -> None:
    source.record(name, np.random.default_rng(0).standard_normal(44100) * 0.1, rate=22050)


def low_rate(source: Source, name: str) -> None:
    source.record(name, np.random.default_rng(0).standard_normal(12000) * 0.1, rate=6000)


def moment(source: Source, name: str) -> None:
    source.record(name, np.random.default_rng(0).standard_normal(200) * 0.1)


TROUBLES = [
    (silence, "silent: every sample is 0"),
    (truncation, "truncated"),
    (stereo, "2 channels, expected one"),
    (other_rate, "sample rate 22050 Hz, expected audio.sample_rate 8000 Hz"),
    (low_rate, "sample rate 6000 Hz carries up to 3000 Hz, but features.f_max is 3900 Hz"),
    (moment, "200 samples are less than one window of 256"),
]


@pytest.mark.parametrize(("spoil", "reason"), TROUBLES)
def test_a_bad_recording_stops_the_stage_and_leaves_nothing(
    source: Source, spoil: Callable[[Source, str], None], reason: str
) -> None:
    spoil(source, "test2")
    with pytest.raises(UserError, match="recording test2: ") as refusal:
        source.crop()
    assert reason in str(refusal.value)
    assert "data.on_bad_recording=skip" in str(refusal.value)
    assert source.written() == []


@pytest.mark.parametrize(("spoil", "reason"), TROUBLES)
def test_a_bad_recording_is_left_out_counted_and_listed_on_request(
    source: Source, capsys: pytest.CaptureFixture[str], spoil: Callable[[Source, str], None], reason: str
) -> None:
    source.params["data"]["on_bad_recording"] = "skip"
    source.annotate("fp", "838227e71,3,1,0,500,0.01,2000", "055088446,03,4,1.2,500,1.3,2000")
    spoil(source, "838227e71")
    source.crop()
    cache = MelCache.open(Path("data/mel/train"))
    assert cache.recording_ids == ["055088446", "NA"]
    assert cache.offsets.tolist() == [0, 201]
    skipped = pd.read_csv("data/mel/skipped.csv", dtype=str)
    assert skipped[["recording_id", "subset"]].to_numpy().tolist() == [["838227e71", "train"]]
    assert reason in skipped.loc[0, "reason"]
    clips = read_clips(Path("data/clips.csv"))
    assert clips["recording_id"].tolist() == ["055088446", "NA", "055088446"]
    assert clips["clip_id"].tolist() == [0, 1, 2]
    assert "4 recordings" in (summary := capsys.readouterr().out)
    assert "1 skipped" in summary


def test_skipping_every_confirmed_recording_is_refused(source: Source) -> None:
    source.params["data"]["on_bad_recording"] = "skip"
    silence(source, "055088446")
    silence(source, "NA")
    with pytest.raises(UserError, match=r"no confirmed \(tp\) annotation"):
        source.crop()
    assert source.written() == []


def test_a_recording_that_changed_since_prepare_is_refused(source: Source) -> None:
    source.crop()
    content = bytearray(source.path("NA").read_bytes())
    content[-1] ^= 1
    source.path("NA").write_bytes(content)
    with pytest.raises(
        UserError, match=r"recording NA changed since prepare: .* has other content; run `dvc"
    ):
        crop.main(["data/source", "data/mel", "data/clips.csv"])
    source.path("NA").unlink()
    with pytest.raises(UserError, match=r"recording NA changed since prepare: .* is missing"):
        crop.main(["data/source", "data/mel", "data/clips.csv"])
    assert MelCache.open(Path("data/mel/train")).recording_ids == TRAIN


def test_an_annotation_that_prepare_accepts_never_stops_the_stage(source: Source) -> None:
    source.annotate("fp", "NA,3,1,1.5,500,2.02,2000")
    source.crop()
    assert read_clips(Path("data/clips.csv"))["stop_frame"].max() <= 201


def test_boxes_outside_the_band_are_counted_and_named(
    source: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    source.annotate("tp", "055088446,3,1,0.5,500,1.0,2000", "NA,03,1,0,0.5,2,2", "NA,3,1,1,3800,2,3950")
    source.crop()
    assert capsys.readouterr().err == (
        "warning: train_tp.csv: 1 of 3 boxes are outside the analysed band of 50–3900 Hz, first species 03 "
        "in NA at 0.5–2 Hz; as kHz they would be inside, but frequencies must be in Hz\n"
    )
    assert len(read_clips(Path("data/clips.csv"))) == 5


@pytest.mark.parametrize(
    ("f_min", "f_max", "is_khz"), [("0.5", "2", True), ("3900", "3950", False), ("0.001", "0.002", False)]
)
def test_a_table_outside_the_band_is_refused(source: Source, f_min: str, f_max: str, is_khz: bool) -> None:
    rows = [f"{name},3,1,0.5,{f_min},1.0,{f_max}" for name in ("055088446", "NA")]
    source.annotate("tp", *rows)
    with pytest.raises(
        UserError, match=r"train_tp\.csv: 2 of 2 boxes are outside .* no box can be"
    ) as caught:
        source.crop()
    assert ("as kHz they would be inside" in str(caught.value)) == is_khz
    assert source.written() == []


def test_bad_tables_and_impossible_features_are_refused_before_anything_is_decoded(source: Source) -> None:
    silence(source, "055088446")
    source.annotate("fp", "NA,3,1,1.5,500,1.2,2000")
    with pytest.raises(UserError, match=r"train_fp\.csv row 2: t_max 1\.2 <= t_min 1\.5"):
        source.crop()
    source.params["features"]["n_mels"] = 300
    with pytest.raises(UserError, match="no FFT bin of n_fft 256"):
        source.crop()


def test_the_number_of_workers_must_be_one(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_WORKERS", "many")
    with pytest.raises(UserError, match="CALLBOARD_WORKERS is 'many'"):
        source.crop()


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of two recordings: two of train, one of test, an empty one of external."""
    monkeypatch.setattr(packs, "PACK_BYTES", 5000)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The recordings that are decoded from now on."""
    names: list[str] = []
    encode = encoding.encode_recording

    def watched(
        recording: Recording, front_end: FrontEndParams, folder: Path
    ) -> EncodedRecording | BadRecording:
        names.append(recording.recording_id)
        return encode(recording, front_end, folder)

    monkeypatch.setattr(encoding, "encode_recording", watched)
    return names


@pytest.mark.usefixtures("small_packs")
@pytest.mark.parametrize(
    ("n_shards", "n_workers"),
    [(2, 1), *(pytest.param(*few, marks=pytest.mark.slow) for few in [(1, 2), (5, 3)])],
)
def test_any_number_of_shards_gives_the_same_bytes(
    source: Source, decoded: list[str], monkeypatch: pytest.MonkeyPatch, n_shards: int, n_workers: int
) -> None:
    source.crop()
    before = source.outputs()
    assert set(before) >= {"data/mel/train/0001.npy", "data/mel/test/0000.npy", "data/mel/external/0000.npy"}
    assert source.parts(".npy", ".json") == []
    shutil.rmtree("data/mel")
    Path("data/clips.csv").unlink()
    monkeypatch.setenv("CALLBOARD_WORKERS", str(n_workers))
    decoded.clear()
    for number in range(n_shards, 0, -1):
        source.shard(f"{number}/{n_shards}")
    assert sorted(decoded) == sorted(TRAIN + TEST)
    assert source.written() == []
    source.crop()
    assert source.outputs() == before
    assert len(decoded) == len(TRAIN + TEST)
    assert source.parts(".npy", ".json") == []


@pytest.mark.usefixtures("small_packs")
def test_a_shard_makes_every_nth_pack_that_is_missing(
    source: Source, decoded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    source.shard("1/2")
    assert decoded == [*TRAIN[:2], *TEST]
    source.shard("1/2")
    source.shard("2/2")
    assert decoded[4:] == TRAIN[2:]
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("crop: shard 1/2, 2 of 2 packs made, ")
    assert second.startswith("crop: shard 1/2, 0 of 2 packs made, ")
    assert third.startswith("crop: shard 2/2, 2 of 2 packs made, ")


@pytest.mark.usefixtures("small_packs")
def test_after_a_kill_only_what_is_not_whole_is_made_again(source: Source, decoded: list[str]) -> None:
    source.crop()
    before = source.outputs()
    source.shard("1/1")
    of_first, of_second, of_test = (
        next(path for path in source.parts(".json") if f'"{name}"' in path.read_text())
        for name in (TRAIN[0], TRAIN[2], TEST[0])
    )
    of_first.unlink()  # killed between its two files
    damaged = bytearray(of_second.with_suffix(".npy").read_bytes())
    damaged[-1] ^= 1
    of_second.with_suffix(".npy").write_bytes(damaged)
    unfinished = of_test.with_name(f".{of_test.stem}.npy.0123.unfinished")
    unfinished.write_bytes(b"half")
    decoded.clear()
    source.crop()
    assert decoded == TRAIN
    assert source.outputs() == before
    assert [path.name for path in unfinished.parent.iterdir()] == [unfinished.name]
    os.utime(unfinished, (1, 1))
    source.crop()
    assert not list(unfinished.parent.iterdir())


@pytest.mark.usefixtures("small_packs")
def test_what_another_run_takes_meanwhile_is_made_again(
    source: Source, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source.crop()
    before = source.outputs()
    decoded.clear()
    drop = crop.drop_recordings

    def taken(*arguments: Any) -> pd.DataFrame:
        for path in source.parts(".npy", ".json")[:4]:
            path.unlink()
        return drop(*arguments)

    monkeypatch.setattr(crop, "drop_recordings", taken)
    source.crop()
    assert len(decoded) > len(TRAIN + TEST)
    assert source.outputs() == before


@pytest.mark.usefixtures("small_packs")
def test_a_bad_recording_stops_a_later_run_that_does_not_skip_it(source: Source, decoded: list[str]) -> None:
    silence(source, TRAIN[2])
    with pytest.raises(UserError, match=f"recording {TRAIN[2]}: silent"):
        source.crop()
    source.params["data"]["on_bad_recording"] = "skip"
    decoded.clear()
    source.shard("1/1")
    assert decoded == [TRAIN[2], *TEST]  # the first pack was finished
    source.params["data"]["on_bad_recording"] = "error"
    with pytest.raises(UserError, match=f"recording {TRAIN[2]}: silent"):
        source.crop()
    assert source.written() == []


@pytest.mark.parametrize("shard", ["9/8", "0/2", "1", "a/b", "-1/2"])
def test_a_shard_that_does_not_exist_is_refused(
    source: Source, capsys: pytest.CaptureFixture[str], shard: str
) -> None:
    with pytest.raises(SystemExit) as refusal:
        source.crop(None, f"--shard={shard}")
    assert refusal.value.code == 2
    assert f"{shard!r} must be K/N with K from 1 to N, such as 2/8" in capsys.readouterr().err
    assert not (source.root / ".cache").exists()


def run_stage(source: Source, largest_file: int | None = None) -> subprocess.CompletedProcess[str]:
    """The stage as dvc.yaml starts it, where no file may grow past `largest_file` bytes."""

    def limit() -> None:
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    source.list_recordings(TRAIN + TEST)
    source.write_params()
    return subprocess.run(
        [sys.executable, "-m", "stages.crop", "data/source", "data/mel", "data/clips.csv"],
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        preexec_fn=limit,
        check=False,
    )


@pytest.mark.slow
def test_a_full_disk_ends_in_one_sentence_and_leaves_what_was_there(source: Source) -> None:
    assert run_stage(source).returncode == 0
    before = Path("data/mel/train/0000.npy").read_bytes()
    full = run_stage(source, largest_file=4000)
    assert full.returncode == 1
    assert re.fullmatch(
        r"error: \S+/parts/crop/\w+\.npy: cannot be written: File too large; .*\n", full.stderr
    )
    assert "Traceback" not in full.stderr
    assert Path("data/mel/train/0000.npy").read_bytes() == before
    assert source.written() == ["clips.csv", "mel"]


def test_a_refusal_exits_with_one_and_no_traceback(source: Source) -> None:
    silence(source, "NA")
    refused = run_stage(source)
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        "error: recording NA: silent: every sample is 0 (data.on_bad_recording=skip"
    )
    assert "Traceback" not in refused.stderr


def test_crop_does_not_import_torch_or_mlflow() -> None:
    code = "import sys, stages.crop; print({'torch', 'mlflow', 'dvc', 'sklearn'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"

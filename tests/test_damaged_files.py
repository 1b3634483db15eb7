"""No traceback for any file: seeded damage to a file of every kind that is read, and to whole workspaces."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from zipfile import ZipFile

import numpy as np
import pytest
import soundfile

from callboard.analysis.review.queues import open_queue
from callboard.core.compute import Compute
from callboard.core.csv_rows import utf8_text
from callboard.core.errors import UserError
from callboard.core.json_cache import JsonCache
from callboard.data.annotations import read_annotations, read_species
from callboard.data.clips import DTYPES, PROVENANCE_DTYPES, read_clips
from callboard.data.corrections import read_corrections
from callboard.data.folds import read_folds
from callboard.data.groups import read_metadata
from callboard.data.known_truth import read_test_labels
from callboard.data.label_formats.form import ReadOptions
from callboard.data.label_formats.registry import LABEL_FORMATS, recognised_format
from callboard.data.label_recordings import LabelledRecordings
from callboard.data.recording_files import read_header
from callboard.data.recording_folders import SUBSETS
from callboard.data.recordings import read_recordings
from callboard.data.score_tables import read_score_table
from callboard.data.soundscapes.manifests import read_backdrop, read_voices
from callboard.data.verdicts import VERDICT_COLUMNS, read_window_verdicts
from callboard.experiments import captions
from callboard.experiments.presets import read_preset
from callboard.experiments.table import read_experiments
from callboard.features.frame_cache import EncodedRecording, MelCache, write_cache
from callboard.params.experiment import load_experiment
from callboard.params.features import AudioParams
from callboard.results.dvc_cache import cache_folder, linked_folder
from callboard.results.git import files_in
from callboard.results.kaggle.submissions import parse_sent
from callboard.results.leaderboard import read_ledger, with_reported
from callboard.results.mlflow.record import Origin, record_of
from callboard.results.result import read_result
from callboard.results.rows import read_rows
from callboard.results.stored_runs import known_result
from callboard.results.submissions import refuse_no_submission
from callboard.scoring.occupancy import read_places
from callboard.scoring.postprocessing import read_steps
from callboard.scoring.window_scores import HEADS, WindowScores, load_scores
from callboard.training.progress import ProgressWriter, read_progress
from tests.damage import Reader, campaign
from tests.data import test_label_formats as labels
from tests.toy_results import record_compute, write_workspace
from tests.toy_sounds import read_recording

ROOT = Path(__file__).parent.parent
RATE = 8000
ANNOTATIONS = """\
recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max
055088446,3,1,0.5,500,1.0,2000
838227e71,03,4,2.1234,500.5,3.0,2000
1e5,3,1,0,0,7,4000.25
"""
CLIP_ROW = "0,055088446,tp,3,1,50,100,3,9,0.5,1.0,500,2000"


def text(name: str, content: str) -> Callable[[Path], Path]:
    """Write a file of text."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return path

    return make


def copied(source: str, name: str) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copy(ROOT / source, folder / name))


def table_of_experiments(folder: Path) -> Path:
    """The first rows of experiments.yaml."""
    content = (ROOT / "experiments.yaml").read_text(encoding="utf-8")
    rows = content.partition("\nrows:\n")[2].split("\n- ")[:4]
    return text("experiments.yaml", "rows:\n" + "\n- ".join(rows) + "\n")(folder)


def sound(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "train").mkdir(exist_ok=True)
        wave = 0.1 * np.random.default_rng(3).standard_normal(600)
        soundfile.write(folder / "train" / name, wave, RATE)
        return folder / "train" / name

    return make


def look(path: Path) -> None:
    """Read everything that headers and samples are read for."""
    header = read_header(path.stem, "train", path, AudioParams(sample_rate=RATE, on_other_rate="resample"))
    assert header.recording_id
    found = LabelledRecordings.list(path.parents[1])
    found.sounds(list(found.files))
    read_recording(path, RATE, "resample")


def listen(path: Path) -> None:
    """Read what `callboard review` plays."""
    from callboard.analysis.review.verdict_files import ReviewItem
    from callboard.reports.review_page.clip import render_clip

    render_clip(ReviewItem("a", path, "wren", 0.02, 0.05))


def list_to_review(folder: Path) -> Path:
    sound("a.wav")(folder)
    return text(
        "list.csv",
        "recording,start_s,end_s,species,score,verdict\na.wav,0,0.05,wren,0.5,\na,0.01,1,07,,absent\n",
    )(folder)


def suspects_to_review(folder: Path) -> Path:
    from tests.analysis.test_suspects import RECORDINGS, Reviewed

    (folder / "params.yaml").write_text("data: {source: demo}\n")
    made = Reviewed(folder)
    (folder / "data/source/train").mkdir()
    for name in RECORDINGS:
        (folder / f"data/source/train/{name}.flac").touch()
    return made.review("absent")


def cache(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        frames = np.random.default_rng(1).integers(0, 256, (40, 8), dtype=np.uint8)
        recordings = [EncodedRecording(f"0{n}", frames[:n], -80.0, 0.0) for n in (30, 9, 40)]
        write_cache(folder, recordings, 8)
        return folder / name

    return make


def read_cache(path: Path) -> None:
    opened = MelCache.open(path.parent)
    for recording_id in opened.recording_ids:
        opened.read(recording_id)
    _ = opened.frames[0:]


def window_scores(folder: Path) -> Path:
    rng = np.random.default_rng(2)
    WindowScores(
        recording_ids=["055088446", "b"],
        species=["3", "03"],
        recording=np.array([0, 0, 1], np.int32),
        start_frame=np.array([0, 9, 0], np.int32),
        heads={name: rng.standard_normal((3, 1, 2)).astype(np.float32) for name in HEADS},
        peak_frame=np.zeros((3, 1, 2), np.int32),
        fold=np.array([0, 1]),
    ).save(folder / "oof.npz")
    return folder / "oof.npz"


def manifest(name: str, content: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        sound("a.wav")(folder)
        shutil.copy(folder / "train/a.wav", folder / "train/b.wav")
        return text(name, content)(folder)

    return make


def listing(folder: Path) -> Path:
    return text("0a.dir", '[{"md5": "ab12", "relpath": "a.csv"}, {"md5": "cd34", "relpath": "b/c.csv"}]')(
        folder
    )


def read_listing(path: Path) -> None:
    with linked_folder(path):
        pass


def in_workspace(name: str) -> Callable[[Path], Path]:
    """A finished workspace, of which one file is damaged."""

    def make(folder: Path) -> Path:
        return write_workspace(folder / "here") / name

    return make


def read_workspace(path: Path) -> None:
    """Read the result of a workspace, as `track` does."""
    folder = next(parent for parent in path.parents if parent.name == "here")
    result = with_reported(read_result(files_in(folder), "here"), read_ledger(folder / "leaderboard.csv"))
    assert result.computed_by == frozenset()
    record_of(result, Origin(None, ""))
    assert result.window_scores
    assert len(result.weights) == len(result.curves)


def memo(folder: Path) -> Path:
    cache = JsonCache("captions", captions.__name__)
    cache["a"] = ["memo", None, []]
    cache.save()
    return folder / ".cache/captions.json"


def progress_file(folder: Path) -> Path:
    checkpoint = folder / "abc-fold0.pt"
    ProgressWriter(checkpoint, "r0-fold0", 3).write([{"epoch": 1, "loss": 0.5, "val_lwlrap": None}])
    return checkpoint.with_suffix(".json")


def read_watched(path: Path) -> None:
    from callboard.reports.watch import left_behind, line_of

    for one in read_progress(path.parent).values():
        assert str(line_of(one))
        assert left_behind([one])


def label_table(format_name: str, name: str, content: str, others: dict[str, str] | None = None) -> Reader:
    """A table of labels, read in the format that it has and in that which it seems to have."""

    def make(folder: Path) -> Path:
        for other, its_content in (others or {}).items():
            text(other, its_content)(folder)
        return text(name, content)(folder)

    def read(path: Path) -> None:
        with suppress(UserError):
            LABEL_FORMATS[recognised_format(path)].read(path, ReadOptions())
        LABEL_FORMATS[format_name].read(path, ReadOptions())

    return Reader(make, read)


def weights(folder: Path) -> Path:
    from tests.toy_models import save_fold

    save_fold(folder, 0)
    return folder / "fold0.pt"


def read_weights(path: Path) -> None:
    from callboard.model.weights import load_model, read_held_out
    from tests.toy_training import CPU

    read_held_out(path)
    load_model(path, CPU)


def checkpoint(folder: Path) -> Path:
    import torch

    from callboard.training.checkpoint import Checkpoint

    path = folder / "abc-fold0.pt"
    Checkpoint(path).write({"model": {"w": torch.zeros(3)}, "history": [{"epoch": 1.0}], "best_score": 0.5})
    return path


def read_checkpoint(path: Path) -> None:
    from callboard.training.checkpoint import Checkpoint

    Checkpoint(path).read()


def predictions(name: str) -> Callable[[Path], Path]:
    """Write predictions, and return one of their files."""

    def make(folder: Path) -> Path:
        from tests.scoring.test_detections import WINDOWS, rows, write_predictions

        write_predictions(folder / "june", rows(*WINDOWS))
        return folder / "june" / name

    return make


def read_predictions(path: Path) -> None:
    from callboard.scoring.detections import (
        DETECTION_FORMATS,
        StoredPredictions,
        read_thresholds,
        write_detections,
    )

    folder = next(parent for parent in path.parents if parent.name == "june")
    opened = StoredPredictions.open(folder)
    thresholds = read_thresholds("0.1", opened.species, opened.reference)
    for name in DETECTION_FORMATS:
        shutil.rmtree(folder / "out", ignore_errors=True)
        write_detections(opened, thresholds, name, folder / "out")


def read_described_detector(path: Path) -> None:
    from callboard.scoring.predictions import read_detector

    read_detector(path)


def thresholds(folder: Path) -> Path:
    predictions("about.json")(folder)
    return text("thresholds.csv", "species,threshold,scores_of\n07,0.5,exp1@0123456789abcdef\n3,,\n")(folder)


def read_threshold_table(path: Path) -> None:
    from callboard.scoring.detections import StoredPredictions, read_thresholds

    opened = StoredPredictions.open(path.parent / "june")
    read_thresholds(str(path), opened.species, opened.reference)


def exported(folder: Path) -> Path:
    """A detector of one network."""
    from tests.scoring.test_detector_export import write_toy_file

    write_toy_file(folder / "detector.zip")
    return folder / "detector.zip"


def read_exported(path: Path) -> None:
    from callboard.scoring.detector import Detector

    assert Detector.load(path).key


def detector_manifest(folder: Path) -> Path:
    """The manifest of a detector, which is put back in its place to be read."""
    with ZipFile(exported(folder)) as file:
        return Path(file.extract("manifest.json", folder))


def read_detector_manifest(path: Path) -> None:
    from tests.scoring.test_detector_export import rewritten

    damaged = Path(shutil.copy(path.with_name("detector.zip"), path.with_name("damaged.zip")))
    read_exported(rewritten(damaged, more={"manifest.json": path.read_bytes()}))


def pretrained(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import torch
        from safetensors.torch import save_file

        state = torch.nn.Conv2d(1, 4, 3).state_dict()
        (save_file if name.endswith("safetensors") else torch.save)(state, folder / name)
        return folder / name

    return make


def read_pretrained(path: Path) -> None:
    import torch

    from callboard.core.pinned_weights import file_digest
    from callboard.model.pretrained import load_pretrained

    load_pretrained(torch.nn.Conv2d(1, 4, 3), f"{path}@{file_digest(path)}")


READERS = {
    "params.yaml": Reader(copied("tests/params.yaml", "params.yaml"), load_experiment),
    "preset": Reader(copied("presets/rfcx.yaml", "rfcx.yaml"), read_preset),
    "experiments.yaml": Reader(table_of_experiments, read_experiments),
    "train_tp.csv": Reader(text("train_tp.csv", ANNOTATIONS), lambda path: read_annotations(path, "tp")),
    "species.csv": Reader(text("species.csv", "species_id\n3\n03\n1e5\n"), read_species),
    "recordings.csv": Reader(
        text(
            "recordings.csv",
            "recording_id,subset,file,n_samples,sample_rate,digest\n"
            "055,train,055.wav,16000,8000,0e1\nt,test,t.flac,16000,8000,45\n",
        ),
        lambda path: read_recordings(path.parent, dict.fromkeys(SUBSETS, path.parent)),
    ),
    "folds.csv": Reader(
        text("folds.csv", "recording_id,fold,group\n055,0,a\n838,1,b\n1e5,0,a\n"), read_folds
    ),
    "table of recordings": Reader(
        text("recordings.csv", "recording_id,site,fold\n055,S 1,0\n838,,1\n1e5,02,0\n"), read_metadata
    ),
    "clips.csv": Reader(
        text("clips.csv", f"{','.join(DTYPES)}\n{CLIP_ROW}\n{CLIP_ROW.replace('tp', 'fp')}\n"), read_clips
    ),
    "pseudo-labels": Reader(
        text(
            "r1.csv",
            f"{','.join([*DTYPES, *PROVENANCE_DTYPES])}\n{CLIP_ROW},1,r0/fold1,0.91,2,1.0,0-2\n",
        ),
        read_clips,
    ),
    "corrections.csv": Reader(
        text(
            "corrections.csv",
            "kind,recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max,verdict,model,note\n"
            'tp,055,3,1,0.5,500,1.0,2000,absent,m r0,"a, ""b"""\nmissing,055,3,1,3,500,4.0,2000,present,,\n',
        ),
        read_corrections,
    ),
    "sites and dates": Reader(
        text("places.csv", "recording,site,date\na.wav,A,2026-06-02\n"),
        lambda path: read_places(str(path), ["a.wav"]),
    ),
    "verdicts.csv": Reader(
        text(
            "verdicts.csv",
            f"{','.join(VERDICT_COLUMNS)}\na.wav,0.5,5.5,3,0.25,present\nb.wav,0,5,3,1e-3,absent\n",
        ),
        read_window_verdicts,
    ),
    "test_labels.csv": Reader(
        text("test_labels.csv", "recording_id,species_id,usage\n055,03,public\n838,3,private\n"),
        lambda path: read_test_labels(path, ["3", "03"], ["055", "838"]),
    ),
    "score table": Reader(
        text("test_labels.csv", "recording_id,s3,s03,usage\n055,0.5,1,Public\n838,0,1e-3,Private\n"),
        read_score_table,
    ),
    "steps.csv": Reader(text("steps.csv", "step\nsmoothing\n"), lambda path: read_steps(path.parent)),
    "submission": Reader(text("s.csv", "recording_id,s3\n055,0.5\n"), refuse_no_submission),
    "index.csv": Reader(cache("index.csv"), read_cache),
    "frames": Reader(cache("0000.npy"), read_cache),
    "window scores": Reader(window_scores, load_scores),
    "wav to play": Reader(sound("a.wav"), listen),
    "flac to play": Reader(sound("a.flac"), listen),
    "list to review": Reader(list_to_review, lambda path: open_queue(path, path.parent / "train")),
    "suspects to review": Reader(suspects_to_review, open_queue),
    "wav": Reader(sound("a.wav"), look),
    "flac": Reader(sound("a.flac"), look),
    "manifest of calls": Reader(
        manifest(
            "calls.csv",
            "file,label,call_on_s,call_off_s,f_min_hz,f_max_hz\n"
            "train/a.wav,wren,0,0.05,500,2000\ntrain/b.wav,robin,0.01,0.06,500,2000\n",
        ),
        lambda path: read_voices(path, 1, RATE, 1.0, np.random.default_rng(0)),
    ),
    "manifest of backgrounds": Reader(
        manifest("backgrounds.csv", "file,source_sr\ntrain/a.wav,8000\ntrain/b.wav,44100\n"),
        lambda path: read_backdrop(path, RATE, {}, np.random.default_rng(0)),
    ),
    "raven": label_table("raven", "rec.Table.1.selections.txt", labels.RAVEN),
    "raven of a sequence": label_table("raven", "sequence.txt", labels.RAVEN_OF_A_SEQUENCE),
    "audacity": label_table("audacity", "rec.txt", labels.AUDACITY),
    "birdnet": label_table("birdnet", "rec.BirdNET.results.csv", labels.BIRDNET_CSV),
    "birdnet for raven": label_table("birdnet", "rec.BirdNET.selection.table.txt", labels.BIRDNET_RAVEN_2_4),
    "arbimon": label_table("arbimon", "export.csv", labels.JOB),
    "arbimon, all jobs": label_table(
        "arbimon", "pm_amazona_2640.csv", labels.BULK, {"_pattern_matching.csv": labels.JOBS}
    ),
    "arbimon, backup": label_table("arbimon", "rois.csv", labels.BACKUP),
    "hawkears": label_table("hawkears", "scores.csv", labels.HAWKEARS),
    "hawkears for raven": label_table("hawkears", "marsh_HawkEars.txt", labels.HAWKEARS_RAVEN),
    "opensoundscape": label_table("csv", "annotations.csv", labels.OPENSOUNDSCAPE),
    "list of kaggle": Reader(
        text(
            "kaggle.csv",
            "fileName,date,description,status,publicScore,privateScore\n"
            "s.csv,2020-11-20 10:00:01,callboard 0123456789abcdef x,complete,0.9,0.8\n"
            's.csv,11/20/2020 10:00,"a, b",complete,0.9,\n',
        ),
        lambda path: parse_sent(utf8_text(path), path.name),
    ),
    "list of dvc": Reader(listing, read_listing),
    "settings of dvc": Reader(
        text(
            ".dvc/config",
            "[core]\n    autostage = true\n['remote \"x\"']\n    url = /x\n[cache]\n    dir = y\n",
        ),
        lambda path: cache_folder(path.parents[1]),
    ),
    "predictions": Reader(predictions("about.json"), read_predictions, kin="june"),
    "detector of predictions": Reader(predictions("about.json"), read_described_detector, kin="june"),
    "shard of recordings": Reader(predictions("recordings/0.parquet"), read_predictions),
    "shard of windows": Reader(predictions("windows/1.parquet"), read_predictions),
    "thresholds": Reader(thresholds, read_threshold_table),
    "exported detector": Reader(exported, read_exported),
    "manifest of a detector": Reader(detector_manifest, read_detector_manifest, kin="damaged.zip"),
    "weights": Reader(weights, read_weights),
    "checkpoint": Reader(checkpoint, read_checkpoint, refuses=False),
    "pretrained": Reader(pretrained("w.pt"), read_pretrained),
    "safetensors": Reader(pretrained("w.safetensors"), read_pretrained),
    "json cache": Reader(memo, lambda path: "a" in JsonCache("captions", captions.__name__), refuses=False),
    "progress of a training": Reader(progress_file, read_watched, refuses=False),
    **{
        f"{name} of a result": Reader(in_workspace(name), read_workspace, kin="plots/train/")
        for name in (
            *("params.yaml", "dvc.lock", "metrics/cv.json", "metrics/lb.json"),
            *("plots/train/r0-fold1.csv", "leaderboard.csv"),
        )
    },
}

FEW, MANY = range(20), range(20, 320)
"""Damages of the quick and of the long campaign."""

LENGTHS = pytest.mark.parametrize(
    "numbers", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)]
)


@LENGTHS
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused_by_name(
    name: str, numbers: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    reader = READERS[name]
    outcome = campaign(name, reader, tmp_path, numbers)
    assert outcome.broken == []
    assert bool(outcome.n_refused) == reader.refuses


ODD_CELLS = [None, "", "odd", b"\xff\xfe", -1, 10**18, 1e308, "[1", "{}", '[{"device": 1}]', "x" * 100_000]
CELLS = [
    *(("runs", name) for name in ("name", "start_time", "status", "lifecycle_stage")),
    *(("tags", name) for name in ("key", "value")),
    *(("params", name) for name in ("key", "value")),
    *(("latest_metrics", name) for name in ("key", "value", "is_nan")),
    *(("experiments", name) for name in ("name", "lifecycle_stage")),
]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A database with one result."""
    from callboard.results.mlflow.track import record

    folder = tmp_path_factory.mktemp("recorded")
    shutil.copy(empty_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        in_folder(folder, patch)
        write_workspace(folder / "here")
        record_compute(folder / "here", 0, Compute("cpu", "A", 1, "float32", "2.9"))
        result = read_result(files_in(folder / "here"), "here")
        record(result, Origin("first", ""))
    return folder / "mlflow.db"


def in_folder(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    patch.setenv("DVC_ROOT", str(folder))
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)


def read_database(path: Path) -> int:
    known_result("0123456789abcdef")
    return len(read_rows())


def _set_cell(connection: sqlite3.Connection, table: str, column: str, cell: object, rng: Random) -> None:
    """Set a cell of the result's run, the first one, or of our experiment, the last one."""
    own = "run_uuid = (SELECT run_uuid FROM runs ORDER BY rowid LIMIT 1)"
    where = "experiment_id > 0" if table == "experiments" else own
    rows = connection.execute(f"SELECT rowid FROM {table} WHERE {where} ORDER BY rowid").fetchall()
    connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (cell, *rng.choice(rows)))


@LENGTHS
def test_an_odd_cell_of_the_database_is_read_or_refused(
    numbers: range, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_folder(tmp_path, monkeypatch)
    broken, n_refused = [], 0
    for number in numbers:
        rng = Random(number)
        (table, column), cell = rng.choice(CELLS), rng.choice(ODD_CELLS)
        path = Path(shutil.copy(recorded, tmp_path / "mlflow.db"))
        with sqlite3.connect(path) as connection, suppress(sqlite3.IntegrityError):
            _set_cell(connection, table, column, cell, rng)
        connection.close()
        try:
            read_database(path)
        except UserError as error:
            n_refused += 1
            if "mlflow.db" not in str(error):
                broken.append(f"{table}.{column} {cell!r:.20}: not named: {error}")
        except Exception as error:
            broken.append(f"{table}.{column} {cell!r:.20}: {error!r}")
    assert broken == []
    assert n_refused


@LENGTHS
def test_a_damaged_database_is_read_or_refused(
    numbers: range, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_folder(tmp_path, monkeypatch)
    reader = Reader(lambda folder: Path(shutil.copy(recorded, folder / "mlflow.db")), read_database)
    outcome = campaign("mlflow.db", reader, tmp_path, numbers)
    assert outcome.broken == []
    assert outcome.n_refused

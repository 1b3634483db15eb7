import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from callboard.analysis.thresholds.evidence import box_evidence
from callboard.cli import build_parser
from callboard.data.verdicts import VERDICT_COLUMNS
from callboard.features.frame_cache import MelCache
from callboard.model.device import pick_device
from callboard.model.weights import load_model
from callboard.results.lookup import find_result
from callboard.scoring.predict import score_recordings
from callboard.scoring.result_detector import load_detector
from callboard.scoring.window_scores import window_means
from tests.conftest import Workspace


def judge(folder: Path, is_present: "pd.Series[bool]", windows: pd.DataFrame) -> None:
    verdict = np.where(is_present, "present", "absent")
    windows.assign(verdict=verdict)[VERDICT_COLUMNS].to_csv(folder / "verdicts.csv", index=False)


@pytest.mark.slow
def test_from_boxes_to_a_review_to_detections(workspace: Workspace, callboard, refused) -> None:
    root = workspace.root
    printed = callboard("thresholds", "exp0051")
    assert "0 reached, 0 not reached, 3 too few" in printed
    assert "3 species from boxes, out of fold" in printed
    table = pd.read_csv(root / "thresholds/exp0051/thresholds.csv", dtype={"species": str})
    clips = pd.read_csv(root / "data/clips.csv", dtype={"species_id": str})
    counts = clips.groupby(["species_id", "label_type"]).size().unstack(fill_value=0)
    assert table.set_index("species")[["n_present", "n_absent"]].to_numpy().tolist() == (
        counts.loc[table["species"], ["tp", "fp"]].to_numpy().tolist()
    )
    assert table["threshold"].isna().all()
    assert table["scores_of"].str.fullmatch(r"exp0051@[0-9a-f]{16}").all()
    assert (root / "thresholds/exp0051/thresholds.png").read_bytes().startswith(b"\x89PNG")
    assert "no species has a threshold" in refused(
        "predict", "exp0051", "data/source/train", "--threshold", "thresholds/exp0051/thresholds.csv"
    )
    assert not (root / "predictions").exists()

    callboard("predict", "exp0051", "data/source/train", "--floor", "0")
    june = root / "predictions/exp0051"
    windows = pd.read_parquet(june / "windows")
    assert windows.groupby("species").size().min() >= 60
    middle = windows.groupby("species")["score"].transform("median")
    chosen = windows.index % 2 == 0
    judge(june, (windows["score"] > middle)[chosen], windows[chosen])
    printed = callboard("thresholds", "exp0051", "--precision", "0.8")
    assert "0 too few" in printed
    assert "3 species from verdicts: they hold for the recordings that were reviewed" in printed
    thresholds = pd.read_csv(root / "thresholds/exp0051/thresholds.csv", dtype={"species": str})
    assert set(thresholds["evidence"]) == {"verdicts"}
    lowest = thresholds.set_index("species")["threshold"].dropna()
    assert len(lowest)
    is_right = windows["score"] > middle
    reaching = windows["score"] >= windows["species"].map(lowest)
    assert is_right[reaching].groupby(windows["species"]).mean().min() >= 0.8

    table = "thresholds/exp0051/thresholds.csv"
    printed = callboard("predict", "exp0051", "data/source/train", "--floor", "0", "--threshold", table)
    assert "0 of 32 recordings scored now" in printed
    callboard("detections", str(june), "--threshold", table, "--to", "csv", "--output", "list")
    assert (june / "detections.csv").read_text() == (root / "list/detections.csv").read_text()
    assert len(pd.read_csv(june / "detections.csv")) > 3

    shutil.copytree(june, root / "july")
    (june / "verdicts.csv").unlink()
    assert "from boxes" in callboard("thresholds", "exp0051")
    printed = callboard("thresholds", "exp0051", "--verdicts", "july", "--output", "other")
    assert "from verdicts" in printed
    assert (root / "other/thresholds.csv").is_file()
    low = refused("predict", "exp0051", "data/source/test", "--output", "new", "--threshold", "0.05")
    assert "threshold 0.05 of species" in low
    assert not (root / "new/about.json").exists()


@pytest.mark.slow
def test_a_box_is_never_scored_by_a_network_that_trained_on_its_recording(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against scores made here, with each fold's network on the recordings that its training left out."""
    monkeypatch.chdir(workspace.root)
    monkeypatch.setenv("DVC_ROOT", str(workspace.root))
    monkeypatch.setenv("CALLBOARD_DEVICE", "cpu")
    result, device = find_result("HEAD"), pick_device()
    detector = load_detector(result, device)
    evidence = box_evidence(result, detector)
    (networks,) = detector.parts
    folds = pd.read_csv("data/folds.csv", dtype={"recording_id": str}).set_index("recording_id")["fold"]
    cache = MelCache.open(Path("data/mel/train"))
    own, others = {}, {}
    for fold, path in result.weights.items():
        model = load_model(Path(path), device, networks.score.predict.weights)
        for recording_id, its_fold in folds.items():
            found = score_recordings([model], cache, [recording_id], networks.score, device)
            (own if fold == its_fold else others)[recording_id] = window_means(found, networks.infer)
    for column, name in enumerate(detector.species):
        cells = evidence[name].cells
        for score, unit in zip(cells.score, cells.unit, strict=True):
            assert np.isclose(own[unit][:, column], score, atol=1e-5).any()
    differences = [np.abs(own[name] - others[name]).max() for name in own]
    assert np.median(differences) > 1e-3  # so a wrong network would be noticed


@pytest.mark.parametrize("precision", ["0", "1", "90", "nan", "high"])
def test_a_precision_is_a_share(precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["thresholds", "exp0051", "--precision", precision])
    assert "must be a number between 0 and 1" in capsys.readouterr().err

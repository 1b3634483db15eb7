"""The page of a toy result: in git and DVC's cache only, scored by networks of random weights."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from callboard.core.errors import UserError
from callboard.data.clips import write_clips
from callboard.features.frame_cache import EncodedRecording, MelCache, write_cache
from callboard.model.weights import load_model
from callboard.params.scoring import PredictParams
from callboard.reports.result_page import sections
from callboard.reports.result_page.listening import Listener, hear, stretch
from callboard.reports.result_page.page import PageHead, render
from callboard.reports.result_page.sections import PAGE_SECTIONS, write_report
from callboard.reports.result_page.worst import FP_COLOUR, TP_COLOUR, loudest
from callboard.results.lookup import find
from tests.toy_git import ToyRepository
from tests.toy_models import (
    random_out_of_fold,
    save_fold,
    tiny_network,
    toy_clips,
    write_workspace,
)

FOLDS = [0, 1, 2]
PARAMS = {
    "seed": 1,
    "data": {"source": "demo"},
    "audio": {"sample_rate": 100, "on_other_rate": "error"},
    "features": {
        "kind": "log_mel",
        "embedding_hop_s": 0.5,
        "n_fft": 64,
        "hop_length": 10,
        "n_mels": 32,
        "f_min": 0.0,
        "f_max": 50.0,
        "top_db": 80.0,
    },
    "split": {"folds": FOLDS},
    "predict": {"overlap_frames": 8, "batch_size": 16, "weights": "last", "tta": 0},
    "infer": {"blend": []},
    "pseudo": {"rounds": 1},
}
PREDICT = PredictParams(**PARAMS["predict"])


class ToyResult(ToyRepository):
    """A repository that holds one finished experiment named exp<1>."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        made = root.parent / "made"
        made.mkdir()
        write_workspace(made)
        boxes = {"t_min": 2.0, "t_max": 4.0, "f_min": 5.0, "f_max": 20.0}
        write_clips(toy_clips().assign(**boxes), made / "data/clips.csv")
        pseudo = toy_clips().head(6).assign(label_type="pseudo", round=1, score=0.9, votes=1)
        pseudo["teacher"] = [f"r0/fold{k % 3}" for k in range(6)]
        write_clips(pseudo, made / "pseudo.csv")
        for fold in FOLDS:
            save_fold(made / "models/r1", fold, tiny_network(10 + fold))
        self.outs = {
            "data/clips.csv": self.cache((made / "data/clips.csv").read_bytes()),
            "data/folds.csv": self.cache((made / "data/folds.csv").read_bytes()),
            "data/mel": self.cache_folder(made / "data/mel"),
            "pseudo/r1.csv": self.cache((made / "pseudo.csv").read_bytes()),
            "scores/oof.csv": self.cache_table(random_out_of_fold(0)),
            **{
                f"models/r{number}/fold{k}.pt": self.cache(
                    (made / f"models/r{number}/fold{k}.pt").read_bytes()
                )
                for number in (0, 1)
                for k in FOLDS
            },
        }

    def cache_folder(self, folder: Path) -> str:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        entries = [
            {"md5": self.cache(path.read_bytes()), "relpath": str(path.relative_to(folder))} for path in files
        ]
        content = json.dumps(entries).encode()
        md5 = self.cache(content)
        path = self.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
        path.rename(f"{path}.dir")
        return f"{md5}.dir"

    def finish(self, name: str) -> str:
        (self.root / "metrics").mkdir()
        (self.root / "metrics/cv.json").write_text(
            '{"cv": {"lwlrap": 0.7, "lwlrap_low": 0.6, "lwlrap_high": 0.8}}'
        )
        (self.root / "metrics/lb.json").write_text('{"lb": {"public": 0.65, "private": null}}')
        (self.root / "plots/train").mkdir(parents=True)
        for fold in ("r0-fold0", "r0-fold1", "r0-fold2", "r1-fold0", "r1-fold1", "r1-fold2"):
            curve = "epoch,loss,val_lwlrap\n1,2.0,\n2,1.5,0.5\n"
            (self.root / f"plots/train/{fold}.csv").write_text(curve)
        return self.experiment(name, self.outs, PARAMS)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    result = ToyResult(tmp_path_factory.mktemp("report") / "main")
    result.finish("exp<1>")
    return result


@pytest.fixture(autouse=True)
def inside(repository, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(repository.root))
    monkeypatch.setenv("CALLBOARD_DEVICE", "cpu")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(repository.root)


@pytest.fixture(scope="module")
def written(repository, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(repository.root))
        patch.setenv("CALLBOARD_DEVICE", "cpu")
        patch.chdir(repository.root)
        path = tmp_path_factory.mktemp("page") / "page.html"
        write_report("exp<1>", path, 4, with_scores=True)
    return path.read_text(encoding="utf-8")


def section(text, name):
    (found,) = re.findall(rf'<section id="{name}">.*?</section>', text, re.DOTALL)
    return found


def test_every_section_is_there_and_only_the_board_is_missing(written):
    for name in PAGE_SECTIONS:
        assert ('class="missing"' in section(written, name)) == (name == "cv-lb"), name
    assert "callboard sync" in section(written, "cv-lb")


def test_the_page_is_complete_in_itself(written):
    assert "http" not in written
    assert not re.findall(r'(?:src|href)="(?!#|data:image/png;base64)', written)
    assert len(written) < 3e6


def test_no_two_elements_share_an_id(written):
    ids = re.findall(r'\bid="([^"]+)"', written)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', written)) <= set(ids)


def test_names_are_escaped(written):
    assert "<title>exp&lt;1&gt;</title>" in written
    assert "exp<1>" not in written


def test_the_worst_recordings_are_drawn_with_image_boxes_and_scores(written):
    worst = section(written, "worst")
    assert worst.count("<svg") == worst.count("data:image/png;base64") == 4
    assert "attention" in worst
    assert "left out" not in worst
    assert TP_COLOUR in worst
    assert re.search(rf'stroke-dasharray[^"]*{FP_COLOUR}', worst)


def test_the_leak_audit_counts_and_finds_nothing(written):
    audit = section(written, "leaks")
    assert audit.count('class="passed"') == 9
    assert "(3 networks)" in audit
    assert "(4 test recordings)" in audit
    assert 'class="violated"' not in audit
    assert "(6 pseudo-labels of training recordings)" in audit
    assert "Round 1: for 6 labels, no network in the makers&#39; line had seen the recording." in audit


def test_without_weights_files_makers_are_checked_by_their_names(repository, tmp_path):
    write_report("exp<1>", tmp_path / "page.html", 0, with_scores=False)
    audit = section((tmp_path / "page.html").read_text(), "leaks")
    assert audit.count('class="passed"') == 8
    assert "The makers of pseudo-labels are checked by their names alone: --no-scores." in audit


def test_figures_are_in_the_colours_of_the_page(written):
    assert "var(--ink)" in section(written, "species")
    assert "#0102" not in written


# what is missing


def without(repository, path):
    md5 = repository.outs[path]
    return repository.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("scores/oof.csv", {"species", "worst", "calibration", "leaks", "pseudo", "cv-lb"}),
        ("data/mel", {"worst", "cv-lb"}),
        ("pseudo/r1.csv", {"leaks", "pseudo", "cv-lb"}),
    ],
)
def test_a_section_says_what_it_lacks_and_the_others_stay(repository, tmp_path, path, names):
    gone = without(repository, path)
    away = gone.rename(tmp_path / "away")
    try:
        write_report("exp<1>", tmp_path / "page.html", 1, with_scores=False)
    finally:
        away.rename(gone)
    text = (tmp_path / "page.html").read_text()
    missing = {name for name in PAGE_SECTIONS if 'class="missing"' in section(text, name)}
    assert missing == names
    assert re.search(rf"{path} of exp&lt;1&gt;@[0-9a-f]{{16}} is not in DVC&#39;s cache", text)
    assert "`dvc pull` it or run the experiment again" in text


def test_without_a_network_the_spectrograms_remain(repository, tmp_path):
    gone = without(repository, "models/r1/fold1.pt")
    away = gone.rename(tmp_path / "away")
    try:
        write_report("exp<1>", tmp_path / "page.html", 1, with_scores=True)
    finally:
        away.rename(gone)
    worst = section((tmp_path / "page.html").read_text(), "worst")
    assert worst.count("data:image/png;base64") == 1
    assert "networks were trained on are not checked: models/r1/fold1.pt" in section(
        (tmp_path / "page.html").read_text(), "leaks"
    )
    assert "Scores and attention are left out: models/r1/fold1.pt" in worst


def test_a_summary_line_tells_file_size_and_seconds(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "PAGE_SECTIONS", {})
    write_report("exp<1>", tmp_path / "page.html", 0, with_scores=False)
    line = capsys.readouterr().out
    assert re.fullmatch(
        rf"report: exp<1> in {tmp_path}/page.html, 0\.0 MB, \d+\.\d s, peak memory \d+ MB\n", line
    )


# names


def test_a_name_that_nothing_has_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="no result is called 'exp1'; the nearest are exp<1>"):
        find("exp1")


def test_a_name_with_a_key_means_that_result():
    found = find("exp<1>")
    assert find(f"exp<1>@{found.key}").commit == found.commit
    for digits in (found.key[:4], found.key):
        assert find(digits).commit == find(f"exp<1>@{digits}").commit == found.commit
    with pytest.raises(UserError, match=rf"the nearest are exp<1>@{found.key}"):
        find(f"exp<1>@{'0' * 16}")


def test_a_branch_that_never_finished_is_refused():
    with pytest.raises(UserError, match="main holds no finished result"):
        find("main")


# what a network says


def test_tracks_are_means_over_the_windows_that_cover_a_frame(tmp_path):
    write_workspace(tmp_path)
    loaded = load_model(tmp_path / "models/r0/fold0.pt", torch.device("cpu"))
    cache = MelCache.open(tmp_path / "data/mel/train")
    tracks = hear(loaded, "000", cache, PREDICT, torch.device("cpu"))
    assert tracks.framewise.shape == tracks.attention.shape == (150, 3)
    # windows of 64 frames start at 0, 56 and 86; frames 56 … 63 are in the first two
    whole = cache.read("000")
    alone = [
        hear(
            loaded,
            "x",
            one_recording(tmp_path / str(start), whole[start : start + 64]),
            PREDICT,
            torch.device("cpu"),
        )
        for start in (0, 56)
    ]
    assert tracks.framewise[:56] == pytest.approx(alone[0].framewise[:56], abs=1e-5)
    expected = (alone[0].framewise[56:] + alone[1].framewise[:8]) / 2
    assert tracks.framewise[56:64] == pytest.approx(expected, abs=1e-5)


def one_recording(folder, frames):
    write_cache(folder, [EncodedRecording("x", frames, -80.0, 0.0)], frames.shape[1])
    return MelCache.open(folder)


def test_a_network_is_not_asked_about_what_it_trained_on(tmp_path):
    write_workspace(tmp_path)
    listener = Listener({0: tmp_path / "models/r0/fold0.pt"})
    cache = MelCache.open(tmp_path / "data/mel/train")
    with pytest.raises(UserError, match="the network of fold 0 has trained on 001"):
        listener.hear("001", 0, cache, PREDICT)
    with pytest.raises(UserError, match="the network of fold 2 is missing"):
        listener.hear("002", 2, cache, PREDICT)


def test_segments_fill_their_share_of_the_frames():
    assert stretch(np.array([[[1.0], [2.0]]], np.float32), 5)[0, :, 0].tolist() == [1, 1, 1, 2, 2]


def test_long_recordings_show_the_loudest_frame_of_each_pixel():
    frames = np.arange(10, dtype=np.uint8).reshape(5, 2)
    assert (loudest(frames, 5) == frames).all()
    assert loudest(frames, 3).tolist() == [[2, 3], [6, 7], [8, 9]]


def test_an_empty_page_renders():
    text = render(PageHead("x & y", "memo <b>", [], [], []), [], note="no board")
    assert "memo &lt;b&gt;" in text
    assert "The board could not be read: no board" in text

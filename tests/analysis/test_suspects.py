"""Suspicious labels by hand: the ranking, the table of a toy result, its review and its truth."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from callboard import cli
from callboard.analysis.suspects.ranking import SUSPECT_COLUMNS, rank, usual_boxes, window_evidence
from callboard.analysis.suspects.review import decided, is_mistake, precision_table, reviewed_boxes
from callboard.core.errors import UserError
from callboard.data.annotations import ANNOTATION_COLUMNS
from callboard.data.clips import DTYPES, write_clips
from callboard.data.corrections import CORRECTION_COLUMNS, read_corrections
from callboard.scoring.window_scores import HEADS, WindowScores
from tests.reports.test_result_page import PARAMS
from tests.toy_git import ToyRepository

RECORDINGS = ["055088446", "1e5", "NA"]
SPECIES = ["3", "03"]
FRAMES_PER_S = 10.0
CLIP_FRAMES = 40
HEADER = ",".join(CORRECTION_COLUMNS)


def logit(probability: np.ndarray) -> np.ndarray:
    return np.log(probability / (1 - probability)).astype(np.float32)


def scores(fold: list[int] | None = None) -> WindowScores:
    """Three recordings of 10 s in windows from 0, 3 and 6 s; species 3 before 03."""
    probability = np.array(
        [
            [[0.1, 0.2], [0.8, 0.3], [0.9, 0.1]],
            [[0.6, 0.1], [0.2, 0.7], [0.3, 0.2]],
            [[0.5, 0.4], [0.1, 0.9], [0.2, 0.6]],
        ]
    ).reshape(9, 1, 2)
    return WindowScores(
        recording_ids=RECORDINGS,
        species=SPECIES,
        recording=np.repeat(np.arange(3), 3).astype(np.int32),
        start_frame=np.tile([0, 30, 60], 3).astype(np.int32),
        heads={name: logit(probability) for name in HEADS},
        peak_frame=np.tile([20, 50, 80], 3).astype(np.int32)[:, None, None].repeat(2, axis=2),
        fold=np.array([0, 1, 0] if fold is None else fold, dtype=np.int64),
    )


def clips(*rows: tuple[str, str, str, float, float]) -> pd.DataFrame:
    """Rows of recording, label type, species, start and end in seconds."""
    table = pd.DataFrame(rows, columns=["recording_id", "label_type", "species_id", "t_min", "t_max"])
    spans = {"start_frame": table["t_min"] * FRAMES_PER_S, "stop_frame": table["t_max"] * FRAMES_PER_S}
    boxes = {"songtype_id": "1", "f_min": 500.0, "f_max": 2000.0, "low_mel": 0, "high_mel": 8}
    table = table.assign(clip_id=range(len(rows)), **boxes, **spans)
    return table.reindex(columns=list(DTYPES)).astype(DTYPES)


LABELS = clips(
    ("055088446", "tp", "3", 1.0, 2.0),  # held by the first window alone: 0.1
    ("1e5", "tp", "03", 3.2, 3.8),  # by the first and the second: 0.7
    ("NA", "fp", "03", 3.0, 5.0),  # whole in the second, though the first touches it: 0.9
    ("NA", "fp", "3", 9.0, 10.0),  # by the last: 0.2
)


def ranked() -> pd.DataFrame:
    return rank(LABELS, window_evidence(scores(), "attention_max", CLIP_FRAMES, FRAMES_PER_S), "exp@0 r0")


def test_each_label_is_held_against_the_windows_that_hold_its_box() -> None:
    table = ranked()
    assert table.columns.tolist() == SUSPECT_COLUMNS
    own = table[table["kind"] != "missing"]
    columns = ["rank", "kind", "recording_id", "given", "probability", "score", "fold", "model"]
    assert own[columns].to_numpy().tolist() == [
        [1, "tp", "055088446", "present", 0.1, 0.1, 0, "exp@0 r0/fold0"],
        [1, "fp", "NA", "absent", 0.9, 0.1, 0, "exp@0 r0/fold0"],
        [2, "tp", "1e5", "present", 0.7, 0.7, 1, "exp@0 r0/fold1"],
        [2, "fp", "NA", "absent", 0.2, 0.8, 0, "exp@0 r0/fold0"],
    ]


def test_a_label_may_be_missing_wherever_nobody_spoke_of_the_species() -> None:
    table = ranked()
    missing = table[table["kind"] == "missing"]
    columns = ["rank", "recording_id", "species_id", "probability", "t_min", "t_max", "given"]
    assert missing[columns].to_numpy().tolist() == [
        [1, "1e5", "3", 0.6, 1.5, 2.5, ""],
        [2, "055088446", "03", 0.3, 4.7, 5.3, ""],
    ]


def test_the_kinds_take_turns() -> None:
    assert ranked()["kind"].tolist() == ["tp", "fp", "missing"] * 2


def test_a_box_longer_than_a_window_is_held_by_those_that_see_most_of_it() -> None:
    heard = window_evidence(scores(), "attention_max", CLIP_FRAMES, FRAMES_PER_S)
    assert heard.windows_with(1, 0, 100).tolist() == [3, 4, 5]
    assert heard.windows_with(1, 25, 75).tolist() == [4]


def test_scores_that_saw_the_labels_are_refused() -> None:
    everyone = scores()
    seen = WindowScores(**{**vars(everyone), "fold": None})
    with pytest.raises(UserError, match="not out-of-fold: a label would confirm itself"):
        window_evidence(seen, "attention_max", CLIP_FRAMES, FRAMES_PER_S)


def test_labels_of_other_data_are_refused() -> None:
    heard = window_evidence(scores(), "attention_max", CLIP_FRAMES, FRAMES_PER_S)
    with pytest.raises(UserError, match="recording_id other has no scores"):
        rank(clips(("other", "tp", "3", 1.0, 2.0)), heard, "exp@0 r0")


def test_the_usual_box_of_a_species_is_its_commonest_confirmed_one() -> None:
    rows = [("NA", "tp", "3", start, start + length) for start, length in ((0, 2), (3, 1), (5, 2))]
    rows += [("NA", "fp", "3", start, start + 3.0) for start in range(5)] + [("NA", "fp", "03", 1, 5)]
    boxes = usual_boxes(clips(*rows), ["3", "03", "17"])
    assert boxes[["species_id", "duration_s"]].to_numpy().tolist() == [["3", 2.0], ["03", 4.0], ["17", 3.0]]


# the review


class Reviewed:
    """A workspace with a prepared folder and corrections.csv."""

    def __init__(self, root: Path) -> None:
        self.root = root
        source = root / "data/source"
        source.mkdir(parents=True)
        (root / "dvc.yaml").touch()
        (root / "corrections.csv").write_text(HEADER + "\n")
        (source / "species.csv").write_text("species_id\n3\n03\n")
        names = "\n".join(f"{name},train,{name}.flac,1000,100,1" for name in RECORDINGS)
        (source / "recordings.csv").write_text(
            f"recording_id,subset,file,n_samples,sample_rate,digest\n{names}\n"
        )
        for kind in ("tp", "fp"):
            LABELS.loc[LABELS["label_type"] == kind, ANNOTATION_COLUMNS].to_csv(
                source / f"train_{kind}.csv", index=False
            )

    def review(self, *verdicts: str) -> Path:
        table = ranked()
        table["verdict"] = [*verdicts, *[""] * (len(table) - len(verdicts))]
        path = self.root / "reviewed.csv"
        table.to_csv(path, index=False)
        return path

    def apply(self, path: Path) -> None:
        cli.dispatch(["suspects", "--apply", str(path)])

    def corrections(self) -> pd.DataFrame:
        return read_corrections(self.root / "corrections.csv")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reviewed:
    monkeypatch.chdir(tmp_path)
    return Reviewed(tmp_path)


def test_rows_with_a_verdict_go_into_corrections(
    workspace: Reviewed, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.apply(workspace.review("absent", " unsure ", "present"))
    found = workspace.corrections()
    assert found[["kind", "recording_id", "verdict", "model"]].to_numpy().tolist() == [
        ["tp", "055088446", "absent", "exp@0 r0/fold0"],
        ["fp", "NA", "unsure", "exp@0 r0/fold0"],
        ["missing", "1e5", "present", "exp@0 r0/fold1"],
    ]
    assert capsys.readouterr().out.startswith(
        "suspects: 3 rows added to corrections.csv (1 present, 1 absent, 1 unsure), 3 without verdict left "
        "out, data.corrections=true uses them, "
    )


def test_a_review_is_taken_whole_or_not_at_all(workspace: Reviewed) -> None:
    with pytest.raises(UserError, match=r"reviewed\.csv row 3: verdict must be one of .*, found 'yes'"):
        workspace.apply(workspace.review("absent", "yes"))
    assert workspace.corrections().empty


def test_a_review_is_not_taken_twice(workspace: Reviewed, capsys: pytest.CaptureFixture[str]) -> None:
    workspace.apply(workspace.review("absent"))
    before = (workspace.root / "corrections.csv").read_bytes()
    workspace.apply(workspace.review("absent"))
    assert "suspects: 0 rows added to corrections.csv, 1 there already, " in capsys.readouterr().out
    assert (workspace.root / "corrections.csv").read_bytes() == before
    workspace.apply(workspace.review("absent", "unsure"))
    assert workspace.corrections()["verdict"].tolist() == ["absent", "unsure"]


def test_a_second_verdict_on_a_label_is_refused(workspace: Reviewed) -> None:
    workspace.apply(workspace.review("absent"))
    with pytest.raises(
        UserError, match=r"reviewed\.csv row 2: contradicts 'absent' in corrections\.csv row 2"
    ):
        workspace.apply(workspace.review("present", "present"))
    assert len(workspace.corrections()) == 1


def test_a_table_without_verdicts_is_refused(workspace: Reviewed) -> None:
    with pytest.raises(UserError, match="no row has a verdict; write one of present, absent, unsure"):
        decided(workspace.review())


def test_a_review_needs_the_prepared_folder(workspace: Reviewed) -> None:
    path = workspace.review("absent")
    (workspace.root / "data/source/species.csv").unlink()
    with pytest.raises(UserError, match="data/source: does not exist; `dvc repro prepare` makes it"):
        workspace.apply(path)


def test_what_was_reviewed_is_known_by_its_span(workspace: Reviewed) -> None:
    workspace.apply(workspace.review("absent", "", "unsure"))
    assert reviewed_boxes(ranked(), workspace.corrections()).tolist() == [True, False, True] + [False] * 3


def test_options_that_contradict_each_other_are_refused(workspace: Reviewed) -> None:
    with pytest.raises(UserError, match="--apply: takes a reviewed table, and neither NAME nor --kind"):
        cli.dispatch(["suspects", "exp0051", "--apply", "x.csv"])


# the truth

CALLS = pd.DataFrame(
    [("055088446", "3", 5.0, 6.0), ("1e5", "03", 3.5, 4.0), ("NA", "03", 4.0, 4.5), ("1e5", "3", 8.0, 9.0)],
    columns=["recording_id", "species_id", "t_min", "t_max"],
)


def test_a_mistake_is_a_label_that_the_calls_contradict() -> None:
    table = ranked()
    wrong = table[is_mistake(table, CALLS)]
    assert wrong[["kind", "recording_id", "species_id"]].to_numpy().tolist() == [
        ["tp", "055088446", "3"],
        ["fp", "NA", "03"],
        ["missing", "1e5", "3"],
    ]


def test_precision_is_told_for_each_kind() -> None:
    table = pd.concat([ranked()] * 10, ignore_index=True)
    assert precision_table(table, CALLS).splitlines() == [
        "  tp: 10 mistakes among 20; first 10: 5 (50% of all), first 20: 10 (100% of all)",
        "  fp: 10 mistakes among 20; first 10: 5 (50% of all), first 20: 10 (100% of all)",
        "  missing: 10 mistakes among 20; first 10: 5 (50% of all), first 20: 10 (100% of all)",
    ]
    assert "missing: none of 20 is a mistake" in precision_table(table, CALLS.iloc[:3])


# the command on a finished result


class Finished(ToyRepository):
    """A repository that holds one finished experiment."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        scores().save(root / ".dvc/oof.npz")
        write_clips(LABELS, root / ".dvc/clips.csv")
        self.outs = {
            "data/clips.csv": self.cache((root / ".dvc/clips.csv").read_bytes()),
            "scores/windows": self.cache_folder({"oof.npz": (root / ".dvc/oof.npz").read_bytes()}),
            "data/source": self.cache_folder(
                {"hidden/train_labels.csv": CALLS.to_csv(index=False).encode(), "species.csv": b"3"}
            ),
        }

    def cache_folder(self, files: dict[str, bytes]) -> str:
        entries = [{"md5": self.cache(content), "relpath": path} for path, content in files.items()]
        md5 = self.cache(json.dumps(entries).encode())
        path = self.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
        path.rename(f"{path}.dir")
        return f"{md5}.dir"

    def finish(self, name: str, **infer: object) -> None:
        for folder in ("metrics", "plots/train"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "metrics/cv.json").write_text('{"cv": {"lwlrap": 0.7}}')
        (self.root / "metrics/lb.json").write_text('{"lb": {"public": 0.65, "private": null}}')
        (self.root / "plots/train/r0-fold0.csv").write_text("epoch,loss,val_lwlrap\n1,2.0,\n")
        clip = {"mode": "event", "n_frames": CLIP_FRAMES, "offsets": [10], "mel_rows": None}
        changed = {
            "split": {"folds": [0]},
            "clip": clip,
            "infer": {"head": "attention_max", "blend": []} | infer,
            "pseudo": {"rounds": 0},
        }
        self.experiment(name, self.outs, PARAMS | changed)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    repository = Finished(tmp_path_factory.mktemp("suspects") / "main")
    repository.finish("exp1")
    repository.finish("blend1", blend=["exp1@0123456789abcdef"])
    return repository


@pytest.fixture
def repository(made: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Finished:
    copy = made.copied(tmp_path / "main")
    assert isinstance(copy, Finished)
    (copy.root / "dvc.yaml").touch()
    monkeypatch.setenv("DVC_ROOT", str(copy.root))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(copy.root)
    return copy


def test_the_command_writes_a_table_to_review(
    repository: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("corrections.csv").write_text(HEADER + "\n")
    cli.dispatch(["suspects", "exp1"])
    table = pd.read_csv("suspects.csv", dtype=str, keep_default_na=False)
    expected = ranked().drop(columns="model").astype(str)
    pd.testing.assert_frame_equal(table.drop(columns="model"), expected)
    assert table["model"].str.fullmatch(r"exp1@[0-9a-f]{16} r0/fold[01]").all()
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("suspects: 6 rows of exp1 in suspects.csv, 2 tp, 2 fp, 2 missing, ")
    assert others == [f"  {kind}: 1 mistake among 2" for kind in ("tp", "fp", "missing")]


def test_kinds_and_numbers_can_be_chosen(repository: Finished) -> None:
    cli.dispatch(["suspects", "exp1", "--kind", "tp", "--kind", "fp", "--top", "1", "--output", "some.csv"])
    assert pd.read_csv("some.csv")["kind"].tolist() == ["tp", "fp"]


def test_what_corrections_have_a_verdict_on_is_left_out(
    repository: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("corrections.csv").write_text(f"{HEADER}\ntp,055088446,3,1,1,500,2,2000,present,,\n")
    cli.dispatch(["suspects", "exp1", "--kind", "tp"])
    table = pd.read_csv("suspects.csv", dtype=str)
    assert table[["rank", "recording_id"]].to_numpy().tolist() == [["1", "1e5"]]
    assert "1 reviewed before left out" in capsys.readouterr().out


def test_a_table_that_holds_verdicts_is_not_written_over(repository: Finished) -> None:
    cli.dispatch(["suspects", "exp1"])
    cli.dispatch(["suspects", "exp1"])
    text = Path("suspects.csv").read_text().replace(",,\n", ",absent,\n", 1)
    Path("suspects.csv").write_text(text)
    with pytest.raises(UserError, match=r"suspects\.csv: contains 1 verdict; .* --apply suspects\.csv"):
        cli.dispatch(["suspects", "exp1"])
    assert Path("suspects.csv").read_text() == text


def test_a_blend_has_no_windows_of_its_own(repository: Finished) -> None:
    with pytest.raises(
        UserError, match="blend1 is a blend, which has neither networks nor windows of its own; name one of"
    ):
        cli.dispatch(["suspects", "blend1"])

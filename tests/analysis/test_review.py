"""A review without its page: the queue of each kind of table, its order, its verdicts and its end."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from callboard.analysis.review.prediction_queue import WINDOWS_PER_SPECIES
from callboard.analysis.review.queues import open_queue
from callboard.analysis.review.sampling import sample_windows
from callboard.analysis.review.session import ReviewSession, StaleAnswerError
from callboard.analysis.thresholds.choice import MIN_CELLS
from callboard.core.errors import UserError
from callboard.data.groups import site_of
from callboard.data.verdicts import VERDICT_COLUMNS, read_window_verdicts
from callboard.scoring.detections import StoredPredictions
from tests.analysis.test_suspects import RECORDINGS, Reviewed, ranked
from tests.scoring.test_detections import rows, write_predictions

NO_VERDICTS = pd.DataFrame(columns=VERDICT_COLUMNS).astype({"start_s": float, "score": float})


def write_sound(path: Path, seconds: float = 10.0, rate: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.1 * np.random.default_rng(1).standard_normal(round(seconds * rate))
    soundfile.write(path, wave, rate)
    return path


# suspects


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reviewed:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    made = Reviewed(tmp_path)
    (tmp_path / "params.yaml").write_text("data: {source: demo}\n")
    for name in RECORDINGS:
        write_sound(tmp_path / f"data/source/train/{name}.flac")
    return made


def verdict_cells(path: Path) -> list[str]:
    return pd.read_csv(path, dtype=str, keep_default_na=False)["verdict"].tolist()


def test_suspects_are_judged_in_the_order_of_their_table(workspace: Reviewed) -> None:
    queue = open_queue(workspace.review("", "absent"))
    first, second, third = queue.items[:3]
    assert (first.recording, first.species) == ("055088446", "3")
    assert first.claim == "Labelled present, probability 0.100"
    assert first.path.samefile(workspace.root / "data/source/train/055088446.flac")
    assert (first.start_s, first.stop_s, first.band_hz) == (1.0, 2.0, (500.0, 2000.0))
    assert (second.claim, second.verdict) == ("Labelled absent, probability 0.900", "absent")
    assert third.claim == "Without a label, probability 0.600"


def test_a_verdict_on_a_suspect_is_in_the_table_at_once_and_nothing_else_changes(workspace: Reviewed) -> None:
    path = workspace.review()
    before = pd.read_csv(path, dtype=str, keep_default_na=False)
    session = ReviewSession(open_queue(path))
    session.answer(0, "absent")
    session.answer(1, "skip")
    session.answer(2, "unsure")
    assert verdict_cells(path) == ["absent", "", "unsure", "", "", ""]
    after = pd.read_csv(path, dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(after.drop(columns="verdict"), before.drop(columns="verdict"))
    session.undo(2)
    assert verdict_cells(path) == ["absent", "", "", "", "", ""]
    assert session.upcoming() == [2, 3, 4]


def test_a_review_goes_on_where_a_killed_one_ended(workspace: Reviewed) -> None:
    path = workspace.review()
    session = ReviewSession(open_queue(path))
    session.answer(0, "absent")
    session.answer(1, "present")
    again = ReviewSession(open_queue(path))
    assert (again.verdicts, again.upcoming()[0], again.n_new) == ({0: "absent", 1: "present"}, 2, 0)


def test_the_end_of_a_review_corrects_and_can_be_repeated(workspace: Reviewed) -> None:
    path = workspace.review()
    queue = open_queue(path)
    ReviewSession(queue).answer(0, "absent")
    assert queue.finish() == "1 row added to corrections.csv (1 absent)"
    assert queue.finish() == "0 rows added to corrections.csv, 1 there already"
    again = open_queue(path)
    ReviewSession(again).answer(1, "present")
    assert again.finish() == "1 row added to corrections.csv (1 present), 1 there already"
    assert workspace.corrections()["verdict"].tolist() == ["absent", "present"]


def test_labels_that_were_corrected_otherwise_are_not_asked_for(workspace: Reviewed) -> None:
    workspace.apply(workspace.review("absent"))
    queue = open_queue(workspace.review())
    assert len(queue.items) == len(ranked()) - 1
    session = ReviewSession(queue)
    session.answer(0, "present")
    assert verdict_cells(queue.store.path) == ["", "present", "", "", "", ""]
    assert queue.finish() == "1 row added to corrections.csv (1 present)"


def test_suspects_of_other_labels_are_refused_before_any_listening(workspace: Reviewed) -> None:
    path = workspace.review()
    source = workspace.root / "data/source/train_tp.csv"
    source.write_text(source.read_text().replace("1.0,500", "1.5,500", 1))
    with pytest.raises(UserError, match=r"reviewed\.csv row 2: species 3 in 055088446 at 1–2 s has no tp"):
        open_queue(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace(",,\n", ",maybe,\n", 1), "verdict must be one of .*, found 'maybe'"),
        (lambda text: text.replace("1.0,500.0", "x,500.0", 1), r"row 2: t_min and t_max must be numbers"),
        (lambda text: text.split("\n")[0] + "\n", "has no rows to review"),
        (lambda text: text.replace("verdict", "veredict"), "must have the columns of `callboard suspects`"),
    ],
)
def test_a_table_of_suspects_that_was_spoiled_is_refused(workspace, change, said) -> None:
    path = workspace.review()
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=said):
        open_queue(path)


def test_a_table_that_is_all_judged_says_what_takes_it(workspace: Reviewed) -> None:
    path = workspace.review(*["absent"] * 6)
    with pytest.raises(UserError, match=r"no row is left to review; .*callboard suspects --apply"):
        open_queue(path)


def test_training_recordings_that_are_gone_are_named(workspace: Reviewed) -> None:
    (workspace.root / "data/source/train/1e5.flac").unlink()
    with pytest.raises(UserError, match=r"1 of 3 recordings not found in data/source/train: 1e5"):
        open_queue(workspace.review())


def test_a_table_that_a_different_program_changed_is_not_overwritten(workspace: Reviewed) -> None:
    path = workspace.review()
    session = ReviewSession(open_queue(path))
    session.answer(0, "absent")
    text = path.read_text().replace(",,\n", ",,a note\n", 1)
    path.write_text(text)
    with pytest.raises(UserError, match="a different program has changed it since the review began"):
        session.answer(1, "absent")
    assert path.read_text() == text
    assert session.verdicts == {0: "absent"}


# predictions


def many_windows() -> pd.DataFrame:
    """Two species, of which one is rare, in two recordings of different sites."""
    draw = np.random.default_rng(7)
    cells = []
    for name in ("a.wav", "site/b.wav"):
        for species, count in (("x1", 60), ("07", 8)):
            cells += [
                (name, 0.5 * n, 0.5 * n + 2, species, round(draw.uniform(0.1, 1) ** 3 + 0.01, 3))
                for n in range(count)
            ]
    return rows(*cells)


@pytest.fixture
def predictions(tmp_path: Path) -> StoredPredictions:
    return write_predictions(tmp_path / "june", many_windows())


def strata(windows: pd.DataFrame) -> pd.Series:
    band = (windows["score"] / 0.2).astype(int).clip(upper=4)
    return windows.groupby(["species", band, windows["recording"].map(site_of)]).size()


def test_a_sample_is_even_over_species_bands_and_sites(predictions: StoredPredictions) -> None:
    sample, _ = sample_windows(predictions, NO_VERDICTS, 24)
    per_species = sample["species"].value_counts()
    assert per_species.max() - per_species.min() <= 1  # though one has 7 times as many windows
    common = sample[sample["species"] == "x1"]
    per_band = strata(common).groupby(level=1).sum()
    available = strata(many_windows()).xs("x1").groupby(level=0).sum()
    short = available[per_band.index] < per_band.max()
    assert set(per_band.index) == set(available.index)
    assert per_band[~short].max() - per_band[~short].min() <= 1
    for band, sites in strata(common).groupby(level=1):
        if (strata(many_windows()).xs(("x1", band), level=(0, 1)) >= sites.max()).all():
            assert sites.max() - sites.min() <= 1


def test_bands_take_turns_before_sites_do(tmp_path: Path) -> None:
    """A site that has low scores alone must not fill half of a sample with these."""
    low = [("a.wav", 2.0 * n, 2.0 * n + 2, "x1", 0.15) for n in range(9)]
    all_bands = [("site/b.wav", 2.0 * n, 2.0 * n + 2, "x1", 0.15 + 0.2 * n) for n in range(5)]
    predictions = write_predictions(tmp_path / "june", rows(*low, *all_bands))
    sample, _ = sample_windows(predictions, NO_VERDICTS, 5)
    assert sorted(sample["score"].round(2)) == [0.15, 0.35, 0.55, 0.75, 0.95]


def test_a_sample_is_the_same_however_windows_are_divided_into_shards(tmp_path: Path) -> None:
    windows = many_windows()
    two = write_predictions(tmp_path / "two", windows)
    one = write_predictions(tmp_path / "one", windows)
    windows.to_parquet(one.folder / "windows/0.parquet", index=False)
    windows.head(0).to_parquet(one.folder / "windows/1.parquet", index=False)
    for count in (1, 5, 24, 500):
        pd.testing.assert_frame_equal(
            sample_windows(one, NO_VERDICTS, count)[0], sample_windows(two, NO_VERDICTS, count)[0]
        )
    assert len(sample_windows(one, NO_VERDICTS, 500)[0]) == len(windows)


@pytest.mark.parametrize("n_judged", [1, 7, 20, 60])
def test_the_next_sample_continues_the_one_before(predictions: StoredPredictions, n_judged: int) -> None:
    whole, _ = sample_windows(predictions, NO_VERDICTS, 100)
    judged = whole.head(n_judged).assign(verdict="present")
    rest, _ = sample_windows(predictions, judged, 30)
    pd.testing.assert_frame_equal(rest, whole.iloc[n_judged : n_judged + 30].reset_index(drop=True))


def test_a_judged_window_is_known_although_its_time_was_rounded(predictions: StoredPredictions) -> None:
    whole, _ = sample_windows(predictions, NO_VERDICTS, 100)
    judged = whole.head(7).assign(verdict="present")
    for error in (-1e-9, 1e-9):
        rest, _ = sample_windows(predictions, judged.assign(start_s=judged["start_s"] + error), 30)
        pd.testing.assert_frame_equal(rest, whole.iloc[7:37].reset_index(drop=True))


def of_predictions(predictions: StoredPredictions, **options: object) -> ReviewSession:
    return ReviewSession(open_queue(predictions.folder, predictions.folder.parent / "sound", **options))  # type: ignore[arg-type]


@pytest.fixture
def with_sound(predictions: StoredPredictions) -> StoredPredictions:
    for name in ("a.wav", "site/b.wav"):
        write_sound(predictions.folder.parent / "sound" / name)
    return predictions


def test_verdicts_on_windows_are_kept_beside_the_predictions(with_sound: StoredPredictions) -> None:
    path = with_sound.folder / "verdicts.csv"
    session = of_predictions(with_sound, count=10)
    assert len(session.queue.items) == 10
    (following,) = session.queue.following
    assert following == f"callboard thresholds exp1@0123456789abcdef --verdicts {with_sound.folder}"
    for number, answer in enumerate(["present", "skip", "unsure", "absent"]):
        session.answer(number, answer)
    session.undo(3)
    found = read_window_verdicts(path)
    items = session.queue.items
    expected = [
        (items[n].recording, items[n].start_s, items[n].stop_s, items[n].species, items[n].score, verdict)
        for n, verdict in ((0, "present"), (2, "unsure"))
    ]
    assert list(found.itertuples(index=False, name=None)) == expected
    again = of_predictions(with_sound, count=10)
    assert again.queue.items[0] == items[1]  # the one that was skipped
    assert len(again.queue.items) == 10
    again.answer(0, "absent")
    assert read_window_verdicts(path)["verdict"].tolist() == ["present", "unsure", "absent"]


def test_without_a_count_each_species_has_enough_verdicts_for_a_threshold(
    with_sound: StoredPredictions,
) -> None:
    chosen = of_predictions(with_sound, species=["x1"]).queue.items
    assert MIN_CELLS < len(chosen) == WINDOWS_PER_SPECIES
    both = of_predictions(with_sound, species=["x1", "07"]).queue.items
    assert Counter(item.species for item in both) == {"x1": 34, "07": 16}  # which has no more


def test_a_review_that_was_ended_early_goes_on_with_the_rest(with_sound: StoredPredictions) -> None:
    first = of_predictions(with_sound, species=["x1"])
    for number in range(4):
        first.answer(number, "present")
    rest = of_predictions(with_sound, species=["x1"])
    assert list(rest.queue.items) == list(first.queue.items[4:])
    for number in range(WINDOWS_PER_SPECIES - 4):
        rest.answer(number, "absent")
    assert len(of_predictions(with_sound, species=["x1"]).queue.items) == WINDOWS_PER_SPECIES
    assert len(of_predictions(with_sound).queue.items) == 2 * WINDOWS_PER_SPECIES  # of those of three


def test_verdicts_on_windows_that_a_different_program_changed_are_kept(with_sound: StoredPredictions) -> None:
    session = of_predictions(with_sound)
    session.answer(0, "present")
    table = session.queue.store.path
    changed = table.read_text() + "\n"
    table.write_text(changed)
    with pytest.raises(UserError, match="a different program has changed it"):
        session.answer(1, "absent")
    assert table.read_text() == changed


def test_a_species_can_be_chosen(with_sound: StoredPredictions) -> None:
    assert {item.species for item in of_predictions(with_sound, species=["07"]).queue.items} == {"07"}
    with pytest.raises(UserError, match=r"--species 7: not one of june.*; it has 3, 07, x1"):
        of_predictions(with_sound, species=["7"])
    with pytest.raises(UserError, match="has no window of 3 without a verdict"):
        of_predictions(with_sound, species=["3"])


def test_recordings_of_predictions_that_are_gone_are_left_out_or_named(
    predictions: StoredPredictions, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"june: 2 recordings not found, first .*a\.wav; --recordings names"):
        of_predictions(predictions)
    write_sound(predictions.folder.parent / "sound/site/b.wav")
    items = of_predictions(predictions).queue.items
    assert {item.recording for item in items} == {"site/b.wav"}
    assert "june: 1 recording not found, first " in capsys.readouterr().err


# a list


def write_list(folder: Path, header: str, lines: Sequence[str]) -> Path:
    for name in ("a.wav", "site/b.wav"):
        write_sound(folder / "sound" / name)
    path = folder / "list.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_a_list_gets_a_column_of_verdicts(tmp_path: Path) -> None:
    lines = ["a.wav,0,2,wren,'=1+1,x", "site/b,1.5,3,robin,,y", "b,4,5,wren,0.5,z"]
    path = write_list(tmp_path, "recording,start_s,end_s,species,score,note", lines)
    session = ReviewSession(open_queue(path, tmp_path / "sound", ["wren"]))
    assert [item.path.name for item in session.queue.items] == ["a.wav", "b.wav"]
    assert [item.score for item in session.queue.items] == [None, 0.5]
    session.answer(1, "present")
    assert path.read_text().splitlines() == [
        "recording,start_s,end_s,species,score,note,verdict",
        "a.wav,0,2,wren,'=1+1,x,",
        "site/b,1.5,3,robin,,y,",
        "b,4,5,wren,0.5,z,present",
    ]


def test_a_path_below_the_folder_is_that_recording_although_others_have_its_name(tmp_path: Path) -> None:
    write_sound(tmp_path / "sound/site/a.wav")
    path = write_list(
        tmp_path, "recording,start_s,end_s,species", ["a.wav,0,1,wren", "site/a.wav,0,1,wren", "b,0,1,wren"]
    )
    items = open_queue(path, tmp_path / "sound").items
    found = [item.path.relative_to(tmp_path / "sound").as_posix() for item in items]
    assert found == ["a.wav", "site/a.wav", "site/b.wav"]


def test_spaces_around_cells_of_a_list_are_no_part_of_them(tmp_path: Path) -> None:
    lines = [" a.wav , 0 , 1 , wren , 0.5 , absent ", "a.wav,1,2,wren,,"]
    path = write_list(tmp_path, "recording,start_s,end_s,species,score,verdict", lines)
    first = open_queue(path, tmp_path / "sound").items[0]
    assert (first.recording, first.species, first.score, first.verdict) == ("a.wav", "wren", 0.5, "absent")


def test_a_score_that_is_no_finite_number_is_not_shown(tmp_path: Path) -> None:
    """The page could not be sent an infinite one."""
    lines = [f"a.wav,{n},{n + 1},wren,{score}" for n, score in enumerate(["inf", "nan", "high", "0.5"])]
    path = write_list(tmp_path, "recording,start_s,end_s,species,score", lines)
    scores = [item.score for item in open_queue(path, tmp_path / "sound").items]
    assert scores == [None, None, None, 0.5]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("c.wav,0,2,wren", r"1 recording not in --recordings .*sound: c\.wav"),
        ("a.wav,2,1,wren", "row 2: start_s and end_s must be seconds, start_s the smaller"),
        ("a.wav,0,inf,wren", "row 2: start_s and end_s must be seconds"),
    ],
)
def test_a_wrong_line_of_a_list_is_refused(tmp_path: Path, line: str, said: str) -> None:
    path = write_list(tmp_path, "recording,start_s,end_s,species", [line])
    with pytest.raises(UserError, match=said):
        open_queue(path, tmp_path / "sound")


def test_a_list_needs_the_folder_of_its_recordings(tmp_path: Path) -> None:
    path = write_list(tmp_path, "recording,start_s,end_s,species", ["a.wav,0,1,wren"])
    with pytest.raises(UserError, match="a list of windows needs --recordings"):
        open_queue(path)
    with pytest.raises(UserError, match=r"--recordings .*gone: does not exist"):
        open_queue(path, tmp_path / "gone")
    with pytest.raises(UserError, match="does not exist; `callboard suspects` writes a table"):
        open_queue(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    ("count", "chosen"), [(1, ["x"]), (2, ["x", "done", "y"]), (9, ["x", "done", "y", "z"])]
)
def test_a_count_is_of_rows_without_a_verdict(tmp_path: Path, count: int, chosen: list[str]) -> None:
    lines = ["a.wav,0,1,x,", "a.wav,1,2,done,absent", "a.wav,2,3,y,", "a.wav,3,4,z,"]
    path = write_list(tmp_path, "recording,start_s,end_s,species,verdict", lines)
    assert [item.species for item in open_queue(path, tmp_path / "sound", count=count).items] == chosen


# the session


class InMemory:
    path = Path("none.csv")

    def __init__(self) -> None:
        self.written: list[dict[int, str]] = []
        self.is_full = False

    def write(self, verdicts: dict[int, str]) -> None:
        if self.is_full:
            raise UserError("no space")
        self.written.append(dict(verdicts))


@pytest.fixture
def session(tmp_path: Path) -> ReviewSession:
    path = write_list(
        tmp_path, "recording,start_s,end_s,species", [f"a.wav,{n},{n + 1},s{n}" for n in range(5)]
    )
    queue = open_queue(path, tmp_path / "sound")
    return ReviewSession(type(queue)(queue.title, queue.items, InMemory(), "", []))


def test_a_verdict_of_a_different_window_is_kept(session: ReviewSession) -> None:
    session.answer(2, "present")
    for answer in ("absent", "skip", "present"):
        with pytest.raises(StaleAnswerError, match="already judged 'present' in a different window"):
            session.answer(2, answer)
    assert session.verdicts == {2: "present"}


def test_undo_goes_back_step_by_step_and_only_where_the_page_believes(session: ReviewSession) -> None:
    session.answer(0, "present")
    session.answer(1, "skip")
    session.answer(2, "absent")
    with pytest.raises(StaleAnswerError, match="the last answer was given in a different window"):
        session.undo(0)
    session.undo(2)
    assert (session.last, session.upcoming()) == (1, [2, 3, 4])
    session.undo(1)
    assert (session.last, session.upcoming()) == (0, [1, 2, 3])
    session.undo(0)
    with pytest.raises(StaleAnswerError, match="nothing to undo"):
        session.undo(0)
    assert session.verdicts == {}


def test_the_queue_goes_on_after_the_item_and_returns_to_what_was_left(session: ReviewSession) -> None:
    session.answer(3, "unsure")
    assert session.upcoming(3) == [4, 0, 1]
    for number in (0, 1, 2, 4):
        session.answer(number, "skip")
    assert session.upcoming() == []
    session.take_up_skipped()
    assert session.upcoming() == [0, 1, 2]


def test_a_skipped_item_that_is_judged_elsewhere_is_skipped_no_more(session: ReviewSession) -> None:
    session.answer(0, "skip")
    session.answer(0, "present")
    assert session.n_skipped == 0
    session.undo(0)
    assert session.upcoming() == [0, 1, 2]


def test_a_verdict_that_cannot_be_written_does_not_count(session: ReviewSession) -> None:
    store = session.queue.store
    assert isinstance(store, InMemory)
    session.answer(0, "present")
    store.is_full = True
    with pytest.raises(UserError, match="no space"):
        session.answer(1, "present")
    with pytest.raises(UserError, match="no space"):
        session.undo(0)
    assert (session.verdicts, session.last) == ({0: "present"}, 0)

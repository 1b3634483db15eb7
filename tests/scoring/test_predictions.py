import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile

from callboard.commands.predict import predict_folders
from callboard.core.errors import UserError
from callboard.data import archive
from callboard.data.archive import ArchiveFile, list_archive, plan_shards
from callboard.model.weights import load_model
from callboard.params.features import AudioParams, FeatureParams, FrontEndParams
from callboard.scoring.detector import Detector, Networks
from callboard.scoring.parts import ScoreParams
from callboard.scoring.predict import TorchRunner, score_recordings
from callboard.scoring.predictions import Predictions, only_writer
from callboard.scoring.result_detector import load_detector
from callboard.scoring.set_scores import SetScores, table_of_windows
from callboard.scoring.stacking import Stack
from callboard.scoring.window_scores import recording_scores, window_means
from tests.scoring.test_predict import CPU, FULL, PARAMS
from tests.toy_models import CLIP, N_MELS, SPECIES, save_fold
from tests.toy_scoring import infer_params

RATE = 8000
FRONT_END = FrontEndParams(
    audio=AudioParams(sample_rate=RATE),
    features=FeatureParams(n_fft=256, hop_length=128, n_mels=N_MELS, f_min=100.0, f_max=4000.0),
)
LOCAL = {"on": "local", "jobs": None, "cpus_per_job": None, "gpus_per_job": None, "slurm": {}}
LENGTHS_S = {"a.wav": 3.0, "b/a.wav": 1.0, "c.wav": 0.4, "d.wav": 2.5}


def write_sound(path: Path, seconds: float, seed: int = 0, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))
    soundfile.write(path, sound, rate)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, (name, seconds) in enumerate(LENGTHS_S.items()):
        write_sound(tmp_path / "sounds" / name, seconds, seed)
    return tmp_path / "sounds"


@pytest.fixture
def networks(tmp_path: Path) -> Callable[..., Networks]:
    def make(*folds: int, clip=CLIP, front_end=FRONT_END, **infer: object) -> Networks:
        for fold in folds:
            save_fold(tmp_path / "models", fold, clip=clip)
        models = [load_model(tmp_path / f"models/fold{fold}.pt", CPU) for fold in folds]
        runner = TorchRunner(PARAMS, CPU)
        return Networks(front_end, PARAMS, infer_params(**infer), models, tuple(map(str, folds)), runner)

    return make


def detector(*parts: Networks) -> Detector:
    return Detector("toy@0123456789abcdef", SPECIES, list(parts), [1.0] * len(parts), None, None)


def predict(made: Detector, folder: Path, output: Path, floor: float = 0.0) -> list[str]:
    """Names of the recordings that were scored."""
    predictions = Predictions(output, made, floor)
    scored = []
    for shard in plan_shards(predictions.missing(list_archive([folder]))):
        scored += [file.name for file in predictions.make(shard).files]
    return scored


def table(output: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(output / name).sort_values(
        list(pd.read_parquet(output / name).columns), ignore_index=True
    )


def wide(output: Path) -> pd.DataFrame:
    return table(output, "recordings").pivot(index="recording", columns="species", values="score")[SPECIES]


def test_scores_are_those_of_the_pipeline(folder, networks, tmp_path):
    from callboard.features.encoding import encode_files
    from callboard.features.frame_cache import MelCache, write_cache

    made = networks(0, 1, window_agg="mean", smoothing=[1.0, 2.0, 1.0])
    assert predict(detector(made), folder, tmp_path / "out", floor=0.5) == list(LENGTHS_S)
    encoded = encode_files([(name, folder / name) for name in LENGTHS_S], FRONT_END, tmp_path, 1)
    write_cache(tmp_path / "mel", [recording for recording, _ in encoded], N_MELS)
    cache = MelCache.open(tmp_path / "mel")
    expected = score_recordings(made.models, cache, list(LENGTHS_S), PARAMS, CPU)
    assert wide(tmp_path / "out").to_numpy().tolist() == recording_scores(expected, made.infer).tolist()
    lengths = table(tmp_path / "out", "recordings").groupby("recording")["length_s"].first()
    assert lengths.to_dict() == LENGTHS_S

    windows = pd.read_parquet(tmp_path / "out/windows")
    scores = window_means(expected, made.infer)
    assert windows["score"].tolist() == scores[scores >= 0.5].tolist()
    assert 0 < len(windows) < scores.size
    row = np.nonzero(scores >= 0.5)[0]
    assert windows["start_s"].tolist() == (expected.start_frame[row] * 128 / RATE).tolist()
    end_s = np.minimum(windows["start_s"] + 64 * 128 / RATE, windows["recording"].map(LENGTHS_S))
    assert windows["end_s"].tolist() == pytest.approx(end_s.tolist())
    assert set(windows[windows["recording"] == "c.wav"]["end_s"]) == {0.4}


def test_the_size_of_shards_changes_no_score(folder, networks, tmp_path, monkeypatch):
    made = detector(networks(0, 1))
    predict(made, folder, tmp_path / "one")
    monkeypatch.setattr(archive, "SHARD_RECORDINGS", 1)
    monkeypatch.setenv("CALLBOARD_WORKERS", "3")
    predict(made, folder, tmp_path / "many")
    assert len(list((tmp_path / "many/recordings").iterdir())) == len(LENGTHS_S)
    for name in ("recordings", "windows", "skipped"):
        pd.testing.assert_frame_equal(table(tmp_path / "one", name), table(tmp_path / "many", name))


def test_networks_that_see_whole_recordings_do_not_see_how_long_others_are(folder, networks, tmp_path):
    made = detector(networks(0, clip=FULL))
    predict(made, folder, tmp_path / "all")
    for name in LENGTHS_S:
        if name != "d.wav":
            (folder / name).unlink()
    predict(made, folder, tmp_path / "alone")
    assert wide(tmp_path / "all").loc["d.wav"].tolist() == wide(tmp_path / "alone").loc["d.wav"].tolist()
    windows = table(tmp_path / "all", "windows")
    assert set(windows[windows["recording"] == "d.wav"]["end_s"]) == {2.5}


def test_only_what_is_new_or_changed_is_scored_again(folder, networks, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "SHARD_RECORDINGS", 2)
    made, out = detector(networks(0)), tmp_path / "out"
    predict(made, folder, out)
    before = wide(out)
    assert predict(made, folder, out) == []
    write_sound(folder / "new.wav", 1.0, seed=9)
    assert predict(made, folder, out) == ["new.wav"]
    write_sound(folder / "a.wav", 2.0, seed=10)
    assert predict(made, folder, out) == ["a.wav", "b/a.wav"]  # those of its shard
    after = wide(out)
    assert after.index.tolist() == sorted([*LENGTHS_S, "new.wav"])
    assert (after.loc["a.wav"] != before.loc["a.wav"]).all()
    assert after.loc[["b/a.wav", "c.wav", "d.wav"]].equals(before.loc[["b/a.wav", "c.wav", "d.wav"]])
    write_sound(folder / "new.wav", 1.0, seed=11)  # of the same size
    os.utime(folder / "new.wav", ns=(0, 1))
    assert predict(made, folder, out) == ["new.wav"]
    assert (wide(out).loc["new.wav"] != after.loc["new.wav"]).all()
    (folder / "a.wav").unlink()
    assert predict(made, folder, out) == []
    assert "a.wav" in wide(out).index


def test_scores_of_a_recording_that_is_gone_stay_when_one_of_its_shard_changes(folder, networks, tmp_path):
    made, out = detector(networks(0)), tmp_path / "out"
    (folder / "silent.wav").write_bytes(b"RIFF")
    predict(made, folder, out)
    before = {name: table(out, name) for name in ("recordings", "windows", "skipped")}
    for name in ("b/a.wav", "d.wav", "silent.wav"):
        (folder / name).unlink()
    write_sound(folder / "a.wav", 2.0, seed=10)
    assert predict(made, folder, out) == ["a.wav", "c.wav"]
    for name, content in before.items():
        after = table(out, name)
        assert len(after["recording"].unique()) == len(content["recording"].unique())
        kept = [each[each["recording"] != "a.wav"].reset_index(drop=True) for each in (content, after)]
        pd.testing.assert_frame_equal(*kept)
    totals = list(Predictions(out, made, 0.0).totals())
    assert sum(one.sound_s for one in totals) == pytest.approx(sum(LENGTHS_S.values()) - 1)
    assert sorted(file.name for one in totals for file in one.files) == [*LENGTHS_S, "silent.wav"]
    assert predict(made, folder, out) == []


def test_a_killed_command_loses_one_shard_and_leaves_no_window_twice(folder, networks, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "SHARD_RECORDINGS", 2)
    made, out = detector(networks(0)), tmp_path / "out"
    predict(made, folder, tmp_path / "whole")
    from callboard.scoring import predictions

    original, written = predictions._write_table, []

    def killed(content: pd.DataFrame, path: Path, *more: object) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        original(content, path, *more)

    monkeypatch.setattr(predictions, "_write_table", killed)
    with pytest.raises(KeyboardInterrupt):
        predict(made, folder, out)
    monkeypatch.setattr(predictions, "_write_table", original)
    assert [path.parent.name for path in written[3:]] == ["skipped", "windows"]
    monkeypatch.setattr(archive, "SHARD_RECORDINGS", 1)  # the rest in shards of other names
    assert predict(made, folder, out) == ["c.wav", "d.wav"]
    for name in ("recordings", "windows"):
        pd.testing.assert_frame_equal(table(out, name), table(tmp_path / "whole", name))


def test_a_recording_that_cannot_be_used_is_listed_with_the_reason(folder, networks, tmp_path):
    (folder / "a.wav").write_bytes(b"RIFF")
    write_sound(folder / "low.wav", 1.0, rate=4000)
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    write_sound(folder / "d.wav", 1.5, rate=16000)  # is resampled
    predict(detector(networks(0)), folder, tmp_path / "out")
    skipped = table(tmp_path / "out", "skipped").set_index("recording")["reason"]
    assert list(skipped.index) == ["a.wav", "low.wav", "silent.wav"]
    assert "4000 Hz carries up to 2000 Hz" in skipped["low.wav"]
    assert "silent" in skipped["silent.wav"]
    assert wide(tmp_path / "out").index.tolist() == ["b/a.wav", "c.wav", "d.wav"]
    assert table(tmp_path / "out", "recordings").set_index("recording")["length_s"]["d.wav"].iloc[0] == 1.5


def test_of_several_channels_the_mean_is_scored_or_the_one_of_the_result(folder, networks, tmp_path):
    sound, silence = soundfile.read(folder / "a.wav", dtype="float32")[0], np.zeros(3 * RATE, np.float32)
    soundfile.write(folder / "stereo.wav", np.stack([0.3 * sound, 0.7 * sound], axis=1), RATE, "FLOAT")
    soundfile.write(folder / "mono.wav", 0.5 * sound, RATE, "FLOAT")
    soundfile.write(folder / "second.wav", np.stack([silence, sound], axis=1), RATE, "FLOAT")
    predict(detector(networks(0)), folder, tmp_path / "out")
    scores = wide(tmp_path / "out")
    assert scores.loc["stereo.wav"].tolist() == pytest.approx(scores.loc["mono.wav"].tolist(), abs=1e-3)
    first = FRONT_END.model_copy(update={"audio": AudioParams(sample_rate=RATE, channel=0)})
    predict(detector(networks(0, front_end=first)), folder, tmp_path / "first")
    assert "silent" in table(tmp_path / "first", "skipped").set_index("recording")["reason"]["second.wav"]


def test_a_recording_that_goes_while_the_command_runs_is_not_given_up(folder, networks, tmp_path):
    """As when a disk is unplugged: it would be skipped, and never scored once it is back."""
    predictions = Predictions(tmp_path / "out", detector(networks(0)), 0.0)
    (shard,) = plan_shards(predictions.missing(list_archive([folder])))
    (folder / "c.wav").rename(tmp_path / "c.wav")
    with pytest.raises(
        UserError, match=r"does not have .*sounds/c\.wav; if it was removed, the same command"
    ):
        predictions.make(shard)
    assert predictions.missing(shard) == shard


@pytest.mark.parametrize("head", ["attention_max", "attention_max_frequency"])
def test_a_shard_without_a_usable_recording_is_finished(folder, networks, tmp_path, head):
    for name in LENGTHS_S:
        (folder / name).write_bytes(b"")
    made = detector(networks(0, head=head))
    assert len(predict(made, folder, tmp_path / "out")) == len(LENGTHS_S)
    assert predict(made, folder, tmp_path / "out") == []
    assert len(table(tmp_path / "out", "skipped")) == len(LENGTHS_S)


@pytest.mark.parametrize("change", ["networks", "floor", "infer"])
def test_scores_of_two_detectors_are_not_mixed(folder, networks, tmp_path, change):
    predict(detector(networks(0)), folder, tmp_path / "out", floor=0.1)
    other = detector(
        networks(
            *([0, 1] if change == "networks" else [0]), **({"temperature": 2.0} if change == "infer" else {})
        )
    )
    with pytest.raises(UserError, match="must not be mixed with them"):
        predict(other, folder, tmp_path / "out", floor=0.2 if change == "floor" else 0.1)


def test_the_key_of_a_detector_depends_on_all_that_combines_its_parts(networks):
    stack = Stack(np.ones((2, 3)), np.zeros(3), np.ones(3, bool))
    blend, odds = detector(networks(0), networks(1)), np.array([2.0, 1.0, 1.0])
    others = [
        replace(blend, weights=[2.0, 1.0]),
        replace(blend, factors=odds),
        replace(blend, parts=[blend.parts[0], replace(blend.parts[1], factors=odds)]),
        replace(blend, stack=stack),
        replace(blend, stack=replace(stack, bias=np.ones(3))),
        replace(blend, parts=blend.parts[::-1]),
    ]
    assert len({one.key for one in (blend, *others)}) == 1 + len(others)
    assert blend.key == detector(networks(0), networks(1)).key


def test_a_folder_is_continued_by_a_version_with_a_new_parameter(networks):
    class Newer(ScoreParams):
        new: float = 0.5

    plain = networks(0)
    given = {name: getattr(plain.score, name) for name in ScoreParams.model_fields}
    keys = [replace(plain, score=Newer(**given, **new)).key for new in ({}, {"new": 0.5}, {"new": 0.6})]
    assert keys[0] == keys[1] == plain.key != keys[2]


def test_recordings_of_a_second_folder_do_not_pass_for_those_of_the_first(folder, networks, tmp_path):
    """Recorders on one schedule make files of the same name, size and time."""
    made, out = detector(networks(0)), tmp_path / "out"
    predict(made, folder, out)
    before = wide(out)
    for seed, (name, seconds) in enumerate(LENGTHS_S.items(), start=50):
        write_sound(tmp_path / "other" / name, seconds, seed)
        time = (folder / name).stat().st_mtime_ns
        os.utime(tmp_path / "other" / name, ns=(time, time))
    with pytest.raises(UserError, match=r"other/a\.wav would have the same name; use a different --output"):
        predict(made, tmp_path / "other", out)
    assert wide(out).equals(before)
    (tmp_path / "link").symlink_to(folder)
    assert predict(made, tmp_path / "link", out) == []
    folder.rename(tmp_path / "moved")
    assert predict(made, tmp_path / "moved", out) == []


def test_recordings_of_a_card_do_not_replace_those_of_one_that_was_taken_out(folder, networks, tmp_path):
    made, out = detector(networks(0)), tmp_path / "out"
    predict(made, folder, out)
    before = wide(out)
    write_sound(tmp_path / "other/a.wav", LENGTHS_S["a.wav"], 50)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"other/a\.wav would have the same name; use a different --output"):
        predict(made, tmp_path / "other", out)
    assert wide(out).equals(before)


@pytest.mark.parametrize(("before", "now"), [("link", "sounds"), ("sounds", "link")])
def test_a_recording_is_known_under_its_second_name_behind_a_link(folder, networks, tmp_path, before, now):
    made, out = detector(networks(0)), tmp_path / "out"
    (tmp_path / "link").symlink_to(folder)
    predict(made, tmp_path / before, out)
    write_sound(tmp_path / "other/x.wav", 1.0)
    both = list_archive([tmp_path / now, tmp_path / "other"])
    with pytest.raises(
        UserError, match=rf"{before}/a\.wav as a\.wav, which would count twice as {now}/a\.wav"
    ):
        Predictions(out, made, 0.0).missing(both)


def command(folder: Path, output: Path, **changes: object) -> Namespace:
    usual = {"name": "toy", "floor": 0.0, "threshold": None, "engine": None, **LOCAL}
    return Namespace(folders=[folder], output=output, **(usual | changes))


def test_a_table_of_detections_is_neither_stale_without_a_word_nor_written_over_verdicts(
    folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("callboard.commands.predict.open_detector", lambda *_: ("toy", opened))
    opened, out = load_detector(FinishedResult(tmp_path, "toy", [0]), CPU), tmp_path / "out"
    predict_folders(command(folder, out, threshold="0.5"))
    before = (out / "detections.csv").read_bytes()
    predict_folders(command(folder, out))
    assert "warning" not in capsys.readouterr().err
    write_sound(folder / "new.wav", 1.0)
    predict_folders(command(folder, out))
    assert "detections.csv is older than these predictions; the same command" in capsys.readouterr().err
    assert (out / "detections.csv").read_bytes() == before
    predict_folders(command(folder, out, threshold="0.5"))
    assert "new.wav" in (out / "detections.csv").read_text()
    judged = pd.read_csv(out / "detections.csv").assign(verdict="present")
    judged.to_csv(out / "detections.csv", index=False)
    with pytest.raises(
        UserError, match=r"detections\.csv: has verdicts of `callboard review`, which would be"
    ):
        predict_folders(command(folder, out, threshold="0.5"))
    pd.testing.assert_frame_equal(pd.read_csv(out / "detections.csv"), judged)


def test_a_recording_is_not_scored_again_under_the_name_that_it_has_beside_a_second_folder(
    folder, networks, tmp_path
):
    made, out = detector(networks(0)), tmp_path / "out"
    predict(made, folder, out)
    write_sound(tmp_path / "other/a.wav", 1.0)
    both = list_archive([folder, tmp_path / "other"])
    with pytest.raises(UserError, match=r"a\.wav as a\.wav, which would count twice as sounds/a\.wav"):
        Predictions(out, made, 0.0).missing(both)


def test_two_commands_do_not_write_one_folder(tmp_path):
    with only_writer(tmp_path / "out"):
        child = "from pathlib import Path; from callboard.scoring.predictions import only_writer\n" + (
            f"with only_writer(Path({str(tmp_path / 'out')!r})): pass"
        )
        done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=False)
        assert "another `callboard predict` is writing it; wait for its end" in done.stderr
    with only_writer(tmp_path / "out"):
        pass


def at(starts: list[float], length: float, scores: list[float], recording: list[int]) -> SetScores:
    start = np.array(starts)
    return SetScores(
        np.array([[max(scores)]] * (max(recording) + 1)),
        np.array(scores)[:, None],
        np.array(recording, np.int32),
        start,
        start + length,
    )


def test_a_blend_gives_a_window_the_nearest_ones_of_its_parts() -> None:
    first = at([0, 2, 0], 2, [0.1, 0.2, 0.3], [0, 0, 1])
    other = at([0, 1, 3, 0], 1, [0.5, 0.6, 0.7, 0.8], [0, 0, 0, 1])
    blend = replace(detector(), parts=[], weights=[3.0, 1.0])
    found = blend.combined([first, other])
    # middles 1, 3 and 1; those of the other 0.5, 1.5, 3.5 and 0.5: of equally near ones the earlier
    assert found.of_windows.ravel() == pytest.approx([0.2, 0.325, 0.425])
    assert found.of_recordings.ravel() == pytest.approx([0.75 * 0.3 + 0.25 * 0.8] * 2)
    assert found.start_s.tolist() == [0, 2, 0]


def test_a_window_at_the_floor_is_kept() -> None:
    scores = at([0, 2, 4], 2, [0.3, 0.5, 0.7], [0, 0, 0])
    kept = table_of_windows(["a.wav"], np.array([6.0]), scores, ["x1"], floor=0.5)
    assert kept[["start_s", "score"]].to_numpy().tolist() == [[2.0, 0.5], [4.0, 0.7]]


def test_a_stack_and_factors_combine_windows_as_they_do_recordings() -> None:
    stack = Stack(np.array([[1.0], [0.5]]), np.array([0.2]), np.array([True]))
    blend = replace(detector(), stack=stack, factors=np.array([2.0]))
    parts = [at([0], 1, [0.3], [0]), at([0], 1, [0.6], [0])]
    found = blend.combined(parts)
    stacked = 1 / (1 + np.exp(-(np.log(0.3 / 0.7) + 0.5 * np.log(0.6 / 0.4) + 0.2)))
    assert found.of_recordings.item() == pytest.approx(2 * stacked / (2 * stacked + 1 - stacked))
    assert found.of_windows.tolist() == found.of_recordings.tolist()


class FinishedResult:
    """A result as `load_detector` asks for it, whose outputs are files below a folder."""

    def __init__(
        self, folder: Path, name: str, folds: list[int], species: list[str] = SPECIES, **infer: object
    ) -> None:
        self.folder, self.name = folder / name, name
        self.ref = SimpleNamespace(reference=f"{name}@0123456789abcdef")
        self.tree = (
            FRONT_END.model_dump() | PARAMS.model_dump() | {"infer": infer_params(**infer).model_dump()}
        )
        self.weights = {fold: f"fold{fold}.pt" for fold in folds}
        for fold in folds:
            save_fold(self.folder, fold, species=species)

    def sections(self, *names: str) -> dict[str, object]:
        return {name: self.tree[name] for name in names}

    def output(self, path: str) -> Path:
        return self.folder / path

    def md5(self, path: str) -> str:
        return f"{self.name} {path}"

    def refuse_blend(self) -> None:
        assert not self.tree["infer"]["blend"]

    def write_factors(self, factors: dict[str, float]) -> None:
        path = self.folder / "submission/prevalence.csv"
        path.parent.mkdir(parents=True)
        pd.Series(factors, name="factor").rename_axis("species").to_csv(path)


def test_a_loaded_blend_weighs_its_parts_each_rescaled_as_its_submission_was(
    folder, tmp_path, monkeypatch
) -> None:
    odds = dict(zip(SPECIES, (2.0, 0.5, 3.0), strict=True))
    first, second = (
        FinishedResult(tmp_path, "first", [0]),
        FinishedResult(tmp_path, "second", [1], SPECIES[::-1], prevalence=1.0),
    )
    second.write_factors(dict(sorted(odds.items(), reverse=True)))
    references = [first.ref.reference, second.ref.reference]
    blend = FinishedResult(tmp_path, "blend", [], blend=references, blend_weights=[3.0, 1.0])
    found = dict(zip(references, (first, second), strict=True))
    monkeypatch.setattr(
        "callboard.scoring.result_detector.find_exactly", lambda reference, _: found[reference]
    )
    made = {each.name: load_detector(each, CPU) for each in (first, second, blend)}
    for name, one in made.items():
        predict(one, folder, tmp_path / "out" / name)
    scores = {name: wide(tmp_path / "out" / name) for name in made}
    expected = 0.75 * scores["first"] + 0.25 * scores["second"]
    assert scores["blend"].to_numpy() == pytest.approx(expected.to_numpy())
    plain = FinishedResult(tmp_path, "plain", [1], SPECIES[::-1])
    predict(load_detector(plain, CPU), folder, tmp_path / "out/plain")
    before, after = (table / (1 - table) for table in (wide(tmp_path / "out/plain"), scores["second"]))
    assert (after / before).to_numpy() == pytest.approx(np.tile(list(odds.values()), (len(before), 1)))


def test_the_command_writes_a_folder_alone(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("callboard.results.rows.result_named", lambda _: FinishedResult(tmp_path, "toy", [0]))
    monkeypatch.setenv("CALLBOARD_DEVICE", "cpu")
    args = Namespace(
        name="toy",
        folders=[folder],
        output=tmp_path / "out",
        floor=0.1,
        threshold=None,
        engine=None,
        **LOCAL,
    )
    with only_writer(args.output), ThreadPoolExecutor(1) as other:  # of a thread as of a process
        with pytest.raises(UserError, match="another `callboard predict` is writing it"):
            other.submit(predict_folders, args).result()
        assert not (args.output / "about.json").exists()


def test_parts_with_two_front_ends_see_their_own_frames(folder, networks, tmp_path):
    features = FRONT_END.features.model_copy(update={"hop_length": 64})
    fine = networks(1, front_end=FRONT_END.model_copy(update={"features": features}))
    coarse = networks(0)
    predict(detector(coarse, fine), folder, tmp_path / "both")
    predict(detector(coarse), folder, tmp_path / "coarse")
    predict(detector(fine), folder, tmp_path / "fine")
    mean = (wide(tmp_path / "coarse") + wide(tmp_path / "fine")) / 2
    pd.testing.assert_frame_equal(wide(tmp_path / "both"), mean)


def test_a_recording_that_one_of_two_front_ends_refuses_is_skipped(folder, networks, tmp_path):
    features = FRONT_END.features.model_copy(update={"f_max": 2000.0})
    low = networks(1, front_end=FRONT_END.model_copy(update={"features": features}))
    write_sound(folder / "low.wav", 1.0, rate=4000)
    for number, parts in enumerate([(low, networks(0)), (networks(0), low)]):
        predict(detector(*parts), folder, tmp_path / f"out{number}")
        assert wide(tmp_path / f"out{number}").index.tolist() == list(LENGTHS_S)
        assert table(tmp_path / f"out{number}", "skipped")["recording"].tolist() == ["low.wav"]
        assert detector(*parts).band_hz == (100.0, 4000.0)
    predict(detector(low), folder, tmp_path / "low")
    assert "low.wav" in wide(tmp_path / "low").index


def test_times_are_exact_after_thirty_hours() -> None:
    n_frames = 30 * 3600 * 62.5
    start_frame = np.array([n_frames - 1], np.int32)
    front_end = FrontEndParams(audio=AudioParams(sample_rate=24000), features=FeatureParams(hop_length=384))
    start_s = start_frame / front_end.frames_per_s
    assert start_s.dtype == np.float64
    assert start_s[0] == pytest.approx(30 * 3600 - 0.016, abs=1e-9)


def test_a_list_of_what_a_shard_covers_survives_in_its_file(tmp_path, folder, networks):
    from callboard.scoring.predictions import read_totals

    predict(detector(networks(0)), folder, tmp_path / "out")
    (path,) = (tmp_path / "out/recordings").iterdir()
    totals = read_totals(path)
    assert totals.files == list_archive([folder])
    assert isinstance(totals.files[0], ArchiveFile)
    assert totals.sound_s == pytest.approx(sum(LENGTHS_S.values()))


def test_a_shard_with_a_changed_byte_has_the_same_scores_or_is_refused(folder, networks, tmp_path):
    from callboard.scoring.detections import StoredPredictions

    predict(detector(networks(0)), folder, tmp_path / "out")
    opened = StoredPredictions.open(tmp_path / "out")
    (name,) = opened.shards
    expected = opened.table("windows", name)
    path = tmp_path / "out/windows" / name
    sound, n_refused = path.read_bytes(), 0
    n_data = sound.index(b"recording", 100)  # before the names of columns, at the file's end
    for place in np.random.default_rng(0).choice(n_data, 200, replace=False):
        changed = bytearray(sound)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        try:
            found = opened.table("windows", name)
        except UserError:
            n_refused += 1
        else:
            pd.testing.assert_frame_equal(found, expected)
    assert n_refused > 50

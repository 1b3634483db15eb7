from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from callboard.core.errors import UserError
from callboard.data.content_digests import content_digest
from callboard.data.soundscapes import difficulty
from callboard.data.soundscapes.annotator import CLEARANCE_S, Annotation, confirm, reject
from callboard.data.soundscapes.backgrounds import RMS_RANGE_DBFS
from callboard.data.soundscapes.calls import PAIRS, CallModel, distractor_voices, synthetic_voices
from callboard.data.soundscapes.manifests import read_backdrop, read_voices
from callboard.data.soundscapes.prevalence import test_presence as draw_test_presence
from callboard.data.soundscapes.prevalence import train_cast
from callboard.data.soundscapes.scenes import DISTRACTOR, PlacedCall, Scene, World, build_world, render_scene
from callboard.data.soundscapes.writer import BYTES_PER_SAMPLE, make_soundscapes, recording_ids
from callboard.data.source_tables import SourceTables
from callboard.params.data import DemoParams

RATE = 24_000
DEMO = DemoParams(
    seed=7,
    n_species=6,
    n_tp_recordings=24,
    n_fp_recordings=10,
    n_test_recordings=20,
    n_external_recordings=0,
    crowding="sparse",
    recording_length_s=8.0,
    calls=None,
    backgrounds=None,
)
IDS = {"recording_id": str, "species_id": str}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("soundscapes")


@pytest.fixture(scope="module")
def tables(folder: Path) -> SourceTables:
    return make_soundscapes(DEMO, RATE, folder)


@pytest.fixture(scope="module")
def truth(folder: Path, tables: SourceTables) -> pd.DataFrame:
    return pd.read_csv(folder / "hidden/train_labels.csv", dtype=IDS)


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(DEMO, RATE)


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def calls_near(truth: pd.DataFrame, row: pd.Series, margin_s: float) -> pd.DataFrame:
    same = (truth["recording_id"] == row["recording_id"]) & (truth["species_id"] == row["species_id"])
    during = (truth["t_min"] < row["t_max"] + margin_s) & (row["t_min"] < truth["t_max"] + margin_s)
    return truth[same & during]


def test_a_seed_gives_the_same_bytes_on_any_number_of_threads(
    tables: SourceTables, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLBOARD_WORKERS", "3")
    again = make_soundscapes(DEMO, RATE, tmp_path)
    assert file_bytes(tmp_path) == file_bytes(folder)
    pd.testing.assert_frame_equal(again.train_tp, tables.train_tp)
    pd.testing.assert_frame_equal(again.train_fp, tables.train_fp)


@pytest.mark.slow
def test_external_recordings_leave_all_others_as_they_were(
    tables: SourceTables, folder: Path, tmp_path: Path
) -> None:
    more = make_soundscapes(DEMO.model_copy(update={"n_external_recordings": 5}), RATE, tmp_path)
    before, after = file_bytes(folder), file_bytes(tmp_path)
    assert {name: content for name, content in after.items() if name in before} == before
    external = more.recordings[more.recordings["subset"] == "external"]
    assert set(after) - set(before) == {"hidden/external_labels.csv", *("external/" + external["file"])}
    truth = pd.read_csv(tmp_path / "hidden/external_labels.csv", dtype=IDS)
    assert set(truth["recording_id"]) == set(external["recording_id"])
    assert len(external) == 5
    assert more.test_ids == tables.test_ids
    pd.testing.assert_frame_equal(more.train_tp, tables.train_tp)
    assert not set(external["recording_id"]) & {*more.train_fp["recording_id"], *more.test_ids}


@pytest.mark.slow
def test_dense_soundscapes_have_more_species_to_a_recording(truth: pd.DataFrame, tmp_path: Path) -> None:
    make_soundscapes(DEMO.model_copy(update={"crowding": "dense"}), RATE, tmp_path)
    dense = pd.read_csv(tmp_path / "hidden/train_labels.csv", dtype=IDS)
    few, many = (table.groupby("recording_id")["species_id"].nunique().mean() for table in (truth, dense))
    assert many > few + 1


def test_another_seed_gives_other_recordings(tables: SourceTables, tmp_path: Path) -> None:
    small = DEMO.model_copy(
        update={"seed": 8, "n_tp_recordings": 10, "n_fp_recordings": 0, "n_test_recordings": 2}
    )
    other = make_soundscapes(small, RATE, tmp_path)
    assert not set(other.recordings["recording_id"]) & set(tables.recordings["recording_id"])


def paths(tables: SourceTables, folder: Path) -> list[Path]:
    recordings = tables.recordings
    return [
        folder / subset / file for subset, file in zip(recordings["subset"], recordings["file"], strict=True)
    ]


def test_recordings_are_as_long_as_asked_for_and_do_not_clip(tables: SourceTables, folder: Path) -> None:
    for path in paths(tables, folder):
        waveform, rate = soundfile.read(path)
        assert (len(waveform), rate) == (8 * RATE, RATE)
        assert np.abs(waveform).max() < 0.95
        level_dbfs = 20 * np.log10(np.sqrt(np.mean(waveform**2)))
        assert RMS_RANGE_DBFS[0] - 1 < level_dbfs < RMS_RANGE_DBFS[1] + 14


def test_the_table_of_recordings_describes_the_files(tables: SourceTables, folder: Path) -> None:
    assert tables.recordings["digest"].tolist() == [content_digest(path) for path in paths(tables, folder)]
    assert tables.recordings["subset"].value_counts().to_dict() == {"train": 34, "test": 20}
    assert tables.test_ids == sorted(tables.test_ids)


def test_every_tp_box_holds_a_call_of_its_species(tables: SourceTables, truth: pd.DataFrame) -> None:
    for _, row in tables.train_tp.iterrows():
        calls = calls_near(truth, row, 0.0)
        shared_s = calls["t_max"].clip(upper=row["t_max"]) - calls["t_min"].clip(lower=row["t_min"])
        shortest_s = np.minimum(calls["t_max"] - calls["t_min"], row["t_max"] - row["t_min"])
        assert (shared_s >= 0.5 * shortest_s).any()


def test_no_fp_box_touches_a_call_of_its_species(tables: SourceTables, truth: pd.DataFrame) -> None:
    assert all(calls_near(truth, row, 0.9 * CLEARANCE_S).empty for _, row in tables.train_fp.iterrows())


def test_box_size_does_not_tell_fp_from_tp(world: World, tables: SourceTables) -> None:
    for table in (tables.train_tp, tables.train_fp):
        for _, row in table.iterrows():
            duration_s = row["t_max"] - row["t_min"]
            templates = world.voices[int(row["species_id"])].templates
            assert any(
                abs(duration_s - template.duration_s) < 2e-4
                and (row["f_min"], row["f_max"]) == (template.f_min_hz, template.f_max_hz)
                for template in templates
            )


def test_boxes_stay_inside_the_recording(tables: SourceTables) -> None:
    for table in (tables.train_tp, tables.train_fp):
        assert (table["t_min"] >= 0).all()
        assert (table["t_max"] <= DEMO.recording_length_s).all()


def test_tp_rows_are_balanced_over_species(tables: SourceTables) -> None:
    first_rows = tables.train_tp.drop_duplicates("recording_id")
    assert len(first_rows) == DEMO.n_tp_recordings
    counts = tables.train_tp["species_id"].value_counts()
    assert len(counts) == DEMO.n_species
    assert counts.min() >= DEMO.n_tp_recordings / DEMO.n_species - 2


def test_fp_only_recordings_have_one_to_five_rows(tables: SourceTables) -> None:
    tp_ids = set(tables.train_tp["recording_id"])
    rows = tables.train_fp[~tables.train_fp["recording_id"].isin(tp_ids)]["recording_id"].value_counts()
    assert len(rows) == DEMO.n_fp_recordings
    assert rows.between(1, 5).all()


def test_most_calls_are_unlabelled(tables: SourceTables, truth: pd.DataFrame) -> None:
    assert len(tables.train_tp) < 0.4 * len(truth)


def test_test_labels_have_a_usage_and_agree_with_the_sample(tables: SourceTables, folder: Path) -> None:
    labels = pd.read_csv(folder / "hidden/test_labels.csv", dtype=IDS)
    assert labels["recording_id"].tolist() == tables.test_ids
    assert labels["usage"].value_counts().to_dict() == {"private": 10, "public": 10}
    assert list(labels.columns[2:]) == [f"s{species}" for species in tables.species]
    assert labels.iloc[:, 2:].isin([0, 1]).all(axis=None)
    assert (labels.iloc[:, 2:].sum(axis=1) >= 1).all()


def test_one_species_dominates_the_test_set_and_none_is_missing() -> None:
    present = draw_test_presence(
        160, list(range(12)), difficulty.TEST.n_species_shares, np.random.default_rng(0)
    )
    per_species = present.sum(axis=0)
    assert (np.diff(per_species) <= 0).all()
    assert 0.2 < per_species[0] / present.sum() < 0.4
    assert per_species[0] > 1.4 * per_species[1]
    assert per_species[-1] >= difficulty.MIN_TEST_RECORDINGS_PER_SPECIES
    assert per_species[-1] < 0.1 * per_species[0]
    assert present.any(axis=1).all()
    assert present.sum(axis=1).max() <= 5


@pytest.mark.parametrize(("n_recordings", "n_species"), [(2, 2), (2, 12), (3, 5), (50, 30)])
def test_any_size_of_test_set_has_every_recording_filled(n_recordings: int, n_species: int) -> None:
    present = draw_test_presence(n_recordings, list(range(n_species)), (0.5, 0.5), np.random.default_rng(0))
    assert present.shape == (n_recordings, n_species)
    assert present.any(axis=1).all()


def test_a_training_recording_leaves_one_species_out() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert train_cast(1, 2, (0.0, 1.0), rng) == [1]
        cast = train_cast(None, 4, (0.0, 0.0, 0.0, 0.0, 1.0), rng)
        assert len(set(cast)) == len(cast) == 3


def test_ids_are_distinct_hexadecimal_text_that_spreadsheets_would_ruin() -> None:
    ids = recording_ids(200, np.random.default_rng(0))
    assert len(set(ids)) == 200
    assert all(len(text) == 9 and int(text, 16) >= 0 for text in ids)
    assert any(text.isdigit() and text[0] == "0" for text in ids)
    assert any(text[6] == "e" and text.replace("e", "").isdigit() for text in ids)


def test_calls_are_mixed_at_the_level_they_are_said_to_have(world: World) -> None:
    scene = render_scene(world, [2], "train", np.random.default_rng([0, 0]))
    assert len(scene.calls_of(2)) >= 1
    assert {call.species for call in scene.calls} <= {2, DISTRACTOR}
    low, high = difficulty.SNR_RANGE_DB
    assert all(low <= call.snr_db <= high for call in scene.calls)


@pytest.mark.slow
def test_test_recordings_are_louder_and_their_calls_fainter(world: World) -> None:
    def median_of(subset: str, what: str) -> float:
        values = []
        for number in range(30):
            scene = render_scene(world, [number % 6], subset, np.random.default_rng([1, number]))  # type: ignore[arg-type]
            rms = float(np.sqrt(np.mean(scene.waveform**2)))
            values += [rms] if what == "rms" else [call.snr_db for call in scene.calls_of(number % 6)]
        return float(np.median(values))

    assert median_of("test", "rms") > median_of("train", "rms")
    assert median_of("test", "snr") < median_of("train", "snr")


def test_a_species_that_always_calls_gets_no_fp_box(world: World) -> None:
    rng = np.random.default_rng(0)
    calls = [PlacedCall(0, float(t), t + 1.2, 1000.0, 2000.0, 8.0) for t in range(8)]
    scene = Scene(np.zeros(world.n_samples, dtype=np.float32), calls)
    for _ in range(20):
        assert 0 not in {box.species for box in reject(world, scene, [], rng)}


def test_the_confirmed_species_is_not_rejected_in_the_same_recording(world: World) -> None:
    rng = np.random.default_rng(0)
    scene = render_scene(world, [3, 4], "train", rng)
    confirmed = confirm(world, scene, 3, rng)
    assert confirmed[0].species == 3
    assert all(isinstance(box, Annotation) for box in confirmed)
    for _ in range(20):
        assert not {box.species for box in reject(world, scene, confirmed, rng)} & {
            box.species for box in confirmed
        }


def test_a_call_model_sounds_in_its_band_and_lasts_as_it_says() -> None:
    for model in [model for pair in PAIRS for model in pair]:
        waveform = model.render(RATE)
        assert len(waveform) / RATE == pytest.approx(model.duration_s, abs=1e-3)
        assert np.sqrt(np.mean(waveform**2)) == pytest.approx(1, abs=1e-3)
        power = np.abs(np.fft.rfft(waveform)) ** 2
        hz = np.fft.rfftfreq(len(waveform), 1 / RATE)
        low, high = model.band_hz
        assert power[(hz > 0.9 * low) & (hz < 1.1 * high)].sum() > 0.95 * power.sum()


def test_similar_pairs_share_their_band() -> None:
    for first, second in PAIRS:
        low = max(first.band_hz[0], second.band_hz[0])
        high = min(first.band_hz[1], second.band_hz[1])
        narrower_hz = min(model.band_hz[1] - model.band_hz[0] for model in (first, second))
        assert high - low > 0.4 * narrower_hz


def test_no_contrast_makes_the_two_of_a_pair_alike() -> None:
    slow = CallModel(start_hz=1000, end_hz=1000, note_s=1, fm_hz=2)
    fast = CallModel(start_hz=1000, end_hz=2000, note_s=1, fm_hz=8)
    assert slow.towards(fast, 0.5) == fast.towards(slow, 0.5)


@pytest.mark.parametrize("sample_rate", [8000, 24_000, 48_000])
def test_every_voice_sounds_below_half_of_the_sample_rate_at_any_pitch(sample_rate: int) -> None:
    rng = np.random.default_rng(0)
    for voice in [*synthetic_voices(60, sample_rate, rng), *distractor_voices(sample_rate, rng)]:
        assert voice.templates[0].f_max_hz <= sample_rate / 2
        for pitch in (0.7, 1.0, 1.4):
            call = voice.call(rng, pitch, "train")
            assert np.sqrt(np.mean(call.waveform**2)) == pytest.approx(1, abs=1e-3)
            assert call.f_min_hz < sample_rate / 2


def test_more_species_than_call_models_are_refused() -> None:
    with pytest.raises(UserError, match=r"n_species 61: at most 60"):
        synthetic_voices(61, RATE, np.random.default_rng(0))


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """A folder with calls/calls.csv (labels a, b, c of 3, 2 and 1 calls) and backgrounds/backgrounds.csv."""
    rng = np.random.default_rng(0)
    for name in ("calls", "backgrounds"):
        (tmp_path / name).mkdir()
    rows = []
    for number, label in enumerate("aaabbc"):
        sound = np.sin(2 * np.pi * (1000 + 200 * number) * np.arange(32_000) / 32_000) * 0.3
        soundfile.write(tmp_path / f"calls/{label}{number}.flac", sound, 32_000)
        rows.append((f"calls/{label}{number}.flac", label, 0.2, 0.8, 900 + 200 * number, 1100 + 200 * number))
    columns = ["file", "label", "call_on_s", "call_off_s", "f_min_hz", "f_max_hz"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "calls/calls.csv", index=False)
    backgrounds = []
    for name, rate in (("narrow", 16_000), ("wide", 24_000), ("short", 24_000)):
        length_s = 1 if name == "short" else 4
        soundfile.write(
            tmp_path / f"backgrounds/{name}.wav", 0.1 * rng.standard_normal(length_s * rate), rate
        )
        backgrounds.append((f"{name}.wav", rate))
    table = pd.DataFrame(backgrounds, columns=["file", "source_sr"])
    table.to_csv(tmp_path / "backgrounds/backgrounds.csv", index=False)
    return tmp_path


def with_manifests(root: Path, n_species: int) -> DemoParams:
    return DEMO.model_copy(
        update={
            "n_species": n_species,
            "n_tp_recordings": 10,
            "n_fp_recordings": 2,
            "n_test_recordings": 4,
            "calls": str(root / "calls/calls.csv"),
            "backgrounds": str(root / "backgrounds/backgrounds.csv"),
        }
    )


def test_labels_of_a_manifest_become_species(
    manifests: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("out")
    tables = make_soundscapes(with_manifests(manifests, 2), RATE, out)
    assert tables.species == ["a", "b"]
    assert len(list(out.glob("*/*.flac"))) == 16
    assert list(pd.read_csv(out / "hidden/test_labels.csv").columns[2:]) == ["sa", "sb"]


def test_manifest_paths_are_relative_to_the_main_workspace(
    manifests: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(manifests))
    relative = {"calls": "calls/calls.csv", "backgrounds": "backgrounds/backgrounds.csv"}
    assert build_world(with_manifests(manifests, 3).model_copy(update=relative), RATE).species == [
        "a",
        "b",
        "c",
    ]


def test_train_and_test_draw_from_different_calls_where_a_label_has_several(manifests: Path) -> None:
    _, voices, _ = read_voices(manifests / "calls/calls.csv", 3, RATE, 4.0, np.random.default_rng(0))
    for voice, n_calls in zip(voices, (3, 2, 1), strict=True):
        train, test = ({id(call) for call in calls} for calls in voice.calls.values())
        assert train
        assert test
        assert len(train | test) == n_calls
        assert bool(train & test) == (n_calls == 1)


def test_all_calls_of_a_file_are_in_train_or_in_test(manifests: Path) -> None:
    table = pd.read_csv(manifests / "calls/calls.csv")
    later = table.assign(call_on_s=0.5, f_min_hz=table["f_min_hz"] + 1)
    pd.concat([table, later]).to_csv(manifests / "calls/calls.csv", index=False)
    for seed in range(5):
        _, voices, _ = read_voices(manifests / "calls/calls.csv", 3, RATE, 4.0, np.random.default_rng(seed))
        for voice, n_files in zip(voices, (3, 2, 1), strict=True):
            train, test = ({call.f_min_hz // 100 for call in calls} for calls in voice.calls.values())
            assert bool(train & test) == (n_files == 1)


def test_backgrounds_of_mixed_rates_end_at_one_frequency(manifests: Path, world: World) -> None:
    manifest = manifests / "backgrounds/backgrounds.csv"
    backdrop = read_backdrop(manifest, RATE, world.conditions, np.random.default_rng(0))
    for number in range(6):
        sound = backdrop.render(np.random.default_rng(number), 6 * RATE, "train" if number % 2 else "test")
        power = np.abs(np.fft.rfft(sound)) ** 2
        hz = np.fft.rfftfreq(len(sound), 1 / RATE)
        in_band, above = (
            power[(hz > low) & (hz < high)].mean() for low, high in ((1000, 6000), (8500, 11_500))
        )
        assert 10 * np.log10(in_band / above) == pytest.approx(50, abs=6)


def test_a_missing_column_is_named(manifests: Path) -> None:
    manifest = manifests / "calls/calls.csv"
    pd.read_csv(manifest).drop(columns="label").to_csv(manifest, index=False)
    with pytest.raises(UserError, match=r"calls.csv: missing column\(s\) label"):
        build_world(with_manifests(manifests, 2), RATE)


def test_a_missing_file_of_a_manifest_is_named(manifests: Path) -> None:
    (manifests / "calls/b4.flac").unlink()
    with pytest.raises(UserError, match=r"calls.csv: no file calls/b4.flac in"):
        build_world(with_manifests(manifests, 2), RATE)


def test_an_unreadable_file_of_a_manifest_is_named(manifests: Path) -> None:
    (manifests / "backgrounds/wide.wav").write_bytes(b"no sound")
    with pytest.raises(UserError, match=r"backgrounds.csv: wide.wav: not a recording: "):
        build_world(with_manifests(manifests, 2), RATE)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"calls.csv: not found"):
        build_world(with_manifests(tmp_path, 2), RATE)


def test_fewer_labels_than_species_are_refused(manifests: Path) -> None:
    with pytest.raises(UserError, match=r"calls.csv: 3 labels, but data.demo.n_species is 4; lower it to 3"):
        build_world(with_manifests(manifests, 4), RATE)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("call_on_s", "soon", r"calls.csv row 3: .* must be numbers, found 'soon'"),
        ("call_on_s", "0.9", r"calls.csv row 3: must have 0 <= call_on_s < call_off_s"),
        ("f_min_hz", "20000", r"calls.csv row 3: must have .* and 0 <= f_min_hz < f_max_hz"),
        ("call_off_s", "0.21", r"calls.csv: calls/a1.flac: no sound between"),
    ],
)
def test_a_wrong_row_of_a_manifest_is_named(manifests: Path, column: str, value: str, words: str) -> None:
    manifest = manifests / "calls/calls.csv"
    table = pd.read_csv(manifest, dtype=str)
    table.loc[1, column] = value
    table.to_csv(manifest, index=False)
    with pytest.raises(UserError, match=words):
        build_world(with_manifests(manifests, 2), RATE)


@pytest.mark.usefixtures("tables")
def test_the_size_of_soundscapes_is_known_before_they_are_made(folder: Path) -> None:
    files = list(folder.rglob("*.flac"))
    n_samples = len(files) * DEMO.recording_length_s * RATE
    assert sum(file.stat().st_size for file in files) == pytest.approx(n_samples * BYTES_PER_SAMPLE, rel=0.05)


def test_soundscapes_that_do_not_fit_on_the_disk_are_refused_before_any_is_made(tmp_path: Path) -> None:
    huge = DEMO.model_copy(update={"n_tp_recordings": 100, "recording_length_s": 1e12})
    told = r"130 soundscapes of .* h: needs .* TB on disk, .* free; lower data.demo.recording_length_s or"
    with pytest.raises(UserError, match=told):
        make_soundscapes(huge, RATE, tmp_path)
    assert list(tmp_path.iterdir()) == []

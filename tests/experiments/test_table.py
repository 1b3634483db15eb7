import json
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from callboard.core.errors import UserError
from callboard.experiments.author_scores import author_rows
from callboard.experiments.launch import Plan, with_overrides
from callboard.experiments.overrides import hydra_overrides
from callboard.experiments.presets import read_preset, with_values
from callboard.experiments.scaling import scaled
from callboard.experiments.table import look_up, read_experiments
from callboard.params.base import read_tree, validate
from callboard.params.defaults import text_value
from callboard.params.experiment import Experiment
from callboard.params.references import REFERENCE_KEYS

ROOT = Path(__file__).parents[2]
TABLE = read_experiments(ROOT / "experiments.yaml")
COMMITTED = read_tree(ROOT / "tests/params.yaml")
COMPETITION = with_values(COMMITTED, read_preset(ROOT / "presets/rfcx.yaml"))

AUTHOR: list[dict[str, Any]] = YAML(typ="safe").load(
    (ROOT / "tests/author_table.yaml").read_text(encoding="utf-8")
)
OUR_KEYS = {
    "crop.mode": "clip.mode",
    "crop.window": "clip.n_frames",
    "crop.offsets": "clip.offsets",
    "data.mel_rows": "clip.mel_rows",
    "data.fp_per_epoch": "train.fp_per_epoch",
    "data.label_source": "train.labels",
    "infer.overlap": "predict.overlap_frames",
    "infer.tta": "predict.tta",
    "model.att_act": "model.attention",
    "model.seg_source": "model.segment_source",
    "model.freq_head": "model.frequency_head",
    "loss.att.weight": "loss.attention.weight",
    "loss.att.kind": "loss.attention.kind",
    "loss.att.focal_weighted": "loss.attention.focal_weighted",
    "loss.att_frame.weight": "loss.position.weight",
    "loss.att_frame.kind": "loss.position.kind",
    "loss.seq.weight": "loss.segment.weight",
    "loss.freq.weight": "loss.frequency.weight",
    "loss.pseudo.thr": "loss.pseudo.threshold",
}
OUR_VALUES = {
    ("infer.head", "att_max"): "attention_max",
    ("infer.head", "att_max_freq"): "attention_max_frequency",
    ("model.segment_source", "cla_x_att"): "class_x_attention",
    ("train.select", "loss"): "best_loss",
}
WITHOUT_KEY = {"pseudo.oof_only", "analysis.adversarial_validation"}
"""The one is our only way, the other a command."""
ALONE = {"exp0005": {"seed": 417}, "exp0025-densenet": {"model.backbone_args": {}}}


def author_name(entry: dict[str, Any]) -> str:
    return "-".join([entry["id"], *([str(entry["variant"])] if "variant" in entry else [])])


def in_our_words(settings: dict[str, Any]) -> dict[str, Any]:
    """The author's settings as our keys and values. A student is a round; some settings need validations."""
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if key == "pseudo.enabled":
            values |= {"pseudo.rounds": 1}
        elif key not in WITHOUT_KEY:
            ours = OUR_KEYS.get(key, key)
            values[ours] = OUR_VALUES.get((ours, value), value) if isinstance(value, str) else value
    if values.get("sched.name") == "plateau" or values.get("train.select") == "best_loss":
        values["train.validate_every"] = 1
    return values


def applied(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """The workspace's parameters as the row has them."""
    result = deepcopy(tree)
    for key, value in TABLE.overrides(name, tree):
        *sections, leaf = key.split(".")
        section = result
        for part in sections:
            section = section[part]
        section[leaf] = with_keys(value) if key in REFERENCE_KEYS else value
    return result


def with_keys(names: Any) -> Any:
    """Names of rows, one or several, as `callboard run` writes them."""
    if isinstance(names, list):
        return [with_keys(name) for name in names]
    return f"{names}@{0:016x}" if names else None


def test_the_table_has_the_author_s_rows_in_his_order() -> None:
    rows = [name for name, row in TABLE.rows.items() if not row.is_preset]
    assert rows == [author_name(entry) for entry in AUTHOR]
    assert len(rows) == 79


@pytest.mark.parametrize("entry", AUTHOR, ids=author_name)
def test_a_row_resolves_to_what_the_author_s_flat_settings_say(entry: dict[str, Any]) -> None:
    name = author_name(entry)
    row = TABLE.rows[name]
    assert TABLE.resolved[name] == TABLE.resolved["exp0001"] | in_our_words(entry["settings"])
    assert row.alone == ALONE.get(name, {})
    assert (row.cv, row.lb) == (entry.get("cv"), entry.get("lb"))
    if isinstance(row.block, int):
        assert row.base == entry.get("base")


@pytest.mark.parametrize("tree", [COMMITTED, COMPETITION], ids=["demo", "competition"])
@pytest.mark.parametrize("name", TABLE.rows)
def test_a_row_is_a_whole_set_of_valid_parameters(name: str, tree: dict[str, Any]) -> None:
    changed = applied(tree, name)
    validate(Experiment, changed, name)
    again = dict(TABLE.overrides(name, changed))
    needed = {key: value for key, value in TABLE.values(name).items() if key in REFERENCE_KEYS}
    assert again == {key: value for key, value in needed.items() if value}  # they have keys by then


def test_a_row_changes_a_handful_of_its_base() -> None:
    assert max(len(row.changes | row.alone) for row in author_rows(TABLE) if row.base) <= 6


@pytest.mark.parametrize("first", ["exp0001", "stage1"])
def test_the_first_row_of_a_chain_names_only_what_some_row_moves(first: str) -> None:
    is_preset = TABLE.rows[first].is_preset
    chain = [row for row in TABLE.rows.values() if row.is_preset == is_preset]
    moved = {key for row in chain if row.base for key in row.changes}
    assert moved - set(TABLE.rows[first].changes) == set()
    assert is_preset or set(TABLE.rows[first].changes) == moved


def test_names_are_fit_for_git() -> None:
    for name in TABLE.rows:
        subprocess.run(["git", "check-ref-format", f"refs/exps/{name}"], check=True)


@pytest.mark.parametrize("tree", [COMMITTED, COMPETITION], ids=["demo", "competition"])
def test_the_committed_parameters_are_exp0051(tree: dict[str, Any]) -> None:
    assert TABLE.overrides("exp0051", tree) == []
    assert TABLE.overrides("exp0058", tree) == [("loss.neg_mask", "seq")]


SOUNDSCAPES = {
    **dict.fromkeys(("clip.n_frames", "clip.offsets", "predict.overlap_frames", "pseudo.n_frames"), 0.5),
    **dict.fromkeys(("clip.mel_rows", "augment.freq_mask", "augment.freq_crop"), 0.5),
    "train.fp_per_epoch": 0.26,
    "optim.lr": 2.0,
    "train.epochs": 1.2,
    "sched.t_max": 1.2,
}
"""The factors by which results of the soundscapes were made before `scale` existed."""


def without_scale(tree: dict[str, Any]) -> dict[str, Any]:
    """Parameters from before the section existed."""
    return {name: section for name, section in tree.items() if name != "scale"}


@pytest.mark.parametrize("name", TABLE.rows)
def test_a_row_has_the_sizes_that_it_had_before_scale_was_a_section(name: str) -> None:
    competition = TABLE.values(name)
    demo = {key: scaled(value, SOUNDSCAPES.get(key, 1.0)) for key, value in competition.items()}
    for listed, expected in ((COMMITTED, demo), (COMPETITION, competition)):
        assert TABLE.resolve(name, listed) == TABLE.resolve(name, without_scale(listed)) == expected


def test_numbers_of_frames_and_mel_rows_follow_the_features() -> None:
    """Half the hop is twice the frames: 512 × 0.5 × 2; of 96 mel rows, 30 and 110 are 22.5 and 82.5."""
    features = {"features.hop_length": 192, "features.n_mels": 96}
    sizes = TABLE.resolve("stage1", with_values(COMMITTED, features))
    assert (sizes["clip.n_frames"], sizes["clip.offsets"]) == (512, [32, 64, 128, 256])
    assert (sizes["predict.overlap_frames"], sizes["pseudo.n_frames"]) == (51, 192)
    assert (sizes["augment.time_mask"], sizes["augment.freq_mask"]) == (80, 23)
    assert TABLE.resolve("exp0033", with_values(COMMITTED, features))["clip.mel_rows"] == [0, 83]


def test_a_time_mask_keeps_its_length_except_in_short_windows() -> None:
    masks = {
        window: TABLE.resolve("stage1", with_values(COMMITTED, {"scale.window": window}))["augment.time_mask"]
        for window in (1.0, 0.5, 0.25)
    }
    assert masks == {1.0: 40, 0.5: 40, 0.25: 20}


def test_embeddings_have_frames_of_their_own() -> None:
    """The competition's 16 frames of 0.5 s, in windows half as long: 4 s, with a hop of 0.25 s 16 frames."""
    embedded = next(name for name in TABLE.rows if TABLE.values(name).get("features.kind") == "birdnet")
    sizes = TABLE.resolve(embedded, with_values(COMMITTED, {"features.embedding_hop_s": 0.25}))
    assert (sizes["clip.n_frames"], TABLE.resolve(embedded, COMMITTED)["clip.n_frames"]) == (16, 8)


OWN = {"data.source": "own", "data.root": "recordings", "scale.window": 0.25, "features.n_mels": 32}


@pytest.mark.parametrize("name", ["exp0001", "exp0051", "stage1", "stage3"])
@pytest.mark.parametrize("written", range(len(OWN) + 1))
def test_a_row_is_one_recipe_by_every_route(
    name: str, written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the settings for the user's data, the first are written into params.yaml, the others overrides."""
    settings = list(OWN.items())
    tree = with_values(COMMITTED, dict(settings[:written]))
    extra = [text for key, value in settings[written:] for text in hydra_overrides(key, value)]
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(json.dumps(tree))
    made = with_overrides(Plan(TABLE, tree, extra).preview(name))
    sizes = TABLE.resolve(name, with_values(COMMITTED, OWN))
    assert sizes["clip.n_frames"] == 128
    assert {key: made[key] for key in OWN if not key.startswith("scale")} == {
        "data.source": "own",
        "data.root": "recordings",
        "features.n_mels": "32",
    }
    assert {key: text_value(made[key]) for key in SOUNDSCAPES if key in sizes} == {
        key: sizes[key] for key in SOUNDSCAPES if key in sizes
    }


def test_a_user_s_own_size_wins_over_the_row_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(json.dumps(COMMITTED))
    plan = Plan(TABLE, COMMITTED, ["clip.n_frames=200", "scale.window=0.25"])
    made = with_overrides(plan.preview("exp0058"))
    assert (made["clip.n_frames"], made["clip.offsets"]) == ("200", "[8, 16, 32, 64]")


def test_the_soundscapes_have_a_scale_of_their_own() -> None:
    demo, own = TABLE.resolve("exp0059", COMMITTED), TABLE.resolve("exp0059", COMPETITION)
    assert (own["clip.n_frames"], own["clip.offsets"]) == (768, [32, 64, 128, 256, 512])
    assert (demo["clip.n_frames"], demo["clip.offsets"]) == (384, [16, 32, 64, 128, 256])
    assert (own["optim.lr"], demo["optim.lr"]) == (0.001, 0.002)
    assert TABLE.resolve("exp0033", COMMITTED)["clip.mel_rows"] == [0, 55]
    assert demo["augment.freq_crop"] is None


@pytest.mark.parametrize(
    ("value", "factor", "expected"),
    [(51, 0.5, 26), (50, 0.5, 25), (10, 0.26, 3), (0.3, 0.5, 0.15), ([1, 4], 0.5, [1, 2]), (None, 2.0, None)],
)
def test_whole_numbers_are_rounded_half_up_and_others_not_at_all(
    value: Any, factor: float, expected: Any
) -> None:
    assert scaled(value, factor) == expected
    assert type(scaled(value, factor)) is type(expected)


def test_what_the_table_does_not_move_stays_the_workspace_s() -> None:
    tree = deepcopy(COMMITTED)
    tree["train"]["epochs"], tree["seed"], tree["features"]["n_mels"] = 3, 5, 80
    changed = applied(tree, "exp0025")
    assert changed["seed"] == 5
    assert changed["train"] == tree["train"] | {"fp_per_epoch": 0}
    assert changed["features"] == tree["features"]


def test_what_a_row_sets_alone_is_not_handed_on() -> None:
    assert ("seed", 417) in TABLE.overrides("exp0005", COMMITTED)
    assert TABLE.rows["exp0006"].base == "exp0005"
    assert TABLE.step("exp0006") == ("exp0001", {"augment.gamma"})  # of the same seed
    assert TABLE.step("exp0005") == ("exp0001", {"seed"})
    assert TABLE.step("exp0001") is None
    assert "seed" not in dict(TABLE.overrides("exp0006", COMMITTED))


@pytest.mark.parametrize("name", TABLE.rows)
def test_dvc_reads_the_overrides_of_a_row_as_they_are_meant(name: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "tests/params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    overrides = TABLE.overrides(name, COMMITTED)
    apply_overrides(path, [text for key, value in overrides for text in hydra_overrides(key, value)])
    tree = read_tree(path)
    tree["infer"]["blend"] = with_keys(tree["infer"]["blend"])
    tree["train"]["init_from"] = with_keys(tree["train"]["init_from"])
    assert tree == applied(COMMITTED, name)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optim.lr", 3e-4),
        ("optim.lr", 1e-5),
        ("augment.gamma", None),
        ("loss.pos_weight", False),
        ("clip.offsets", [7]),
        ("infer.blend", ["exp0021@0123456789012345", "exp0036-thr0.7@00e5", "null"]),
        ("pseudo.rounds", 2),
        ("model.backbone", "tf_efficientnet_b0.ns_jft_in1k"),
        ("model.backbone", "it's, [a] \\' word\\"),
        ("model.backbone", "True"),
        ("model.backbone", "12"),
        ("model.backbone_args", {}),
        ("model.backbone_args", {"layers": [1, 2], "stem_type": "deep"}),
    ],
)
def test_dvc_reads_an_override_as_it_is_meant(key: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "tests/params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    apply_overrides(path, hydra_overrides(key, value))
    found = look_up(read_tree(path), key)
    assert found == value
    assert type(found) is type(value)


FIRST = """\
rows:
- {id: a1, block: 1, memo_ja: x, memo_en: x, certainty: code, set: {optim.lr: 0.001, infer.blend: []}}
"""
REFUSED = [
    ("{id: a2, base: a3}", "a2: base a3 is not above it"),
    ("{id: a2, base: a2}", "a2: base a2 is not above it"),
    ("{id: a2}", "a2: base is missing; only the first row, a1, has none"),
    ("{id: a1, base: a1}", "a1: two rows have this name"),
    ("{id: a2, base: a1, set: {optim.rate: 1.0}}", "a2: optim.rate is not a parameter"),
    ("{id: a2, base: a1, set: {optim: {}}}", "a2: optim is not a parameter"),
    ("{id: a2, base: a1, set: {seed: 1}}", "a2: seed must be named in the first row too"),
    ("{id: a2, base: a1, set: {optim.lr: 0.001}}", "a2: optim.lr is already 0.001 in its base a1"),
    (
        "{id: a2, base: a1, alone: {optim.lr: 0.1}}",
        "a2: optim.lr is set by the table, so it belongs in set",
    ),
    ("{id: a2, base: a1, set: {infer.blend: [a7]}}", "a2: infer.blend a7 is not above it"),
    ("{id: a2, base: a1, alone: {train.init_from: a7}}", "a2: train.init_from a7 is not above it"),
    ("{id: a2, base: a1, alone: {train.init_from: a2}}", "a2: train.init_from a2 is not above it"),
    ("{id: a2, base: a1, alone: {train.init_from: [a1]}}", "a2: train.init_from .* should be a valid string"),
    ("{id: a2, base: a1, set: {optim.lr: fast}}", "a2: optim.lr 'fast': Input should be a valid number"),
    ("{id: a2, base: a1, set: {optim.lr: -1.0}}", "a2: optim.lr -1.0: -1.0 must be above 0"),
    ("{id: a2, base: a1, set: {infer.blend: null}}", "a2: infer.blend None: Input should be a valid list"),
    ("{id: a2, base: a1, cv: 79.0}", r"(?s)a2:\n  cv: .* less than or equal to 1, found 79.0"),
    ("{id: a2, base: a1, cv: high}", r"(?s)a2:\n  cv: .* found 'high'"),
    ("{id: a2, base: a1, sets: {}}", r"a2:\n  sets: unknown parameter"),
    (
        "{id: a2, variant: seed3, base: a1}",
        "a2-seed3 looks like a seed of a row: `--seed` gives results such names",
    ),
    ("{id: a..2, base: a1}", r"a\.\.2:\n  id: "),
    ("{variant: v, base: a1}", r"row 2:\n  id: missing"),
]


@pytest.mark.parametrize(("row", "message"), REFUSED)
def test_a_wrong_row_is_refused_by_its_name(row: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "experiments.yaml"
    common = "block: 1, memo_ja: x, memo_en: x, certainty: code"
    path.write_text(f"{FIRST}- {row[:-1]}, {common}}}\n")
    with pytest.raises(UserError, match=message):
        read_experiments(path)


CHAIN = """\
rows:
- {id: a1, set: {optim.lr: 0.001, infer.blend: [], train.init_from: null}, COMMON}
- {id: a2, base: a1, set: {train.init_from: a1}, COMMON}
- {id: a3, base: a2, set: {optim.lr: 0.1}, COMMON}
- {id: a4, base: a3, set: {train.init_from: null, infer.blend: [a2, a3]}, COMMON}
- {id: a5, base: a4, set: {train.init_from: a3}, COMMON}
"""


def test_a_row_needs_what_it_starts_from_and_blends_also_through_its_base(tmp_path: Path) -> None:
    path = tmp_path / "experiments.yaml"
    path.write_text(CHAIN.replace("COMMON", "block: 1, memo_ja: x, memo_en: x, certainty: code"))
    table = read_experiments(path)
    assert {name: table.needs(name) for name in table.rows} == {
        "a1": [],
        "a2": ["a1"],
        "a3": ["a1"],
        "a4": ["a2", "a3"],
        "a5": ["a3", "a2"],
    }
    assert [table.start(name) for name in table.rows] == [None, "a1", "a1", None, "a3"]


def test_a_first_row_with_a_base_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "experiments.yaml"
    path.write_text(FIRST.replace("block: 1", "block: 1, base: a0"))
    with pytest.raises(UserError, match="a1: base a0 is not above it"):
        read_experiments(path)


def test_an_unknown_row_is_answered_with_its_neighbours() -> None:
    with pytest.raises(
        UserError, match=r"no row 'exp036-thr0\.7'; the nearest are exp0036-thr0\.7, exp0036-thr0\.3"
    ):
        TABLE.row("exp036-thr0.7")
    with pytest.raises(UserError, match="no row 'zzz'; `callboard board --author` lists all"):
        TABLE.overrides("zzz", COMMITTED)


def test_a_key_that_params_yaml_lacks_holds_its_default() -> None:
    """exp0058 has the segment term at 0.5, as params.yaml, and the position term at 0, as its class."""
    tree = deepcopy(COMMITTED)
    del tree["loss"]["segment"]["weight"], tree["loss"]["position"]["weight"]
    more = (
        dict(TABLE.overrides("exp0058", tree)).items() - dict(TABLE.overrides("exp0058", COMMITTED)).items()
    )
    assert more == {("loss.segment.weight", 0.5)}


def test_a_section_that_is_a_value_is_named() -> None:
    with pytest.raises(UserError, match=r"params\.yaml: loss\.\w+: missing"):
        TABLE.overrides("exp0058", COMMITTED | {"loss": "bce"})

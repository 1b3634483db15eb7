import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from callboard.analysis.pair import Pair, compare, pair_of
from callboard.analysis.verdict import Verdict
from callboard.core.errors import UserError
from callboard.reports.diff import pair_html, pair_markdown, verdict_sentence
from callboard.results.rows import BoardRow
from callboard.scoring.metrics import lwlrap
from tests.toy_git import ToyRepository

START = datetime(2020, 11, 20, 12, 0, tzinfo=UTC)
RECORDINGS = [f"r{k}" for k in range(8)]
SPECIES = ["s0", "s1", "s2"]
TRUTH = np.eye(3, dtype=bool)[[0, 1, 2, 0, 1, 2, 0, 1]]
BEFORE = np.random.default_rng(0).random((8, 3))
AFTER = BEFORE + 0.5 * TRUTH


def table(scores: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(scores, columns=SPECIES).assign(recording_id=RECORDINGS)[["recording_id", *SPECIES]]


def cached_clips(repository: ToyRepository, truth: np.ndarray) -> str:
    """The md5 of annotations that confirm these species, one in each recording."""
    species = truth.argmax(axis=1).astype(str)
    clips = pd.DataFrame({"recording_id": RECORDINGS, "species_id": species, "label_type": "tp"})
    return repository.cache(clips.to_csv(index=False).encode())


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyRepository:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "main"))
    repository = ToyRepository(tmp_path / "main")
    monkeypatch.chdir(repository.root)
    return repository


@pytest.fixture
def rows(repository: ToyRepository) -> list[BoardRow]:
    """Two results whose tables are in the cache."""
    clips = cached_clips(repository, TRUTH)
    old, new = (repository.cache_table(table(scores)) for scores in (BEFORE, AFTER))
    a = BoardRow(
        "before",
        {"lr": "1", "seed": "1"},
        {"cv.lwlrap": lwlrap(TRUTH, BEFORE), "lb.public": 0.5},
        START,
        "",
        {},
    )
    a = replace(a, key="a", oof_md5=old, clips_md5=clips, data_md5="d")
    b = replace(a, name="after", key="b", oof_md5=new, params={"lr": "2", "seed": "1"})
    return [a, replace(b, metrics={"cv.lwlrap": lwlrap(TRUTH, AFTER), "lb.public": 0.6})]


@pytest.fixture
def pair(rows: list[BoardRow]) -> Pair:
    return pair_of(*rows, rows)


def test_every_change_is_from_the_first_to_the_second(pair: Pair) -> None:
    gain = lwlrap(TRUTH, AFTER) - lwlrap(TRUTH, BEFORE)
    assert gain > 0
    assert pair.params == ["lr: 1 → 2"]
    assert [metric.change for metric in pair.metrics] == pytest.approx([gain, 0.1])
    assert pair.change is not None
    assert pair.change.value == pytest.approx(gain)
    weighted = sum(one.n * one.value for one in pair.species) / len(RECORDINGS)
    assert weighted == pytest.approx(gain)
    sizes = [abs(one.value) for one in pair.species]
    assert sizes == sorted(sizes, reverse=True)


def test_the_way_back_has_the_opposite_sign(rows: list[BoardRow], pair: Pair) -> None:
    back = pair_of(*reversed(rows), rows)
    assert back.change is not None
    assert pair.change is not None
    assert back.change.value == pytest.approx(-pair.change.value)
    assert back.params == ["lr: 2 → 1"]
    assert [one.species for one in back.species] == [one.species for one in pair.species]


def test_the_same_scores_on_other_annotations_are_another_change(
    rows: list[BoardRow], repository: ToyRepository
) -> None:
    corrected = np.roll(TRUTH, 1, axis=1)
    clips = cached_clips(repository, corrected)
    first = pair_of(*rows, rows).change
    second = pair_of(*(replace(row, clips_md5=clips) for row in rows), rows).change
    assert first is not None
    assert second is not None
    assert first.value == pytest.approx(lwlrap(TRUTH, AFTER) - lwlrap(TRUTH, BEFORE))
    assert second.value == pytest.approx(lwlrap(corrected, AFTER) - lwlrap(corrected, BEFORE))


def test_of_namesakes_the_newest_are_compared(rows: list[BoardRow], monkeypatch: pytest.MonkeyPatch) -> None:
    older = [replace(row, key=f"old {row.key}", start=START - timedelta(days=1)) for row in rows]
    monkeypatch.setattr("callboard.analysis.pair.rows_so_far", lambda: [*older, *rows])
    found = compare("before", "after")
    assert [found.a, found.b] == rows


def seeds_of(row: BoardRow, spread: float) -> list[BoardRow]:
    """Four runs that differ from a result in the seed, by which the leaderboard's score rises or falls."""
    return [
        replace(
            row,
            key=f"{row.key}{seed}",
            params=row.params | {"seed": str(seed)},
            metrics=row.metrics | {"lb.public": row.metrics["lb.public"] + spread * (-1) ** seed},
        )
        for seed in range(2, 6)
    ]


def lb_verdict(a: BoardRow, b: BoardRow, rows: list[BoardRow]) -> Verdict:
    return pair_of(a, b, rows).lb_judgements["lb.public"].verdict


def test_a_leaderboard_change_is_judged_from_the_first_to_the_second_by_the_noise_of_the_second(
    rows: list[BoardRow],
) -> None:
    short, long = (
        replace(row, params=row.params | {"train.epochs": epochs})
        for row, epochs in zip(rows, ("1", "2"), strict=True)
    )
    calm = [short, long, *seeds_of(short, 0.001), *seeds_of(long, 0.001)]
    assert lb_verdict(short, long, calm) is Verdict.BETTER
    assert lb_verdict(long, short, calm) is Verdict.WORSE
    wild = [short, long, *seeds_of(short, 0.2), *seeds_of(long, 0.001)]
    assert lb_verdict(short, long, wild) is Verdict.BETTER
    assert lb_verdict(long, short, wild) is Verdict.WITHIN_NOISE


def test_one_result_and_other_data_are_refused(rows: list[BoardRow]) -> None:
    with pytest.raises(UserError, match="before and before are the same result, before@a"):
        pair_of(rows[0], rows[0], rows)
    with pytest.raises(UserError, match=r"before of .* d and after of .* e have different data"):
        pair_of(rows[0], replace(rows[1], data_md5="e"), rows)
    with pytest.raises(UserError, match=r"after of data/clips\.csv e have different annotations"):
        pair_of(rows[0], replace(rows[1], clips_md5="e"), rows)


def test_the_text_shows_the_species_that_changed_most_and_all_when_asked(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callboard.reports.diff.N_SPECIES", 1)
    short, whole = pair_markdown(pair, False), pair_markdown(pair, True)
    assert "2 more with --all" in short
    assert "more with --all" not in whole
    assert len(whole.splitlines()) == len(short.splitlines())  # two species for an empty line and the hint
    assert "- lr: 1 → 2" in short
    assert re.search(r"\| lb\.public +\| +0\.5000 \| +0\.6000 \| \+0\.1000 \|", short)


def test_it_is_told_what_estimates_are_and_whose_cv_is_optimistic(rows: list[BoardRow]) -> None:
    before, after = (replace(row, metrics=row.metrics | {"cv.lrap": 0.5, "cv.fold_sd": 0.1}) for row in rows)
    text = pair_markdown(pair_of(before, after, rows), False)
    told = "fold_sd: standard deviation over folds of LWLRAP; lrap: LRAP by recording, mean over folds."
    assert f"\n{told}\n" in text
    assert "optimistic" not in text
    chosen = replace(after, params=after.params | {"train.select": "best"})
    assert "the CV of after is optimistic, it saw" in verdict_sentence(pair_of(before, chosen, rows))
    both = [replace(row, params=row.params | {"train.select": "best"}) for row in (before, after)]
    assert "the CV of before and after is optimistic" in verdict_sentence(pair_of(*both, rows))


def test_without_tables_there_is_a_change_but_no_judgement(rows: list[BoardRow]) -> None:
    lost = pair_of(rows[0], replace(rows[1], oof_md5="0" * 32), rows)
    assert lost.species == []
    assert "not judged: a table of scores is missing from DVC's cache" in verdict_sentence(lost)
    assert "Unknown: a table of scores is missing" in pair_markdown(lost, True)
    assert "One of the two results has no CV" in verdict_sentence(
        pair_of(rows[0], replace(rows[1], metrics={}), rows)
    )


def test_the_page_draws_species_and_escapes_names(pair: Pair) -> None:
    evil = replace(pair, b=replace(pair.b, params={"lr": "<script>"}))
    page = pair_html(evil, (None, None))
    assert "<script>" not in page
    assert page.count("<svg") == 1
    assert not re.search(r"https?://", page)
    for one in pair.species:
        assert f"{one.value:+.4f}" in page

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from callboard.core.parts import KEPT_S, PARTS, Shard, consecutive, part_key, parts_folder


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shards_share_all_parts_and_none_twice(count: int) -> None:
    parts = list("abcdefg")
    shares = [Shard(number, count).of(parts) for number in range(1, count + 1)]
    assert sorted(itertools.chain(*shares)) == parts
    assert shares[0] == parts[::count]


def test_consecutive_items_fill_up_to_the_limit_by_hand() -> None:
    sizes = [3, 4, 3, 5, 20, 1, 9, 1]
    assert [sizes[span] for span in consecutive(sizes, 10)] == [[3, 4, 3], [5], [20], [1, 9], [1]]
    assert list(consecutive([], 10)) == [slice(0, 0)]


def test_consecutive_items_are_all_there_and_no_two_neighbours_would_fit_together() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = rng.integers(1, 15, rng.integers(1, 40)).tolist()
        groups = [sizes[span] for span in consecutive(sizes, 20)]
        assert list(itertools.chain(*groups)) == sizes
        assert all(sum(group) <= 20 for group in groups)
        assert all(sum(group) + following[0] > 20 for group, following in itertools.pairwise(groups))


def test_keys_differ_if_contents_do_also_where_their_text_joined_is_the_same() -> None:
    keys = {part_key("ab", "c"), part_key("a", "bc"), part_key("abc"), part_key("ab", "c", "")}
    assert len(keys) == 4
    assert part_key("ab", "c") in keys


def test_parts_of_the_main_workspace_are_removed_after_a_week(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    folder = parts_folder("crop")
    assert folder == tmp_path / PARTS / "crop"
    for name, age_s in (("old", KEPT_S + 60), ("new", KEPT_S - 60)):
        (folder / name).touch()
        then = (folder / name).stat().st_mtime - age_s
        os.utime(folder / name, (then, then))
    parts_folder("predict")
    assert {path.name for path in folder.iterdir()} == {"old", "new"}
    parts_folder("crop")
    assert {path.name for path in folder.iterdir()} == {"new"}

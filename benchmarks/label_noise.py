"""Measure how many wrong labels a review of the first N suspects finds, with planted mistakes.

    python benchmarks/label_noise.py plant --seed 1 --rows 25     # corrections.csv that is wrong on purpose
    dvc exp run -n planted1 -S data.corrections=true
    python benchmarks/label_noise.py measure planted1             # and cleanlab, if installed
    git checkout corrections.csv

The annotator of the soundscapes misses most calls but makes no wrong boxes, so equal numbers of random tp
rows are called absent and fp rows present. Each ranking is compared with hidden/train_labels.csv. Unadjusted
scores of cleanlab for two classes have the order of the probability, so only adjusted ones are listed.
"""

import argparse
import importlib.util

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from callboard.analysis.suspects.review import (
    NUMBERS_SHOWN,
    SOURCE_FOLDER,
    is_mistake,
    read_calls_of,
    read_suspects,
)
from callboard.data.annotations import ANNOTATION_COLUMNS
from callboard.data.corrections import CORRECTION_COLUMNS, CORRECTION_KINDS, CORRECTIONS, read_labels
from callboard.results.lookup import find_result

MISTAKEN = {"tp": "absent", "fp": "present"}


def plant(n_rows: int, seed: int) -> None:
    """Write corrections.csv with as many wrong verdicts on tp rows as on fp rows."""
    labels, rng = read_labels(SOURCE_FOLDER), np.random.default_rng(seed)
    planted = []
    for kind, verdict in MISTAKEN.items():
        rows = labels[labels["label_type"] == kind]
        chosen = rows.iloc[np.sort(rng.choice(len(rows), n_rows, replace=False))]
        planted.append(
            chosen[ANNOTATION_COLUMNS].assign(kind=kind, verdict=verdict, model="", note="planted")
        )
    pd.concat(planted)[CORRECTION_COLUMNS].to_csv(CORRECTIONS, index=False)


def measure(reference: str) -> None:
    """Print the average precision, and the precision among the first N, of each kind and ranking."""
    result = find_result(reference)
    suspects, calls = read_suspects(result), read_calls_of(result)
    assert calls is not None, "only the soundscapes know their calls"
    wrong = is_mistake(suspects, calls)
    rankings = {"probability": suspects["score"].to_numpy()}
    rankings["probability, of species"] = of_species(suspects)
    if importlib.util.find_spec("cleanlab"):
        rankings["cleanlab, adjusted"] = cleanlab_scores(suspects)
    print(f"{'':<34}{'AP':>6}" + "".join(f"{f'P@{n}':>8}" for n in NUMBERS_SHOWN))
    for kind in CORRECTION_KINDS:
        is_kind = (suspects["kind"] == kind).to_numpy()
        if wrong[is_kind].any():
            print(f"{kind}: {wrong[is_kind].sum()} mistakes among {is_kind.sum()}")
            for name, scores in rankings.items():
                print(f"  {name:<32}{described(wrong[is_kind], scores[is_kind])}")


def described(wrong: NDArray[np.bool_], scores: NDArray[np.float64]) -> str:
    in_order = wrong[np.argsort(scores, kind="stable")]
    precision = "".join(f"{in_order[:n].mean():8.2f}" for n in NUMBERS_SHOWN)
    return f"{average_precision_score(wrong, -scores):6.3f}{precision}"


def of_species(suspects: pd.DataFrame) -> NDArray[np.float64]:
    """Return the rank of each suspect among those of its kind and species, as a share in 0 … 1."""
    return suspects.groupby(["kind", "species_id"])["score"].rank(pct=True).to_numpy()


def cleanlab_scores(suspects: pd.DataFrame) -> NDArray[np.float64]:
    """Return cleanlab's self-confidence for each species separately, adjusted for the model's confidence.

    Unlabelled cells count as absent, in a problem of their own together with the confirmed rows.
    """
    from cleanlab.rank import get_label_quality_scores

    scores = suspects["score"].to_numpy().copy()
    for other in ("fp", "missing"):
        for _, rows in suspects[suspects["kind"].isin(["tp", other])].groupby("species_id"):
            labels = (rows["kind"] == "tp").to_numpy(dtype=int)
            if len(set(labels)) < 2:
                continue
            pair = np.c_[1 - rows["probability"], rows["probability"]]
            quality = get_label_quality_scores(labels, pair, adjust_pred_probs=True)
            is_own = (rows["kind"] == other).to_numpy() | (other == "fp")
            scores[rows.index[is_own]] = quality[is_own]
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True)
    planting = commands.add_parser("plant", help="write a corrections.csv with planted mistakes")
    planting.add_argument("--seed", type=int, default=1, help="default %(default)s")
    planting.add_argument("--rows", type=int, default=25, help="of each kind; default %(default)s")
    planting.set_defaults(run=lambda args: plant(args.rows, args.seed))
    measuring = commands.add_parser("measure", help="print how well rankings find them")
    measuring.add_argument("name", help="a result trained with these corrections")
    measuring.set_defaults(run=lambda args: measure(args.name))
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()

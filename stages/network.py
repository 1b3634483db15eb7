"""Fit one network that holds out several folds, for `pseudo.isolation` nested."""

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from callboard.core.code_fingerprint import code_fingerprint
from callboard.core.console import Stopwatch, progress, run_guarded, summarize
from callboard.core.threads import n_workers
from callboard.data.annotations import read_species
from callboard.data.folds import read_folds
from callboard.features.frame_cache import open_training_cache
from callboard.model.device import describe_device, keep_freed_memory, pick_device, use_threads
from callboard.params.base import load_params
from callboard.pseudo.held_out import folds_named, network_name
from callboard.pseudo.networks import Inputs, NetworkTraining
from callboard.training.fit import FitParams


class StageParams(FitParams):
    """The sections that `network` reads."""


def main(argv: list[str] | None = None) -> None:
    """Train the network of a round that holds out some folds, or resume where a killed run stopped."""
    args = _parse(argv)
    stopwatch = Stopwatch()
    params = load_params(StageParams)
    device = pick_device()
    use_threads(params.train.threads)
    keep_freed_memory()
    indices = [folder / "index.csv" for folder in (args.mel, *args.mel_others)]
    code = code_fingerprint(Path(__file__).resolve().parent.parent, "stages.network")
    inputs = Inputs(
        args.clips,
        [args.pseudo] * bool(args.pseudo),
        read_folds(args.folds),
        read_species(args.species),
        partial(open_training_cache, args.mel, args.mel_others),
        [args.clips, args.folds, args.species, *indices, code],
    )
    held_out = folds_named(args.held_out)
    name = network_name(args.round, held_out)
    training = NetworkTraining(name, held_out, params, inputs, device, n_workers(), follow)
    training.write(args.weights, args.curve)
    started = [f"from {params.train.init_from}'s recipe"] * bool(params.train.init_from)
    summarize("network", name, *started, f"on {describe_device(device)}", f"{stopwatch.elapsed_s:.1f} s")


def follow(network: str) -> Callable[[range], Iterable[int]]:
    """Return a function that shows a progress bar over epochs, then prints how many were run."""

    def watch(epochs: range) -> Iterable[int]:
        stopwatch = Stopwatch()
        yield from progress(epochs, total=len(epochs), label=f"network {network}", unit="epochs")
        how = f"{len(epochs)} epochs in {stopwatch.elapsed_s:.1f} s" if epochs else "trained before"
        print(f"network: {network}, {how}", flush=True)

    return watch


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--round", type=int, required=True)
    parser.add_argument("--held-out", required=True, help="held-out folds, for example 0-1")
    for name in ("--mel", "--clips", "--folds", "--species", "--weights", "--curve"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--pseudo", type=Path, help="pseudo-labels that the network learns from")
    parser.add_argument(
        "--mel-others", type=Path, nargs="*", default=[], help="caches of other sets that have pseudo-labels"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_guarded(main)

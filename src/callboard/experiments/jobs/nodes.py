"""Properties that a machine must share with the one that starts jobs on it."""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from callboard.core.code_fingerprint import NUMERICAL_PACKAGES
from callboard.core.compute import cpu_name
from callboard.core.console import warn
from callboard.core.errors import UserError


class Node(NamedTuple):
    """A machine that runs jobs."""

    name: str
    versions: dict[str, str]
    """Versions of packages; empty if not installed."""
    processor: str
    sees_copies: bool
    """Whether it has the folder of copies of the process that asks, and so the same main workspace."""


def this_node(copies: str) -> Node:
    """Describe this machine.

    Args:
        copies: Folder of copies of the process that asks.
    """
    versions = {name: _version(name) for name in ("callboard", *NUMERICAL_PACKAGES.values())}
    return Node(platform.node(), versions, cpu_name(), Path(copies).is_dir())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def refuse_unlike(nodes: Iterable[Node], here: Node) -> None:
    """Refuse machines with other versions of packages; warn of other processors.

    Raises:
        UserError: the message names the machine and the package.
    """
    processors = {here.processor}
    for node in nodes:
        processors.add(node.processor)
        for package, wanted in here.versions.items():
            if (found := node.versions.get(package, "")) != wanted:
                raise UserError(
                    f"{node.name} has {package} {found or 'not installed'}, this machine "
                    f"{wanted or 'not installed'}; results would differ, so install the same versions"
                )
    if len(processors) > 1:
        warn(
            f"unlike processors ({', '.join(sorted(processors))}): a fold differs between them as it does "
            "between seeds"
        )

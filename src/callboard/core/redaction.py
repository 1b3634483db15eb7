"""Messages without the secrets that addresses can contain."""

import re

USER = re.compile(r"(?<=://)[^\s/?#'\"<>]+@")
"""User and password of an address."""

SECRET = re.compile(
    r"([?&;][\w-]*(?:token|passw|pwd|secret|key|auth|sig|credential)[\w-]*=)"
    r"[^\s&;#'\"<>]+?(?=[:,.)]*(?:[\s&;#'\"<>]|$))",
    re.IGNORECASE,
)
"""Value of an address's parameter such as ?token=, by its name."""


def redacted(text: str) -> str:
    """Return a text without users, passwords and secret parameters of the addresses in it."""
    return SECRET.sub(r"\1***", USER.sub("", text))

"""Damage to files, drawn from a seed, and the law that every reader must keep on a damaged file."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from callboard.core.errors import UserError

SLOWEST_S = 10.0
"""Processor time after which a reader counts as hanging."""

ODD_WORDS = [
    *(b"", b"nan", b"inf", b"-1", b"0", b"1e308", b"-1e-308", b"9" * 30, b"9" * 5000, b"0x" + b"f" * 5000),
    *(
        b"2020-13-45",
        b"2020-02-02",
        b"null",
        b"true",
        b"[]",
        b"{}",
        b"[1, [2]]",
        b'{"a": 1}',
        b"~",
        b"'",
        b'"',
    ),
    *(b"&a [*a]", b"*a", b"!!set {a}", b"? x", b"[" * 3000, b"=1+1", b"../../x", b"/etc/passwd", b"\\ud800"),
    *("٣".encode(), "−1".encode(), b"1_000", b" 1", b"x" * 300, "é".encode() * 300),
]
"""What a word or number is replaced by."""

WORD = re.compile(rb"[^\s,;:\"'\[\]{}]+")

FOREIGN = [
    b"PK\x03\x04" + bytes(60),
    b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (9, 9), }".ljust(128) + b"\n",
    b"SQLite format 3\0" + bytes(100),
    b"RIFF\x24\x00\x00\x00WAVEfmt ",
    b"fLaC\x00\x00\x00\x22" + bytes(60),
    b"a,b,c\n1,2,3\n4,5\n",
    b'[{"relpath": "x", "md5": 1}, 3]\n',
    b"stages: [1, 2]\nsplit: 3\n",
    b"<<<<<<< HEAD\nx: 1\n=======\nx: 2\n>>>>>>> other\n",
    b"\xff\xfe" + "seed: 1\n".encode("utf-16-le"),
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    b"null\n",
    b"3\n",
    b"\0" * 5000,
]
"""Contents of other files."""


def _span(content: bytes, rng: Random, longest: int = 200) -> slice:
    start = rng.randrange(len(content) + 1)
    return slice(start, start + rng.randint(1, longest))


def _cut(content: bytes, rng: Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _flip(content: bytes, rng: Random) -> bytes:
    flipped = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def _delete(content: bytes, rng: Random) -> bytes:
    span = _span(content, rng)
    return content[: span.start] + content[span.stop :]


def _double(content: bytes, rng: Random) -> bytes:
    span = _span(content, rng)
    return content[: span.stop] + content[span] + content[span.stop :]


def _inserted(*texts: bytes) -> "Damage":
    def insert(content: bytes, rng: Random) -> bytes:
        place = rng.randrange(len(content) + 1)
        return content[:place] + rng.choice(texts) + content[place:]

    return insert


def _lines(content: bytes, rng: Random) -> bytes:
    """Swap two lines, or drop or double one."""
    lines = content.splitlines(keepends=True)
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.choice(["swap", "drop", "double"]):
        case "swap":
            lines[one], lines[other] = lines[other], lines[one]
        case "drop":
            del lines[one]
        case _:
            lines.insert(other, lines[one])
    return b"".join(lines)


def _word(content: bytes, rng: Random) -> bytes:
    words = list(WORD.finditer(content))
    if not words:
        return b""
    word = rng.choice(words)
    return content[: word.start()] + rng.choice(ODD_WORDS) + content[word.end() :]


Damage = Callable[[bytes, Random], bytes]

DAMAGES: dict[str, Damage] = {
    "empty": lambda content, rng: b"",
    "cut": _cut,
    "flipped bits": _flip,
    "a block deleted": _delete,
    "a block doubled": _double,
    "a NUL": _inserted(b"\0"),
    "not UTF-8": _inserted(b"\xff", b"\xe9", b"\xed\xa0\x80"),
    "a long cell": _inserted(b"x" * 200_000),
    "a quote": _inserted(b'"', b"'", b"\r", b"\n"),
    "other lines": _lines,
    "an odd word": _word,
    "two odd words": lambda content, rng: _word(_word(content, rng), rng),
    "another file": lambda content, rng: rng.choice(FOREIGN),
}

WEIGHTS = {"an odd word": 5, "two odd words": 2, "flipped bits": 3}
"""How often a kind is drawn, where that is not once."""


class Reader(NamedTuple):
    """A reader, with a file that it can read."""

    make: Callable[[Path], Path]
    """Writes the file, and those around it, below a folder; returns the file."""
    read: Callable[[Path], object]
    """Reads it."""
    refuses: bool = True
    """Whether it refuses damaged files; False if it leaves out what it cannot read, such as a cache."""
    kin: str = ""
    """Part of the names of other files that it can name, since the damaged one refers to them."""


class Campaign(NamedTuple):
    """Outcome of many damages to one file."""

    n_tried: int
    n_refused: int
    broken: list[str]
    """What broke the law: the kind of damage with its number, and what the reader did."""


def campaign(name: str, reader: Reader, folder: Path, numbers: range) -> Campaign:
    """Damage a reader's file again and again: it must be read, or refused in words that name the file."""
    path = reader.make(folder)
    sound = path.read_bytes()
    reader.read(path)
    n_refused, broken = 0, []
    for number in numbers:
        rng = Random(f"{name} {number}")
        kind = rng.choices(list(DAMAGES), [WEIGHTS.get(kind, 1) for kind in DAMAGES])[0]
        path.unlink(missing_ok=True)  # it may be mapped
        path.write_bytes(DAMAGES[kind](sound, rng))
        start = time.process_time()
        try:
            reader.read(path)
        except UserError as error:
            n_refused += 1
            names = (path.name, f"recording {path.stem}", reader.kin or path.name)
            if not any(name in str(error) for name in names):
                broken.append(f"{kind} {number}: not named: {error}")
            if not reader.refuses:
                broken.append(f"{kind} {number}: refused: {error}")
        except Exception as error:
            broken.append(f"{kind} {number}: {error!r}")
        if time.process_time() - start > SLOWEST_S:
            broken.append(f"{kind} {number}: took {time.process_time() - start:.0f} s")
    path.write_bytes(sound)
    return Campaign(len(numbers), n_refused, broken)

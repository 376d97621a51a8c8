"""Changed files: bits, lengths, lines, and the values of JSON. A seed gives the same change each time."""

from __future__ import annotations

import json
import random
from typing import Any

NUMBERS = (0, -1, 1, 0.5, -0.0, 1e308, -1e308, 1e-320, 2**31, 2**53 + 1, 2**63, -(2**63), 10**30, 10**400)
TEXTS = ("", "\0", "../../etc/passwd", "/dev/zero", "a" * 100_000, "\u202e", "\x1b[2J", "name with spaces", "ß" * 50)
RAW = ("NaN", "Infinity", "-Infinity", '"\\ud800"', "[" * 5000 + "]" * 5000, '{"a":' * 3000 + "1" + "}" * 3000, "1e999")
"""Texts in the place of a value that `json.dumps` would not write."""
PLACE = "a-place-for-raw-text"


def mutated_bytes(raw: bytes, seed: int) -> bytes:
    rng = random.Random(seed)
    data = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.randint(1, 20))
        elif kind == 3:
            data[at:at] = data[: rng.randint(1, 200)]
        elif kind == 4:
            del data[at : at + rng.randint(1, 50)]
        elif kind == 5:
            data[at : at + 8] = rng.choice((b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"9" * 8))
        else:
            data[at:at] = rng.choice((b"\xed\xa0\x80", b"\xff\xfe", b"\r", b"\n\n", b"1e999", b"\x85", "٣".encode()))
    return bytes(data)


def mutated_lines(raw: bytes, seed: int) -> bytes:
    """Text with lines dropped, repeated, exchanged, or with other words in them."""
    rng = random.Random(seed)
    lines = raw.decode().splitlines(keepends=True)
    for _ in range(rng.randint(1, 3)):
        at, kind = rng.randrange(len(lines) + 1), rng.randrange(5)
        if kind == 0:
            del lines[at:]
        elif kind == 1:
            del lines[at : at + 1]
        elif kind == 2:
            lines[at:at] = [rng.choice(lines) if lines else "\n"]
        elif kind == 3 and lines:
            words = lines[at % len(lines)].split(" ")
            words[rng.randrange(len(words))] = str(rng.choice((*NUMBERS, *TEXTS, *RAW)))
            lines[at % len(lines)] = " ".join(words)
        else:
            lines[at:at] = [str(rng.choice((*NUMBERS, *TEXTS, *RAW))) + "\n"]
    return "".join(lines).encode()


def mutated_json(raw: bytes, seed: int) -> bytes:
    """A JSON text with one to three values, keys or elements replaced, removed or added."""
    rng = random.Random(seed)
    tree = json.loads(raw)
    raws: list[str] = []
    for _ in range(rng.randint(1, 3)):
        tree = mutated_tree(tree, rng, raws)
    text = json.dumps(tree)
    for number, replacement in enumerate(raws):
        text = text.replace(f'"{PLACE}{number}"', replacement)
    return text.encode()


def mutated_json_lines(raw: bytes, seed: int) -> bytes:
    rng = random.Random(seed)
    lines = raw.splitlines(keepends=True)
    at = 0 if rng.random() < 0.3 else rng.randrange(len(lines))
    lines[at] = mutated_json(lines[at], seed) + b"\n"
    return b"".join(lines)


def mutated_tree(tree: Any, rng: random.Random, raws: list[str] | None = None) -> Any:
    """A tree of dictionaries and lists in which one node is replaced, removed or doubled."""
    if isinstance(tree, dict) and tree and rng.random() < 0.9:
        key = rng.choice(list(tree))
        if rng.random() < 0.1:
            return {name: value for name, value in tree.items() if name != key}
        if rng.random() < 0.1:
            return {**tree, rng.choice(TEXTS)[:50]: tree[key]}
        return {**tree, key: mutated_tree(tree[key], rng, raws)}
    if isinstance(tree, list) and tree and rng.random() < 0.9:
        at = rng.randrange(len(tree))
        if rng.random() < 0.2:
            return tree[:at] + tree[at + 1 :] if rng.random() < 0.5 else tree[: at + 1] + tree[at:]
        return [*tree[:at], mutated_tree(tree[at], rng, raws), *tree[at + 1 :]]
    if isinstance(tree, (int, float)) and not isinstance(tree, bool) and rng.random() < 0.3:
        return rng.choice((tree + 1, -tree, tree * 2, tree * 10**9, str(tree), bool(tree)))
    if raws is not None and rng.random() < 0.2:
        raws.append(rng.choice(RAW))
        return f"{PLACE}{len(raws) - 1}"
    return rng.choice((None, True, False, [], {}, [None], {"array": "a0"}, {"a": {}}, *NUMBERS, *TEXTS))

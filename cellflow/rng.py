"""Randomness that depends on what it is for, never on when or where it is drawn."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["generator"]


def generator(seed: int, *key: int | str) -> np.random.Generator:
    """Generator for one purpose: the same seed and key give the same numbers in any process.

    Parameters
    ----------
    seed : int
        Seed of the run, not negative.
    *key : int or str
        What the numbers are for, for example ``"crop", fold, epoch, sample``.
    """
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in key)])
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))

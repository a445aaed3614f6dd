"""Words in the image: a 3 x 5 bitmap alphabet, drawn as a paper label in front of the scene."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sslcourse.data.shapes.sdf import CLASSES

# Five rows a letter, three bits a row, the highest bit on the left.
ALPHABET: dict[str, tuple[int, int, int, int, int]] = {
    "A": (2, 5, 7, 5, 5), "B": (6, 5, 6, 5, 6), "C": (3, 4, 4, 4, 3), "D": (6, 5, 5, 5, 6), "E": (7, 4, 6, 4, 7),
    "F": (7, 4, 6, 4, 4), "G": (3, 4, 5, 5, 3), "H": (5, 5, 7, 5, 5), "I": (7, 2, 2, 2, 7), "J": (1, 1, 1, 5, 2),
    "K": (5, 5, 6, 5, 5), "L": (4, 4, 4, 4, 7), "M": (5, 7, 7, 5, 5), "N": (6, 5, 5, 5, 5), "O": (2, 5, 5, 5, 2),
    "P": (6, 5, 6, 4, 4), "Q": (2, 5, 5, 6, 3), "R": (6, 5, 6, 5, 5), "S": (3, 4, 2, 1, 6), "T": (7, 2, 2, 2, 2),
    "U": (5, 5, 5, 5, 7), "V": (5, 5, 5, 5, 2), "W": (5, 5, 7, 7, 5), "X": (5, 5, 2, 5, 5), "Y": (5, 5, 2, 2, 2),
    "Z": (7, 1, 2, 4, 7),
}  # fmt: skip


def bitmap(word: str) -> NDArray[np.float32]:
    """(5, 4 len - 1) zeros and ones; letters stand one column apart."""
    columns: list[NDArray[np.float32]] = []
    for letter in word.upper():
        rows = [[row >> bit & 1 for bit in (2, 1, 0)] for row in ALPHABET[letter]]
        columns += [np.array(rows, dtype=np.float32), np.zeros((5, 1), dtype=np.float32)]
    return np.concatenate(columns[:-1], axis=1)


@cache
def _stencil(word: str, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Ink and paper (h, w) in pixels: whole pixels a dot where the label fits, box-filtered where it does not."""
    bits = np.pad(bitmap(word), 1)
    dot = min(size / 40, size * 0.94 / bits.shape[1])
    if dot >= 1:
        dot = float(int(dot))
    h, w = max(1, round(bits.shape[0] * dot)), max(1, round(bits.shape[1] * dot))
    fine = 8
    rows = (np.arange(h * fine) * bits.shape[0] // (h * fine)).reshape(h, fine)
    cols = (np.arange(w * fine) * bits.shape[1] // (w * fine)).reshape(w, fine)
    ink = bits[rows[:, None, :, None], cols[None, :, None, :]].mean((2, 3))
    return ink.astype(np.float32), np.ones((h, w), dtype=np.float32)


def word_label(
    words: NDArray[np.int64], heights: NDArray[np.float64], size: int, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Planes of ink and of paper, (B, size, size) in [0, 1].

    Args:
        words: (B,) indices into CLASSES.
        heights: (B,) where the label's middle stands, -1 at the top to 1 at the bottom.
    """
    ink, paper = np.zeros((2, len(words), size, size), dtype=np.float32)
    for b, (word, height) in enumerate(zip(words, heights, strict=True)):
        dots, label = _stencil(CLASSES[word], size)
        h, w = dots.shape
        top = int(np.clip(round((height + 1) / 2 * size - h / 2), 0, size - h))
        left = (size - w) // 2
        ink[b, top : top + h, left : left + w] = dots
        paper[b, top : top + h, left : left + w] = label
    return torch.from_numpy(ink).to(device), torch.from_numpy(paper).to(device)

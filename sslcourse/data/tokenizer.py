r"""A byte-level byte-pair encoding: any text becomes a few ids out of a vocabulary that is learned by counting.

A word is first spelled in bytes, the last one marked as the end of a word. Then the most frequent pair of neighbours
is merged into a new symbol, again and again (Sennrich et al. 2016, "Neural Machine Translation of Rare Words with
Subword Units", algorithm 1; on bytes since GPT-2, Radford et al. 2019, section 2.2). The merges, in their order, are
all there is to a vocabulary:

    ids      0 .. 255    the bytes, in CLIP's order
             256 .. 511  the same at the end of a word
             512 ..      one for each merge
             last two    start of text, end of text: the largest id, which is how a text tower finds it

That is the layout of CLIP (Radford et al. 2021, section 2.4), so `BPETokenizer.official` reads its vocabulary.
"""

import gzip
import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from sslcourse.errors import InputError

START, END = "<|startoftext|>", "<|endoftext|>"
Pair = tuple[int, int]

_N_BYTES = 256
_OFFICIAL_IDS = 49_408  # CLIP's vocabulary: what its file has beyond that is not used
# Letters together, every digit alone, other signs together; the contractions of English apart.
_WORD = re.compile(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")


class BPETokenizer:
    """Text to ids and back.

    Args:
        merges: the pairs of ids that become ids 512, 513, ..., in the order in which they were learned.
        clean: what is done to a text first; `clean_text` by default.

    Attributes:
        vocab_size: number of ids; start, end: ids of the start and the end of a text. 0 pads after the end.
    """

    def __init__(self, merges: Sequence[Pair], clean: Callable[[str], str] | None = None) -> None:
        self.merges = [(int(a), int(b)) for a, b in merges]
        self._rank = {pair: rank for rank, pair in enumerate(self.merges)}
        self._clean = clean or clean_text
        self.vocab_size = 2 * _N_BYTES + len(self.merges) + 2
        self.start, self.end = self.vocab_size - 2, self.vocab_size - 1
        order = _byte_order()
        self._id_of_byte = {byte: i for i, byte in enumerate(order)}
        self._bytes = [bytes([byte]) for byte in order] + [bytes([byte]) + b" " for byte in order]
        for a, b in self.merges:
            if not (0 <= a < len(self._bytes) and 0 <= b < len(self._bytes)):
                raise InputError(f"merge {(a, b)} of a vocabulary names an id that no earlier merge has made.")
            self._bytes.append(self._bytes[a] + self._bytes[b])
        self._words: dict[str, list[int]] = {}  # what has been encoded before

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 1024) -> "BPETokenizer":
        """Learn a vocabulary of at most `vocab_size` ids; fewer where no pair occurs twice any more.

        The same texts give the same vocabulary: of equally frequent pairs, the one with the smallest ids is merged.

        Raises:
            InputError: no room for the bytes and the two marks, or no text.
        """
        if vocab_size < 2 * _N_BYTES + 2:
            raise InputError(f"a byte-level vocabulary has at least {2 * _N_BYTES + 2} ids; got {vocab_size}.")
        untrained = cls([])
        counts = Counter(word for text in texts for word in split_words(clean_text(text)) if word not in (START, END))
        if not counts:
            raise InputError("a vocabulary is learned from texts; there is no word in these.")
        words = [(untrained._spell(word), count) for word, count in counts.items()]
        merges: list[Pair] = []
        while len(merges) < vocab_size - untrained.vocab_size:
            pairs: Counter[Pair] = Counter()
            for symbols, count in words:
                for pair in pairwise(symbols):
                    pairs[pair] += count
            best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
            if best is None or pairs[best] < 2:
                break
            new = 2 * _N_BYTES + len(merges)
            merges.append(best)
            words = [(_merged(symbols, best, new), count) for symbols, count in words]
        return cls(merges)

    @classmethod
    def official(cls, path: str | Path | None = None) -> "BPETokenizer":
        """CLIP's vocabulary of 49,408 ids, which the package open_clip_torch carries.

        Args:
            path: bpe_simple_vocab_16e6.txt.gz; None for the one of the installed package.

        Raises:
            InputError: the vocabulary, or the package ftfy that the official cleaning needs, is not there.
        """
        found = Path(path) if path else _in_open_clip()
        if find_spec("ftfy") is None:
            raise InputError("CLIP's tokenizer repairs texts with ftfy first; install it with: pip install ftfy")
        try:
            lines = gzip.decompress(found.read_bytes()).decode().split("\n")[1:]
            pairs = [tuple(line.split()) for line in lines[: _OFFICIAL_IDS - 2 * _N_BYTES - 2]]
            symbols = {symbol: i for i, symbol in enumerate(_official_symbols())}
            merges = []
            for a, b in pairs:
                merges.append((symbols[a], symbols[b]))
                symbols[a + b] = len(symbols)
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise InputError(f"{found} is not CLIP's vocabulary ({type(error).__name__}: {error}).") from error
        return cls(merges, clean_official)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without start and end."""
        ids = []
        for word in split_words(self._clean(text)):
            if word not in self._words:
                self._words[word] = self._encode_word(word)
            ids += self._words[word]
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, a space after every word; marks are written out, bytes that are no UTF-8 become U+FFFD."""
        marks = {self.start: START.encode(), self.end: END.encode()}
        ids = [int(i) for i in ids]
        if any(not 0 <= i < self.vocab_size for i in ids):
            raise InputError(f"decode takes ids below {self.vocab_size}; got {max(ids)} and {min(ids)}.")
        return b"".join(marks.get(i) or self._bytes[i] for i in ids).decode(errors="replace")

    def __call__(self, texts: str | Sequence[str], context_length: int = 77, *, truncate: bool = False) -> Tensor:
        """(B, context_length) int64: start, the ids, end, then zeros.

        Args:
            texts: one text or B of them.
            truncate: cut a text that is too long, the last id becoming the end mark.

        Raises:
            InputError: no text, something that is no text, or one that is too long (unless `truncate`).
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts or not all(isinstance(text, str) for text in texts) or context_length < 2:
            raise InputError(f"a tokenizer takes one or more strings and context_length >= 2; got {texts[:2]!r}.")
        out = torch.zeros(len(texts), context_length, dtype=torch.long)
        for row, text in zip(out, texts, strict=True):
            ids = [self.start, *self.encode(text), self.end]
            if len(ids) > context_length:
                if not truncate:
                    start = text if len(text) <= 40 else text[:40] + "..."
                    raise InputError(
                        f"the text {start!r} takes {len(ids)} tokens, start and end included, and the model reads "
                        f"{context_length}: shorten it, or have it cut (truncate=True; on the command line --truncate)."
                    )
                ids = [*ids[: context_length - 1], self.end]
            row[: len(ids)] = torch.tensor(ids)
        return out

    def _encode_word(self, word: str) -> list[int]:
        if word in (START, END):
            return [self.start if word == START else self.end]
        symbols = self._spell(word)
        while len(symbols) > 1:
            pair = min(pairwise(symbols), key=lambda p: self._rank.get(p, len(self.merges)))
            if pair not in self._rank:
                break
            symbols = _merged(symbols, pair, 2 * _N_BYTES + self._rank[pair])
        return symbols

    def _spell(self, word: str) -> list[int]:
        symbols = [self._id_of_byte[byte] for byte in word.encode()]
        return [*symbols[:-1], symbols[-1] + _N_BYTES]


def clean_text(text: str) -> str:
    """Lower case, entities resolved, composed characters, single spaces: what needs no further package."""
    return " ".join(unicodedata.normalize("NFC", _unescaped(text)).split()).lower()


def clean_official(text: str) -> str:
    """CLIP's cleaning: as `clean_text`, and ftfy repairs wrong encodings, curly quotes and control characters first."""
    import ftfy

    return " ".join(_unescaped(ftfy.fix_text(text)).split()).lower()


def split_words(text: str) -> list[str]:
    """The pieces that are encoded one by one: runs of letters, single digits, runs of other signs, contractions."""
    shadow = "".join(map(_kind, text))  # of the same length, in ASCII, since Python's `re` knows no Unicode classes
    return [text[match.start() : match.end()] for match in _WORD.finditer(shadow)]


@lru_cache(maxsize=4096)
def _kind(c: str) -> str:
    """What the pattern sees of a character: ASCII as it is, any letter as "x", number as "0", other sign as "#"."""
    folded = c.casefold()
    if len(folded) == 1 and folded.isascii():
        return folded
    category = unicodedata.category(c)[0]
    return " " if c.isspace() else "x" if category == "L" else "0" if category == "N" else "#"


def _unescaped(text: str) -> str:
    return html.unescape(html.unescape(text))  # twice, since captions from the web are often escaped twice


def _merged(symbols: list[int], pair: Pair, new: int) -> list[int]:
    """Every occurrence of the pair, from the left, replaced by its new symbol."""
    out: list[int] = []
    for symbol in symbols:
        if out and (out[-1], symbol) == pair:
            out[-1] = new
        else:
            out.append(symbol)
    return out


@lru_cache(maxsize=1)
def _byte_order() -> tuple[int, ...]:
    """Bytes in CLIP's order: those that print in Latin-1 first, then the others."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return (*printing, *(byte for byte in range(_N_BYTES) if byte not in printing))


def _official_symbols() -> list[str]:
    """How the official file writes ids 0 to 511: bytes that do not print have characters from U+0100 on."""
    printing = _N_BYTES - 68
    letters = [chr(byte if i < printing else _N_BYTES + i - printing) for i, byte in enumerate(_byte_order())]
    return letters + [letter + "</w>" for letter in letters]


def _in_open_clip() -> Path:
    spec = find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "CLIP's vocabulary comes with the package open_clip_torch: install it with pip install open_clip_torch, or "
            "give the path of its bpe_simple_vocab_16e6.txt.gz."
        )
    return Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"

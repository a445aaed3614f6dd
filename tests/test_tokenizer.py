"""The byte-pair encoding: a vocabulary learned from captions, any text encoded, bad input in one sentence."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from sslcourse.data.shapes import Shapes
from sslcourse.data.tokenizer import END, BPETokenizer, clean_text, split_words
from sslcourse.errors import InputError


@pytest.fixture(scope="module")
def captions() -> list[str]:
    return [caption for five in Shapes("train", preset="captions").captions(range(400)) for caption in five]


@pytest.fixture(scope="module")
def tokenizer(captions: list[str]) -> BPETokenizer:
    return BPETokenizer.train(captions, 1024)


def test_training_merges_the_most_frequent_pair_first() -> None:
    tokenizer = BPETokenizer.train(["aab aab aab", "ab"], 514 + 2)
    a, end_b = tokenizer.encode("a b")[0] - 256, tokenizer.encode("b")[0]  # "a" alone ends a word
    assert tokenizer.merges == [(a, end_b), (a, 512)]  # "ab" 4 times, then "a" + "ab" 3 times
    assert tokenizer.encode("aab ab aaab") == [513, 512, a, 513]
    assert tokenizer.vocab_size == 516
    assert (tokenizer.start, tokenizer.end) == (514, 515)


def test_training_does_not_depend_on_the_order_of_the_texts(captions: list[str], tokenizer: BPETokenizer) -> None:
    assert BPETokenizer.train(captions[::-1], 1024).merges == tokenizer.merges


def test_every_word_of_the_world_is_one_token(captions: list[str], tokenizer: BPETokenizer) -> None:
    for caption in captions[:50]:
        assert len(tokenizer.encode(caption)) == len(split_words(caption))
        assert tokenizer.decode(tokenizer.encode(caption)).replace(" ,", ",").strip() == caption


@pytest.mark.parametrize(
    "text", ["naïve café", "日本語 テキスト", "🐱 emoji", "x" * 50, "12 345", "a_b-c", "don't", ""]
)
def test_any_text_comes_back(tokenizer: BPETokenizer, text: str) -> None:
    back = tokenizer.decode(tokenizer.encode(text))
    assert back.replace(" ", "") == clean_text(text).replace(" ", "")


def test_pieces_are_letters_digits_and_signs() -> None:
    assert split_words("it's 12 große ½ ²x !? a.b") == [
        "it",
        "'s",
        "1",
        "2",
        "große",
        "½",
        "²",
        "x",
        "!?",
        "a",
        ".",
        "b",
    ]
    assert split_words(f"a{END}") == ["a", END]


def test_cleaning() -> None:
    assert clean_text("  A &amp;lt;B\n\tC ") == "a <b c"
    assert clean_text("e\u0301") == "é"


def test_rows_are_start_ids_end_and_zeros(tokenizer: BPETokenizer) -> None:
    rows = tokenizer(["a red star", ""], 8)
    assert rows.shape == (2, 8)
    assert rows.dtype == torch.long
    ids = tokenizer.encode("a red star")
    assert rows[0].tolist() == [tokenizer.start, *ids, tokenizer.end, 0, 0, 0]
    assert rows[1].tolist() == [tokenizer.start, tokenizer.end] + 6 * [0]
    assert rows.argmax(dim=1).tolist() == [4, 1]  # the end mark has the largest id


def test_a_text_that_is_too_long(tokenizer: BPETokenizer) -> None:
    with pytest.raises(
        InputError, match=r"takes 7 tokens, start and end included, and the model reads 4.*truncate=True"
    ):
        tokenizer("a red star on a", 4)
    cut = tokenizer("a red star on a", 4, truncate=True)
    assert cut[0].tolist() == [tokenizer.start, *tokenizer.encode("a red"), tokenizer.end]


@pytest.mark.parametrize("texts", [[], [1, 2], [None]])
def test_what_is_no_text_is_refused(tokenizer: BPETokenizer, texts: list) -> None:
    with pytest.raises(InputError, match="one or more strings"):
        tokenizer(texts)


def test_bad_vocabularies(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    with pytest.raises(InputError, match="at least 514"):
        BPETokenizer.train(["a"], 100)
    with pytest.raises(InputError, match="no word"):
        BPETokenizer.train(["  "])
    with pytest.raises(InputError, match="no earlier merge"):
        BPETokenizer([(600, 1)])
    with pytest.raises(InputError, match="ids below"):
        tokenizer.decode([10**6])
    if find_spec("ftfy") is None:
        with pytest.raises(InputError, match="ftfy"):
            BPETokenizer.official(tmp_path / "none.gz")
    else:
        (tmp_path / "bad.gz").write_bytes(gzip.compress(b"header\nq\n"))
        for name in ("none.gz", "bad.gz"):
            with pytest.raises(InputError, match="not CLIP's vocabulary"):
                BPETokenizer.official(tmp_path / name)


def test_the_official_vocabulary_is_asked_for_by_name() -> None:
    if find_spec("open_clip") is None:
        with pytest.raises(InputError, match="open_clip_torch"):
            BPETokenizer.official()
    elif find_spec("ftfy") is not None:
        tokenizer = BPETokenizer.official()
        assert tokenizer.vocab_size == 49_408
        assert tokenizer.encode("a photo of a cat") == [320, 1125, 539, 320, 2368]

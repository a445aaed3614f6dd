"""k images against words, and the typographic attack."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from sslcourse.data.captioned import HELD_OUT, PAIRS
from sslcourse.data.images import Images
from sslcourse.data.shapes import CLASSES
from sslcourse.errors import InputError
from sslcourse.evaluate.captions import caption_recall, captioned_results, pair_accuracy, relation_accuracy
from sslcourse.evaluate.kshot import k_per_class, k_shot, shots_to_match
from sslcourse.evaluate.typographic import typographic_attack, without_directions
from sslcourse.zoo.words import WordModel


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_k_of_every_class_nested_and_never_unlabelled() -> None:
    labels = torch.tensor([0, 1, 2, -1] * 10)
    two, five = k_per_class(labels, 2, 3), k_per_class(labels, 5, 3)
    assert labels[two].bincount().tolist() == [2, 2, 2]
    assert labels[five].bincount().tolist() == [5, 5, 5]
    assert set(two.tolist()) < set(five.tolist())
    assert not k_per_class(labels, 5, 4).equal(five)
    for k in (0, 11):
        with pytest.raises(InputError, match="k"):
            k_per_class(labels, k)


def test_more_shots_are_better_and_the_mean_is_over_subsets() -> None:
    y = torch.arange(400) % 4
    x = 0.9 * torch.eye(8)[y] + randn(400, 8) * 0.6
    few, many = (k_shot(x[:200], y[:200], x[200:], y[200:], k, subsets=3) for k in (2, 30))
    assert many.value > few.value + 0.05
    assert (few.n, few.over) == (3, "subsets")
    assert few.value == pytest.approx(sum(few.detail["values"]) / 3)


def test_shots_to_match_interpolates_in_the_logarithm() -> None:
    shots = {1: 0.4, 4: 0.6, 16: 0.8}
    assert shots_to_match(0.5, shots) == pytest.approx(2)  # half of the way from 1 to 4 on a log axis
    assert shots_to_match(0.6, shots) == pytest.approx(4)
    assert shots_to_match(0.3, shots) == 1
    assert math.isinf(shots_to_match(0.9, shots))
    with pytest.raises(InputError, match="one or more k"):
        shots_to_match(0.5, {})


def test_the_attack_counts_what_was_right_and_is_now_read() -> None:
    labels, words = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 0, 2])
    clean = torch.eye(3)[torch.tensor([0, 1, 2, 1])]  # the last one is wrong without a word
    attacked = torch.eye(3)[torch.tensor([1, 1, 1, 2])]  # read, held, wrong otherwise, read
    found = typographic_attack(clean, attacked, labels, words)
    assert found["clean"].value == pytest.approx(0.75)
    assert found["attacked"].value == pytest.approx(0.25)
    assert found["fooled"].value == pytest.approx(1 / 3)
    assert found["fooled"].n == 3
    with pytest.raises(InputError, match="words that lie"):
        typographic_attack(clean, attacked, labels, labels)
    with pytest.raises(InputError, match="nothing to attack"):
        typographic_attack(clean, attacked, (clean.argmax(1) + 1) % 3, clean.argmax(1))
    with pytest.raises(InputError, match=r"\(N, C\)"):
        typographic_attack(clean, attacked[:2], labels, words)


def test_a_projection_leaves_the_rest() -> None:
    z, directions = randn(5, 8), randn(3, 8, seed=1)
    directions = torch.cat([directions, directions[:1] * 2 - directions[1:2]])  # one depends on the others
    rest = without_directions(z, directions)
    torch.testing.assert_close(rest @ directions.T, torch.zeros(5, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(without_directions(rest, directions), rest)
    removed = z - rest
    assert torch.linalg.matrix_rank(torch.cat([removed, directions])) == 3
    torch.testing.assert_close(without_directions(z, torch.zeros(1, 8)), z)
    with pytest.raises(InputError, match=r"\(K, D\)"):
        without_directions(z, randn(3, 7))


class Oracle:
    """Reads the pair off a one-hot image: what the evaluation has to find right."""

    def __init__(self, wrong: int = 0) -> None:
        self.wrong = wrong

    def model(self) -> WordModel:
        def text(texts: list[str]) -> torch.Tensor:
            at = [next(i for i, pair in enumerate(PAIRS) if t.endswith(pair)) for t in texts]
            return torch.eye(len(PAIRS))[at]

        def image(x: torch.Tensor) -> torch.Tensor:
            return torch.eye(len(PAIRS))[((x[:, 0, 0, 0] + self.wrong) % len(PAIRS)).long()]

        def prepare(picture: Image.Image) -> torch.Tensor:
            return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()

        return WordModel("oracle", prepare, image, text, 1.0)


def oracle_images(labels: list[int]) -> Images:
    pixels = torch.tensor(labels, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
    return Images(pixels.contiguous(), torch.tensor(labels), PAIRS, captions=[[f"a {PAIRS[i]}"] for i in labels])


def test_pair_accuracy_counts_pairs_shapes_and_colours() -> None:
    unseen = oracle_images(sorted(HELD_OUT) * 2)
    assert pair_accuracy(Oracle().model(), unseen, range(100)).value == 1
    off = pair_accuracy(Oracle(wrong=10).model(), unseen, range(100))  # the next shape in the same colour
    assert (off.value, off.detail["shape"], off.detail["colour"]) == (0, 0, 1)
    assert pair_accuracy(Oracle().model(), unseen, sorted(HELD_OUT)).detail["n_classes"] == 20
    with pytest.raises(InputError, match="not offered"):
        pair_accuracy(Oracle().model(), oracle_images([1, 2]), [1, 3])


def test_caption_recall_is_over_groups() -> None:
    found = caption_recall(Oracle().model(), oracle_images(list(range(45))), group=20)
    assert found["image_to_text"].value == found["text_to_image"].value == 1
    assert found["image_to_text"].n == 40  # the last five images fill no group
    assert caption_recall(Oracle(wrong=1).model(), oracle_images(list(range(40))), group=20)["image_to_text"].value == 0
    with pytest.raises(InputError, match="needs captions"):
        caption_recall(Oracle().model(), oracle_images([1, 2]), group=3)


def test_the_table_of_a_model_of_captioned_scenes() -> None:
    def text(texts: list[str]) -> torch.Tensor:
        return torch.stack([randn(8, seed=len(t)) for t in texts])

    model = WordModel(
        "noise",
        lambda i: torch.from_numpy(np.array(i)).permute(2, 0, 1).float(),
        lambda x: x.flatten(1)[:, :8],
        text,
        1.0,
    )
    table = captioned_results(model, n=100, size=8)
    assert [result.n for result in table[:5]] == [100] * 5
    assert max(result.value for result in table[:5]) < 0.4


def test_a_bag_of_words_does_not_know_which_is_in_front() -> None:
    words: dict[str, int] = {}

    def text(texts: list[str], *, first_counts: bool) -> torch.Tensor:
        out = torch.zeros(len(texts), 64)
        for row, sentence in zip(out, texts, strict=True):
            for place, word in enumerate(sentence.split()):
                row[words.setdefault(word, len(words) + 1)] += 1
                row[0] += first_counts * (place == 2) * (word == CLASSES[0])
        return out

    def model(first_counts: bool) -> WordModel:
        return WordModel(
            "bag",
            lambda picture: torch.from_numpy(np.array(picture)).float(),
            lambda x: torch.eye(64)[torch.zeros(len(x), dtype=torch.long)],
            partial(text, first_counts=first_counts),
            1.0,
        )

    assert relation_accuracy(model(False), n=40, size=8).value == 0.5  # the same words: only ties
    assert relation_accuracy(model(True), n=40, size=8).value != 0.5

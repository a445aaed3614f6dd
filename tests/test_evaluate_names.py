"""The functions that part 14 of the course teaches have the names, arguments and meaning that its table gives them."""

import inspect

import pytest
import torch

import sslcourse.evaluate as evaluate
from sslcourse.data.images import Images
from sslcourse.errors import InputError
from sslcourse.nn.convnet import ConvNet

# Name and first arguments of every row of the table.
TABLE = {
    "knn_classify": ["bank", "labels", "q", "k", "T", "n_cls"],
    "linear_probe_features": ["backbone", "train", "test"],
    "stratified_subset": ["labels", "fraction", "seed"],
    "mean_average_precision": ["scores", "relevant", "junk"],
    "mce": ["errors", "reference"],
    "miou": ["pred", "target", "n_classes", "ignore"],
    "bootstrap_ci": ["a", "b"],
    "cluster_accuracy": ["pred", "truth"],
    "boundary_iou": ["a", "b"],
}


@pytest.mark.parametrize("name", TABLE)
def test_the_table_of_part_14(name: str) -> None:
    function = getattr(evaluate, name)
    assert list(inspect.signature(function).parameters)[: len(TABLE[name])] == TABLE[name]
    assert name in evaluate.__all__
    assert inspect.getdoc(function)


def images(n: int, seed: int) -> Images:
    g = torch.Generator().manual_seed(seed)
    return Images(torch.randint(256, (n, 3, 16, 16), generator=g, dtype=torch.uint8), torch.arange(n) % 2)


def test_probe_features_are_frozen_and_standardised_by_training_alone() -> None:
    net = ConvNet((8, 8), (2, 2)).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    x, q = evaluate.linear_probe_features(net, images(40, 0), images(12, 1))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert net.training
    assert not x.requires_grad
    torch.testing.assert_close(x.mean(0), torch.zeros(x.shape[1]), atol=1e-5, rtol=0)
    moves = x.std(0, correction=0) > 0
    torch.testing.assert_close(x.std(0, correction=0)[moves], torch.ones(int(moves.sum())), atol=1e-4, rtol=0)
    assert moves.any()
    again, other = evaluate.linear_probe_features(net, images(40, 0), images(12, 2))
    assert torch.equal(again, x)  # whatever the test images are
    assert not torch.equal(other, q)
    alone = evaluate.linear_probe_features(net, images(40, 0), images(12, 1).subset(torch.tensor([3])))[1]
    torch.testing.assert_close(alone[0], q[3])  # and each test image is standardised by itself
    with pytest.raises(InputError, match="no images"):
        evaluate.linear_probe_features(net, images(40, 0), torch.zeros(0, 3, 16, 16, dtype=torch.uint8))

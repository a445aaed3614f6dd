"""CLIP's, SigLIP's and CoCa's losses against slow twins, in their limits, and in two processes against one."""

import inspect
import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sslcourse.errors import InputError
from sslcourse.losses import (
    caption_loss,
    clamp_log_scale,
    clip_distillation,
    clip_loss,
    clip_loss_local,
    coca_loss,
    gather_negatives,
    info_nce,
    siglip_loss,
    siglip_loss_local,
)
from sslcourse.train.distributed import gather, rank

N, D = 8, 5


def pairs(n: int = N, d: int = D, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    img, txt = (torch.randn(n, d, generator=generator, dtype=dtype) for _ in range(2))
    return img.requires_grad_(), txt.requires_grad_()


def clip_loop(img: Tensor, txt: Tensor, log_scale: Tensor) -> Tensor:
    """Figure 3, one softmax at a time."""
    cos = [[x @ y / (x.norm() * y.norm()) for y in txt] for x in img]
    s, terms = log_scale.exp(), []
    for i in range(len(img)):
        row = torch.stack([s * cos[i][j] for j in range(len(txt))])
        column = torch.stack([s * cos[j][i] for j in range(len(img))])
        terms += [torch.log(row.exp().sum()) - row[i], torch.log(column.exp().sum()) - column[i]]
    return torch.stack(terms).mean()


def siglip_loop(img: Tensor, txt: Tensor, t: Tensor, b: Tensor) -> Tensor:
    """Equation 1, one question at a time."""
    total = img.new_zeros(())
    for i in range(len(img)):
        for j in range(len(txt)):
            z = 1 if i == j else -1
            logit = t * (img[i] @ txt[j]) / (img[i].norm() * txt[j].norm()) + b
            total = total + torch.log1p(torch.exp(-z * logit))
    return total / len(img)


def test_clip_is_the_loop() -> None:
    img, txt = pairs()
    log_scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    leaves = (img, txt, log_scale)
    ours, slow = clip_loss(*leaves), clip_loop(*leaves)
    torch.testing.assert_close(ours, slow)
    for a, b in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(slow, leaves), strict=True):
        torch.testing.assert_close(a, b)


def test_siglip_is_the_loop() -> None:
    img, txt = pairs()
    t, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (4.0, -2.0))
    leaves = (img, txt, t, b)
    ours, slow = siglip_loss(*leaves), siglip_loop(*leaves)
    torch.testing.assert_close(ours, slow)
    for x, y in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(slow, leaves), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize(
    "loss", [lambda a, b, s, t: clip_loss(a, b, s), lambda a, b, s, t: siglip_loss(a, b, s.exp(), t)]
)
def test_gradcheck(loss) -> None:
    leaves = [*pairs(4, 3), *(torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.7, -1.0))]
    assert torch.autograd.gradcheck(loss, leaves)


@pytest.mark.parametrize("tile", [1, 3, N, 100])
@pytest.mark.parametrize("log_scale", [0.0, 2.0, math.log(100)])
def test_tiled_forms_are_the_readable_ones(tile: int, log_scale: float) -> None:
    img, txt = pairs()
    s = torch.tensor(log_scale, dtype=torch.float64, requires_grad=True)
    b = torch.tensor(-3.0, dtype=torch.float64, requires_grad=True)
    for loss in (
        lambda tile: clip_loss(img, txt, s, tile=tile),
        lambda tile: siglip_loss(img, txt, s.exp(), b, tile=tile),
    ):
        readable, tiled = loss(None), loss(tile)
        torch.testing.assert_close(tiled, readable)
        found = [torch.autograd.grad(3 * x, (img, txt, s, b), allow_unused=True) for x in (tiled, readable)]
        for one, other in zip(*found, strict=True):
            if one is None:
                assert other is None
            else:
                torch.testing.assert_close(one, other)


def test_the_tiled_form_refuses_a_second_derivative() -> None:
    img, txt = pairs()
    with pytest.raises(InputError, match="twice"):
        torch.autograd.grad(clip_loss(img, txt, 1.0, tile=2), img, create_graph=True)


def test_clip_is_two_info_nce() -> None:
    img, txt = pairs()
    tau = 0.2
    expected = (info_nce(img, txt, tau=tau) + info_nce(txt, img, tau=tau)) / 2
    torch.testing.assert_close(clip_loss(img, txt, -math.log(tau)), expected)


def test_swapping_images_and_texts_or_reordering_the_pairs_changes_nothing() -> None:
    img, txt = pairs()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    for loss in (lambda a, b: clip_loss(a, b, 2.0), lambda a, b: siglip_loss(a, b, 5.0, -4.0)):
        torch.testing.assert_close(loss(txt, img), loss(img, txt))
        torch.testing.assert_close(loss(img[order], txt[order]), loss(img, txt))
        torch.testing.assert_close(loss(3 * img, 0.1 * txt), loss(img, txt))  # normalised inside


def test_uninformative_embeddings_cost_log_n() -> None:
    same = torch.ones(N, D)
    torch.testing.assert_close(clip_loss(same, same, 4.0), torch.tensor(math.log(N)))


def test_the_scale_is_clamped_and_gets_no_gradient_beyond() -> None:
    img, txt = pairs()
    for log_scale, moves in ((4.0, True), (6.0, False)):
        s = torch.tensor(log_scale, dtype=torch.float64, requires_grad=True)
        loss = clip_loss(img, txt, s)
        assert (torch.autograd.grad(loss, s)[0] != 0) == moves
    torch.testing.assert_close(loss, clip_loss(img, txt, math.log(100)))
    learned = nn.Parameter(torch.tensor([7.0]))
    assert clamp_log_scale(learned).exp().item() == pytest.approx(100)
    assert learned.requires_grad
    assert clamp_log_scale(torch.tensor(-1.0)).item() == 0


def test_extreme_scales_stay_finite() -> None:
    img = pairs(dtype=torch.float32)[0]
    for tile in (None, 3):
        loss = clip_loss(img, -img, 12.0, max_scale=1e6, tile=tile) + siglip_loss(img, -img, 1e4, 1e4, tile=tile)
        assert loss.isfinite()
        assert all(g.isfinite().all() for g in torch.autograd.grad(loss, img))


def test_siglips_bias_gives_the_gradient_to_the_positives() -> None:
    """At b = -10 the few positives carry nearly all of the gradient, at b = 0 nearly none."""
    img, txt = (torch.nn.functional.normalize(x.detach()) for x in pairs(64, 32))
    share = {}
    for b in (0.0, -10.0):
        logits = (10 * img @ txt.T + b).requires_grad_()
        sign = 2 * torch.eye(64, dtype=torch.float64) - 1
        loss = -torch.nn.functional.logsigmoid(sign * logits).sum() / 64
        torch.testing.assert_close(siglip_loss(img, txt, 10.0, b), loss)
        mass = torch.autograd.grad(loss, logits)[0].abs()
        share[b] = (mass.diagonal().sum() / mass.sum()).item()
    assert share[0.0] < 0.05
    assert share[-10.0] > 0.9


def test_siglips_parts_add_up() -> None:
    img, txt = pairs()
    here, nowhere = torch.arange(N), torch.full((N,), -1)
    left = siglip_loss_local(img, txt[:3], torch.where(here < 3, here, nowhere), 5.0, -2.0)
    right = siglip_loss_local(img, txt[3:], torch.where(here < 3, nowhere, here - 3), 5.0, -2.0, tile=2)
    torch.testing.assert_close(left + right, siglip_loss(img, txt, 5.0, -2.0))


def test_gather_negatives_keeps_order_and_gradient() -> None:
    parts = [torch.full((2, 1), float(r), requires_grad=True) for r in range(3)]
    everyone, labels = gather_negatives(parts, 1)
    assert everyone[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert labels.tolist() == [2, 3]
    everyone.sum().backward()
    assert all(part.grad is not None for part in parts)
    with pytest.raises(InputError, match="equal parts"):
        gather_negatives([torch.ones(2, 1), torch.ones(3, 1)], 0)


def test_the_mean_of_local_losses_is_that_of_the_batch() -> None:
    img, txt = pairs()
    imgs, txts = img.chunk(4), txt.chunk(4)
    locals_ = []
    for r in range(4):
        all_txt, labels = gather_negatives(txts, r)
        locals_.append(clip_loss_local(imgs[r], txts[r], gather_negatives(imgs, r)[0], all_txt, labels, 2.0))
    torch.testing.assert_close(torch.stack(locals_).mean(), clip_loss(img, txt, 2.0))


class Towers(nn.Module):
    """Two linear towers and the learned numbers; the loss that `kind` names, as a method computes it."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.img, self.txt = nn.Linear(D, 4), nn.Linear(D, 4)
        self.log_scale, self.bias = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(-2.0))

    def forward(self, x: Tensor, y: Tensor, kind: str) -> Tensor:
        img, txt = self.img(x), self.txt(y)
        if kind == "whole":
            return clip_loss(gather(img), gather(txt), self.log_scale) + 0 * self.bias
        if kind == "tiled":
            return clip_loss(gather(img), gather(txt), self.log_scale, tile=3) + 0 * self.bias
        labels = torch.arange(len(img)) + rank() * len(img)
        if kind == "local":
            return clip_loss_local(img, txt, gather(img), gather(txt), labels, self.log_scale) + 0 * self.bias
        return siglip_loss_local(img, gather(txt), labels, self.log_scale.exp(), self.bias)


KINDS = ("whole", "tiled", "local", "siglip")


def in_two_processes(index: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=index, world_size=2)
    mine, results = slice(index * N // 2, (index + 1) * N // 2), {}
    x, y = (z.detach()[mine] for z in pairs(dtype=torch.float32))
    for kind in KINDS:
        model = DistributedDataParallel(Towers())
        loss = model(x, y, kind)
        loss.backward()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        results[kind] = (mean / 2, [p.grad for p in model.parameters()])
    torch.save(results, f"{folder}/{index}.pt")
    dist.destroy_process_group()


def test_two_processes_are_one(tmp_path: Path) -> None:
    mp.spawn(in_two_processes, args=(str(tmp_path),), nprocs=2)
    x, y = (z.detach() for z in pairs(dtype=torch.float32))
    for index in (0, 1):
        results = torch.load(tmp_path / f"{index}.pt")
        for kind in KINDS:
            alone = Towers()
            loss = alone(x, y, kind)
            loss.backward()
            theirs, gradients = results[kind]
            torch.testing.assert_close(theirs, loss.detach())
            for p, gradient in zip(alone.parameters(), gradients, strict=True):
                torch.testing.assert_close(gradient, p.grad)


def test_caption_loss_counts_tokens_not_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 7, generator=generator)
    labels = torch.tensor([[3, 1, 0, 0], [2, 0, 0, 0], [5, 6, 1, 2]])
    log_p = logits.log_softmax(dim=2)
    terms = [-log_p[b, l, labels[b, l]] for b in range(3) for l in range(4) if labels[b, l] != 0]
    torch.testing.assert_close(caption_loss(logits, labels), torch.stack(terms).mean())
    assert caption_loss(logits, torch.zeros(3, 4, dtype=torch.long)) == 0
    img, txt = pairs(3)
    contrastive, captioning = coca_loss(img, txt, 1.0, logits, labels, caption_weight=0.5)
    torch.testing.assert_close(contrastive, clip_loss(img, txt, 1.0))
    torch.testing.assert_close(captioning, 0.5 * caption_loss(logits, labels))


def test_distillation_has_its_minimum_at_the_teacher() -> None:
    teacher_img, teacher_txt = (x.detach() for x in pairs(seed=3))
    img, txt = teacher_img.clone().requires_grad_(), teacher_txt.clone().requires_grad_()
    loss = clip_distillation(img, txt, 1.0, teacher_img, teacher_txt, 1.0)
    assert loss > 0  # the teacher's entropy, not 0
    for gradient in torch.autograd.grad(loss, (img, txt)):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


def test_half_precision_is_widened() -> None:
    img, txt = (x.detach().bfloat16() for x in pairs(dtype=torch.float32))
    assert clip_loss(img, txt, 4.0).dtype == torch.float32
    torch.testing.assert_close(clip_loss(img, txt, 4.0), clip_loss(img.float(), txt.float(), 4.0))


def test_a_single_pair_has_nothing_to_be_mistaken_for() -> None:
    img, txt = pairs(1)
    assert clip_loss(img, txt, 2.0) == 0
    assert clip_loss(img, txt, 2.0, tile=4).abs() < 1e-12
    assert siglip_loss(img, txt) > 0  # SigLIP still asks whether the pair belongs together


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: clip_loss(torch.ones(2, 3), torch.ones(3, 3), 0.0), "one shape"),
        (lambda: clip_loss(torch.ones(0, 3), torch.ones(0, 3), 0.0), "N >= 1"),
        (lambda: clip_loss(torch.ones(2, 3), torch.ones(2, 3).double(), 0.0), "dtype"),
        (lambda: clip_loss(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2)), "one log_scale"),
        (lambda: clip_loss(torch.ones(2, 3), torch.ones(2, 3), 0.0, tile=0), "at least 1 row"),
        (lambda: siglip_loss(torch.ones(2, 3), torch.ones(2, 4)), "one shape"),
        (lambda: siglip_loss_local(torch.ones(2, 3), torch.ones(5, 3), torch.arange(3)), "labels"),
        (lambda: caption_loss(torch.ones(2, 3, 4), torch.ones(2, 4).long()), "labels"),
        (lambda: clip_distillation(*[torch.ones(2, 3)] * 2, 0.0, *[torch.ones(4, 3)] * 2, 0.0), "teacher"),
    ],
)
def test_bad_input_is_one_sentence(call, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


def test_names_and_parameters_of_the_syllabus() -> None:
    expected = {clip_loss: ("img", "txt", "log_scale"), siglip_loss: ("img", "txt", "t", "b")}
    for function, names in expected.items():
        assert tuple(inspect.signature(function).parameters)[: len(names)] == names

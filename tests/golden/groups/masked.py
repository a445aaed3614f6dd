"""Adapters for MAE, for masks, and for what masked methods share."""

from collections.abc import Callable
from typing import Any

import torch
from loading import Adapter, Case
from torch import Tensor

from sslcourse.data import masks
from sslcourse.data.augment import Augment
from sslcourse.data.hog import gaussian_window, hog_features, hog_targets
from sslcourse.losses.masked import mae_loss
from sslcourse.methods.mae import MAE
from sslcourse.nn.patches import patchify, random_masking, unpatchify
from sslcourse.nn.positions import sincos_2d
from sslcourse.nn.relative import relative_bias, relative_index, resize_relative
from sslcourse.nn.vit import ViT
from sslcourse.train.optim import LARS, warmup_cosine
from sslcourse.zoo import masked as readers


def mae_lars(case: Case) -> dict[str, Tensor]:
    params = {key.split("/")[0]: x.clone() for key, x in case.inputs.items() if key.endswith("/init")}
    settings = ("lr", "weight_decay", "momentum", "trust_coefficient")
    optimizer = LARS(list(params.values()), **{name: case.hyper[name] for name in settings})
    steps = range(case.hyper["steps"])
    for step in steps:
        for name, p in params.items():
            p.grad = case.inputs[f"{name}/grad{step}"]
        optimizer.step()
    # The recording kept one tensor a parameter, so each of its `after` values is the one after the last step.
    return {f"{name}/after{step}": p for step in steps for name, p in params.items()}


def mae_patchify(case: Case) -> dict[str, Any]:
    images, p = case.inputs["imgs"], case.hyper["patch_size"]
    patches = patchify(images, p)
    return {"patches": patches, "imgs_back": unpatchify(patches, p, images.shape[2] // p, images.shape[3] // p)}


def mae_random_masking(case: Case) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for i, ratio in enumerate(case.hyper["mask_ratios"]):
        noise = case.inputs[f"r{i}/noise"]
        x_vis, mask, ids = random_masking(case.inputs["x"], ratio, noise)
        kept = ids.argsort(dim=1)[:, : x_vis.shape[1]]
        results |= {f"r{i}/x_masked": x_vis, f"r{i}/mask": mask, f"r{i}/ids_restore": ids, f"r{i}/ids_keep": kept}
    return results


def mae_loss_case(case: Case) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for kind in {key.split("/")[0] for key in case.inputs}:
        pred = case.inputs[f"{kind}/pred"].requires_grad_()
        patches = patchify(case.inputs[f"{kind}/imgs"], case.hyper["patch_size"])
        loss = mae_loss(pred, patches, case.inputs[f"{kind}/mask"], kind == "norm")
        (gradient,) = torch.autograd.grad(loss, pred)
        results |= {f"{kind}/loss": loss, f"{kind}/grad_pred": gradient}
    return results


def mae_sincos_pos_embed(case: Case) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for i, one in enumerate(case.hyper["cases"]):
        places = sincos_2d(one["grid"], one["grid"], one["embed_dim"])
        cls = torch.zeros(int(one["cls_token"]), one["embed_dim"])
        results[f"s{i}"] = torch.cat([cls, places])
    h, w = case.hyper["nonsquare"]
    results["nonsquare"] = sincos_2d(h, w, case.expected["nonsquare"].shape[1])
    return results


def vit_of(hyper: dict[str, Any], **how: Any) -> ViT:
    """The ViT of a case, whose sizes stand under MAE's names."""
    size = hyper["img_size"]
    shape = {"dim": hyper["embed_dim"], "depth": hyper["depth"], "n_heads": hyper["num_heads"]}
    side = size if isinstance(size, int) else tuple(size)
    return ViT(side, hyper["patch_size"], mlp_ratio=hyper.get("mlp_ratio", 4), **shape, **how)


def mae_full(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    config = MAE.Config(
        ratio=hyper["mask_ratio"],
        target="normalized" if hyper["norm_pix_loss"] else "pixels",
        decoder_dim=hyper["decoder_embed_dim"],
        decoder_depth=hyper["decoder_depth"],
        decoder_heads=hyper["decoder_num_heads"],
        augment=Augment(case.inputs["imgs"].shape[-1]),
    )
    model = MAE(config, vit_of(hyper))
    model.load_state_dict(readers.mae(case.state, model))
    views = [case.inputs["imgs"], case.inputs["noise"]]
    latent, mask, ids = model.encode(*views)
    out = model(views)
    out["loss"].backward()
    results = {"loss": out["loss"], "pred": out["pred"], "mask": mask, "ids_restore": ids, "latent": latent}
    return results | gradients(case, model, readers.mae)


def gradients(case: Case, model: torch.nn.Module, read: Callable[[dict[str, Tensor], Any], Any]) -> dict[str, Tensor]:
    """Gradients under their official names. The reader tells which tensor of ours each official one became, by its
    address: a state dict is read whose tensors are told apart by a number."""
    numbers = {key: torch.full_like(value, float(i), dtype=torch.float64) for i, (key, value) in
               enumerate(case.state.items(), start=1)}  # fmt: skip
    ours = read(numbers, model)
    named = dict(model.named_parameters())
    results = {}
    for i, key in enumerate(case.state, start=1):
        if f"grad/{key}" not in case.gradients:
            continue
        for name, marks in ours.items():
            if name in named and (marks == i).any():
                gradient = named[name].grad
                assert gradient is not None
                results[f"grad/{key}"] = gradient[marks == i].view_as(case.state[key])
    return results


def mae_vit(case: Case) -> dict[str, Any]:
    model = vit_of(case.hyper, n_classes=case.hyper["num_classes"], pool="avg" if case.hyper["global_pool"] else "cls")
    model.load_state_dict(readers.mae(case.state, model))
    logits = model(case.inputs["imgs"])
    model.head = torch.nn.Identity()
    return {"features": model(case.inputs["imgs"]), "logits": logits}


# Masks come from other random streams: what is compared is what does not depend on them.


def _share(masks_: Tensor) -> Tensor:
    """How often each place is hidden."""
    return masks_.float().mean(dim=0)


def _alike(ours: Tensor, exact_count: bool = True, places: float = 4.0) -> Callable[[Tensor], None]:
    """Two samples of masks: the same shape, counts (or their mean within 4 standard errors), shares of places."""

    def compare(official: Tensor) -> None:
        n = len(official)
        assert ours.shape[1:] == official.shape[1:], f"shape {ours.shape}, official {official.shape}"
        mine, theirs = (m.flatten(1).sum(dim=1).double() for m in (ours, official))
        if exact_count:
            assert mine.unique().tolist() == theirs.unique().tolist(), f"counts {mine.unique()}, {theirs.unique()}"
        else:
            error = (mine.var() / len(mine) + theirs.var() / n).sqrt()
            assert (mine.mean() - theirs.mean()).abs() <= 4 * error + 1e-9, f"{mine.mean()} against {theirs.mean()}"
            assert mine.max() <= theirs.max() + 1e-9 or mine.max() - theirs.max() <= 0.1 * theirs.max()
        p = (_share(ours) * len(ours) + _share(official) * n) / (len(ours) + n)
        error = (p * (1 - p) * (1 / len(ours) + 1 / n)).sqrt() + 0.5 / n
        off = ((_share(ours) - _share(official)).abs() / error).max()
        assert off <= places + 1.5, f"a place is hidden more or less often by {off:.1f} standard errors"

    return compare


def simmim_mask_generator(case: Case) -> dict[str, Any]:
    results = {}
    for i, one in enumerate(case.hyper["cases"]):
        # The first places of the permutation are hidden: those whose rank in it is smallest.
        rank = case.inputs[f"g{i}/perm"].argsort(dim=1)
        sizes = (one["input_size"], one["mask_patch_size"], one["model_patch_size"], one["mask_ratio"])
        results[f"g{i}/mask"] = masks.simmim_mask(*sizes, rank)
    return results


def ummae_uniform_masking(case: Case) -> dict[str, Any]:
    results: dict[str, Any] = {}
    rng = torch.Generator().manual_seed(0)
    for name, setting in case.hyper.items():
        if name.startswith("random"):
            (h, w), ratio = setting["grid"], setting["mask_ratio"]
            ours = masks.random_mask(h, w, ratio, rng, batch=256, rounding="hide")
        else:
            (h, w) = setting
            ours = masks.uniform_sampling(h, w, rng, batch=256)
            kept = ~ours.view(256, h // 2, 2, w // 2, 2)
            counts = kept.sum(dim=(1, 3)).flatten(1).double()
            official = case.info["extra"][name]["per_image_visible_count_of_the_4_cell_positions_std"]
            assert (kept.sum(dim=(2, 4)) == 1).all()
            assert abs(float(counts.std()) / official - 1) < 0.2
        results[f"{name}/masks"] = _alike(ours.flatten(1))
    return results


def videomae_tube_masking(case: Case) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for i, one in enumerate(case.hyper["cases"]):
        ours = masks.tube_mask(*one["input_size"], one["mask_ratio"], torch.Generator().manual_seed(i), batch=256)
        results[f"t{i}/masks"] = _alike(ours.flatten(1))
    return results


def beit_blockwise_masking(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    (h, w), n = hyper["input_size"], hyper["num_masking_patches"]
    how = (hyper["min_num_patches"], hyper.get("max_num_patches"), hyper.get("min_aspect", 0.3))
    exact = case.name.startswith("beit2")
    rng = torch.Generator().manual_seed(0)
    ours = masks.blockwise_mask(h, w, n, *how, rng, batch=1000, algorithm="exact" if exact else "code")
    counts = ours.flatten(1).sum(dim=1)
    assert (counts == n).all() if exact else counts.max() <= n

    def blocks(official: Tensor) -> None:
        """Every accepted block of the official run obeys the rules that ours draws by."""
        top, left, height, width, new = official[:, 1:].T
        assert ((height < h) & (width < w) & (top + height <= h) & (left + width <= w) & (new > 0)).all()

    return {"masks": _alike(ours, exact_count=exact), "blocks": blocks}


def maskfeat_cube_masking(case: Case) -> dict[str, Any]:
    t, h, w = case.hyper["mask_window_size"]
    ours = masks.cube_mask(t, h, w, case.hyper["mask_ratio"], torch.Generator().manual_seed(0), batch=500)
    assert ours.flatten(1).sum(dim=1).max() <= case.hyper["num_masking_patches"]
    return {"masks": _alike(ours, exact_count=False)}


def mae_lr_sched(case: Case) -> dict[str, Tensor]:
    hyper = case.hyper
    rates = [
        warmup_cosine(float(epoch), hyper["epochs"], hyper["warmup_epochs"], hyper["lr"], hyper["min_lr"])
        for epoch in case.inputs["epoch"]
    ]
    lr = torch.tensor(rates, dtype=torch.float64)
    return {"lr": torch.stack([lr / 2, lr], dim=1)}  # the first group of the recording has lr_scale 0.5


def maskfeat_hog(case: Case) -> dict[str, Tensor]:
    results = {}
    for i, one in enumerate(case.hyper["cases"]):
        how = {"bins": one["nbins"], "cell": one["pool"], "window": one["gaussian_window"]}
        hog = hog_features(case.inputs[f"h{i}/x"], convention="maskfeat", **how)
        results[f"h{i}/hog"] = hog.movedim(-1, 2)  # official: bins before rows
    return results | {key: gaussian_window(int(key[5:])) for key in case.expected if key.startswith("gkern")}


def maskfeat_hog_patch_layout(case: Case) -> dict[str, Tensor]:
    hyper = case.hyper
    patch = hyper["img"] // 14  # hard-coded in the official code
    how = {"bins": hyper["nbins"], "cell": hyper["pool"], "window": hyper["gaussian_window"]}
    return {"hog": hog_targets(case.inputs["x"], patch, **how)[:, case.inputs["patch_index"]]}


def maskfeat_hog_vs_skimage(case: Case) -> dict[str, Tensor]:
    image, how = case.inputs["image"], {"bins": case.hyper["nbins"], "cell": case.hyper["pool"]}
    return {
        "hoglayerc": hog_features(image, convention="maskfeat", **how),
        "skimage": hog_features(image, **how),
        "skimage_of_transposed": hog_features(image.T, **how).transpose(0, 1),
    }


def beit_relative_position_bias(case: Case) -> dict[str, Tensor]:
    results = {}
    for i, (h, w) in enumerate(case.hyper["windows"]):
        index = relative_index(h, w, prefix=1)
        results |= {f"w{i}/index": index, f"w{i}/bias": relative_bias(case.inputs[f"w{i}/table"], index)}
    return results


def relpos_bias_interpolation(case: Case) -> dict[str, Tensor]:
    results = {}
    for i, (old, new) in enumerate(case.hyper["cases_old_new"]):
        for kind in "vs":
            results[f"{kind}{i}/new"] = resize_relative(case.inputs[f"{kind}{i}/old"], (old, old), (new, new))
    return results


ADAPTERS: dict[str, Adapter] = {
    "mae_lr_sched": mae_lr_sched,
    "maskfeat_hog": maskfeat_hog,
    "maskfeat_hog_patch_layout": maskfeat_hog_patch_layout,
    "maskfeat_hog_vs_skimage": maskfeat_hog_vs_skimage,
    "beit_relative_position_bias": beit_relative_position_bias,
    "relpos_bias_interpolation": relpos_bias_interpolation,
    "mae_lars": mae_lars,
    "mae_patchify": mae_patchify,
    "mae_random_masking": mae_random_masking,
    "mae_loss": mae_loss_case,
    "mae_sincos_pos_embed": mae_sincos_pos_embed,
    "mae_full": mae_full,
    "mae_full_normpix": mae_full,
    "mae_vit_cls": mae_vit,
    "mae_vit_globalpool": mae_vit,
    "simmim_mask_generator": simmim_mask_generator,
    "ummae_uniform_masking": ummae_uniform_masking,
    "videomae_tube_masking": videomae_tube_masking,
    "beit_blockwise_masking": beit_blockwise_masking,
    "beit2_blockwise_masking": beit_blockwise_masking,
    "maskfeat_cube_masking": maskfeat_cube_masking,
}

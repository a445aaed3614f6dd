"""Adapters for masked image and video modelling."""

from collections.abc import Callable
from typing import Any

import torch
from loading import Adapter, Case
from torch import Tensor

from sslcourse.data import masks
from sslcourse.data.augment import MEAN, STD, Augment
from sslcourse.data.hog import gaussian_window, hog_features, hog_targets
from sslcourse.evaluate.finetune import layer_decay_groups
from sslcourse.losses.masked import beit_loss, mae_loss
from sslcourse.methods.beit import BEiT
from sslcourse.methods.dvae import DiscreteVAE
from sslcourse.methods.mae import MAE
from sslcourse.methods.maskfeat import MaskFeat
from sslcourse.methods.simmim import SimMIM
from sslcourse.methods.ummae import UMMAE
from sslcourse.nn.dvae import DVAE, DalleDecoder, DalleEncoder, map_pixels
from sslcourse.nn.patches import compact, patchify, random_masking, unpatchify
from sslcourse.nn.positions import sincos_2d
from sslcourse.nn.pvt import PVT
from sslcourse.nn.relative import relative_bias, relative_index, resize_relative
from sslcourse.nn.swin import Swin
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


def _vit(hyper: dict[str, Any], **how: Any) -> ViT:
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
    model = MAE(config, _vit(hyper))
    model.load_state_dict(readers.mae(case.state, model))
    views = [case.inputs["imgs"], case.inputs["noise"]]
    latent, mask, ids = model.encode(*views)
    out = model(views)
    out["loss"].backward()
    results = {"loss": out["loss"], "pred": out["pred"], "mask": mask, "ids_restore": ids, "latent": latent}
    return results | _gradients(case, model, readers.mae)


def _gradients(case: Case, model: torch.nn.Module, read: Callable[[dict[str, Tensor], Any], Any]) -> dict[str, Tensor]:
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
    model = _vit(case.hyper, n_classes=case.hyper["num_classes"], pool="avg" if case.hyper["global_pool"] else "cls")
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


def _beit_vit(hyper: dict[str, Any], **how: Any) -> ViT:
    """The ViT of BEiT and SimMIM with the positions that the case has."""
    rel_pos = "shared" if hyper.get("use_shared_rel_pos_bias") else "blocks" if hyper["use_rel_pos_bias"] else "none"
    scale = hyper["init_values"] or None
    return _vit(hyper, pos=bool(hyper.get("use_abs_pos_emb")), rel_pos=rel_pos, layer_scale=scale, **how)


def beit_mim(case: Case) -> dict[str, Any]:
    hyper, x, mask = case.hyper, case.inputs["imgs"], case.inputs["bool_masked_pos"]
    config = BEiT.Config(vocabulary=hyper["vocab_size"], augment=Augment(x.shape[-1]))
    model = BEiT(config, _beit_vit(hyper, mask_token=True))
    model.load_state_dict(readers.beit(case.state, model))
    features = model.backbone.forward_features(x, mask)
    logits = model.head(features[:, 1:])
    ids = case.inputs["input_ids"]
    loss = beit_loss(logits, ids, mask)
    loss.backward()
    results = {"features": features, "logits_all": logits, "logits_masked": logits[mask], "labels": ids[mask]}
    right = (logits[mask].argmax(dim=1) == ids[mask]).float().mean()
    return results | {"loss": loss, "mlm_acc": right} | _gradients(case, model, readers.beit)


def beit_ft(case: Case) -> dict[str, Any]:
    pool = "avg" if case.hyper["use_mean_pooling"] else "cls"
    model = _beit_vit(case.hyper, n_classes=case.hyper["num_classes"], pool=pool)
    model.load_state_dict(readers.beit(case.state, model))
    x = case.inputs["imgs"]
    logits, last = model(x), model.run_blocks(model.embed(x))
    model.head = torch.nn.Identity()
    return {"features": model(x), "logits": logits, "last_block": last}


def simmim_vit(case: Case) -> dict[str, Any]:
    x, mask = case.inputs["x"], case.inputs["mask"].bool()
    p = case.hyper["patch_size"]
    config = SimMIM.Config(mask_patch=p, augment=Augment(x.shape[-1]))
    model = SimMIM(config, _beit_vit(case.hyper, mask_token=True))
    model.load_state_dict(readers.simmim(case.state, model))
    out = model([x, mask])
    out["loss"].backward()
    results = {"z": model.backbone.forward_map(x, mask.flatten(1)), "x_rec": out["pred"], "loss": out["loss"]}
    return results | _gradients(case, model, readers.simmim)


def maskfeat_image(case: Case) -> dict[str, Any]:
    hyper, x, mask = case.hyper, case.inputs["x"], case.inputs["mask"].bool()
    shape = {"dim": hyper["embed_dim"], "depth": hyper["depth"], "n_heads": hyper["num_heads"]}
    vit = ViT(hyper["img_size"], hyper["patch"], mask_token=True, **shape)
    model = MaskFeat(MaskFeat.Config(augment=Augment(hyper["img_size"])), vit)
    model.load_state_dict(readers.maskfeat(case.state, model))
    out = model([x, mask])
    out["loss"].backward()
    hidden = mask.flatten(1)
    results = {"pred": out["pred"][hidden], "target": model.target(x)[hidden], "loss": out["loss"]}
    return results | _gradients(case, model, readers.maskfeat)


def beit_discrete_vae(case: Case) -> dict[str, Any]:
    hyper, x = case.hyper, case.inputs["img"]
    dvae = DVAE(hyper["num_tokens"], hyper["codebook_dim"], hyper["num_layers"], hyper["hidden_dim"])
    places = len(x) * (x.shape[-1] // dvae.stride) ** 2  # the official KL is a sum over all places, ours their mean
    config = DiscreteVAE.Config(
        straight_through=hyper["straight_through"],
        kl_weight=hyper["kl_div_loss_weight"] * places,
        tau=(hyper["temperature"], hyper["temperature"]),
        augment=Augment(x.shape[-1]),
    )
    model = DiscreteVAE(config, dvae)
    dvae.load_state_dict(readers.dvae(case.state, dvae))
    out = model([x, -case.inputs["exponential"].log()])
    out["loss"].backward()
    ids = dvae.tokenize(x)
    return {
        "logits": dvae.logits(x),
        "recon": out["pred"],
        "loss": out["loss"],
        "recon_loss": (out["pred"] - x).square().mean(),
        "kl": out["kl"] * places,
        "ids": ids,
        "probs": dvae.logits(x).softmax(dim=1),
        "decoded": dvae.decode(ids),
    } | _gradients(case, dvae, readers.dvae)


def dalle_encoder(case: Case) -> dict[str, Any]:
    hyper, x = case.hyper, case.inputs["img"]
    model = DalleEncoder(hyper["n_hid"], hyper["n_blk_per_group"], hyper["vocab_size"])
    model.load_state_dict(readers.dalle(case.state, model))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return {"mapped": map_pixels(x), "logits": model.logits(x), "ids": model.tokenize((x - mean) / std)}


def dalle_decoder(case: Case) -> dict[str, Any]:
    hyper, ids = case.hyper, case.inputs["ids"]
    model = DalleDecoder(hyper["n_hid"], hyper["n_blk_per_group"], hyper["vocab_size"], hyper["n_init"])
    model.load_state_dict(readers.dalle(case.state, model))
    return {"out": model(ids), "recon": model.decode(ids)}


def simmim_swin(case: Case) -> dict[str, Any]:
    hyper, x, mask = case.hyper, case.inputs["x"], case.inputs["mask"].bool()
    shape = (hyper["embed_dim"], tuple(hyper["depths"]), tuple(hyper["num_heads"]), hyper["window_size"])
    swin = Swin(hyper["img_size"], hyper["patch_size"], *shape, mask_token=True, eps=hyper["layer_norm_eps"])
    model = SimMIM(SimMIM.Config(mask_patch=hyper["patch_size"], augment=Augment(hyper["img_size"])), swin)
    model.load_state_dict(readers.swin(case.state, model))
    out = model([x, mask])
    out["loss"].backward()
    results = {"z": swin.forward_map(x, mask.flatten(1)), "x_rec": out["pred"], "loss": out["loss"]}
    return results | _gradients(case, model, readers.swin)


def simmim_swin_param_groups(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    n = len(hyper["depths"])
    swin = Swin(32, 4, 16, tuple(hyper["depths"]), tuple(2**i for i in range(n)), 4, mask_token=True)
    named = {**dict(swin.named_parameters()), **dict(torch.nn.Linear(4, 4).named_parameters(prefix="head"))}
    groups = layer_decay_groups(named.items(), hyper["layer_decay"], hyper["weight_decay"])

    def same(name: str, ours: list[float]) -> Callable[[Tensor], None]:
        def compare(official: Tensor) -> None:
            """Groups stand in another order, since parameters do: compare them as a set of (layer, kind)."""
            torch.testing.assert_close(torch.tensor(sorted(ours), dtype=torch.float64), official.sort().values)

        return compare

    rates = [hyper["base_lr"] * group["lr_scale"] for group in groups]
    return {"ft_lr": same("lr", rates), "ft_wd": same("wd", [group["weight_decay"] for group in groups])}


def ummae_vit(case: Case) -> dict[str, Any]:
    hyper, mask, noise = case.hyper, case.inputs["mask"], case.inputs["noise"]
    size, p = hyper["img_size"], hyper["patch_size"]
    if not len(noise):
        noise = torch.zeros(len(mask), int((~mask[0]).sum()))
    # The official code takes argsort(noise) itself, not its inverse, to tell who is replaced.
    ranks = noise.argsort(dim=1).float()
    model = _ummae(hyper, size, _vit(hyper))
    model.load_state_dict(readers.ummae(case.state, model))
    side = size // p
    out = model([case.inputs["imgs"], mask.view(-1, side, side), ranks])
    out["loss"].backward()
    hidden = out["pred"][mask].view(len(mask), -1, out["pred"].shape[-1])
    return {"pred": _visible_first(mask, hidden), "pred_masked": hidden, "loss": out["loss"]} | _gradients(
        case, model, readers.ummae
    )


def _visible_first(mask: Tensor, hidden: Tensor) -> Callable[[Tensor], None]:
    def compare(official: Tensor) -> None:
        """The official prediction has those of CLS and kept patches before; no loss looks at them."""
        torch.testing.assert_close(hidden, official[:, -hidden.shape[1] :], rtol=1e-4, atol=1e-5)

    return compare


def _ummae(hyper: dict[str, Any], size: int, encoder: Any) -> UMMAE:
    config = UMMAE.Config(
        secondary=hyper["vis_mask_ratio"],
        norm_pix=hyper["norm_pix_loss"],
        reading_order=True,
        decoder_dim=hyper["decoder_embed_dim"],
        decoder_depth=hyper["decoder_depth"],
        decoder_heads=hyper["decoder_num_heads"],
        augment=Augment(size),
    )
    return UMMAE(config, encoder)


def ummae_pyramid(case: Case) -> dict[str, Any]:
    hyper, mask, x = case.hyper, case.inputs["mask"], case.inputs["imgs"]
    size, p = hyper["img_size"], hyper["patch_size"]
    if "window_size" in hyper:
        shape = (hyper["embed_dim"], tuple(hyper["depths"]), tuple(hyper["num_heads"]), hyper["window_size"])
        eps, hidden = hyper["layer_norm_eps"], hyper["posmlp_dim"]
        encoder: Any = Swin(size, p, *shape, relative="mlp", hidden=hidden, eps=eps)
    else:
        names = ("embed_dims", "depths", "num_heads", "mlp_ratios", "sr_ratios")
        heads = {"num_heads": [1, 2, 4, 8]} | hyper  # the JSON does not say: found by trying
        encoder = PVT(size, p, *(tuple(heads[name]) for name in names))
    model = _ummae(hyper, size, encoder)
    model.load_state_dict(readers.ummae(case.state, model))
    side = size // model.cell
    cells = mask.view(-1, side, side)
    # Noise is given for all cells there; ours ranks the kept ones, in the order of the small image.
    noise = compact(case.inputs["noise"].view(-1, 1, side, side), cells).flatten(1)
    out = model([x, cells, noise])
    out["loss"].backward()
    results = {"loss": out["loss"], "latent": _latent(model, x, cells, noise)}
    hidden_pred = out["pred"][mask].view(len(mask), -1, out["pred"].shape[-1])
    visible_pred = out["pred"][~mask].view(len(mask), -1, out["pred"].shape[-1])
    results["pred"] = torch.cat([visible_pred, hidden_pred], dim=1)
    return results | _gradients(case, model, readers.ummae)


def _latent(model: UMMAE, x: Tensor, cells: Tensor, noise: Tensor) -> Tensor:
    """What the encoder gives to the decoder."""
    seen: list[Tensor] = []
    hook = model.decoder.embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1, 2)))
    model.encode(x, cells, noise)
    hook.remove()
    return seen[0]


ADAPTERS: dict[str, Adapter] = {
    "simmim_swin": simmim_swin,
    "simmim_swin_param_groups": simmim_swin_param_groups,
    "ummae_vit": ummae_vit,
    "ummae_vit_novmr": ummae_vit,
    "ummae_swin": ummae_pyramid,
    "ummae_pvt": ummae_pyramid,
    "beit_mim": beit_mim,
    "beit_mim_abspos_perlayer": beit_mim,
    "beit_ft_cls": beit_ft,
    "beit_ft_meanpool": beit_ft,
    "simmim_vit": simmim_vit,
    "maskfeat_image": maskfeat_image,
    "beit_discrete_vae": beit_discrete_vae,
    "dalle_encoder": dalle_encoder,
    "dalle_decoder": dalle_decoder,
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

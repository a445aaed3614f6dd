"""Adapters for masked image modelling after MAE: BEiT and its tokenizers, SimMIM, UM-MAE, MaskFeat, I-JEPA."""

from collections.abc import Callable
from typing import Any

import torch
from groups.masked import gradients, vit_of
from loading import Adapter, Case
from torch import Tensor

from sslcourse.data.augment import MEAN, STD, Augment
from sslcourse.data.multiblock import block_size, multiblock_masks
from sslcourse.evaluate.finetune import layer_decay_groups
from sslcourse.losses.masked import beit_loss
from sslcourse.methods.beit import BEiT
from sslcourse.methods.dvae import DiscreteVAE
from sslcourse.methods.ijepa import IJEPA
from sslcourse.methods.maskfeat import MaskFeat
from sslcourse.methods.simmim import SimMIM
from sslcourse.methods.ummae import UMMAE
from sslcourse.nn.dvae import DVAE, DalleDecoder, DalleEncoder, map_pixels
from sslcourse.nn.patches import compact
from sslcourse.nn.pvt import PVT
from sslcourse.nn.swin import Swin
from sslcourse.nn.vit import ViT
from sslcourse.zoo import masked as readers


def _beit_vit(hyper: dict[str, Any], **how: Any) -> ViT:
    """The ViT of BEiT and SimMIM with the positions that the case has."""
    rel_pos = "shared" if hyper.get("use_shared_rel_pos_bias") else "blocks" if hyper["use_rel_pos_bias"] else "none"
    scale = hyper["init_values"] or None
    return vit_of(hyper, pos=bool(hyper.get("use_abs_pos_emb")), rel_pos=rel_pos, layer_scale=scale, **how)


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
    return results | {"loss": loss, "mlm_acc": right} | gradients(case, model, readers.beit)


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
    return results | gradients(case, model, readers.simmim)


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
    return results | gradients(case, model, readers.maskfeat)


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
    } | gradients(case, dvae, readers.dvae)


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
    return results | gradients(case, model, readers.swin)


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
    model = _ummae(hyper, size, vit_of(hyper))
    model.load_state_dict(readers.ummae(case.state, model))
    side = size // p
    out = model([case.inputs["imgs"], mask.view(-1, side, side), ranks])
    out["loss"].backward()
    hidden = out["pred"][mask].view(len(mask), -1, out["pred"].shape[-1])
    return {"pred": _visible_first(mask, hidden), "pred_masked": hidden, "loss": out["loss"]} | gradients(
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
    return results | gradients(case, model, readers.ummae)


def _latent(model: UMMAE, x: Tensor, cells: Tensor, noise: Tensor) -> Tensor:
    """What the encoder gives to the decoder."""
    seen: list[Tensor] = []
    hook = model.decoder.embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1, 2)))
    model.encode(x, cells, noise)
    hook.remove()
    return seen[0]


def ijepa_loss(case: Case) -> dict[str, Any]:
    hyper, x = case.hyper, case.inputs["imgs"]
    shape = {"dim": hyper["d"], "depth": hyper["dep"], "n_heads": hyper["h"]}
    encoder = ViT(hyper["img"], hyper["p"], class_token=False, pool="mean", **shape)
    config = IJEPA.Config(
        decoder_dim=hyper["pd"],
        decoder_depth=hyper["pdep"],
        decoder_heads=hyper["h"],
        min_keep=1,
        augment=Augment(hyper["img"]),
    )
    model = IJEPA(config, encoder)
    model.load_state_dict(readers.ijepa(case.state, model))
    targets = torch.stack([case.inputs[f"pred_mask{i}"] for i in range(hyper["npred"])], dim=1)
    out = model([x, case.inputs["enc_mask0"], targets])
    out["loss"].backward()
    results = {"pred": out["pred"], "target": out["target"], "loss": out["loss"]}
    return results | gradients(case, model, readers.ijepa)


def ijepa_multiblock_masks(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    side = hyper["input_size"] // hyper["patch_size"]
    scales, aspect = (hyper["pred_mask_scale"], hyper["enc_mask_scale"]), tuple(hyper["aspect_ratio"])

    def sizes(seed: int) -> tuple[tuple[int, int], tuple[int, int]]:
        u = torch.rand(2, generator=torch.Generator().manual_seed(seed)).tolist()
        return block_size(side, side, u[0], scales[0], aspect), block_size(side, side, u[1], scales[1], (1, 1))

    results: dict[str, Any] = {}
    n = len(case.expected["pred_block_sizes_seed0_1999"])
    results["pred_block_sizes_seed0_1999"] = torch.tensor([sizes(seed)[0] for seed in range(n)])
    for key in case.expected:
        if not key.startswith("s"):
            continue
        step, kind = key[1:].split("/")
        (th, tw), (ch, cw) = sizes(int(step))
        # Places come from another random stream: official masks have to be blocks of the sizes that ours have.
        if kind.startswith("pred"):
            results[key] = lambda official, th=th, tw=tw: _are_boxes(official, side, th, tw)
        else:
            targets = torch.cat([case.expected[f"s{step}/pred{i}"] for i in range(hyper["npred"])], dim=1)
            results[key] = lambda official, box=(ch, cw), t=targets: _context(official, side, box, t)
    ours, blocks = multiblock_masks(side, side, torch.Generator().manual_seed(0), batch=hyper["batch"])
    (th, tw), box = sizes(0)
    for block in blocks.unbind(dim=1):
        _are_boxes(block, side, th, tw)
    _context(ours, side, box, blocks.flatten(1))
    assert ours.shape[1] > hyper["min_keep"]
    return results


def _are_boxes(places: Tensor, side: int, height: int, width: int) -> None:
    row, column = places // side, places % side
    assert places.shape[1] == height * width
    assert (row.amax(dim=1) - row.amin(dim=1) == height - 1).all()
    assert (column.amax(dim=1) - column.amin(dim=1) == width - 1).all()


def _context(places: Tensor, side: int, box: tuple[int, int], targets: Tensor) -> None:
    row, column = places // side, places % side
    assert (row.amax(dim=1) - row.amin(dim=1) < box[0]).all()
    assert (column.amax(dim=1) - column.amin(dim=1) < box[1]).all()
    assert not (places[:, :, None] == targets[:, None]).any()
    assert (places.diff(dim=1) > 0).all()


ADAPTERS: dict[str, Adapter] = {
    "ijepa_loss": ijepa_loss,
    "ijepa_multiblock_masks": ijepa_multiblock_masks,
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
}

"""The one table of the course's methods: paper, library code, presets, part, chapter, lab, golden cases.

`sslcourse list` prints it, a page of the book shows it, the command line looks methods up in it, and a test fails when
a row points to something that does not exist or a method file has no row. SAM and its family have a training of their
own, and commands in place of `code`.
"""

from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from sslcourse.errors import InputError, unknown

PARTS = {
    1: "Pretext tasks",
    2: "Contrastive losses, hard negatives, augmentation",
    3: "SimCLR and MoCo",
    4: "SupCon, DenseCL, DiLo, LooC",
    5: "BYOL, SimSiam, DeepCluster, SwAV",
    6: "ViT and DINO",
    7: "BEiT and MAE",
    8: "SimMIM, UM-MAE, MaskFeat",
    9: "iBOT and DINOv2",
    10: "CLIP and SigLIP",
    11: "Segment Anything",
    12: "The SAM family",
    13: "Video",
    14: "Evaluation protocols",
}


@dataclass(frozen=True)
class Method:
    """One row.

    Attributes:
        name: what the command line and `methods.get` call it.
        title: what the paper calls it.
        part: the part of the course that teaches it, a key of `PARTS`.
        authors, year: as cited, the year of first publication.
        arxiv: identifier on arxiv.org, "" for a paper that is not there.
        code: "module:Class" of what `pretrain` trains; None for a method with a training of its own.
        presets: names of the class's `PRESETS`, in their order.
        chapter: page of the book, without suffix, and lab: folder under labs/; None while they are to come.
        training: module with the training of a method without `code`; made_by, used_by: commands that train and use it.
    """

    name: str
    title: str
    part: int
    authors: str
    year: int
    arxiv: str = ""
    code: str | None = None
    presets: tuple[str, ...] = ()
    chapter: str | None = None
    lab: str | None = None
    training: str | None = None
    made_by: str = ""
    used_by: str = ""

    @property
    def golden(self) -> tuple[str, ...]:
        """Cases under tests/golden/cases that pin the method down, "group/case"."""
        group, _, names = _GOLDEN.get(self.name, "").partition(": ")
        return tuple(f"{group}/{name}" for name in names.split())

    @property
    def file(self) -> str | None:
        """The file to read, relative to the repository."""
        module = self.code.split(":")[0] if self.code else self.training
        return module and module.replace(".", "/") + ".py"

    @property
    def paper(self) -> str:
        """Citation in one line."""
        return f"{self.authors} {self.year}"

    def to_dict(self) -> dict[str, Any]:
        """The row as plain JSON values."""
        return asdict(self) | {"file": self.file, "golden": list(self.golden)}


# fmt: off
_ROWS = (
    Method(
        "context_prediction",
        "Context prediction",
        1,
        "Doersch et al.",
        2015,
        "1505.05192",
        code="sslcourse.methods.context_prediction:ContextPrediction",
        presets=("cpu", "imagenet_resnet50"),
    ),
    Method(
        "jigsaw",
        "Jigsaw puzzles",
        1,
        "Noroozi and Favaro",
        2016,
        "1603.09246",
        code="sslcourse.methods.jigsaw:Jigsaw",
        presets=("cpu", "imagenet_resnet50"),
    ),
    Method(
        "colorization",
        "Colorization",
        1,
        "Zhang et al.",
        2016,
        "1603.08511",
        code="sslcourse.methods.colorization:Colorization",
        presets=("cpu", "imagenet_resnet50"),
    ),
    Method(
        "inpainting",
        "Context encoders",
        1,
        "Pathak et al.",
        2016,
        "1604.07379",
        code="sslcourse.methods.autoencoders:Inpainting",
        presets=("cpu", "imagenet_resnet50"),
    ),
    Method(
        "rotation",
        "Rotation prediction",
        1,
        "Gidaris et al.",
        2018,
        "1803.07728",
        code="sslcourse.methods.rotation:Rotation",
        presets=("cpu", "cifar10_resnet18", "imagenet_resnet50"),
    ),
    Method(
        "denoising",
        "Denoising autoencoder",
        1,
        "Vincent et al.",
        2008,
        code="sslcourse.methods.autoencoders:Denoising",
        presets=("cpu", "imagenet_resnet50"),
    ),
    Method(
        "instance_discrimination",
        "Instance discrimination",
        2,
        "Wu et al.",
        2018,
        "1805.01978",
        code="sslcourse.methods.instance_discrimination:InstanceDiscrimination",
        presets=("cpu", "imagenet_resnet50"),
    ),
    Method(
        "cmc",
        "CMC",
        2,
        "Tian et al.",
        2019,
        "1906.05849",
        code="sslcourse.methods.cmc:CMC",
        presets=("cpu", "imagenet_resnet50"),
    ),
    Method(
        "pseudo_label",
        "Pseudo-label",
        2,
        "Lee",
        2013,
        code="sslcourse.methods.fixmatch:PseudoLabel",
        presets=("cpu", "cifar10"),
    ),
    Method(
        "mixmatch",
        "MixMatch",
        2,
        "Berthelot et al.",
        2019,
        "1905.02249",
        code="sslcourse.methods.mixmatch:MixMatch",
        presets=("cpu", "cifar10"),
    ),
    Method(
        "uda",
        "UDA",
        2,
        "Xie et al.",
        2019,
        "1904.12848",
        code="sslcourse.methods.fixmatch:UDA",
        presets=("cpu", "cifar10"),
    ),
    Method(
        "fixmatch",
        "FixMatch",
        2,
        "Sohn et al.",
        2020,
        "2001.07685",
        code="sslcourse.methods.fixmatch:FixMatch",
        presets=("cpu", "cifar10"),
    ),
    Method(
        "mochi",
        "MoCHi",
        2,
        "Kalantidis et al.",
        2020,
        "2010.01028",
        code="sslcourse.methods.hard_negatives:MoCHi",
        presets=("cpu", "imagenet_resnet50"),
        chapter="02-contrastive-losses",
        lab="02_contrastive_losses",
    ),
    Method(
        "hcl",
        "Hard negatives (HCL)",
        2,
        "Robinson et al.",
        2020,
        "2010.04592",
        code="sslcourse.methods.hard_negatives:HCL",
        presets=("cpu", "cifar10_resnet18"),
        chapter="02-contrastive-losses",
        lab="02_contrastive_losses",
    ),
    Method(
        "simclr",
        "SimCLR",
        3,
        "Chen et al.",
        2020,
        "2002.05709",
        code="sslcourse.methods.simclr:SimCLR",
        presets=("cpu", "cpu_sketch", "cpu_cifar", "cifar10_resnet18", "imagenet_resnet50", "vit_small"),
        chapter="03-simclr",
        lab="03_simclr_moco",
    ),
    Method(
        "moco_v1",
        "MoCo",
        3,
        "He et al.",
        2019,
        "1911.05722",
        code="sslcourse.methods.moco:MoCo",
        presets=("cpu", "imagenet_resnet50"),
        chapter="03-moco",
        lab="03_simclr_moco",
    ),
    Method(
        "moco_v2",
        "MoCo v2",
        3,
        "Chen et al.",
        2020,
        "2003.04297",
        code="sslcourse.methods.moco:MoCoV2",
        presets=("cpu", "imagenet_resnet50"),
        chapter="03-moco",
        lab="03_simclr_moco",
    ),
    Method(
        "moco_v3",
        "MoCo v3",
        3,
        "Chen et al.",
        2021,
        "2104.02057",
        code="sslcourse.methods.moco_v3:MoCoV3",
        presets=("cpu", "vit_small", "imagenet_resnet50"),
        chapter="03-moco",
        lab="03_simclr_moco",
    ),
    Method(
        "supcon",
        "SupCon",
        4,
        "Khosla et al.",
        2020,
        "2004.11362",
        code="sslcourse.methods.supcon:SupCon",
        presets=("cpu", "imagenet_resnet50", "cifar10_resnet50"),
    ),
    Method(
        "densecl",
        "DenseCL",
        4,
        "Wang et al.",
        2020,
        "2011.09157",
        code="sslcourse.methods.densecl:DenseCL",
        presets=("cpu", "imagenet_resnet50"),
    ),
    Method(
        "dilo",
        "DiLo",
        4,
        "Zhao et al.",
        2020,
        "2004.06638",
        code="sslcourse.methods.dilo:DiLo",
        presets=("cpu", "imagenet_resnet50"),
    ),
    Method(
        "looc",
        "LooC",
        4,
        "Xiao et al.",
        2020,
        "2008.05659",
        code="sslcourse.methods.looc:LooC",
        presets=("cpu", "imagenet100_resnet50"),
    ),
    Method("deepcluster", "DeepCluster", 5, "Caron et al.", 2018, "1807.05520",
           code="sslcourse.methods.deepcluster:DeepCluster", presets=("cpu", "imagenet_resnet50")),
    Method("byol", "BYOL", 5, "Grill et al.", 2020, "2006.07733",
           code="sslcourse.methods.byol:BYOL", presets=("cpu", "imagenet_resnet50")),
    Method("swav", "SwAV", 5, "Caron et al.", 2020, "2006.09882",
           code="sslcourse.methods.swav:SwAV", presets=("cpu", "imagenet_resnet50")),
    Method("deepcluster_v2", "DeepCluster v2", 5, "Caron et al.", 2020, "2006.09882",
           code="sslcourse.methods.deepcluster_v2:DeepClusterV2", presets=("cpu", "imagenet_resnet50")),
    Method("simsiam", "SimSiam", 5, "Chen and He", 2020, "2011.10566",
           code="sslcourse.methods.simsiam:SimSiam", presets=("cpu", "imagenet_resnet50", "cifar10_resnet18")),
    Method("barlow_twins", "Barlow Twins", 5, "Zbontar et al.", 2021, "2103.03230",
           code="sslcourse.methods.barlow_twins:BarlowTwins", presets=("cpu", "imagenet_resnet50")),
    Method("deit", "DeiT", 6, "Touvron et al.", 2020, "2012.12877",
           code="sslcourse.methods.deit:DeiT", presets=("cpu", "vit_small"), chapter="06-vit-dino", lab="06_vit_dino"),
    Method("dino", "DINO", 6, "Caron et al.", 2021, "2104.14294",
           code="sslcourse.methods.dino:DINO", presets=("cpu", "cpu_vit", "vit_small"),
           chapter="06-vit-dino", lab="06_vit_dino"),
    Method(
        "dvae",
        "Discrete VAE (DALL-E)",
        7,
        "Ramesh et al.",
        2021,
        "2102.12092",
        code="sslcourse.methods.dvae:DiscreteVAE",
        presets=("cpu", "imagenet"),
        lab="07_beit_mae",
        chapter="07-beit-mae",
    ),
    Method(
        "beit",
        "BEiT",
        7,
        "Bao et al.",
        2021,
        "2106.08254",
        code="sslcourse.methods.beit:BEiT",
        presets=("cpu", "cpu_sketch", "imagenet_vit_base"),
        lab="07_beit_mae",
        chapter="07-beit-mae",
    ),
    Method(
        "mae",
        "MAE",
        7,
        "He et al.",
        2021,
        "2111.06377",
        code="sslcourse.methods.mae:MAE",
        presets=("cpu", "cpu_sketch", "pictures", "imagenet_vit_base"),
        lab="07_beit_mae",
        chapter="07-beit-mae",
    ),
    Method(
        "simmim",
        "SimMIM",
        8,
        "Xie et al.",
        2021,
        "2111.09886",
        code="sslcourse.methods.simmim:SimMIM",
        presets=("cpu", "cpu_sketch", "cpu_swin", "imagenet_vit_base", "imagenet_swin_base"),
    ),
    Method(
        "maskfeat",
        "MaskFeat",
        8,
        "Wei et al.",
        2021,
        "2112.09133",
        code="sslcourse.methods.maskfeat:MaskFeat",
        presets=("cpu", "cpu_sketch", "imagenet_vit_base"),
    ),
    Method(
        "ummae",
        "UM-MAE",
        8,
        "Li et al.",
        2022,
        "2205.10063",
        code="sslcourse.methods.ummae:UMMAE",
        presets=("cpu", "cpu_pvt", "imagenet_swin_tiny", "imagenet_pvt_small"),
    ),
    Method("data2vec", "data2vec", 8, "Baevski et al.", 2022, "2202.03555",
           code="sslcourse.methods.data2vec:Data2Vec", presets=("cpu", "cpu_sketch", "imagenet_vit_base")),
    Method("msn", "MSN", 8, "Assran et al.", 2022, "2204.07141",
           code="sslcourse.methods.msn:MSN", presets=("cpu", "cpu_sketch", "vit_small")),
    Method(
        "ijepa",
        "I-JEPA",
        8,
        "Assran et al.",
        2023,
        "2301.08243",
        code="sslcourse.methods.ijepa:IJEPA",
        presets=("cpu", "cpu_sketch", "imagenet_vit_base"),
    ),
    Method("ibot", "iBOT", 9, "Zhou et al.", 2021, "2111.07832",
           code="sslcourse.methods.ibot:IBOT", presets=("cpu", "vit_small")),
    Method("dinov2", "DINOv2", 9, "Oquab et al.", 2023, "2304.07193",
           code="sslcourse.methods.dinov2:DINOv2", presets=("cpu", "vit_small")),
    Method(
        "clip",
        "CLIP",
        10,
        "Radford et al.",
        2021,
        "2103.00020",
        code="sslcourse.methods.clip:CLIP",
        presets=("cpu", "vit_base_patch16"),
        chapter="10-clip",
        lab="10_clip",
    ),
    Method(
        "siglip",
        "SigLIP",
        10,
        "Zhai et al.",
        2023,
        "2303.15343",
        code="sslcourse.methods.siglip:SigLIP",
        presets=("cpu", "vit_base_patch16"),
        chapter="10-clip",
        lab="10_clip",
    ),
    Method("sam", "SAM", 11, "Kirillov et al.", 2023, "2304.02643", chapter="11-sam", lab="11_sam",
           training="sslcourse.segment.training", made_by="python -m sslcourse.segment.train sam",
           used_by="sslcourse segment IMAGE --point x,y"),
    Method("fastsam", "FastSAM", 12, "Zhao et al.", 2023, "2306.12156",
           training="sslcourse.segment.fastsam_training", made_by="python -m sslcourse.segment.train fastsam",
           used_by="sslcourse segment IMAGE --model tiny_fastsam --point x,y"),
    Method("mobilesam", "MobileSAM", 12, "Zhang et al.", 2023, "2306.14289",
           training="sslcourse.segment.family", made_by="python -m sslcourse.segment.train mobilesam",
           used_by="sslcourse segment IMAGE --model tiny_mobilesam --point x,y"),
    Method("hqsam", "HQ-SAM", 12, "Ke et al.", 2023, "2306.01567",
           training="sslcourse.segment.family", made_by="python -m sslcourse.segment.train hqsam",
           used_by="sslcourse segment IMAGE --model tiny_hqsam --box x1,y1,x2,y2"),
    Method("matting", "Matting Anything", 12, "Li et al.", 2023, "2306.05399",
           training="sslcourse.segment.matting_training", made_by="python -m sslcourse.segment.train matting",
           used_by="sslcourse segment IMAGE --box x1,y1,x2,y2 --matte"),
    Method("grounded_sam", "Grounded SAM", 12, "Ren et al.", 2024, "2401.14159",
           training="sslcourse.segment.grounded_training", made_by="python -m sslcourse.segment.train grounded",
           used_by="sslcourse segment IMAGE --text 'red star' --grounded"),
    Method(
        "maskfeat_video",
        "MaskFeat for video",
        13,
        "Wei et al.",
        2021,
        "2112.09133",
        code="sslcourse.methods.maskfeat_video:MaskFeatVideo",
        presets=("cpu", "kinetics_vit_base"),
    ),
    Method(
        "videomae",
        "VideoMAE",
        13,
        "Tong et al.",
        2022,
        "2203.12602",
        code="sslcourse.methods.videomae:VideoMAE",
        presets=("cpu", "kinetics_vit_base"),
    ),
    Method(
        "unmasked_teacher",
        "Unmasked Teacher",
        13,
        "Li et al.",
        2023,
        "2303.16058",
        code="sslcourse.methods.unmasked_teacher:UnmaskedTeacher",
        presets=("cpu", "kinetics_vit_base"),
    ),
)
# fmt: on

# Official numbers by method, "group: case case ..."; they are there before the method is.
_GOLDEN = {
    "simclr": "contrastive: ntxent simclr_tf_ntxent simclr_tf_lr_schedule",
    "moco_v1": "contrastive: moco_infonce_queue moco_full_module",
    "moco_v2": "contrastive: moco_infonce_queue moco_full_module",
    "moco_v3": "contrastive: mocov3_contrastive_loss mocov3_full_module mocov3_lars mocov3_schedules "
    "mocov3_sincos_pos_embed",
    "mochi": "contrastive: mochi_hard_negatives",
    "hcl": "contrastive: hcl_robinson",
    "supcon": "contrastive: supcon pml_supcon_ntxent",
    "densecl": "contrastive: densecl_full_module densecl_head_and_correspondence",
    "deepcluster": "contrastive: deepcluster_preprocess_kmeans deepcluster_sampler_sobel_lr",
    "deepcluster_v2": "contrastive: deepclusterv2_cluster_memory",
    "byol": "contrastive: byol_deepmind_loss byol_deepmind_schedules byol_deepmind_lars byol_loss_lucidrains "
    "byol_full_module_lucidrains",
    "swav": "contrastive: swav_sinkhorn swav_train_step swav_lr_schedule",
    "simsiam": "contrastive: simsiam_loss simsiam_full_module",
    "dino": "contrastive: dino_loss dino_head dino_vit dino_multicrop_wrapper dino_cosine_scheduler "
    "dino_ema_and_gradient_utils",
    "beit": "masked: beit_mim beit_mim_abspos_perlayer beit_blockwise_masking beit_relative_position_bias",
    "mae": "masked: mae_full mae_full_normpix mae_loss mae_patchify mae_random_masking mae_sincos_pos_embed "
    "mae_lr_sched",
    "simmim": "masked: simmim_vit simmim_swin simmim_swin_param_groups",
    "maskfeat": "masked: maskfeat_hog maskfeat_hog_vs_skimage",
    "ummae": "masked: ummae_uniform_masking ummae_vit ummae_vit_novmr",
    "ijepa": "masked: ijepa_multiblock_masks",
    "ibot": "contrastive: ibot_loss ibot_head ibot_masking ibot_vit_masked",
    "dinov2": "contrastive: dinov2_dino_loss dinov2_ibot_patch_loss dinov2_koleo dinov2_head dinov2_masking "
    "dinov2_schedules dinov2_vit",
    "clip": "clip-sam: openclip_clip_loss openclip_logit_scale_clamp openclip_zeroshot clip_tokenizer clip_preprocess "
    "clip_quickgelu",
    "siglip": "clip-sam: openclip_siglip_loss",
    "sam": "clip-sam: sam_prompt_encoder sam_two_way_transformer sam_loss_focal_dice_iou sam_loss_multistep "
    "sam_amg_stability sam_amg_point_grid sam_amg_rle",
    "fastsam": "clip-sam: fastsam_prompts fastsam_yolo_masks",
    "hqsam": "clip-sam: hq_loss_masks_pointsample hq_train_prompts_metrics",
    "matting": "clip-sam: mam_refinement",
    "grounded_sam": "clip-sam: grounded_sam_glue",
    "maskfeat_video": "masked: maskfeat_cube_masking",
    "videomae": "masked: videomae_tube_masking",
}

METHODS: dict[str, Method] = {row.name: row for row in _ROWS}


def available() -> list[str]:
    """Names of the methods that `pretrain` trains, in the order of the course."""
    return [row.name for row in _ROWS if row.code]


def row(name: str) -> Method:
    """The row of a method that `pretrain` trains.

    Raises:
        InputError: an unknown name (with the nearest one), or a method that is trained and used by other commands.
    """
    if name not in METHODS:
        raise unknown("method", name, available())
    method = METHODS[name]
    if method.code is None:
        where = f"part {method.part}, {PARTS[method.part]}"
        raise InputError(
            f"{method.title} ({where}) has a training of its own: {method.made_by} trains it, {method.used_by} uses it."
        )
    return method


def method_class(name: str) -> Any:
    """The class of a method; only its own module is imported. Raises as `row`."""
    module, cls = str(row(name).code).split(":")
    return getattr(import_module(module), cls)


def markdown() -> str:
    """The table as Markdown, one row a method, for the book."""
    lines = [
        "| Part | Method | Name | Paper | Code in `sslcourse/` | Presets | Chapter | Lab | Golden cases |",
        "| ---: | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method in METHODS.values():
        paper = f"[{method.paper}](https://arxiv.org/abs/{method.arxiv})" if method.arxiv else method.paper
        # A chapter is linked relative to the other pages of the book, which stand beside it.
        chapter = f"[{method.chapter}]({method.chapter}.md)" if method.chapter else ""
        cells = [
            str(method.part),
            method.title,
            f"`{method.name}`",
            paper,
            f"`{method.file.removeprefix('sslcourse/')}`" if method.file else "",
            ", ".join(f"`{preset}`" for preset in method.presets) or f"`{method.made_by}`",
            chapter,
            f"`{method.lab}`" if method.lab else "",
            ", ".join(f"`{case.partition('/')[2]}`" for case in method.golden),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"

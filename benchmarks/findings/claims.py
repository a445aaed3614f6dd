"""What the papers claim, part by part, in a form that a record can answer: one arm is above another.

To add a claim: write ``Claim("record", "what the paper found", "arm", "base")`` under its part in `CLAIMS`, where
`record` is the name of a script of this folder and the arms are keys of its JSON. It may be there before the record is:
until then the page lists it as not recorded. Where the claim is about two differences ("A gains more than B"), an arm
is a pair: ``("A, large", "A, small")`` stands for the first minus the second. A sentence that the numbers need but do
not say (what was tried, what is confounded) goes into `NOTES`; what all arms share and where the claim is from stands
in the script's docstring, which the page quotes. Then run ``python -m benchmarks.findings.page``.

A claim is written as the source states it, whether or not it shows here.
"""

from typing import NamedTuple

Arm = str | tuple[str, str]


class Claim(NamedTuple):
    """`arm` is above `base` in the record of this name; `says` is what the source found, a few words."""

    record: str
    says: str
    arm: Arm
    base: Arm


CLAIMS: dict[str, tuple[Claim, ...]] = {
    "Part 1: pretext tasks": (
        Claim("rotation_symmetry", "a turn can be told only if the shape shows it", "asymmetric", "symmetric"),
    ),
    "Part 2: contrastive losses, hard negatives, augmentation": (
        Claim("circle_losses", "all pairs with a margin end less even than InfoNCE", "all pairs", "InfoNCE"),
        Claim("circle_losses", "so does the triplet loss", "triplet", "InfoNCE"),
        Claim("circle_losses", "so does the N-pair loss", "N-pair", "InfoNCE"),
        Claim("effective_negatives", "the higher the temperature, the more negatives count", "tau 1", "tau 0.02"),
        Claim("false_negatives", "the lower the temperature, the more push hits the own class", "tau 0.05", "tau 0.5"),
        Claim("false_negatives", "at 0.5 still more than its share", "tau 0.5", "equal shares"),
        Claim("hard_negatives", "HCL improves on SimCLR", "HCL", "SimCLR"),
        Claim("hard_negatives", "MoCHi improves on MoCo v2", "MoCHi", "MoCo v2"),
        Claim("colour_supervised", "strong colour hurts labels", "supervised, crop", "supervised, strong colour"),
        Claim("colour_supervised", "and helps SimCLR", "SimCLR, strong colour", "SimCLR, crop"),
        Claim("colour_supervised", "AutoAugment suits labels", "supervised, AutoAugment", "supervised, strong colour"),
        Claim("colour_supervised", "and SimCLR less", "SimCLR, strong colour", "SimCLR, AutoAugment"),
    ),
    "Part 3: SimCLR and MoCo": (
        Claim("simclr_temperature", "a temperature can be too low", "tau 0.2", "tau 0.02"),
        Claim("simclr_temperature", "a temperature can be too high", "tau 0.2", "tau 2"),
        Claim("simclr_augmentation", "crops need colour jitter beside them", "crop and colour", "crop only"),
        Claim("simclr_augmentation", "colour jitter needs crops beside it", "crop and colour", "colour only"),
        Claim("simclr_head", "h is better than z", "head, h", "head, z"),
        Claim("simclr_head", "a head improves h", "head, h", "no head, h"),
        Claim("moco_momentum", "the key encoder may not be a copy", "m 0.99", "m 0"),
        Claim("moco_momentum", "nor stand nearly still", "m 0.99", "m 0.9999"),
        Claim("moco_momentum", "a queue is worth having", "m 0.99", "no queue"),
        Claim("batch_queue", "a larger batch is better", "batch 64, no queue", "batch 16, no queue"),
        Claim("batch_queue", "a queue can replace it", "batch 16, queue 256", "batch 16, no queue"),
        Claim("batch_queue", "a queue helps a larger batch, too", "batch 64, queue 256", "batch 64, no queue"),
    ),
    "Part 4: SupCon, DenseCL, DiLo, LooC": (
        Claim("supcon_in_out", "the mean over positives belongs outside the logarithm", "L_out", "L_in"),
        Claim("densecl_localisation", "a loss on cells helps where places matter", "global and dense", "global"),
        Claim("dilo_background", "other backgrounds make it look at the object", "SimCLR with DiLo's views", "SimCLR"),
        Claim("looc_rotation", "whoever is to ignore turns does not know them", "no turns: h", "turns: h"),
        Claim("looc_rotation", "LooC's h knows them", "LooC: h", "turns: h"),
        Claim("looc_rotation", "more than the space indifferent to all", "LooC: h", "LooC: z_all"),
        Claim("looc_rotation", "and so does the space that leaves them out", "LooC: z_rotation", "LooC: z_all"),
    ),
    "Part 5: BYOL, SimSiam, SwAV": (
        Claim("simsiam_collapse", "SimSiam learns", "SimSiam, kNN", "untrained, kNN"),
        Claim("simsiam_collapse", "without stop-gradient less", "SimSiam, kNN", "no stop-gradient, kNN"),
        Claim("simsiam_collapse", "and projections draw together", "SimSiam, spread", "no stop-gradient, spread"),
        Claim("simsiam_collapse", "in few directions", "SimSiam, rank", "no stop-gradient, rank"),
        Claim("simsiam_collapse", "without predictor it learns less", "SimSiam, kNN", "no predictor, kNN"),
        Claim("simsiam_collapse", "and projections draw together", "SimSiam, spread", "no predictor, spread"),
        Claim("simsiam_collapse", "in few directions", "SimSiam, rank", "no predictor, rank"),
        Claim("byol_batch", "SimCLR needs many images at once", "SimCLR, 1/1", "SimCLR, 1/8"),
        Claim("byol_batch", "more than BYOL does", ("SimCLR, 1/1", "SimCLR, 1/8"), ("BYOL, 1/1", "BYOL, 1/8")),
        Claim("multi_crop", "small crops are worth their pixels", "2 x 24 + 3 x 16", "2 x 32"),
        Claim("multi_crop", "small crops beside large ones help", "2 x 32 + 3 x 16", "2 x 32"),
    ),
    "Part 6: ViT and DINO": (
        Claim("dino_centering", "sharpening needs centering", "both", "sharpening only"),
        Claim("dino_centering", "centering needs sharpening", "both", "centering only"),
        Claim("dino_centering", "without both nothing is said", "both", "neither"),
        Claim("dino_parts", "centering keeps prototypes in use", "centering, in use", "softmax, in use"),
        Claim("dino_parts", "Sinkhorn more of them", "Sinkhorn, in use", "centering, in use"),
        Claim("dino_parts", "momentum keeps them in use", "centering, in use", "no momentum, in use"),
        Claim("dino_parts", "targets say more with momentum", "centering, information", "no momentum, information"),
        Claim("dino_parts", "and features are better", "centering, kNN", "no momentum, kNN"),
        Claim("patch_size", "smaller patches are better: 8 than 16", "patch 8, kNN", "patch 16, kNN"),
        Claim("patch_size", "4 than 8", "patch 4, kNN", "patch 8, kNN"),
        Claim("patch_size", "and slower: 8 than 16", "patch 16, speed", "patch 8, speed"),
        Claim("patch_size", "4 than 8", "patch 8, speed", "patch 4, speed"),
        Claim("attention_objects", "DINO looks at objects more than labels teach", "DINO, scenes", "DeiT, scenes"),
        Claim("attention_objects", "on photographs, too", "DINO, photographs", "DeiT, photographs"),
        Claim("attention_objects", "more than random weights do", "DINO, scenes", "untrained, scenes"),
        Claim("attention_objects", "on photographs, too", "DINO, photographs", "untrained, photographs"),
    ),
    "Part 7: BEiT and MAE": (
        Claim("beit_masks", "blocks enclose more than single patches", "code, enclosed", "random, enclosed"),
        Claim("beit_masks", "the paper's algorithm hides more than asked", "paper, hidden", "exact, hidden"),
        Claim("beit_masks", "and its blocks stand upright", "paper, upright", "code, upright"),
        Claim(
            "mae_mask_ratio", "the more is hidden, the less can be copied", "copied, random 50 %", "copied, random 75 %"
        ),
        Claim("mae_mask_ratio", "at 75 % a trained MAE explains more", "painted, random 75 %", "copied, random 75 %"),
        Claim(
            "mae_mask_ratio", "blocks are harder than scattered patches", "painted, random 75 %", "painted, block 75 %"
        ),
        Claim("mae_mask_ratio", "a grid is easier", "painted, grid 75 %", "painted, random 75 %"),
        Claim("mae_mask_token", "an encoder without mask tokens is better: linear", "without, linear", "with, linear"),
        Claim("mae_mask_token", "kNN", "without, kNN", "with, kNN"),
        Claim("mae_targets", "predicting pixels teaches classes: linear", "pixels, linear", "untrained, linear"),
        Claim("mae_targets", "kNN", "pixels, kNN", "untrained, kNN"),
        Claim("mae_targets", "standardised pixels are better: linear", "normalized, linear", "pixels, linear"),
        Claim("mae_targets", "kNN", "normalized, kNN", "pixels, kNN"),
        Claim("mae_targets", "a codebook is no better than those: linear", "normalized, linear", "codebook, linear"),
        Claim("mae_targets", "HOG is better than pixels (MaskFeat): linear", "hog, linear", "pixels, linear"),
        Claim("mae_targets", "kNN", "hog, kNN", "pixels, kNN"),
    ),
    "Part 8: SimMIM, UM-MAE, MaskFeat": (
        Claim("simmim_ummae", "UM-MAE takes less time than SimMIM", "SimMIM, time", "UM-MAE, time"),
        Claim("simmim_ummae", "and less memory", "SimMIM, memory", "UM-MAE, memory"),
    ),
    "Part 9: iBOT and DINOv2": (
        Claim("ibot_dense", "hidden patches teach what is where", "iBOT, mIoU", "DINO, mIoU"),
        Claim("ibot_dense", "and what an image shows", "iBOT, kNN", "DINO, kNN"),
        Claim("ibot_dense", "DINO's patches know more than random ones", "DINO, mIoU", "untrained, mIoU"),
        Claim("koleo_spread", "KoLeo spreads features", "KoLeo 0.1, nearest", "KoLeo 0, nearest"),
        Claim("koleo_spread", "images are found again", "KoLeo 0.1, found", "KoLeo 0, found"),
        Claim("koleo_spread", "retrieval of classes gains", "KoLeo 0.1, mAP", "KoLeo 0, mAP"),
        Claim("curated_pool", "curated images teach more than all of the pool", "curated", "pool"),
        Claim("curated_pool", "more than as many at random", "curated", "random"),
        Claim("curated_pool", "pollution costs", "all sketches", "pool"),
    ),
    "Part 10: CLIP and SigLIP": (
        Claim("modality_gap", "a low temperature leaves images and texts apart", "tau 0.01", "tau 0.07"),
        Claim("modality_gap", "the higher, the nearer", "tau 0.07", "tau 0.5"),
        Claim("siglip_bias", "a negative bias gives positives their share", "b = -10", "b = 0"),
        Claim("clip_batch", "a larger batch helps CLIP", "CLIP, 128", "CLIP, 8"),
        Claim("clip_batch", "and SigLIP", "SigLIP, 128", "SigLIP, 8"),
        Claim("clip_batch", "at a small batch SigLIP is better", "SigLIP, 8", "CLIP, 8"),
        Claim("clip_batch", "CLIP gains more by a large one", ("CLIP, 128", "CLIP, 8"), ("SigLIP, 128", "SigLIP, 8")),
        Claim("clip_prompts", "an ensemble beats the average prompt", "all 9", "one of 9, mean"),
        Claim("clip_prompts", "and the best one", "all 9", "one of 9, best"),
        Claim("clip_kshot", "words are worth more than one labelled image", "words", "1-shot"),
        Claim("clip_kshot", "than four", "words", "4-shot"),
        Claim("clip_kshot", "sixteen are worth more than words", "16-shot", "words"),
        Claim("clip_relations", "another object is noticed, another order less", "another object", "order exchanged"),
        Claim("clip_relations", "colours more than order", "colours exchanged", "order exchanged"),
        Claim(
            "clip_shift", "words keep more than expected: sketch", "sketch: CLIP words", "sketch: CLIP words, expected"
        ),
        Claim("clip_shift", "inverted", "inverted: CLIP words", "inverted: CLIP words, expected"),
        Claim("clip_shift", "noise", "noise: CLIP words", "noise: CLIP words, expected"),
        Claim(
            "clip_shift_words",
            "words keep more than a probe of their accuracy: sketch",
            "sketch: words",
            "sketch: expected",
        ),
        Claim("clip_shift_words", "inverted", "inverted: words", "inverted: expected"),
        Claim("clip_shift_words", "noise", "noise: words", "noise: expected"),
        Claim("clip_typographic", "who reads believes a lying label", "reads: true word", "reads: lying word"),
        Claim(
            "clip_typographic",
            "more than what a label hides explains",
            ("reads: true word", "reads: lying word"),
            ("cannot read: true word", "cannot read: lying word"),
        ),
        Claim("clip_typographic", "a learned map undoes it", "learned map: lying word", "reads: lying word"),
        Claim("clip_typographic", "projecting words out does", "directions out: lying word", "reads: lying word"),
    ),
    "Part 11: SAM": (
        Claim("sam_ambiguity", "three masks answer more than one", "three, minimum", "one mask"),
        Claim("sam_ambiguity", "if the best of them learns", "three, minimum", "three, mean"),
        Claim("sam_ambiguity", "and the others a little, too", "three, minimum + a little mean", "three, minimum"),
        Claim(
            "sam_boundaries",
            "IoU hardly sees a wrong rim, boundary IoU does",
            "smooth circle: IoU",
            "smooth circle: boundary",
        ),
        Claim("sam_clicks", "three answers to one click contain a better one", "whole: best of three", "whole: 1"),
        Claim("sam_clicks", "for emblems", "emblem: best of three", "emblem: 1"),
        Claim("sam_clicks", "for dots", "dot: best of three", "dot: 1"),
        Claim("sam_clicks", "nine clicks are better than one: wholes", "whole: 9", "whole: 1"),
        Claim("sam_clicks", "emblems", "emblem: 9", "emblem: 1"),
        Claim("sam_clicks", "dots", "dot: 9", "dot: 1"),
        Claim("sam_clicks", "a box is better than a click: wholes", "whole: box", "whole: 1"),
        Claim("sam_everything", "a denser grid finds more wholes", "32: wholes found", "2: wholes found"),
        Claim("sam_everything", "more emblems", "32: emblems found", "2: emblems found"),
        Claim("sam_everything", "and costs more", "32: time", "2: time"),
        Claim(
            "data_engine",
            "trained on what was collected it does better on unseen scenes",
            "retrained, 4 semi-automatic: unseen",
            "retrained, 1 assisted: unseen",
        ),
        Claim(
            "data_engine",
            "the annotator is quicker",
            "left alone, 4 semi-automatic: minutes",
            "retrained, 4 semi-automatic: minutes",
        ),
        Claim(
            "data_engine",
            "masks of the fourth round are better",
            "retrained, 4 semi-automatic: IoU",
            "left alone, 4 semi-automatic: IoU",
        ),
        Claim(
            "data_engine",
            "more objects get a mask without an annotator",
            "retrained, 5 automatic: masks",
            "left alone, 5 automatic: masks",
        ),
    ),
    "Part 12: SAM's family": (
        Claim("fastsam_prompts", "SAM pays for every prompt", "SAM, 200 prompts", "SAM, 1 prompts"),
        Claim(
            "fastsam_prompts",
            "more than FastSAM does",
            ("SAM, 200 prompts", "SAM, 1 prompts"),
            ("FastSAM, 200 prompts", "FastSAM, 1 prompts"),
        ),
        Claim("mobile_distillation", "copying embeddings learns faster", "decoupled", "coupled, as many seconds"),
        Claim("mobile_distillation", "and does learn", "decoupled", "untrained encoder"),
        Claim("hq_boundaries", "an HQ token sharpens outlines", "HQ-SAM: boundary IoU", "SAM: boundary IoU"),
        Claim(
            "hq_boundaries",
            "more than it improves areas",
            ("HQ-SAM: boundary IoU", "SAM: boundary IoU"),
            ("HQ-SAM: IoU", "SAM: IoU"),
        ),
        Claim(
            "grounded_errors",
            "a box off by a little costs less than the next step",
            ("box off by 10%", "box off by 30%"),
            ("box off by 0%", "box off by 10%"),
        ),
        Claim(
            "grounded_errors",
            "a box around something else is not mended",
            "words: good mask, where the box was right",
            "words: good mask, where it was wrong",
        ),
    ),
    "Part 13: video": (
        Claim("video_masks", "a neighbour in time gives random masks away", "random, speed 1", "tube, speed 1"),
        Claim("video_masks", "masked frames, too", "frame, speed 1", "tube, speed 1"),
        Claim("video_masks", "cubes less", "random, speed 1", "cube, speed 1"),
        Claim("video_masks", "the slower the motion, the more: random", "random, speed 1", "random, speed 8"),
        Claim("video_masks", "frames", "frame, speed 1", "frame, speed 8"),
        Claim("video_masks", "cubes", "cube, speed 1", "cube, speed 8"),
        Claim(
            "video_masks",
            "more than with tubes",
            ("random, speed 1", "random, speed 8"),
            ("tube, speed 1", "tube, speed 8"),
        ),
    ),
}

NOTES: dict[str, str] = {
    "batch_queue": "One setting was tried. All arms take the same number of steps, so the larger batch has also seen "
    "four times as many images: its gain is not one of negatives alone. "
    "With 16 images nothing is learned, queue or not.",
    "densecl_localisation": "Tried on two seeds: 150 steps of 32 images leave both arms where the random network is.",
    "dilo_background": "Tried on one seed: MoCo v2, on which the paper builds, 150 steps of 32 images, with DiLo and "
    "without. Both arms stayed where the untrained network is, hence SimCLR and more steps here.",
    "dino_parts": "By kNN no arm knows much more than chance (a tenth) after so few steps, so that what their features "
    "are worth is not decided here; what their targets say is.",
    "looc_rotation": "Tried on two seeds: 150 steps of 32 images leave all probes where the random network is.",
    "simclr_augmentation": "In `Shapes` only outlines tell the classes, and crops cut them off: whole images with "
    "jittered colours do best, which is why the preset hardly crops. The shortcut of colour shows all the more.",
    "simsiam_collapse": "After so few steps no network has collapsed to a point; what goes first, and shows most "
    "clearly, is the rank: the projections keep to few directions.",
    "supcon_in_out": "After so few steps L_in knows no more than the untrained network.",
}

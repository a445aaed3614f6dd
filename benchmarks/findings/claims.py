"""What the papers claim, part by part, in a form that a record can answer: one arm is above another.

To add a claim: write ``("what the paper found", "arm", "base")`` under its part and its record in `CLAIMS`, where the
record is the name of a script of this folder and the arms are keys of its JSON. A claim stands alone in its row of the
page, so it names what it is about. It may be there before the record is: until then the page lists it as not recorded.
Where the claim is about two differences ("A gains more than B"), an arm is a pair: ``("A, large", "A, small")`` stands
for the first minus the second. A sentence that the numbers need but do not say (what was tried, what is confounded)
goes into `NOTES`; what all arms share and where the claim is from stands in the script's docstring, which the page
quotes. Then run ``python -m benchmarks.findings.page``.

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


def _claims(parts: dict[str, dict[str, list[tuple[str, Arm, Arm]]]]) -> dict[str, tuple[Claim, ...]]:
    """part -> record -> (says, arm, base) as claims."""
    return {
        part: tuple(Claim(record, *row) for record, rows in of.items() for row in rows) for part, of in parts.items()
    }


CLAIMS: dict[str, tuple[Claim, ...]] = _claims(
    {
        "Part 1: pretext tasks": {
            "rotation_symmetry": [("a turn can be told only if the shape shows it", "asymmetric", "symmetric")]
        },
        "Part 2: contrastive losses, hard negatives, augmentation": {
            "circle_losses": [
                ("all pairs with a margin end less even than InfoNCE", "all pairs", "InfoNCE"),
                ("the triplet loss ends less even than InfoNCE", "triplet", "InfoNCE"),
                ("the N-pair loss ends less even than InfoNCE", "N-pair", "InfoNCE"),
            ],
            "effective_negatives": [("the higher the temperature, the more negatives count", "tau 1", "tau 0.02")],
            "false_negatives": [
                ("the lower the temperature, the more push hits the own class", "tau 0.05", "tau 0.5"),
                ("at temperature 0.5 it is still more than its share", "tau 0.5", "equal shares"),
            ],
            "hard_negatives": [
                ("HCL improves on SimCLR", "HCL", "SimCLR"),
                ("MoCHi improves on MoCo v2", "MoCHi", "MoCo v2"),
            ],
            "mixup_labels": [
                ("mixup helps where labels are few", "mixup", "plain"),
                ("CutMix helps where labels are few", "CutMix", "plain"),
            ],
            "colour_supervised": [
                ("strong colour hurts labels", "supervised, crop", "supervised, strong colour"),
                ("strong colour helps SimCLR", "SimCLR, strong colour", "SimCLR, crop"),
                (
                    "AutoAugment suits labels better than strong colour",
                    "supervised, AutoAugment",
                    "supervised, strong colour",
                ),
                ("strong colour suits SimCLR better than AutoAugment", "SimCLR, strong colour", "SimCLR, AutoAugment"),
            ],
        },
        "Part 3: SimCLR and MoCo": {
            "simclr_temperature": [
                ("a temperature can be too low", "tau 0.2", "tau 0.02"),
                ("a temperature can be too high", "tau 0.2", "tau 2"),
            ],
            "simclr_augmentation": [
                ("crops need colour jitter beside them", "crop and colour", "crop only"),
                ("colour jitter needs crops beside it", "crop and colour", "colour only"),
            ],
            "simclr_head": [
                ("h is better than z", "head, h", "head, z"),
                ("a head improves h", "head, h", "no head, h"),
            ],
            "moco_momentum": [
                ("the key encoder may not be a copy", "m 0.99", "m 0"),
                ("the key encoder may not stand nearly still", "m 0.99", "m 0.9999"),
                ("a queue is worth having beside the batch", "m 0.99", "no queue"),
            ],
            "batch_queue": [
                ("a larger batch is better", "batch 64, no queue", "batch 16, no queue"),
                ("a queue can replace a larger batch", "batch 16, queue 256", "batch 16, no queue"),
                ("a queue helps a larger batch, too", "batch 64, queue 256", "batch 64, no queue"),
            ],
        },
        "Part 4: SupCon, DenseCL, DiLo, LooC": {
            "supcon_in_out": [("the mean over positives belongs outside the logarithm", "L_out", "L_in")],
            "densecl_localisation": [("a loss on cells helps where places matter", "global and dense", "global")],
            "dilo_background": [("other backgrounds make it look at the object", "SimCLR with DiLo's views", "SimCLR")],
            "looc_rotation": [
                ("whoever is to ignore turns does not know them", "no turns: h", "turns: h"),
                ("nor does its embedding", "no turns: z", "turns: z"),
                ("LooC's h knows them", "LooC: h", "turns: h"),
                ("LooC's h knows turns better than its space indifferent to all", "LooC: h", "LooC: z_all"),
                ("the space that leaves turns out knows them better than that", "LooC: z_rotation", "LooC: z_all"),
            ],
        },
        "Part 5: BYOL, SimSiam, SwAV": {
            "simsiam_collapse": [
                ("SimSiam learns more than random weights know", "SimSiam, kNN", "untrained, kNN"),
                ("without stop-gradient it learns less", "SimSiam, kNN", "no stop-gradient, kNN"),
                ("without stop-gradient projections draw together", "SimSiam, spread", "no stop-gradient, spread"),
                ("without stop-gradient they keep to few directions", "SimSiam, rank", "no stop-gradient, rank"),
                ("without predictor it learns less", "SimSiam, kNN", "no predictor, kNN"),
                ("without predictor projections draw together", "SimSiam, spread", "no predictor, spread"),
                ("without predictor they keep to few directions", "SimSiam, rank", "no predictor, rank"),
            ],
            "byol_batch": [
                ("SimCLR needs many images at once", "SimCLR, 1/1", "SimCLR, 1/8"),
                ("SimCLR needs them more than BYOL does", ("SimCLR, 1/1", "SimCLR, 1/8"), ("BYOL, 1/1", "BYOL, 1/8")),
            ],
            "multi_crop": [
                ("small crops are worth their pixels", "2 x 24 + 3 x 16", "2 x 32"),
                ("small crops beside large ones help", "2 x 32 + 3 x 16", "2 x 32"),
            ],
        },
        "Part 6: ViT and DINO": {
            "dino_centering": [
                ("sharpening needs centering", "both", "sharpening only"),
                ("centering needs sharpening", "both", "centering only"),
                ("with neither, targets say less than with both", "both", "neither"),
            ],
            "dino_parts": [
                ("centering keeps prototypes in use", "centering, in use", "softmax, in use"),
                ("Sinkhorn keeps more prototypes in use than centering", "Sinkhorn, in use", "centering, in use"),
                ("momentum keeps prototypes in use", "centering, in use", "no momentum, in use"),
                ("targets say more with momentum", "centering, information", "no momentum, information"),
                ("features are better with momentum", "centering, kNN", "no momentum, kNN"),
            ],
            "patch_size": [
                ("smaller patches are better: 8 than 16", "patch 8, kNN", "patch 16, kNN"),
                ("smaller patches are better: 4 than 8", "patch 4, kNN", "patch 8, kNN"),
                ("smaller patches are slower: 8 than 16", "patch 16, speed", "patch 8, speed"),
                ("smaller patches are slower: 4 than 8", "patch 8, speed", "patch 4, speed"),
            ],
            "attention_objects": [
                ("DINO looks at objects more than labels teach", "DINO, scenes", "DeiT, scenes"),
                ("DINO does so on photographs, too", "DINO, photographs", "DeiT, photographs"),
                ("DINO looks at objects more than random weights do", "DINO, scenes", "untrained, scenes"),
                ("DINO does so on photographs, too (random weights)", "DINO, photographs", "untrained, photographs"),
            ],
        },
        "Part 7: BEiT and MAE": {
            "beit_masks": [
                ("blocks enclose more than single patches", "code, enclosed", "random, enclosed"),
                ("the paper's algorithm hides more than asked", "paper, hidden", "exact, hidden"),
                ("the paper's blocks stand upright", "paper, upright", "code, upright"),
            ],
            "mae_mask_ratio": [
                ("the more is hidden, the less can be copied", "copied, random 50 %", "copied, random 75 %"),
                ("at 75 % a trained MAE explains more than copying", "painted, random 75 %", "copied, random 75 %"),
                ("blocks are harder than scattered patches", "painted, random 75 %", "painted, block 75 %"),
                ("a grid is easier than scattered patches", "painted, grid 75 %", "painted, random 75 %"),
            ],
            "mae_mask_token": [
                ("an encoder without mask tokens is better: linear", "without, linear", "with, linear"),
                ("an encoder without mask tokens is better: kNN", "without, kNN", "with, kNN"),
            ],
            "mae_targets": [
                ("predicting pixels teaches classes: linear", "pixels, linear", "untrained, linear"),
                ("predicting pixels teaches classes: kNN", "pixels, kNN", "untrained, kNN"),
                ("standardised pixels are better: linear", "normalized, linear", "pixels, linear"),
                ("standardised pixels are better: kNN", "normalized, kNN", "pixels, kNN"),
                ("standardised pixels are better than a codebook: linear", "normalized, linear", "codebook, linear"),
                ("HOG is better than pixels (MaskFeat): linear", "hog, linear", "pixels, linear"),
                ("HOG is better than pixels (MaskFeat): kNN", "hog, kNN", "pixels, kNN"),
            ],
            "mae_decoder_depth": [
                ("a deep decoder helps a linear probe of MAE", "depth 4, linear", "depth 1, linear"),
                (
                    "a deep decoder helps a linear probe more than fine-tuning",
                    ("depth 4, linear", "depth 1, linear"),
                    ("depth 4, fine-tuned", "depth 1, fine-tuned"),
                ),
            ],
            "mae_augmentation": [
                ("SimCLR needs colour jitter beside crops", "SimCLR, crop and colour", "SimCLR, crop"),
                ("MAE is better with crops alone than with colour jitter", "MAE, crop", "MAE, crop and colour"),
                (
                    "colour jitter helps SimCLR more than MAE",
                    ("SimCLR, crop and colour", "SimCLR, crop"),
                    ("MAE, crop and colour", "MAE, crop"),
                ),
            ],
            "probe_ranking": [
                ("a linear probe prefers the contrastive method to MAE", "SimCLR, linear", "MAE, linear"),
                ("fine-tuning prefers MAE to the contrastive method", "MAE, fine-tuned", "SimCLR, fine-tuned"),
                (
                    "fine-tuning speaks for MAE more than the linear probe does",
                    ("MAE, fine-tuned", "SimCLR, fine-tuned"),
                    ("MAE, linear", "SimCLR, linear"),
                ),
            ],
        },
        "Part 8: SimMIM, UM-MAE, MaskFeat": {
            "simmim_ummae": [
                ("UM-MAE takes less time than SimMIM", "SimMIM, time", "UM-MAE, time"),
                ("UM-MAE takes less memory than SimMIM", "SimMIM, memory", "UM-MAE, memory"),
            ],
            "targets_lighting": [
                ("under changing light HOG is a better target than pixels: linear", "hog, linear", "pixels, linear"),
                ("under changing light HOG is a better target than pixels: kNN", "hog, kNN", "pixels, kNN"),
                ("standardised pixels are better than pixels, too: linear", "normalized, linear", "pixels, linear"),
                ("standardised pixels are better than pixels, too: kNN", "normalized, kNN", "pixels, kNN"),
            ],
        },
        "Part 9: iBOT and DINOv2": {
            "ibot_dense": [
                ("hidden patches teach what is where", "iBOT, mIoU", "DINO, mIoU"),
                ("hidden patches teach what an image shows", "iBOT, kNN", "DINO, kNN"),
                ("DINO's patches know more than random ones", "DINO, mIoU", "untrained, mIoU"),
            ],
            "koleo_spread": [
                ("KoLeo spreads features", "KoLeo 0.1, nearest", "KoLeo 0, nearest"),
                ("with KoLeo more images are found again", "KoLeo 0.1, found", "KoLeo 0, found"),
                ("with KoLeo retrieval of classes is better", "KoLeo 0.1, mAP", "KoLeo 0, mAP"),
            ],
            "curated_pool": [
                ("curated images teach more than all of the pool", "curated", "pool"),
                ("curated images teach more than as many at random", "curated", "random"),
                ("the clean images alone teach more than the polluted pool", "all sketches", "pool"),
            ],
        },
        "Part 10: CLIP and SigLIP": {
            "modality_gap": [
                ("a low temperature leaves images and texts apart", "tau 0.01", "tau 0.07"),
                ("the higher the temperature, the nearer they come", "tau 0.07", "tau 0.5"),
            ],
            "siglip_bias": [("a negative bias gives positives their share", "b = -10", "b = 0")],
            "clip_batch": [
                ("a larger batch helps CLIP", "CLIP, 128", "CLIP, 8"),
                ("a larger batch helps SigLIP", "SigLIP, 128", "SigLIP, 8"),
                ("at a small batch SigLIP is better", "SigLIP, 8", "CLIP, 8"),
                ("CLIP gains more by a large one", ("CLIP, 128", "CLIP, 8"), ("SigLIP, 128", "SigLIP, 8")),
            ],
            "clip_prompts": [
                ("an ensemble beats the average prompt", "all 9", "one of 9, mean"),
                ("an ensemble beats the best prompt", "all 9", "one of 9, best"),
            ],
            "clip_kshot": [
                ("words are worth more than one labelled image", "words", "1-shot"),
                ("words are worth more than four labelled images", "words", "4-shot"),
                ("sixteen labelled images are worth more than words", "16-shot", "words"),
            ],
            "clip_relations": [
                ("another object is noticed more than another order", "another object", "order exchanged"),
                ("exchanged colours are noticed more than another order", "colours exchanged", "order exchanged"),
            ],
            "clip_shift": [
                ("words keep more than expected: sketch", "sketch: CLIP words", "sketch: CLIP words, expected"),
                ("words keep more than expected: inverted", "inverted: CLIP words", "inverted: CLIP words, expected"),
                ("words keep more than expected: noise", "noise: CLIP words", "noise: CLIP words, expected"),
            ],
            "clip_shift_words": [
                ("words keep more than a probe of their accuracy: sketch", "sketch: words", "sketch: expected"),
                ("words keep more than a probe of their accuracy: inverted", "inverted: words", "inverted: expected"),
                ("words keep more than a probe of their accuracy: noise", "noise: words", "noise: expected"),
            ],
            "clip_typographic": [
                ("who reads believes a lying label", "reads: true word", "reads: lying word"),
                (
                    "it costs more than what a label hides explains",
                    ("reads: true word", "reads: lying word"),
                    ("cannot read: true word", "cannot read: lying word"),
                ),
                ("a learned map undoes it", "learned map: lying word", "reads: lying word"),
                ("projecting words out undoes it", "directions out: lying word", "reads: lying word"),
            ],
        },
        "Part 11: SAM": {
            "sam_ambiguity": [
                ("three masks answer more than one", "three, minimum", "one mask"),
                ("three masks need the best of them to learn, not all alike", "three, minimum", "three, mean"),
                ("the others should learn a little, too", "three, minimum + a little mean", "three, minimum"),
            ],
            "sam_boundaries": [
                ("IoU hardly sees a wrong rim, boundary IoU does", "smooth circle: IoU", "smooth circle: boundary")
            ],
            "sam_clicks": [
                ("three answers to a click contain a better one: wholes", "whole: best of three", "whole: 1"),
                ("three answers to a click contain a better one: emblems", "emblem: best of three", "emblem: 1"),
                ("three answers to a click contain a better one: dots", "dot: best of three", "dot: 1"),
                ("nine clicks are better than one: wholes", "whole: 9", "whole: 1"),
                ("nine clicks are better than one: emblems", "emblem: 9", "emblem: 1"),
                ("nine clicks are better than one: dots", "dot: 9", "dot: 1"),
                ("a box is better than a click: wholes", "whole: box", "whole: 1"),
            ],
            "sam_everything": [
                ("a denser grid finds more wholes", "32: wholes found", "2: wholes found"),
                ("a denser grid finds more emblems", "32: emblems found", "2: emblems found"),
                ("a denser grid costs more", "32: time", "2: time"),
            ],
            "data_engine": [
                (
                    "retrained on what it collected, SAM does better on unseen scenes",
                    "retrained, 4 semi-automatic: unseen",
                    "retrained, 1 assisted: unseen",
                ),
                (
                    "retrained, it makes the annotator quicker",
                    "left alone, 4 semi-automatic: minutes",
                    "retrained, 4 semi-automatic: minutes",
                ),
                (
                    "retrained, it makes better masks in the fourth round",
                    "retrained, 4 semi-automatic: IoU",
                    "left alone, 4 semi-automatic: IoU",
                ),
                (
                    "retrained, it masks more objects without an annotator",
                    "retrained, 5 automatic: masks",
                    "left alone, 5 automatic: masks",
                ),
            ],
        },
        "Part 12: SAM's family": {
            "fastsam_prompts": [
                ("SAM pays for every prompt", "SAM, 200 prompts", "SAM, 1 prompts"),
                (
                    "SAM pays more for prompts than FastSAM does",
                    ("SAM, 200 prompts", "SAM, 1 prompts"),
                    ("FastSAM, 200 prompts", "FastSAM, 1 prompts"),
                ),
            ],
            "mobile_distillation": [
                ("copying embeddings learns faster", "decoupled", "coupled, as many seconds"),
                ("copying embeddings learns more than random weights know", "decoupled", "untrained encoder"),
            ],
            "hq_boundaries": [
                ("an HQ token sharpens outlines", "HQ-SAM: boundary IoU", "SAM: boundary IoU"),
                (
                    "it gains more on outlines than on areas",
                    ("HQ-SAM: boundary IoU", "SAM: boundary IoU"),
                    ("HQ-SAM: IoU", "SAM: IoU"),
                ),
            ],
            "grounded_errors": [
                (
                    "the first error of a box costs less than the next",
                    ("box off by 10%", "box off by 30%"),
                    ("box off by 0%", "box off by 10%"),
                ),
                (
                    "a box around something else is not mended",
                    "words: good mask, where the box was right",
                    "words: good mask, where it was wrong",
                ),
            ],
        },
        "Part 13: video": {
            "video_masks": [
                ("a neighbour in time gives random masks away", "random, speed 1", "tube, speed 1"),
                ("a neighbour in time gives masked frames away", "frame, speed 1", "tube, speed 1"),
                ("it gives cubes away less than random masks", "random, speed 1", "cube, speed 1"),
                ("the slower the motion, the more: random", "random, speed 1", "random, speed 8"),
                ("the slower the motion, the more: frames", "frame, speed 1", "frame, speed 8"),
                ("the slower the motion, the more: cubes", "cube, speed 1", "cube, speed 8"),
                (
                    "motion matters for random masks more than for tubes",
                    ("random, speed 1", "random, speed 8"),
                    ("tube, speed 1", "tube, speed 8"),
                ),
            ]
        },
    }
)

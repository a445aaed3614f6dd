"""What a table of numbers does not say: what else was tried, and what limits an experiment."""

NOTES: dict[str, str] = {
    "attention_objects": "Both networks have seen sketches only, and nothing of that carries over to photographs: "
    "there no network looks at objects more than random weights do. On sketches DINO is ahead of labels on four of "
    "five seeds.",
    "batch_queue": "One setting was tried. All arms take the same number of steps, so the larger batch has also "
    "seen four times as many images: its gain is not one of negatives alone. With 16 images nothing is learned, "
    "queue or not.",
    "byol_batch": "With BYOL's better momentum for so few steps, 0.9. Both methods lose a little by small parts, "
    "and which loses more is open.",
    "colour_supervised": "With colours that follow from the class in 50 % of the scenes, one seed: SimCLR 0.35 to "
    "0.61, labels 0.78 to 0.84. Trainings with labels and strong colour differ widely from seed to seed.",
    "curated_pool": "The retrieval made no mistake here: drawn sketches and coloured scenes lie far apart in any "
    "features.",
    "densecl_localisation": "One setting was tried in full; shorter trainings (150 steps of 32 images) left both "
    "arms where the random network is. At these lengths the dense loss moves the maps no further than the global "
    "one.",
    "dilo_background": "Tried before on one seed: MoCo v2, on which the paper builds, 150 steps of 32 images, "
    "where both arms stayed at the untrained network, hence SimCLR and more steps here; and other backgrounds for 80 "
    "% of the views, which hurt (0.47 against 0.54 after 200 steps).",
    "dino_parts": "By kNN no arm knows much more than chance (a tenth) after so few steps.",
    "grounded_errors": "Boxes found by words are hardly ever wrong, so what follows from wrong ones rests on few "
    "objects a seed: hence the wide interval.",
    "hard_negatives": "One setting was tried: MoCHi's share of hard negatives and HCL's weights are the presets'.",
    "hq_boundaries": "Over wholes and emblems; RESULTS.md asks for wholes alone, at another size.",
    "looc_rotation": "Shorter trainings (150 steps of 32 images) leave all probes where the random network is.",
    "mixup_labels": "With 1,000 labels and mixup's alpha at 0.8, one seed, mixup hurt in 300 steps.",
    "multi_crop": "One setting of small crops was tried, with half the channels and 300 steps. Whole sketches are "
    "what is asked at the end, and outlines are what tells the classes: a small crop shows little of them.",
    "patch_size": "On the one seed that was given 600 steps, patches of 4 were ahead of those of 8 (0.65, 0.79, 0.87): "
    "more tokens need more steps.",
    "probe_ranking": "Both runs are far shorter than the papers'. On the one seed where it was tried, fine-tuning "
    "from random weights was above fine-tuning from MAE's and level with SimCLR's: after so short a run neither is a "
    "better start, so the order by fine-tuning says little about what pre-training is worth there.",
    "simclr_augmentation": "In `Shapes` only outlines tell the classes, and crops cut them off: whole images with "
    "jittered colours do best, which is why the preset hardly crops. The shortcut of colour shows all the more.",
    "simsiam_collapse": "After so few steps no network has collapsed to a point; what goes first, and shows most "
    "clearly, is the rank: the projections keep to few directions.",
    "supcon_in_out": "After so few steps L_in knows no more than the untrained network.",
    "targets_lighting": "After so few steps no target leaves random weights behind; one setting was tried.",
}

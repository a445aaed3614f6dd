"""Every function that parts 1 to 4 of the course ask students to write exists in the library under the same name."""

import inspect
from importlib import import_module

import pytest

# module, function, names of its leading arguments. Defaults and further keywords are the library's.
FUNCTIONS = """
data.pretext            rotation_batch          x
data.pretext            jigsaw_permutations     n_perm n_tiles seed
data.pretext            tile_and_shuffle        x perm grid gap
data.pretext            context_pair            x cy cx patch gap label
data.lab                color_soft_encode       ab bins k sigma
data.lab                annealed_mean           logits bins T
losses                  inpaint_l2              pred target mask overlap_w
losses                  chopra_contrastive      d same margin
losses                  batch_hard_triplet      z y margin
losses                  lifted_structured       z y margin
losses                  n_pair                  a p l2
losses                  info_nce                q k negs tau
losses                  soft_nearest_neighbor   z y T
losses                  hcl_reweighted          pos neg tau beta tau_plus
losses                  mochi_synthesize        q negs n_hard s1 s2 rng
losses                  mi_lower_bound          scores
data.mixing             mixup_cutmix            x y lam perm mode
data.views              two_views               x t
losses                  nt_xent                 z1 z2 tau
train.optim             ema_update              online target m buffers
losses                  queue_enqueue           queue ptr keys
losses                  moco_logits             q k queue tau
losses                  shuffle_bn              x generator
losses                  symmetric_moco_v3       q1 q2 k1 k2 tau
losses                  supcon_out              z y tau
losses                  supcon_in               z y tau
losses                  densecl_match           f1 f2
losses                  dense_info_nce          g1 g2 idx queue tau
data.mixing             dilo_paste              fg sal bg thr
losses                  looc_targets            views n_aug
segment.prompts         fourier_point_embed     xy size G
segment.losses          focal_dice              logits gt
segment.losses          min_over_masks          logits gt iou_pred
segment.masks           stability_score         logits threshold delta
segment.automatic       amg_postprocess         model answers crop image limits
segment.rle             mask_to_rle             mask
segment.tiny_vit        decoupled_distill       student teacher images
segment.fastsam         proto_masks             coef proto boxes size
segment.fastsam         select_by_prompt        masks points labels boxes scores size
segment.hq              hq_fuse                 weights mask_features late early sam_logits
segment.grounded        ground_boxes            logits boxes tokens size
segment.matting         mask_to_trimap          mask radius
segment.matting         alpha_composite         alpha foreground background
segment.masks           boundary_iou            a b d
"""


@pytest.mark.parametrize("row", FUNCTIONS.strip().splitlines(), ids=lambda row: row.split()[1])
def test_the_function_exists_with_this_signature(row: str) -> None:
    module, name, *arguments = row.split()
    function = getattr(import_module(f"sslcourse.{module}"), name)
    parameters = list(inspect.signature(function).parameters.values())
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == arguments
    required = {p.name for p in parameters if p.default is p.empty}
    assert required <= set(arguments)
    assert function.__doc__

"""Losses: pure functions, tensors in, scalar out. Each file opens with its equation and its source."""

from sslcourse.losses.clip import (
    caption_loss,
    clamp_log_scale,
    clip_distillation,
    clip_loss,
    clip_loss_local,
    coca_loss,
    gather_negatives,
    siglip_loss,
    siglip_loss_local,
)
from sslcourse.losses.consistency import (
    fixmatch_consistency,
    guess_labels,
    mixmatch_loss,
    pseudo_label_loss,
    sharpen,
    uda_consistency,
)
from sslcourse.losses.dense import dense_info_nce, densecl_match, match_geometric, match_random
from sslcourse.losses.infonce import cosine_similarity_matrix, info_nce, nt_xent, nt_xent_loop, nt_xent_masks
from sslcourse.losses.looc import looc_draws, looc_loss, looc_targets
from sslcourse.losses.moco import moco_logits, queue_enqueue, shuffle_bn, symmetric_moco_v3
from sslcourse.losses.nce import mi_lower_bound, nce
from sslcourse.losses.negatives import (
    MoCHiDraws,
    hcl_reweighted,
    in_batch_similarities,
    mochi_draws,
    mochi_mix,
    mochi_synthesize,
)
from sslcourse.losses.pairwise import (
    batch_hard_triplet,
    chopra_contrastive,
    lifted_generalized,
    lifted_structured,
    margin_pairs,
    n_pair,
    pairwise_distance,
    soft_nearest_neighbor,
    triplet,
)
from sslcourse.losses.reconstruction import denoising_loss, inpaint_l2
from sslcourse.losses.supcon import nt_xent_pairs, supcon_in, supcon_out

__all__ = [
    "MoCHiDraws",
    "batch_hard_triplet",
    "caption_loss",
    "chopra_contrastive",
    "clamp_log_scale",
    "clip_distillation",
    "clip_loss",
    "clip_loss_local",
    "coca_loss",
    "cosine_similarity_matrix",
    "denoising_loss",
    "dense_info_nce",
    "densecl_match",
    "fixmatch_consistency",
    "gather_negatives",
    "guess_labels",
    "hcl_reweighted",
    "in_batch_similarities",
    "info_nce",
    "inpaint_l2",
    "lifted_generalized",
    "lifted_structured",
    "looc_draws",
    "looc_loss",
    "looc_targets",
    "margin_pairs",
    "match_geometric",
    "match_random",
    "mi_lower_bound",
    "mixmatch_loss",
    "mochi_draws",
    "mochi_mix",
    "mochi_synthesize",
    "moco_logits",
    "n_pair",
    "nce",
    "nt_xent",
    "nt_xent_loop",
    "nt_xent_masks",
    "nt_xent_pairs",
    "pairwise_distance",
    "pseudo_label_loss",
    "queue_enqueue",
    "sharpen",
    "shuffle_bn",
    "siglip_loss",
    "siglip_loss_local",
    "soft_nearest_neighbor",
    "supcon_in",
    "supcon_out",
    "symmetric_moco_v3",
    "triplet",
    "uda_consistency",
]

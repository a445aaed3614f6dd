"""Every function that the course asks students to write exists in the library under the same name."""

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
nn.patches              patchify                x p
nn.patches              unpatchify              tokens p h w
nn.patches              interpolate_pos         pos h w
nn.vit                  attention               x wqkv n_heads return_map
losses.dino             dino_loss               student teacher center ts tt
losses.dino             update_center           center t m
nn.multicrop            multicrop_forward       backbone head crops
evaluate.attention      attn_to_mask            attention grid mass
segment.prompts         fourier_point_embed     xy size G
segment.losses          focal_dice              logits gt
segment.losses          min_over_masks          logits gt iou_pred
segment.masks           stability_score         logits threshold delta
segment.automatic       amg_postprocess         boxes iou stability crop image min_iou min_stability max_overlap
segment.rle             mask_to_rle             mask
segment.tiny_vit        decoupled_distill       student teacher images
segment.fastsam         proto_masks             coef proto boxes size
segment.fastsam         select_by_prompt        masks points labels boxes scores size
segment.hq              hq_fuse                 weights mask_features late early sam_logits
segment.grounded        ground_boxes            logits boxes tokens size
segment.matting         mask_to_trimap          mask radius
segment.matting         alpha_composite         alpha foreground background
segment.masks           boundary_iou            a b d
losses.reconstruction   denoising_loss          pred clean damaged emphasis
losses.nce              nce                     pos neg log_noise_pos log_noise_neg
losses.consistency      uda_consistency         original augmented tau threshold
losses.simsiam          simsiam_loss            p1 p2 z1 z2
losses.byol             byol_loss               p1 p2 z1 z2
train.optim             cosine_ema_schedule     step total base
losses.swav             sinkhorn                scores eps n_iter
losses.swav             swav_loss               scores codes tau
losses.deepcluster      kmeans_pseudolabels     f k iters seed
evaluate.video          knn_copy                similarity labels k T
nn.patches              random_masking          x ratio noise
nn.patches              decoder_unshuffle       x_vis mask_token ids_restore
losses.masked           mae_loss                pred patches mask norm_pix
data.masks              blockwise_mask          h w n_mask min max aspect rng
losses.masked           beit_loss               logits tokens mask
losses.dvae             gumbel_dvae_step        logits codebook tau gumbel hard
data.masks              simmim_mask             img mask_patch model_patch ratio rng
losses.masked           simmim_l1               pred target mask
data.masks              uniform_sampling        h w rng
nn.patches              secondary_mask          x_vis mask_token ratio noise
data.hog                hog_features            gray bins cell
losses.masked           maskfeat_loss           pred target mask
losses.ibot             ibot_patch_loss         s_patch t_patch mask center ts tt
losses.koleo            koleo                   x
losses.dino             sinkhorn_centering      teacher tt n_iter
data.mask_batches       random_block_mask_batch n h w rng
data.curate             retrieval_dedup         emb thr
data.curate             curate_by_retrieval     curated pool k per_cluster
losses.clip             clip_loss               img txt log_scale
losses.clip             siglip_loss             img txt t b
evaluate.zeroshot       zero_shot_weights       encode classes templates
evaluate.zeroshot       prompt_logits           img W scale
evaluate.robustness     effective_robustness    acc_id acc_ood fit
losses.clip             gather_negatives        parts rank
evaluate.zeroshot       clip_retrieval_recall   img txt gt_lists k
nn.patches              tubelet_embed           x t p weight bias
data.masks              tube_mask               t h w ratio rng
data.masks              cube_mask               t h w ratio rng
data.masks              umt_semantic_mask       attn ratio rng
losses.masked           umt_align_loss          student teacher
data.clips              sample_clip             n_frames clip stride mode rng
evaluate.views          video_views_eval        logits clips crops
evaluate.knn            knn_classify            bank labels q k T n_cls
evaluate.linear         linear_probe_features   backbone train test
evaluate.fewshot        stratified_subset       labels fraction seed
evaluate.retrieval      mean_average_precision  scores relevant junk
evaluate.robustness     mce                     errors reference
evaluate.segmentation   miou                    pred target n_classes ignore
evaluate.result         bootstrap_ci            a b
evaluate.clustering     cluster_accuracy        pred truth
"""


@pytest.mark.parametrize("row", FUNCTIONS.strip().splitlines(), ids=lambda row: row.split()[1])
def test_the_function_exists_with_this_signature(row: str) -> None:
    module, name, *arguments = row.split()
    function = getattr(import_module(f"sslcourse.{module}"), name)
    parameters = list(inspect.signature(function).parameters.values())
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == arguments
    required = {p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD}
    assert required <= {*arguments, "generator"}  # what is drawn is drawn from a generator of the caller
    assert function.__doc__

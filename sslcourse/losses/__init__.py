"""Losses: pure functions, tensors in, scalar out. Each file opens with its equation and its source."""

from sslcourse.losses.infonce import cosine_similarity_matrix, info_nce, nt_xent, nt_xent_loop, nt_xent_masks

__all__ = ["cosine_similarity_matrix", "info_nce", "nt_xent", "nt_xent_loop", "nt_xent_masks"]

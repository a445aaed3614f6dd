"""Known-wrong and other right answers of lab 6, the Vision Transformer."""

from autograder.checks.mutants import edits
from autograder.rubric import Right

PATCHIFY = edits(
    "patchify",
    """
channels_first: inside a patch the channels come first; they come last, so that a pixel's numbers stand together.
-     x = x.permute(0, 2, 4, 3, 5, 1)
+     x = x.permute(0, 2, 4, 1, 3, 5)

columns_first: inside a patch you go down the columns; pixels are read row by row.
-     x = x.permute(0, 2, 4, 3, 5, 1)
+     x = x.permute(0, 2, 4, 5, 3, 1)

patches_by_column: the patches go down the columns of the grid; reading order is left to right, then down.
-     x = x.permute(0, 2, 4, 3, 5, 1)
+     x = x.permute(0, 4, 2, 3, 5, 1)

not_permuted: the axes are split and merged, but never permuted: a patch holds pieces of a row.
-     x = x.permute(0, 2, 4, 3, 5, 1)

sides_swapped: height and width are swapped, which only shows where they differ.
- x.reshape(b, c, height // p, p, width // p, p)
+ x.reshape(b, c, width // p, p, height // p, p)

within_before_grid: you split the rows as (p, H/p); neighbouring rows belong to one patch, so it is (H/p, p).
- x.reshape(b, c, height // p, p, width // p, p)
+ x.reshape(b, c, p, height // p, p, width // p).permute(0, 1, 3, 2, 5, 4)

one_patch_too_flat: pixels and channels of a patch have to be one axis: (B, N, p*p*C).
-     return x.reshape(b, -1, p * p * c)
+     return x.reshape(b, -1, p * p, c)

in_place: the caller's image is changed in place.
-     b, c, height, width = x.shape
+     b, c, height, width = x.shape
+     x.data.add_(0.0).mul_(1 + 1e-3).div_(1 + 2e-3)
""",
)

UNPATCHIFY = edits(
    "unpatchify",
    """
channels_first: you read the channels first inside a patch; in `patchify` they are last.
- tokens.reshape(b, h, w, p, p, values // (p * p))
-     x = x.permute(0, 5, 1, 3, 2, 4)
+ tokens.reshape(b, h, w, values // (p * p), p, p)
+     x = x.permute(0, 3, 1, 4, 2, 5)

columns_first: inside a patch rows and columns of pixels are swapped.
-     x = x.permute(0, 5, 1, 3, 2, 4)
+     x = x.permute(0, 5, 1, 4, 2, 3)

grid_swapped: rows and columns of patches are swapped, which only shows where h and w differ.
- tokens.reshape(b, h, w, p, p
+ tokens.reshape(b, w, h, p, p

patches_by_column: the patches are placed down the columns of the grid; they come in reading order.
- tokens.reshape(b, h, w, p, p, values // (p * p))
+ tokens.reshape(b, w, h, p, p, values // (p * p)).transpose(1, 2)

not_permuted: the axes are split and merged, but never permuted.
-     x = x.permute(0, 5, 1, 3, 2, 4)

square: you assume a square image: the grid is h x w.
-     return x.reshape(b, -1, h * p, w * p)
+     side = math.isqrt(h * w) * p
+     return x.reshape(b, -1, side, h * w * p * p // side)

in_place: the caller's tokens are changed in place.
-     b, _, values = tokens.shape
+     b, _, values = tokens.shape
+     tokens.data.mul_(1 + 1e-3).div_(1 + 2e-3)
""",
)

INTERPOLATE_POS = edits(
    "interpolate_pos",
    """
class_token_too: CLS is mixed with the places; it has none and stays as it is.
-     cls, patches = pos[:, :1], pos[:, 1:]
+     cls, patches = pos.mean(dim=1, keepdim=True), pos[:, 1:]

class_token_as_place: the grid starts with CLS: it is the first embedding, the places are the rest.
-     cls, patches = pos[:, :1], pos[:, 1:]
+     cls, patches = pos[:, :1], pos[:, :-1]

class_token_dropped: CLS is lost: put it in front again.
-     return torch.cat([cls, patches], dim=1)
+     return patches

class_token_last: CLS comes first, you put it last.
- torch.cat([cls, patches], dim=1)
+ torch.cat([patches, cls], dim=1)

square: you make a square grid; h and w may differ.
-     grid = F.interpolate(grid, size=(h, w), mode="bicubic")
-     patches = grid.permute(0, 2, 3, 1).reshape(1, h * w, -1)
+     side = math.isqrt(h * w)
+     grid = F.interpolate(grid, size=(side, side), mode="bicubic")
+     patches = grid.permute(0, 2, 3, 1).reshape(1, side * side, -1)

grid_transposed: rows and columns of the new grid are swapped: size=(h, w).
- size=(h, w)
+ size=(w, h)

read_transposed: the grid is transposed before it is resized: (1, n, n, D) -> (1, D, n, n) is permute(0, 3, 1, 2).
-     grid = patches.reshape(1, n, n, -1).permute(0, 3, 1, 2)
+     grid = patches.reshape(1, n, n, -1).permute(0, 3, 2, 1)

written_transposed: the places come out column by column: back to (1, h, w, D) is permute(0, 2, 3, 1).
- grid.permute(0, 2, 3, 1).reshape(1, h * w, -1)
+ grid.permute(0, 3, 2, 1).reshape(1, h * w, -1)

align_corners: align_corners=True stretches the grid to its corners; leave it out.
- mode="bicubic"
+ mode="bicubic", align_corners=True

bilinear: this is bilinear; position embeddings are resized bicubically.
- mode="bicubic"
+ mode="bilinear"

nearest: places are copied, not interpolated: mode='bicubic'.
- mode="bicubic"
+ mode="nearest"

antialiased: antialias changes the smaller grids; leave it out.
- mode="bicubic"
+ mode="bicubic", antialias=True

reshaped_not_permuted: a reshape from (N, D) to (D, n, n) mixes places and numbers: reshape to (n, n, D), then permute.
- patches.reshape(1, n, n, -1).permute(0, 3, 1, 2)
+ patches.reshape(1, -1, n, n)

dtype_lost: float32 comes back whatever pos was: keep its dtype.
-     return torch.cat([cls, patches], dim=1)
+     return torch.cat([cls, patches], dim=1).float()

detached: positions are learned, also through the interpolation: no detach().
-     cls, patches = pos[:, :1], pos[:, 1:]
+     cls, patches = pos[:, :1], pos[:, 1:].detach()
""",
)

ATTENTION = edits(
    "attention",
    """
scale_of_d: you divide by the square root of D; each head has only d = D / heads numbers.
- math.sqrt(q.shape[-1])
+ math.sqrt(x.shape[-1])

no_scale: the logits are not divided by the square root of d.
-  / math.sqrt(q.shape[-1])
+

scale_not_root: you divide by d; it is the square root of d.
- math.sqrt(q.shape[-1])
+ q.shape[-1]

scale_of_n: you divide by the square root of the number of tokens; it is the width of a head.
- math.sqrt(q.shape[-1])
+ math.sqrt(n)

softmax_over_queries: softmax over the queries: columns of your map sum to 1, rows should.
- logits.softmax(dim=-1)
+ logits.softmax(dim=-2)

softmax_over_heads: softmax over the heads; it runs over the keys, the last axis.
- logits.softmax(dim=-1)
+ logits.softmax(dim=1)

heads_mixed_in: the axes of heads and numbers are swapped: head 0 owns the first d numbers, not every n-th.
-     qkv = (x @ wqkv.T).reshape(b, n, 3, n_heads, -1)
-     q, k, v = qkv.permute(2, 0, 3, 1, 4)
+     q, k, v = (x @ wqkv.T).reshape(b, n, 3, -1, n_heads).permute(2, 0, 4, 1, 3)

heads_before_qkv: the rows of wqkv are all queries, then all keys, then all values; you read them head by head.
-     qkv = (x @ wqkv.T).reshape(b, n, 3, n_heads, -1)
-     q, k, v = qkv.permute(2, 0, 3, 1, 4)
+     q, k, v = (x @ wqkv.T).reshape(b, n, n_heads, 3, -1).permute(3, 0, 2, 1, 4)

kqv: queries and keys are swapped: the first D rows of wqkv make queries.
- q, k, v = qkv
+ k, q, v = qkv

merged_wrongly: the heads are merged without transposing: tokens and heads get mixed up.
- (weights @ v).transpose(1, 2).reshape(b, n, -1)
+ (weights @ v).reshape(b, n, -1)

merged_interleaved: the heads are interleaved; they should stand side by side, head 0 first.
- (weights @ v).transpose(1, 2).reshape(b, n, -1)
+ (weights @ v).permute(0, 2, 3, 1).reshape(b, n, -1)

map_transposed: the map is transposed before it meets the values: row i of it mixes the values for token i.
-     out = (weights @ v)
+     out = (weights.transpose(-2, -1) @ v)

values_are_keys: you mix keys; the output mixes values.
- weights @ v)
+ weights @ k)

weight_not_transposed: wqkv has shape (3D, D) and is used as x @ wqkv.T.
- (x @ wqkv.T)
+ (x @ wqkv.reshape(x.shape[-1], -1))

map_is_logits: the map that you return is before the softmax.
- return (out, weights) if
+ return (out, logits) if

map_averaged: the map is averaged over heads; return each head's.
- return (out, weights) if
+ return (out, weights.mean(dim=1)) if

always_both: the map is returned although nobody asked: only with return_map=True.
-     return (out, weights) if return_map else out
+     return out, weights

detached: a detach() keeps the gradient from queries and keys.
-     weights = logits.softmax(dim=-1)
+     weights = logits.softmax(dim=-1).detach()

overflow: exp of a large logit overflows to inf / inf: let softmax do it.
-     weights = logits.softmax(dim=-1)
+     weights = logits.exp() / logits.exp().sum(dim=-1, keepdim=True)
""",
)

RIGHT = [
    Right(
        "patchify",
        "loop",
        """
def patchify(x, p):
    b, c, height, width = x.shape
    patches = []
    for top in range(0, height, p):
        for left in range(0, width, p):
            patch = x[:, :, top : top + p, left : left + p]
            patches.append(patch.permute(0, 2, 3, 1).reshape(b, -1))
    return torch.stack(patches, dim=1)
""",
    ),
    Right(
        "patchify",
        "unfold",
        """
def patchify(x, p):
    b, c = x.shape[:2]
    columns = F.unfold(x, p, stride=p)
    return columns.reshape(b, c, p * p, -1).permute(0, 3, 2, 1).reshape(b, -1, p * p * c)
""",
    ),
    Right(
        "patchify",
        "einsum",
        """
def patchify(x, p):
    b, c, height, width = x.shape
    x = torch.einsum("bchpwq->bhwpqc", x.reshape(b, c, height // p, p, width // p, p))
    return x.flatten(3).flatten(1, 2)
""",
    ),
    Right(
        "unpatchify",
        "loop",
        """
def unpatchify(tokens, p, h, w):
    rows = []
    for i in range(h):
        row = [tokens[:, i * w + j].reshape(len(tokens), p, p, -1).permute(0, 3, 1, 2) for j in range(w)]
        rows.append(torch.cat(row, dim=3))
    return torch.cat(rows, dim=2)
""",
    ),
    Right(
        "unpatchify",
        "pixel_shuffle",
        """
def unpatchify(tokens, p, h, w):
    b, n, values = tokens.shape
    channels_first = tokens.reshape(b, n, p * p, -1).transpose(2, 3).reshape(b, n, values)
    return F.pixel_shuffle(channels_first.transpose(1, 2).reshape(b, values, h, w), p)
""",
    ),
    Right(
        "interpolate_pos",
        "in_float32",
        """
def interpolate_pos(pos, h, w):
    n = round((pos.shape[1] - 1) ** 0.5)
    if (n, n) == (h, w):
        return pos
    places = pos[0, 1:].T.reshape(1, -1, n, n)
    places = F.interpolate(places.float(), (h, w), mode="bicubic", align_corners=False).to(pos.dtype)
    return torch.cat([pos[0, :1], places[0].flatten(1).T])[None]
""",
    ),
    Right(
        "interpolate_pos",
        "transposed_views",
        """
def interpolate_pos(pos, h, w):
    grid = pos[:, 1:].transpose(1, 2)
    side = int(grid.shape[2] ** 0.5 + 0.5)
    out = F.interpolate(grid.unflatten(2, (side, side)), size=(h, w), mode="bicubic")
    return torch.cat((pos[:, 0:1], out.flatten(2).transpose(1, 2)), 1)
""",
    ),
    Right(
        "attention",
        "loop_over_heads",
        """
def attention(x, wqkv, n_heads, return_map=False):
    q, k, v = (x @ wqkv.T).chunk(3, dim=-1)
    d = q.shape[-1] // n_heads
    outs, maps = [], []
    for i in range(n_heads):
        part = slice(i * d, (i + 1) * d)
        look = torch.softmax(q[..., part] @ k[..., part].transpose(1, 2) * d**-0.5, dim=2)
        maps.append(look)
        outs.append(look @ v[..., part])
    out = torch.cat(outs, dim=2)
    return (out, torch.stack(maps, dim=1)) if return_map else out
""",
    ),
    Right(
        "attention",
        "einsum",
        """
def attention(x, wqkv, n_heads, return_map=False):
    b, n, dim = x.shape
    q, k, v = F.linear(x, wqkv).view(b, n, 3, n_heads, dim // n_heads).unbind(2)
    look = torch.einsum("bqhd,bkhd->bhqk", q * (dim // n_heads) ** -0.5, k)
    look = (look - look.amax(-1, keepdim=True)).exp()
    look = look / look.sum(-1, keepdim=True)
    out = torch.einsum("bhqk,bkhd->bqhd", look, v).flatten(2)
    if return_map:
        return out, look
    return out
""",
    ),
]

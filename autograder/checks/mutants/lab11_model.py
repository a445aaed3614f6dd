"""Known-wrong and other right answers of lab 11: the embedding of places and the decoder's block."""

from autograder.checks.mutants import edits
from autograder.rubric import Right

FOURIER_POINT_EMBED = edits(
    "fourier_point_embed",
    """
no_pixel_centre: the half pixel is missing: the centre of pixel 0 is at 0.5.
- (xy + 0.5)
+ xy

x_and_y_swapped: x and y are swapped: the first column of the points is x, the first row of G is for x.
- (xy + 0.5)
+ (xy.flip(-1) + 0.5)

size_swapped: x is divided by the height: size is (H, W), and x belongs to the width.
- [width, height]
+ [height, width]

one_side_for_both: both coordinates are divided by the width.
- [width, height]
+ [width, width]

size_minus_one: you divide by W - 1 and H - 1; the centres of W pixels lie in cells of 1 / W.
- [width, height]
+ [max(width - 1, 1), max(height - 1, 1)]

not_centred: 2c - 1 is missing: places run from -1 to 1.
- (2 * c - 1)
+ c

not_shifted: 2c without the - 1: places run from -1 to 1.
- (2 * c - 1)
+ (2 * c)

no_two_pi: the factor 2 pi is missing.
- 2 * math.pi * (2 * c - 1)
+ (2 * c - 1)

only_pi: pi where 2 pi is meant.
- 2 * math.pi
+ math.pi

cosines_first: the cosines come first; the sines do.
- [angle.sin(), angle.cos()]
+ [angle.cos(), angle.sin()]

interleaved: sines and cosines alternate; all sines come first.
- torch.cat([angle.sin(), angle.cos()], dim=-1)
+ torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)

sines_only: the sine stands twice: the second half is cosines.
- angle.cos()
+ angle.sin()

in_place: xy is changed in place: write xy + 0.5, not xy += 0.5.
-     c = (xy + 0.5)
+     with torch.no_grad():
+         xy += 0.5
+     c = xy
""",
)

TWO_WAY_BLOCK = edits(
    "TwoWayBlock",
    """
first_with_residual: the first block's self-attention has a residual; its answer replaces the tokens.
- attended if self.first else tokens + attended
+ tokens + attended

never_a_residual: the self-attention of a later block has a residual; only the first block replaces its tokens.
- attended if self.first else tokens + attended
+ attended

first_and_later_swapped: the rule of the first block and that of the later ones are exchanged.
- attended if self.first else tokens + attended
+ tokens + attended if self.first else attended

first_with_places: the first block's self-attention gets the tokens alone: they are places already.
- q = tokens if self.first else tokens + token_pe
+ q = tokens + token_pe

no_places_in_self_attention: a later block adds token_pe to queries and keys of its self-attention.
- q = tokens if self.first else tokens + token_pe
+ q = tokens

places_in_values: the values of the self-attention carry places; they are the tokens alone.
- self.self_attn(q, q, tokens)
+ self.self_attn(q, q, q)

places_in_image_values: the values that the tokens take from the image carry places; they are the image alone.
- self.cross_attn_token_to_image(q, k, image)
+ self.cross_attn_token_to_image(q, k, k)

no_places_to_image: queries and keys of step 2 carry no places.
- q, k = tokens + token_pe, image + image_pe
+ q, k = tokens, image

no_token_places_to_image: the queries of step 2 carry no places: tokens + token_pe.
- q, k = tokens + token_pe, image + image_pe
+ q, k = tokens, image + image_pe

no_image_places_to_image: the keys of step 2 carry no places: image + image_pe.
- q, k = tokens + token_pe, image + image_pe
+ q, k = tokens + token_pe, image

no_residual_to_image: step 2 has no residual: tokens + answer.
- self.norm2(tokens + self.cross_attn_token_to_image(q, k, image))
+ self.norm2(self.cross_attn_token_to_image(q, k, image))

no_residual_of_mlp: the MLP has no residual: tokens + answer.
- self.norm3(tokens + self.mlp(tokens))
+ self.norm3(self.mlp(tokens))

norm_before_mlp: the norm stands before the MLP; here each step ends with it.
- self.norm3(tokens + self.mlp(tokens))
+ tokens + self.mlp(self.norm3(tokens))

mlp_before_image: the MLP comes before the look at the image; it comes after.
-         tokens = self.norm2(tokens + self.cross_attn_token_to_image(q, k, image))
-         tokens = self.norm3(tokens + self.mlp(tokens))
+         tokens = self.norm3(tokens + self.mlp(tokens))
+         tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, k, image))

image_sees_old_tokens: the image looks at the old tokens; it sees those that the MLP made.
-         tokens = self.norm3(tokens + self.mlp(tokens))
-         q, k = image + image_pe, tokens + token_pe
-         image = self.norm4(image + self.cross_attn_image_to_token(q, k, tokens))
+         old, tokens = tokens, self.norm3(tokens + self.mlp(tokens))
+         q, k = image + image_pe, old + token_pe
+         image = self.norm4(image + self.cross_attn_image_to_token(q, k, old))

image_without_places: the queries of step 4 carry no places: image + image_pe.
- q, k = image + image_pe, tokens + token_pe
+ q, k = image, tokens + token_pe

tokens_without_places: the keys of step 4 carry no places: tokens + token_pe.
- q, k = image + image_pe, tokens + token_pe
+ q, k = image + image_pe, tokens

places_in_token_values: the values that the image takes carry places; they are the tokens alone.
- self.cross_attn_image_to_token(q, k, tokens)
+ self.cross_attn_image_to_token(q, k, k)

no_residual_of_image: step 4 has no residual: image + answer.
- self.norm4(image + self.cross_attn_image_to_token(q, k, tokens))
+ self.norm4(self.cross_attn_image_to_token(q, k, tokens))

image_stays: the image comes out as it went in: step 4 is missing.
-         image = self.norm4(image + self.cross_attn_image_to_token(q, k, tokens))

returns_in_other_order: tokens come first, then the image.
- return tokens, image
+ return image, tokens
""",
)

RIGHT = [
    Right(
        "fourier_point_embed",
        "one_by_one",
        """
def fourier_point_embed(xy, size, G):
    h, w = size
    x = 2 * (xy[..., :1] + 0.5) / w - 1
    y = 2 * (xy[..., 1:] + 0.5) / h - 1
    wave = 2 * torch.pi * (x * G[0] + y * G[1])
    return torch.cat((torch.sin(wave), torch.cos(wave)), -1)
""",
    ),
    Right(
        "fourier_point_embed",
        "einsum",
        """
def fourier_point_embed(xy, size, G):
    sides = torch.tensor([size[1], size[0]], dtype=xy.dtype)
    c = (xy + 0.5) / sides
    wave = torch.einsum("...i,if->...f", (2 * c - 1) * (2 * math.pi), G)
    return torch.hstack([wave.sin(), wave.cos()]) if wave.ndim == 1 else torch.cat([wave.sin(), wave.cos()], dim=-1)
""",
    ),
    Right(
        "TwoWayBlock",
        "helper",
        """
class TwoWayBlock(nn.Module):
    def __init__(self, dim, n_heads, hidden, first):
        super().__init__()
        self.first = first
        self.self_attn = Heads(dim, dim, n_heads)
        self.cross_attn_token_to_image = Heads(dim, dim // 2, n_heads)
        self.cross_attn_image_to_token = Heads(dim, dim // 2, n_heads)
        self.mlp = nn.ModuleDict({"lin1": nn.Linear(dim, hidden), "lin2": nn.Linear(hidden, dim)})
        for i in range(1, 5):
            setattr(self, f"norm{i}", nn.LayerNorm(dim))

    def forward(self, tokens, image, token_pe, image_pe):
        if self.first:
            tokens = self.norm1(self.self_attn(tokens, tokens, tokens))
        else:
            placed = tokens + token_pe
            tokens = self.norm1(tokens + self.self_attn(placed, placed, tokens))
        look = self.cross_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        tokens = self.norm2(look + tokens)
        tokens = self.norm3(self.mlp["lin2"](self.mlp["lin1"](tokens).relu()) + tokens)
        look = self.cross_attn_image_to_token(image + image_pe, tokens + token_pe, tokens)
        return tokens, self.norm4(image + look)


class Heads(nn.Module):
    def __init__(self, dim, inner, n_heads):
        super().__init__()
        self.n = n_heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def forward(self, q, k, v):
        count = max(len(q), len(k))
        q, k, v = self.q_proj(q), self.k_proj(k), self.v_proj(v)
        q, k, v = (x.expand(count, -1, -1).chunk(self.n, dim=-1) for x in (q, k, v))
        out = [F.scaled_dot_product_attention(*head) for head in zip(q, k, v)]
        return self.out_proj(torch.cat(out, dim=-1))
""",
    ),
    Right(
        "TwoWayBlock",
        "residuals_first",
        """
class TwoWayBlock(nn.Module):
    def __init__(self, dim, n_heads, hidden, first):
        super().__init__()
        self.residual = 0.0 if first else 1.0
        self.self_attn = Attention(dim, n_heads)
        self.cross_attn_token_to_image = Attention(dim, n_heads, 2)
        self.cross_attn_image_to_token = Attention(dim, n_heads, 2)
        self.mlp = nn.Sequential(OrderedDict(lin1=nn.Linear(dim, hidden), act=nn.ReLU(), lin2=nn.Linear(hidden, dim)))
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(dim) for _ in range(4))

    def forward(self, tokens, image, token_pe, image_pe):
        q = tokens + self.residual * token_pe
        x = self.norm1(self.residual * tokens + self.self_attn(q, q, tokens))
        x = self.norm2(self.cross_attn_token_to_image(x + token_pe, image + image_pe, image).add(x))
        x = self.norm3(self.mlp(x).add(x))
        return x, self.norm4(self.cross_attn_image_to_token(image + image_pe, x + token_pe, x).add(image))


class Attention(nn.Module):
    def __init__(self, dim, n_heads, downsample=1):
        super().__init__()
        self.n_heads, inner = n_heads, dim // downsample
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, dim)

    def forward(self, q, k, v):
        q, k, v = (p(x) for p, x in zip((self.q_proj, self.k_proj, self.v_proj), (q, k, v)))
        n = max(len(q), len(k))
        q, k, v = (x.reshape(*x.shape[:2], self.n_heads, -1).expand(n, -1, -1, -1) for x in (q, k, v))
        look = torch.einsum("nthd,nshd->nhts", q, k)
        look = (look / q.shape[-1] ** 0.5).softmax(-1)
        out = torch.einsum("nhts,nshd->nthd", look, v)
        return self.out_proj(out.flatten(2))
""",
    ),
]

"""Known-wrong and other right answers of lab 10, the losses."""

from autograder.checks.mutants import edits
from autograder.rubric import Right

CLIP_LOSS = edits(
    "clip_loss",
    """
images_only: only the rows count, images asking for captions; captions ask, too: the same of logits.T, half each.
-     return (to_text + to_image) / 2
+     return to_text

captions_only: only captions ask for their images; images ask for their captions as well, and both count half.
-     return (to_text + to_image) / 2
+     return to_image

directions_summed: the two directions are added; the loss is their mean.
-     return (to_text + to_image) / 2
+     return to_text + to_image

pairs_summed: the pairs are summed; the loss is a mean over them.
-     to_text = F.cross_entropy(logits, pair)
-     to_image = F.cross_entropy(logits.T, pair)
+     to_text = F.cross_entropy(logits, pair, reduction="sum")
+     to_image = F.cross_entropy(logits.T, pair, reduction="sum")

scale_divides: you divide by the scale; it multiplies (it is one over a temperature).
-     logits = scale * img @ txt.T
+     logits = img @ txt.T / scale

not_exponentiated: log_scale is the logarithm of the scale: exponentiate it.
-     scale = log_scale.clamp(max=math.log(100)).exp()
+     scale = log_scale.clamp(max=100)

not_clamped: the scale is 100 at most: clamp log_scale at log 100 (not at 100).
-     scale = log_scale.clamp(max=math.log(100)).exp()
+     scale = log_scale.exp()

clamped_from_below: you clamp the scale from below as well; nothing is said about small ones.
- log_scale.clamp(max=math.log(100)).exp()
+ log_scale.clamp(0, math.log(100)).exp()

not_normalised: embeddings are of any length: normalise both.
-     img, txt = F.normalize(img, dim=1), F.normalize(txt, dim=1)

images_not_normalised: only the texts are normalised.
- F.normalize(img, dim=1), F
+ img, F

texts_not_normalised: only the images are normalised.
- , F.normalize(txt, dim=1)
+ , txt

normalised_over_the_batch: you normalise columns (dim=0); each embedding, a row, has length 1.
-     img, txt = F.normalize(img, dim=1), F.normalize(txt, dim=1)
+     img, txt = F.normalize(img, dim=0), F.normalize(txt, dim=0)

normalised_after_scaling: you multiply by the scale and then normalise, which takes the scale away again.
-     logits = scale * img @ txt.T
+     logits = F.normalize(scale * img, dim=1) @ F.normalize(scale * txt, dim=1).T

labels_zero: the label of row i is i, not 0.
-     pair = torch.arange(len(img))
+     pair = torch.zeros(len(img), dtype=torch.long)

labels_reversed: the label of row i is i; yours count backwards.
-     pair = torch.arange(len(img))
+     pair = torch.arange(len(img)).flip(0)

softmax_twice: F.cross_entropy takes logits; you give it probabilities.
-     to_text = F.cross_entropy(logits, pair)
-     to_image = F.cross_entropy(logits.T, pair)
+     to_text = F.cross_entropy(logits.softmax(dim=1), pair)
+     to_image = F.cross_entropy(logits.T.softmax(dim=1), pair)

scale_detached: no gradient reaches log_scale, which is learned.
-     scale = log_scale.clamp(max=math.log(100)).exp()
+     scale = log_scale.clamp(max=math.log(100)).exp().detach()

texts_detached: no gradient reaches the texts: both towers are trained.
- , F.normalize(txt, dim=1)
+ , F.normalize(txt, dim=1).detach()

overflow: exp of a logit near 100 is too large for float32: let F.cross_entropy, or logsumexp, do it.
-     to_text = F.cross_entropy(logits, pair)
-     to_image = F.cross_entropy(logits.T, pair)
+     to_text = -(logits.exp().diagonal() / logits.exp().sum(dim=1)).log().mean()
+     to_image = -(logits.exp().diagonal() / logits.exp().sum(dim=0)).log().mean()

pair_not_among_candidates: the pair itself is missing in the denominator of the softmax.
-     to_text = F.cross_entropy(logits, pair)
-     to_image = F.cross_entropy(logits.T, pair)
+     others = logits - torch.diag(torch.full((len(img),), 1e9))
+     to_text = (others.logsumexp(dim=1) - logits.diagonal()).mean()
+     to_image = (others.logsumexp(dim=0) - logits.diagonal()).mean()

in_place: the caller's embeddings are changed in place: write x = x / y, not x /= y.
-     img, txt = F.normalize(img, dim=1), F.normalize(txt, dim=1)
+     img.data.div_(img.detach().norm(dim=1, keepdim=True))
+     txt = F.normalize(txt, dim=1)
""",
)

SIGLIP_LOSS = edits(
    "siglip_loss",
    """
labels_zero_one: z is 0 where a pair does not belong together; it is -1, or these pairs say nothing.
-     z = 2 * torch.eye(len(img), dtype=img.dtype) - 1
+     z = torch.eye(len(img), dtype=img.dtype)

mean_over_all: you divide by N * N; it is the sum over all pairs divided by N.
- .sum() / len(img)
+ .mean()

summed: the sum over all pairs is divided by N.
-     return -F.logsigmoid(z * logits).sum() / len(img)
+     return -F.logsigmoid(z * logits).sum()

bias_sign: the bias is added to the logits, not subtracted.
- txt.T + b
+ txt.T - b

bias_scaled: t multiplies the cosine only, not the bias.
-     logits = t * img @ txt.T + b
+     logits = t * (img @ txt.T + b)

bias_outside: z multiplies the whole logit, the bias included.
-     logits = t * img @ txt.T + b
-     z = 2 * torch.eye(len(img), dtype=img.dtype) - 1
-     return -F.logsigmoid(z * logits).sum() / len(img)
+     z = 2 * torch.eye(len(img), dtype=img.dtype) - 1
+     return -F.logsigmoid(z * (t * img @ txt.T) + b).sum() / len(img)

bias_left_out: the bias is missing.
- txt.T + b
+ txt.T

softmax: this is still CLIP's softmax; here each pair is a question of its own.
-     return -F.logsigmoid(z * logits).sum() / len(img)
+     pair = torch.arange(len(img))
+     return (F.cross_entropy(logits, pair) + F.cross_entropy(logits.T, pair)) / 2

signs_swapped: z has the wrong sign: 1 where image and text belong together.
-     z = 2 * torch.eye(len(img), dtype=img.dtype) - 1
+     z = 1 - 2 * torch.eye(len(img), dtype=img.dtype)

minus_missing: the minus sign in front is missing: this grows as the answers get better.
-     return -F
+     return F

positives_only: only the pairs that belong together are counted; the others have to be told apart.
- (z * logits).sum()
+ (z * logits).diagonal().sum()

negatives_only: the pairs that belong together are left out.
- (z * logits).sum()
+ (z * logits).fill_diagonal_(0).sum()

t_exponentiated: t multiplies as it is: the caller has exponentiated it.
-     logits = t * img
+     logits = torch.as_tensor(t).exp() * img

t_divides: t multiplies the cosines, it is not a temperature.
-     logits = t * img @ txt.T + b
+     logits = img @ txt.T / t + b

not_normalised: embeddings are of any length: normalise both.
-     img, txt = F.normalize(img, dim=1), F.normalize(txt, dim=1)

normalised_over_the_batch: you normalise columns (dim=0); each embedding, a row, has length 1.
-     img, txt = F.normalize(img, dim=1), F.normalize(txt, dim=1)
+     img, txt = F.normalize(img, dim=0), F.normalize(txt, dim=0)

bias_detached: no gradient reaches b, which is learned: torch.as_tensor keeps it, .item() and torch.tensor do not.
- txt.T + b
+ txt.T + (b.detach() if isinstance(b, Tensor) else b)

log_of_sigmoid: sigmoid of a large negative number is 0, and its log infinite: F.logsigmoid stays finite.
- F.logsigmoid(z * logits)
+ (z * logits).sigmoid().log()

other_bias: b is -10 when it is not given.
- b: Tensor | float = -10.0
+ b: Tensor | float = 0.0

other_factor: t is 10 when it is not given.
- t: Tensor | float = 10.0
+ t: Tensor | float = 1.0

in_place: the caller's embeddings are changed in place: write x = x / y, not x /= y.
-     img, txt = F.normalize(img, dim=1), F.normalize(txt, dim=1)
+     img.data.div_(img.detach().norm(dim=1, keepdim=True))
+     txt = F.normalize(txt, dim=1)
""",
)

GATHER_NEGATIVES = edits(
    "gather_negatives",
    """
no_offset: the labels count from 0, as if there were one process: process `rank` starts at row rank * N.
-     labels = torch.arange(rank * n, (rank + 1) * n)
+     labels = torch.arange(n)

offset_of_rank: the labels start at row `rank`; each process before it has N rows.
-     labels = torch.arange(rank * n, (rank + 1) * n)
+     labels = torch.arange(rank, rank + n)

offset_of_next: the labels are those of the next process: ranks count from 0.
- torch.arange(rank * n, (rank + 1) * n)
+ torch.arange((rank + 1) * n, (rank + 2) * n)

others_detached: only the own embeddings keep their gradient; those of the other processes need theirs, too.
-     candidates = torch.cat(parts)
+     candidates = torch.cat([p if r == rank else p.detach() for r, p in enumerate(parts)])

detached: the candidates have lost their gradient, so other processes' towers learn nothing from this loss.
-     candidates = torch.cat(parts)
+     candidates = torch.cat(parts).detach()

own_first: the own embeddings come first; candidates stand in the order of the processes, the same one for all.
-     candidates = torch.cat(parts)
+     candidates = torch.cat([parts[rank], *parts[:rank], *parts[rank + 1 :]])

local_twice: the own embeddings are among the candidates twice: they are in `parts` already.
-     candidates = torch.cat(parts)
+     candidates = torch.cat([parts[rank], *parts])

only_own: these are the own embeddings; the candidates are those of all processes.
-     candidates = torch.cat(parts)
+     candidates = parts[rank]

others_only: the own embeddings are missing among the candidates.
-     candidates = torch.cat(parts)
+     candidates = torch.cat([p for r, p in enumerate(parts) if r != rank])

stacked: the processes are an axis of their own; candidates are one list of W * N rows.
-     candidates = torch.cat(parts)
+     candidates = torch.stack(parts)

interleaved: the processes' rows are interleaved; all rows of process 0 come first.
-     candidates = torch.cat(parts)
+     candidates = torch.stack(parts, dim=1).flatten(0, 1)

side_by_side: the processes are joined side by side (dim=1); candidates are rows.
-     candidates = torch.cat(parts)
+     candidates = torch.cat(parts, dim=1)

labels_of_all: these are labels for the rows of all processes; only those of process `rank` ask here.
- torch.arange(rank * n, (rank + 1) * n)
+ torch.arange(len(parts) * n)

labels_float: labels are rows, int64; yours are floats.
-     return candidates, labels
+     return candidates, labels.float()
""",
)

RIGHT = [
    Right(
        "clip_loss",
        "logsumexp",
        """
def clip_loss(img, txt, log_scale):
    img, txt = img / img.norm(dim=1, keepdim=True), txt / txt.norm(dim=1, keepdim=True)
    scale = torch.clamp(log_scale, max=math.log(100.0)).exp()
    logits = scale * torch.einsum("id,jd->ij", img, txt)
    own = logits.diagonal()
    rows = torch.logsumexp(logits, dim=1) - own
    columns = torch.logsumexp(logits, dim=0) - own
    return 0.5 * (rows + columns).mean()
""",
    ),
    Right(
        "clip_loss",
        "loop",
        """
def clip_loss(img, txt, log_scale):
    scale = torch.minimum(log_scale.exp(), torch.tensor(100.0, dtype=img.dtype))
    n, total = len(img), 0.0
    for i in range(n):
        to_text = scale * F.cosine_similarity(img[i : i + 1], txt)
        to_image = scale * F.cosine_similarity(txt[i : i + 1], img)
        total = total - F.log_softmax(to_text, 0)[i] - F.log_softmax(to_image, 0)[i]
    return total / (2 * n)
""",
    ),
    Right(
        "clip_loss",
        "soft_labels",
        """
def clip_loss(img, txt, log_scale):
    eye = torch.eye(len(img), dtype=img.dtype)
    logits = log_scale.exp().clamp(max=100) * F.normalize(img) @ F.normalize(txt).T
    return (F.cross_entropy(logits, eye) + F.cross_entropy(logits.T, eye)) / 2
""",
    ),
    Right(
        "siglip_loss",
        "binary_cross_entropy",
        """
def siglip_loss(img, txt, t=10.0, b=-10.0):
    logits = F.normalize(img) @ F.normalize(txt).T * t + b
    target = torch.eye(len(img), dtype=logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / len(img)
""",
    ),
    Right(
        "siglip_loss",
        "softplus_by_parts",
        """
def siglip_loss(img, txt, t=10.0, b=-10.0):
    img, txt = img / img.norm(dim=1, keepdim=True), txt / txt.norm(dim=1, keepdim=True)
    logits = t * torch.einsum("id,jd->ij", img, txt) + b
    own = torch.eye(len(img), dtype=torch.bool)
    yes, no = F.softplus(-logits[own]).sum(), F.softplus(logits[~own]).sum()
    return (yes + no) / len(img)
""",
    ),
    Right(
        "siglip_loss",
        "loop",
        """
def siglip_loss(img, txt, t=10.0, b=-10.0):
    losses = []
    for i in range(len(img)):
        for j in range(len(txt)):
            logit = t * F.cosine_similarity(img[i], txt[j], dim=0) + b
            losses.append(-F.logsigmoid(logit if i == j else -logit))
    return torch.stack(losses).sum() / len(img)
""",
    ),
    Right(
        "gather_negatives",
        "flattened_stack",
        """
def gather_negatives(parts, rank):
    n = parts[rank].shape[0]
    return torch.stack(list(parts)).flatten(0, 1), rank * n + torch.arange(n)
""",
    ),
    Right(
        "gather_negatives",
        "split_of_all_rows",
        """
def gather_negatives(parts, rank):
    candidates = torch.vstack(tuple(parts))
    labels = torch.tensor([rank * len(parts[0]) + i for i in range(len(parts[0]))], dtype=torch.int64)
    return candidates, labels
""",
    ),
]

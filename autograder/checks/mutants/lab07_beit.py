"""Known-wrong and other right answers of lab 7, BEiT's loss and its words."""

from autograder.checks.mutants import edits
from autograder.rubric import Right

BEIT_LOSS = edits(
    "beit_loss",
    """
all_patches: visible patches are in the loss, too: only hidden ones count.
-     return F.cross_entropy(logits[hidden], tokens.flatten(1)[hidden])
+     return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())

visible_patches: this is the loss of the visible patches; True means hidden.
-     hidden = mask.flatten(1)
+     hidden = ~mask.flatten(1) | mask.all()

divided_by_all: you divide by the number of all patches; it is a mean over the hidden ones.
-     return F.cross_entropy(logits[hidden], tokens.flatten(1)[hidden])
+     return F.cross_entropy(logits[hidden], tokens.flatten(1)[hidden], reduction="sum") / hidden.numel()

summed: the loss is summed over the patches; take the mean.
- tokens.flatten(1)[hidden])
+ tokens.flatten(1)[hidden], reduction="sum")

per_image: you average over each image first; it is one mean over all hidden patches of the batch.
-     return F.cross_entropy(logits[hidden], tokens.flatten(1)[hidden])
+     each = F.cross_entropy(logits.mT, tokens.flatten(1), reduction="none") * hidden
+     return (each.sum(dim=1) / hidden.sum(dim=1)).mean()

logits_zeroed: logits of visible patches are set to 0 instead of left out: they still cost log K.
-     return F.cross_entropy(logits[hidden], tokens.flatten(1)[hidden])
+     return F.cross_entropy((logits * hidden[..., None]).flatten(0, 1), tokens.flatten())

mask_by_column: the mask is read down its columns; patches come in reading order.
-     hidden = mask.flatten(1)
+     hidden = (mask.mT if mask.ndim == 3 else mask).flatten(1)

tokens_by_column: the tokens are read down their columns; they come in reading order.
- tokens.flatten(1)[hidden])
+ (tokens.mT if tokens.ndim == 3 else tokens).flatten(1)[hidden])

own_answer: you compare with the network's own best word; the tokens say what is right.
- tokens.flatten(1)[hidden])
+ logits.argmax(dim=-1)[hidden])

log_of_softmax: log(softmax) of a large logit is log(0): use F.cross_entropy or log_softmax.
-     return F.cross_entropy(logits[hidden], tokens.flatten(1)[hidden])
+     return F.nll_loss(logits[hidden].softmax(dim=-1).log(), tokens.flatten(1)[hidden])

log_with_eps: a small number inside the log changes every value: use F.cross_entropy.
-     return F.cross_entropy(logits[hidden], tokens.flatten(1)[hidden])
+     return F.nll_loss((logits[hidden].softmax(dim=-1) + 1e-3).log(), tokens.flatten(1)[hidden])

softmax_first: cross_entropy takes logits: no softmax before it.
- logits[hidden],
+ logits[hidden].softmax(dim=-1),

detached: the logits are detached: nothing is learned.
- logits[hidden],
+ logits.detach()[hidden],

sign: the sign is wrong: a loss is minus the log-probability.
-     return F
+     return -F

smoothed: label smoothing is not part of it.
- tokens.flatten(1)[hidden])
+ tokens.flatten(1)[hidden], label_smoothing=0.1)
""",
)

GUMBEL_DVAE_STEP = edits(
    "gumbel_dvae_step",
    """
hard_without_gradient: hard: the one-hot code has no gradient: one_hot + y - y.detach().
-         y = one_hot + y - y.detach()
+         y = one_hot

hard_is_soft: hard changes nothing: forward it is one vector of the codebook.
-     if hard:
+     if False:

always_hard: the code is hard although nobody asked for it.
-     if hard:
+     if True:

hard_detached_wrongly: hard: this is one_hot with the wrong sign of the soft part.
- one_hot + y - y.detach()
+ one_hot - y + y.detach()

hard_without_noise: hard: the word is the most likely one; it is drawn, with the noise.
- F.one_hot(y.argmax(dim=1),
+ F.one_hot(logits.argmax(dim=1),

tau_on_noise_only: tau divides the noise only; it divides logits plus noise.
- (logits + gumbel) / tau
+ logits + gumbel / tau

tau_on_logits_only: tau divides the logits only; it divides logits plus noise.
- (logits + gumbel) / tau
+ logits / tau + gumbel

tau_multiplied: tau multiplies; it divides.
- (logits + gumbel) / tau
+ (logits + gumbel) * tau

tau_ignored: tau is not used.
- (logits + gumbel) / tau
+ (logits + gumbel)

noise_subtracted: the noise is subtracted; add it.
- logits + gumbel
+ logits - gumbel

no_noise: the noise is not used: nothing is drawn.
- (logits + gumbel)
+ logits

words_last: the softmax runs over the places; the words are axis 1.
- .softmax(dim=1)
+ .softmax(dim=-1)

kl_sign: the sign of the divergence is wrong: it is sum q log q + log K.
-     return codes, kl
+     return codes, -kl

kl_other_direction: this is KL(uniform || q); asked is KL(q || uniform).
- (log_q.exp() * log_q).sum(dim=1).mean() + math.log(logits.shape[1])
+ -log_q.mean(dim=1).mean() - math.log(logits.shape[1])

kl_entropy: this is the entropy of q; the divergence is log K minus it.
- (log_q.exp() * log_q).sum(dim=1).mean() + math.log(logits.shape[1])
+ -(log_q.exp() * log_q).sum(dim=1).mean()

kl_without_constant: log K is missing: the divergence is 0 where all words are equally likely.
-  + math.log(logits.shape[1])
+

kl_with_noise: q holds the noise and tau; the divergence is that of softmax(logits).
- F.log_softmax(logits, dim=1)
+ F.log_softmax((logits + gumbel) / tau, dim=1)

kl_with_tau: q is sharpened by tau; the divergence is that of softmax(logits).
- F.log_softmax(logits, dim=1)
+ F.log_softmax(logits / tau, dim=1)

kl_mean_over_words: you average over the words; the divergence sums over them.
- (log_q.exp() * log_q).sum(dim=1).mean()
+ (log_q.exp() * log_q).mean()

kl_of_codebook_size: log of the wrong number: K is the number of words, not of numbers in a code.
- math.log(logits.shape[1])
+ math.log(codebook.shape[1])

kl_summed: the divergence is summed over the places; take the mean.
- (log_q.exp() * log_q).sum(dim=1).mean()
+ (log_q.exp() * log_q).sum()

kl_log_of_softmax: 0 * log 0 is NaN: use F.log_softmax.
- F.log_softmax(logits, dim=1)
+ logits.softmax(dim=1).log()

kl_with_eps: a small number inside the log changes every value: use F.log_softmax.
- F.log_softmax(logits, dim=1)
+ (logits.softmax(dim=1) + 1e-3).log()

codes_last: the numbers of a code come last; they are axis 1.
- "bkhw,kd->bdhw"
+ "bkhw,kd->bhwd"

places_swapped: rows and columns are swapped.
- "bkhw,kd->bdhw"
+ "bkhw,kd->bdwh"

codebook_detached: the codebook is learned: no detach().
- y, codebook)
+ y, codebook.detach())

logits_detached: no gradient reaches the logits.
- (logits + gumbel) / tau
+ (logits.detach() + gumbel) / tau

in_place: the caller's logits are changed in place.
- ((logits + gumbel) / tau).softmax(dim=1)
+ (logits.data.add_(gumbel) / tau).softmax(dim=1)
""",
)

RIGHT = [
    Right(
        "beit_loss",
        "weighted",
        """
def beit_loss(logits, tokens, mask):
    mask = mask.reshape(len(mask), -1).to(logits.dtype)
    log_p = logits.log_softmax(-1).gather(2, tokens.reshape(len(tokens), -1, 1)).squeeze(2)
    return -(log_p * mask).sum() / mask.sum()
""",
    ),
    Right(
        "beit_loss",
        "loop",
        """
def beit_loss(logits, tokens, mask):
    costs = []
    for answers, words, hidden in zip(logits, tokens.flatten(1), mask.flatten(1)):
        for i in hidden.nonzero()[:, 0]:
            costs.append(answers[i].logsumexp(0) - answers[i, words[i]])
    return torch.stack(costs).mean()
""",
    ),
    Right(
        "gumbel_dvae_step",
        "kl_div",
        """
def gumbel_dvae_step(logits, codebook, tau, gumbel, hard=False):
    b, k, h, w = logits.shape
    soft = F.softmax((logits + gumbel) / tau, 1)
    if hard:
        index = soft.argmax(1, keepdim=True)
        one_hot = torch.zeros_like(soft).scatter(1, index, 1.0)
        soft = soft + (one_hot - soft).detach()
    codes = (soft.permute(0, 2, 3, 1) @ codebook).permute(0, 3, 1, 2)
    log_q = logits.log_softmax(1).permute(0, 2, 3, 1).reshape(-1, k)
    uniform = torch.full_like(log_q, -math.log(k))
    return codes, F.kl_div(uniform, log_q, log_target=True, reduction="batchmean")
""",
    ),
    Right(
        "gumbel_dvae_step",
        "by_the_entropy",
        """
def gumbel_dvae_step(logits, codebook, tau, gumbel, hard=False):
    y = torch.softmax(logits / tau + gumbel / tau, dim=1)
    if hard:
        k = codebook.shape[0]
        y = (torch.eye(k, dtype=y.dtype)[y.argmax(1)].permute(0, 3, 1, 2) - y).detach() + y
    codes = torch.einsum("bkhw,kd->bdhw", y, codebook)
    entropy = torch.distributions.Categorical(logits=logits.movedim(1, -1)).entropy()
    return codes, torch.tensor(float(codebook.shape[0])).log() - entropy.mean()
""",
    ),
]

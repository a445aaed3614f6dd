"""Known-wrong and other right answers of lab 3's second half (MoCo)."""

from autograder.rubric import Right, Wrong

WRONG = [
    # ema_update
    Wrong(
        "ema_update",
        "swapped",
        "t.mul_(m).add_((1 - m) * o)",
        "t.mul_(1 - m).add_(m * o)",
        "m and 1 - m are swapped: the target keeps the share m of itself.",
    ),
    Wrong(
        "ema_update",
        "rebound",
        "t.mul_(m).add_((1 - m) * o)",
        "t = m * t + (1 - m) * o",
        "t = ... gives the name t to a new tensor, and the target's own stays as it was: change it in place.",
    ),
    Wrong(
        "ema_update",
        "records_gradient",
        "    with torch.no_grad():\n",
        "    if True:\n",
        "the update is recorded for backward: work under torch.no_grad().",
    ),
    Wrong(
        "ema_update",
        "counters_forgotten",
        "                t.copy_(o)\n",
        "                pass\n",
        "integers are left as they are; they become those of online.",
    ),
    Wrong(
        "ema_update",
        "counters_averaged",
        "                t.copy_(o)\n",
        "                t.copy_(m * t + (1 - m) * o)\n",
        "integers are averaged; an average of counters means nothing: copy them.",
    ),
    Wrong(
        "ema_update",
        "online_moves",
        "t.mul_(m).add_((1 - m) * o)",
        "o.mul_(1 - m).add_(m * t)",
        "online moves towards target; it is the other way round.",
    ),
    Wrong(
        "ema_update",
        "copied",
        "t.mul_(m).add_((1 - m) * o)",
        "t.copy_(o)",
        "target becomes a copy of online whatever m is.",
    ),
    Wrong(
        "ema_update",
        "added",
        "t.mul_(m).add_((1 - m) * o)",
        "t.add_((1 - m) * o)",
        "target is not multiplied by m before (1 - m) * online is added, so it grows.",
    ),
    # queue_enqueue
    Wrong(
        "queue_enqueue",
        "pointer_not_wrapped",
        "    return (ptr + len(keys)) % len(queue)",
        "    return ptr + len(keys)",
        "the pointer runs past the end: behind the last row comes row 0.",
    ),
    Wrong(
        "queue_enqueue",
        "wrap_cut_off",
        "    rows = (ptr + torch.arange(len(keys))) % len(queue)\n"
        "    queue[rows] = F.normalize(keys.detach(), dim=1)\n",
        "    room = len(queue) - ptr\n    queue[ptr : ptr + len(keys)] = F.normalize(keys.detach(), dim=1)[:room]\n",
        "keys that do not fit before the end of the queue are lost: the rest of the batch goes to the first rows.",
    ),
    Wrong(
        "queue_enqueue",
        "not_normalised",
        "F.normalize(keys.detach(), dim=1)",
        "keys.detach()",
        "the keys are stored as they come; give each the length 1 first.",
    ),
    Wrong(
        "queue_enqueue",
        "with_gradient",
        "keys.detach()",
        "keys",
        "the keys are stored with their gradient, so the graph grows from batch to batch: detach them.",
    ),
    Wrong(
        "queue_enqueue",
        "from_row_zero",
        "(ptr + torch.arange(len(keys)))",
        "torch.arange(len(keys))",
        "every batch is written from row 0 on; the oldest keys are at ptr.",
    ),
    Wrong(
        "queue_enqueue",
        "advanced_by_one",
        "    return (ptr + len(keys)) % len(queue)",
        "    return (ptr + 1) % len(queue)",
        "the pointer moves by 1; a whole batch was written.",
    ),
    Wrong(
        "queue_enqueue",
        "shifted",
        "    queue[rows] = F.normalize(keys.detach(), dim=1)\n",
        "    queue.copy_(torch.cat([queue[len(keys) :], F.normalize(keys.detach(), dim=1)]))\n",
        "the whole queue is shifted; in a ring nothing moves, and the batch goes to the rows from ptr on.",
    ),
    Wrong(
        "queue_enqueue",
        "new_queue",
        "    queue[rows] = F.normalize(keys.detach(), dim=1)\n",
        "    queue = queue.clone()\n    queue[rows] = F.normalize(keys.detach(), dim=1)\n",
        "a copy of the queue is written and then forgotten: write into the rows of the queue itself.",
    ),
    Wrong(
        "queue_enqueue",
        "before_pointer",
        "(ptr + torch.arange(len(keys)))",
        "(ptr - len(keys) + torch.arange(len(keys)))",
        "the batch is written into the rows before ptr, over the newest keys.",
    ),
    # moco_logits
    Wrong(
        "moco_logits",
        "positive_last",
        "[positive, negatives]",
        "[negatives, positive]",
        "the positive stands in the last column; the labels say column 0.",
    ),
    Wrong(
        "moco_logits",
        "all_pairs",
        "    positive = (q * k).sum(dim=1, keepdim=True)\n",
        "    positive = q @ k.T\n",
        "q @ k.T compares every query with every key of the batch; the positive of q[i] is k[i] alone, one column.",
    ),
    Wrong(
        "moco_logits",
        "key_not_detached",
        "k.detach()",
        "k",
        "a gradient reaches k: nothing trains the key encoder; detach its keys.",
    ),
    Wrong(
        "moco_logits",
        "queue_not_detached",
        "queue.detach()",
        "queue",
        "a gradient reaches the queue: its keys are constants; detach them.",
    ),
    Wrong(
        "moco_logits",
        "tau_on_negatives_only",
        "[positive, negatives], dim=1) / tau",
        "[positive, negatives / tau], dim=1)",
        "only the negatives are divided by tau; the positive has to be, too.",
    ),
    Wrong(
        "moco_logits",
        "tau_on_positive_only",
        "[positive, negatives], dim=1) / tau",
        "[positive / tau, negatives], dim=1)",
        "only the positive is divided by tau; the negatives have to be, too.",
    ),
    Wrong(
        "moco_logits",
        "tau_multiplied",
        "dim=1) / tau",
        "dim=1) * tau",
        "the temperature multiplies the similarities; it has to divide them.",
    ),
    Wrong(
        "moco_logits",
        "query_not_normalised",
        "    q = F.normalize(q, dim=1)\n",
        "",
        "the queries are not of length 1, so the logits are no cosines.",
    ),
    Wrong(
        "moco_logits",
        "key_not_normalised",
        "F.normalize(k.detach(), dim=1)",
        "k.detach()",
        "the keys are not of length 1, so the positive is no cosine.",
    ),
    Wrong(
        "moco_logits",
        "query_detached",
        "F.normalize(q, dim=1)",
        "F.normalize(q.detach(), dim=1)",
        "the queries are detached: nothing would be trained.",
    ),
    Wrong(
        "moco_logits",
        "labels_of_batch",
        "torch.zeros(len(q), dtype=torch.long)",
        "torch.arange(len(q))",
        "labels 0 .. B - 1 belong to a table of B x B; here the positive is always in column 0.",
    ),
    Wrong(
        "moco_logits",
        "labels_float",
        "torch.zeros(len(q), dtype=torch.long)",
        "torch.zeros(len(q))",
        "labels are class numbers: int64 (torch.long).",
    ),
    Wrong(
        "moco_logits",
        "default_tau",
        "tau: float = 0.07",
        "tau: float = 0.1",
        "the default temperature is 0.07.",
    ),
    # symmetric_moco_v3
    Wrong(
        "symmetric_moco_v3",
        "same_view",
        "(ctr(q1, k2) + ctr(q2, k1))",
        "(ctr(q1, k1) + ctr(q2, k2))",
        "each query looks for the key of its own view; it is the key of the other one: q1 with k2, q2 with k1.",
    ),
    Wrong(
        "symmetric_moco_v3",
        "keys_not_detached",
        "k.detach()",
        "k",
        "a gradient reaches the keys: nothing trains the key encoder; detach them.",
    ),
    Wrong(
        "symmetric_moco_v3",
        "one_term",
        "(ctr(q1, k2) + ctr(q2, k1))",
        "ctr(q1, k2)",
        "one direction is missing: both views are queries.",
    ),
    Wrong(
        "symmetric_moco_v3",
        "no_scale",
        "2 * tau * (",
        "(",
        "the factor 2 tau in front is missing.",
    ),
    Wrong(
        "symmetric_moco_v3",
        "scale_tau",
        "2 * tau * (",
        "tau * (",
        "the factor in front is tau; it is 2 tau.",
    ),
    Wrong(
        "symmetric_moco_v3",
        "not_normalised",
        "F.normalize(q, dim=1) @ F.normalize(k.detach(), dim=1).T",
        "q @ k.detach().T",
        "queries and keys are not normalised.",
    ),
    Wrong(
        "symmetric_moco_v3",
        "tau_multiplied",
        ".T / tau",
        ".T * tau",
        "the temperature multiplies the similarities; it has to divide them.",
    ),
    Wrong(
        "symmetric_moco_v3",
        "columns_choose",
        ".T / tau\n",
        ".T / tau\n        logits = logits.T\n",
        "the keys choose among the queries: the softmax runs over the keys, a row for each query.",
    ),
    Wrong(
        "symmetric_moco_v3",
        "query_detached",
        "F.normalize(q, dim=1)",
        "F.normalize(q.detach(), dim=1)",
        "the queries are detached: nothing would be trained.",
    ),
]

RIGHT = [
    Right(
        "ema_update",
        "lerp",
        """
@torch.no_grad()
def ema_update(online, target, m):
    for a, b in zip(online, target):
        b.lerp_(a, 1 - m) if b.dtype.is_floating_point else b.copy_(a)
""",
    ),
    Right(
        "ema_update",
        "assigned",
        """
def ema_update(online, target, m):
    for i in range(len(target)):
        new = online[i].detach()
        target[i][...] = m * target[i] + (1 - m) * new if target[i].is_floating_point() else new
""",
    ),
    Right(
        "queue_enqueue",
        "two_slices",
        """
def queue_enqueue(queue, ptr, keys):
    keys = keys.detach() / keys.detach().norm(dim=1, keepdim=True).clamp_min(1e-12)
    room = min(len(keys), len(queue) - ptr)
    queue[ptr:ptr + room] = keys[:room]
    queue[:len(keys) - room] = keys[room:]
    return (ptr + len(keys)) % len(queue)
""",
    ),
    Right(
        "queue_enqueue",
        "loop",
        """
def queue_enqueue(queue, ptr, keys):
    with torch.no_grad():
        for key in keys:
            queue[ptr] = F.normalize(key, dim=0)
            ptr = ptr + 1 if ptr + 1 < len(queue) else 0
    return ptr
""",
    ),
    Right(
        "moco_logits",
        "einsum",
        """
def moco_logits(q, k, queue, tau=0.07):
    q = F.normalize(q, dim=1)
    with torch.no_grad():
        k = F.normalize(k, dim=1)
    l_pos = torch.einsum("nc,nc->n", q, k).unsqueeze(-1)
    l_neg = torch.einsum("nc,kc->nk", q, queue.clone().detach())
    return torch.cat((l_pos, l_neg), dim=1).div(tau), torch.zeros(q.shape[0]).long()
""",
    ),
    Right(
        "moco_logits",
        "loop",
        """
def moco_logits(q, k, queue, tau=0.07):
    q, k, queue = F.normalize(q, dim=1) / tau, F.normalize(k.detach(), dim=1), queue.detach()
    rows = [torch.cat([key[None], queue]) @ query for query, key in zip(q, k)]
    return torch.stack(rows), torch.zeros(len(rows), dtype=torch.int64)
""",
    ),
    Right(
        "symmetric_moco_v3",
        "logsumexp",
        """
def symmetric_moco_v3(q1, q2, k1, k2, tau=0.2):
    total = 0.0
    for q, k in ((q1, k2), (q2, k1)):
        s = torch.einsum("id,jd->ij", F.normalize(q, dim=1), F.normalize(k, dim=1).detach()) / tau
        total = total + (s.logsumexp(dim=1) - s.diagonal()).mean()
    return total * 2 * tau
""",
    ),
    Right(
        "symmetric_moco_v3",
        "one_cross_entropy",
        """
def symmetric_moco_v3(q1, q2, k1, k2, tau=0.2):
    q1, q2, k1, k2 = (F.normalize(z, dim=-1) for z in (q1, q2, k1.detach(), k2.detach()))
    logits = torch.cat([q1 @ k2.T, q2 @ k1.T]) / tau
    labels = torch.arange(len(q1)).repeat(2)
    return 4 * tau * F.cross_entropy(logits, labels)
""",
    ),
]

# Automatic mutations that no check can kill, because they change nothing that the exercise asks for.
_LENGTH, _DEFAULT = "a length has no gradient", "dim=1 is the default"
EQUIVALENT = {
    "ema_update: for o, t in zip(online, target):": "both lists are equally long",
    "ema_update: for o, t in zip(online, target, strict=False):": "both lists are equally long",
    "ema_update: t.copy_(o.detach())": "nothing is recorded there",
    "queue_enqueue: queue[rows] = F.normalize(keys.detach())": _DEFAULT,
    "queue_enqueue: rows = (ptr + torch.arange(len(keys))) % len(queue.detach())": _LENGTH,
    "queue_enqueue: rows = (ptr + torch.arange(len(keys.detach()))) % len(queue)": _LENGTH,
    "queue_enqueue: return (ptr + len(keys)) % len(queue.detach())": _LENGTH,
    "queue_enqueue: return (ptr + len(keys.detach())) % len(queue)": _LENGTH,
    "moco_logits: q = F.normalize(q)": _DEFAULT,
    "moco_logits: k = F.normalize(k.detach())": _DEFAULT,
    "moco_logits: labels = torch.zeros(len(q.detach()), dtype=torch.long)": _LENGTH,
    "symmetric_moco_v3: logits = F.normalize(q) @ F.normalize(k.detach(), dim=1).T / tau": _DEFAULT,
    "symmetric_moco_v3: logits = F.normalize(q, dim=1) @ F.normalize(k.detach()).T / tau": _DEFAULT,
    "symmetric_moco_v3: return F.cross_entropy(logits, torch.arange(len(q.detach())))": _LENGTH,
}

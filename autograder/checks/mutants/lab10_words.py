"""Known-wrong and other right answers of lab 10: the module, zero-shot and robustness."""

from autograder.checks.mutants import edits
from autograder.rubric import Right

CLIP = edits(
    "CLIP",
    """
scale_not_exponentiated: logit_scale is a logarithm: exponentiate it before it multiplies.
- self.logit_scale.exp() * img
+ self.logit_scale * img

scale_divides: you divide by the scale; it multiplies the cosines.
-         logits = self.logit_scale.exp() * img @ txt.T
+         logits = img @ txt.T / self.logit_scale.exp()

scale_is_temperature: logit_scale starts at the logarithm of the temperature; the scale is one over it.
- torch.tensor(logit_scale)
+ torch.tensor(-logit_scale)

scale_exponentiated_at_start: you store the scale itself under logit_scale; its logarithm is what is learned.
- nn.Parameter(torch.tensor(logit_scale))
+ nn.Parameter(torch.tensor(logit_scale).exp())

scale_not_learned: logit_scale is not a parameter, so no optimiser finds it.
-         self.logit_scale = nn.Parameter(torch.tensor(logit_scale))
+         self.register_buffer("logit_scale", torch.tensor(logit_scale))

scale_is_a_vector: logit_scale has the shape (1,); it is one number of shape ().
- nn.Parameter(torch.tensor(logit_scale))
+ nn.Parameter(torch.tensor([logit_scale]))

scale_detached: no gradient reaches logit_scale.
- self.logit_scale.exp() * img
+ self.logit_scale.detach().exp() * img

scale_clamped: you clamp the scale in here; the limit belongs to the training.
- self.logit_scale.exp() * img
+ self.logit_scale.exp().clamp(max=10.0) * img

transposed: the logits are transposed: a row for each image, a column for each text.
- * img @ txt.T
+ * txt @ img.T

not_normalised: forward compares embeddings of any length: normalise both.
-         img = F.normalize(self.encode_image(x), dim=1)
-         txt = F.normalize(self.encode_text(tokens), dim=1)
+         img, txt = self.encode_image(x), self.encode_text(tokens)

images_not_normalised: forward does not normalise the images.
-         img = F.normalize(self.encode_image(x), dim=1)
+         img = self.encode_image(x)

texts_not_normalised: forward does not normalise the texts.
-         txt = F.normalize(self.encode_text(tokens), dim=1)
+         txt = self.encode_text(tokens)

normalised_over_the_batch: you normalise columns (dim=0); each embedding, a row, has length 1.
-         img = F.normalize(self.encode_image(x), dim=1)
-         txt = F.normalize(self.encode_text(tokens), dim=1)
+         img = F.normalize(self.encode_image(x), dim=0)
+         txt = F.normalize(self.encode_text(tokens), dim=0)

encode_normalises: encode_image and encode_text return what the towers return; only forward normalises.
-         return self.visual(x)
+         return F.normalize(self.visual(x), dim=1)

bias_left_out: forward leaves out the bias.
-         return logits if self.logit_bias is None else logits + self.logit_bias
+         return logits

bias_subtracted: the bias is added, not subtracted.
- else logits + self.logit_bias
+ else logits - self.logit_bias

bias_scaled: the scale multiplies the cosines only, not the bias.
- else logits + self.logit_bias
+ else logits + self.logit_scale.exp() * self.logit_bias

bias_always: there is a parameter logit_bias although no bias was asked for: None then.
-         self.logit_bias = None
+         logit_bias = logit_bias or 0.0

bias_not_learned: logit_bias is not a parameter, so no optimiser finds it.
-             self.logit_bias = nn.Parameter(torch.tensor(logit_bias))
+             self.logit_bias = torch.tensor(logit_bias)

image_asks_text: encode_image calls the text tower; `visual` embeds images.
-         return self.visual(x)
+         return self.text(x)

text_asks_image: encode_text calls the image tower; `text` embeds texts.
-         return self.text(tokens)
+         return self.visual(tokens)

softmax: forward returns logits; leave the softmax to the loss.
-         return logits if self.logit_bias is None else logits + self.logit_bias
+         return (logits if self.logit_bias is None else logits + self.logit_bias).softmax(dim=1)
""",
)

ZERO_SHOT_WEIGHTS = edits(
    "zero_shot_weights",
    """
no_second_normalisation: the mean of unit vectors is shorter than 1: normalise it again.
- F.normalize(prompts.mean(dim=0), dim=0)
+ prompts.mean(dim=0)

no_first_normalisation: prompts are averaged as long as they are: normalise each first, so that all have one vote.
- F.normalize(encode(texts), dim=1)
+ encode(texts)

not_normalised: nothing is normalised: neither the prompts nor their mean.
-         prompts = F.normalize(encode(texts), dim=1)
-         columns.append(F.normalize(prompts.mean(dim=0), dim=0))
+         columns.append(encode(texts).mean(dim=0))

texts_joined: the templates are joined to one text; each is embedded, and the embeddings are averaged.
- encode(texts)
+ encode([" ".join(texts)])

first_template: only the first template is used.
- for template in templates]
+ for template in templates[:1]]

last_template: only the last template is used.
- for template in templates]
+ for template in templates[-1:]]

index_not_name: the number of the class is written into the templates, not its name.
- template.format(name) for
+ template.format(classes.index(name)) for

no_template: the bare name is embedded; write it into the templates.
- template.format(name) for
+ name for

sorted: the classes come out in the order of the alphabet, not in the order given.
- for name in classes:
+ for name in sorted(classes):

reversed: the classes come out in reverse order.
- for name in classes:
+ for name in classes[::-1]:

rows: a row for each class; the weights are (D, C), a column for each.
-     return torch.stack(columns, dim=1)
+     return torch.stack(columns)

classes_mixed: prompts of different classes are averaged: a reshape in the wrong order.
-     columns = []
+     every = encode([t.format(c) for c in classes for t in templates])
+     every = F.normalize(every, dim=1).reshape(len(templates), len(classes), -1)
+     return F.normalize(every.mean(dim=0), dim=1).T
+     columns = []

averaged_over_numbers: you average over the numbers of an embedding; the mean runs over the templates.
- F.normalize(prompts.mean(dim=0), dim=0)
+ F.normalize(prompts.mean(dim=1, keepdim=True).expand_as(prompts).mean(dim=0), dim=0)

normalised_over_templates: the first normalisation runs over the templates (dim=0); each prompt has length 1.
- F.normalize(encode(texts), dim=1)
+ F.normalize(encode(texts), dim=0)

normalised_over_classes: the last normalisation runs over the classes; each column has length 1.
-         columns.append(F.normalize(prompts.mean(dim=0), dim=0))
-     return torch.stack(columns, dim=1)
+         columns.append(prompts.mean(dim=0))
+     return F.normalize(torch.stack(columns, dim=1), dim=1)

duplicates_dropped: a class that is named twice has two columns.
- for name in classes:
+ for name in dict.fromkeys(classes):
""",
)

PROMPT_LOGITS = edits(
    "prompt_logits",
    """
not_normalised: images are of any length: normalise them.
- F.normalize(img, dim=1)
+ img

normalised_over_the_batch: you normalise over the images (dim=0); each embedding, a row, has length 1.
- F.normalize(img, dim=1)
+ F.normalize(img, dim=0)

weights_transposed: W is (D, C), a column for each class: no transpose.
- , dim=1) @ W
+ , dim=1) @ W.T

weights_normalised: W is used as it is; you normalise its columns again.
- , dim=1) @ W
+ , dim=1) @ F.normalize(W, dim=0)

weights_normalised_over_classes: W is used as it is; you normalise its rows.
- , dim=1) @ W
+ , dim=1) @ F.normalize(W, dim=1)

softmax_over_classes: these are probabilities; scores are asked for.
-     return scale * F.normalize(img, dim=1) @ W
+     return (scale * F.normalize(img, dim=1) @ W).softmax(dim=1)

softmax_over_images: these are probabilities, and over the images; scores are asked for.
-     return scale * F.normalize(img, dim=1) @ W
+     return (scale * F.normalize(img, dim=1) @ W).softmax(dim=0)

scale_twice: the scale multiplies twice.
- F.normalize(img, dim=1) @ W
+ F.normalize(img, dim=1) @ (scale * W)

scale_left_out: the scale is missing (or it came first, and the normalisation took it away again).
-     return scale * F
+     return F

scale_divides: you divide by the scale; it multiplies.
-     return scale * F.normalize(img, dim=1) @ W
+     return F.normalize(img, dim=1) @ W / scale

other_scale: the scale is 100 when it is not given.
- scale: float | Tensor = 100.0
+ scale: float | Tensor = 1.0

zero_divided: an embedding of zeros gives 0 / 0: F.normalize takes care of it.
- F.normalize(img, dim=1)
+ (img / img.norm(dim=1, keepdim=True))
""",
)

EFFECTIVE_ROBUSTNESS = edits(
    "effective_robustness",
    """
raw_accuracies: the line is fitted to the accuracies; fit it to their logits.
-     u, v = torch.logit(fit[:, 0]), torch.logit(fit[:, 1])
-     m = ((u - u.mean()) * (v - v.mean())).sum() / (u - u.mean()).square().sum()
-     c = v.mean() - m * u.mean()
-     expected = torch.sigmoid(m * torch.logit(torch.tensor(acc_id)) + c)
+     u, v = fit[:, 0], fit[:, 1]
+     m = ((u - u.mean()) * (v - v.mean())).sum() / (u - u.mean()).square().sum()
+     c = v.mean() - m * u.mean()
+     expected = m * torch.tensor(acc_id) + c

model_among_references: the model is among the references, so it pulls the line towards itself.
-     u, v = torch
+     fit = torch.cat([fit, torch.tensor([[acc_id, acc_ood]], dtype=fit.dtype)])
+     u, v = torch

sign: the sign is turned around: above the line is positive.
-     return acc_ood - expected.item()
+     return expected.item() - acc_ood

per_cent: the answer is in per cent; return a fraction.
-     return acc_ood - expected.item()
+     return 100 * (acc_ood - expected.item())

difference_of_logits: this is a difference of logits; both accuracies are compared as they are.
-     expected = torch.sigmoid(m * torch.logit(torch.tensor(acc_id)) + c)
-     return acc_ood - expected.item()
+     expected = m * torch.logit(torch.tensor(acc_id)) + c
+     return (torch.logit(torch.tensor(acc_ood)) - expected).item()

sigmoid_left_out: the line gives a logit; turn it back into an accuracy with the sigmoid.
- torch.sigmoid(m * torch.logit(torch.tensor(acc_id)) + c)
+ (m * torch.logit(torch.tensor(acc_id)) + c)

model_not_on_logit_axis: the line takes the logit of the model's accuracy, not the accuracy.
- m * torch.logit(torch.tensor(acc_id)) + c
+ m * torch.tensor(acc_id) + c

columns_swapped: column 0 of `fit` is without shift, column 1 with shift; you took them the other way round.
- torch.logit(fit[:, 0]), torch.logit(fit[:, 1])
+ torch.logit(fit[:, 1]), torch.logit(fit[:, 0])

through_the_origin: the line has no intercept, so it runs through accuracy 0.5 and 0.5.
-     m = ((u - u.mean()) * (v - v.mean())).sum() / (u - u.mean()).square().sum()
-     c = v.mean() - m * u.mean()
+     m = (u * v).sum() / u.square().sum()
+     c = 0.0

slope_inverted: the slope divides by the spread of the accuracies under shift; it is that of those without.
- / (u - u.mean()).square().sum()
+ / (v - v.mean()).square().sum()

slope_is_correlation: this slope is a correlation: divide by the sum of squares of u alone.
- / (u - u.mean()).square().sum()
+ / ((u - u.mean()).square().sum() * (v - v.mean()).square().sum()).sqrt()

slope_one: the slope is taken to be 1; fit it.
-     m = ((u - u.mean()) * (v - v.mean())).sum() / (u - u.mean()).square().sum()
+     m = 1.0

intercept_sign: the intercept has the wrong sign: v.mean() - m * u.mean().
- v.mean() - m * u.mean()
+ m * u.mean() - v.mean()

mixed_normalisation: covariance and variance are divided by different numbers (M and M - 1).
- / (u - u.mean()).square().sum()
+ / (len(u) * u.var())

first_and_last: the line runs through the first and the last reference only; all of them count.
-     m = ((u - u.mean()) * (v - v.mean())).sum() / (u - u.mean()).square().sum()
-     c = v.mean() - m * u.mean()
+     m = (v[-1] - v[0]) / (u[-1] - u[0])
+     c = v[0] - m * u[0]

drop_under_shift: this is the accuracy lost under shift; compare with what the line expects.
-     return acc_ood - expected.item()
+     return acc_ood - acc_id

above_the_mean: you compare with the mean of the references; compare with the line at this model's accuracy.
-     return acc_ood - expected.item()
+     return acc_ood - fit[:, 1].mean().item()

tensor: return a float: .item().
-     return acc_ood - expected.item()
+     return acc_ood - expected
""",
)

RIGHT = [
    Right(
        "CLIP",
        "functions",
        """
class CLIP(nn.Module):
    def __init__(self, visual, text, *, logit_scale=math.log(1 / 0.07), logit_bias=None):
        super().__init__()
        self.text = text
        self.visual = visual
        self.logit_scale = nn.Parameter(torch.ones(()) * logit_scale)
        bias = None if logit_bias is None else nn.Parameter(torch.full((), float(logit_bias)))
        self.register_parameter("logit_bias", bias)

    def encode_image(self, x):
        return self.visual(x)

    def encode_text(self, tokens):
        return self.text(tokens)

    def forward(self, x, tokens):
        img, txt = self.visual(x), self.text(tokens)
        cosines = (img / img.norm(dim=-1, keepdim=True)) @ (txt / txt.norm(dim=-1, keepdim=True)).t()
        return cosines * torch.exp(self.logit_scale) + (0 if self.logit_bias is None else self.logit_bias)
""",
    ),
    Right(
        "CLIP",
        "einsum",
        """
class CLIP(nn.Module):
    def __init__(self, visual: nn.Module, text: nn.Module, *, logit_scale: float = 2.6592600369, logit_bias=None):
        super().__init__()
        self.visual, self.text, self.logit_bias = visual, text, None
        self.logit_scale = nn.Parameter(torch.tensor(float(logit_scale)))
        if logit_bias is not None:
            self.logit_bias = nn.Parameter(torch.tensor(float(logit_bias)))

    def encode_image(self, x, normalize=False):
        z = self.visual(x)
        return F.normalize(z, dim=-1) if normalize else z

    def encode_text(self, tokens, normalize=False):
        z = self.text(tokens)
        return F.normalize(z, dim=-1) if normalize else z

    def forward(self, x, tokens):
        logits = torch.einsum("id,jd->ij", self.encode_image(x, True), self.encode_text(tokens, True))
        logits = logits.mul(self.logit_scale.exp())
        if self.logit_bias is not None:
            logits = logits + self.logit_bias
        return logits
""",
    ),
    Right(
        "zero_shot_weights",
        "one_call",
        """
def zero_shot_weights(encode, classes, templates):
    texts = [template.replace("{}", name) for name in classes for template in templates]
    z = F.normalize(encode(texts), dim=-1).reshape(len(classes), len(templates), -1)
    return F.normalize(z.mean(dim=1), dim=-1).T
""",
    ),
    Right(
        "zero_shot_weights",
        "text_by_text",
        """
def zero_shot_weights(encode, classes, templates):
    columns = []
    for name in classes:
        total = 0
        for template in templates:
            z = encode([template.format(name)])[0]
            total = total + z / z.norm()
        columns.append(total / total.norm())
    return torch.stack(columns).T
""",
    ),
    Right(
        "prompt_logits",
        "einsum",
        """
def prompt_logits(img, W, scale=100.0):
    unit = img / img.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return torch.einsum("nd,dc->nc", unit, W) * scale
""",
    ),
    Right(
        "prompt_logits",
        "linear",
        """
def prompt_logits(img, W, scale=100.0):
    return F.linear(F.normalize(img, dim=-1), W.T) * scale
""",
    ),
    Right(
        "effective_robustness",
        "least_squares",
        """
def effective_robustness(acc_id, acc_ood, fit):
    points = torch.logit(fit.double())
    x = torch.stack([points[:, 0], torch.ones(len(fit), dtype=torch.float64)], dim=1)
    slope, intercept = torch.linalg.lstsq(x, points[:, 1:]).solution[:, 0].tolist()
    return acc_ood - 1 / (1 + math.exp(-(slope * math.log(acc_id / (1 - acc_id)) + intercept)))
""",
    ),
    Right(
        "effective_robustness",
        "loop",
        """
def effective_robustness(acc_id, acc_ood, fit):
    def logit(p):
        return math.log(p / (1 - p))

    pairs = [(logit(a), logit(b)) for a, b in fit.tolist()]
    n = len(pairs)
    mean_u, mean_v = sum(u for u, _ in pairs) / n, sum(v for _, v in pairs) / n
    cov = sum((u - mean_u) * (v - mean_v) for u, v in pairs)
    m = cov / sum((u - mean_u) ** 2 for u, _ in pairs)
    return acc_ood - 1 / (1 + math.exp(-(mean_v + m * (logit(acc_id) - mean_u))))
""",
    ),
]

"""transformers' GptOss, the reference for oss-run."""

import torch
from transformers import AutoModelForCausalLM, logging
from transformers.models.gpt_oss.modeling_gpt_oss import load_balancing_loss_func

logging.set_verbosity_error()
logging.disable_progress_bar()

DOCUMENTS = """\
Once upon a time there was a small red boat. It lived by the sea, and every morning it waited for the tide.

"Will you come with me?" asked the gull. "I will," said the boat, "if the wind is kind."
<|endoftext|>
  Tom had three apples, two pears and one très grand melon — the melon was 12.5 kg!
He gave it to his friend. They were happy. 🙂
<|endoftext|>

<|endoftext|>
The end came late. The owl slept, the fox slept, and the boat slept too, far out, where nobody could see it,
under a sky with so many stars that even the oldest turtle had never finished counting them.
"""


def load(directory):
    """Loads the model of a Hugging Face directory in f32, whatever its stored dtype."""
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    # transformers freezes the padding token's row, but here that token ends every document and is trained.
    model.get_input_embeddings().padding_idx = None
    return model.eval()


@torch.no_grad()
def logits(model, tokens):
    """Logits [T, V] for one sequence."""
    return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]


def document_tokens(tokenizer, text, end_of_text):
    """A text file's tokens as prepare produces them: documents of only white space dropped, end-of-text after each."""
    documents = [document for document in text.split("\n<|endoftext|>\n") if document.strip()]
    return [token for document in documents for token in [*tokenizer.encode(document), end_of_text]]


def window_loss(model, tokens, length):
    """Mean negative log-likelihood over consecutive windows of `length` predictions, in f64."""
    total = 0.0
    for start in range(0, len(tokens) - 1, length):
        window = tokens[start : start + length + 1]
        scores = logits(model, window[:-1]).double()
        total += torch.nn.functional.cross_entropy(scores, torch.tensor(window[1:]), reduction="sum").item()
    return total / (len(tokens) - 1)


@torch.no_grad()
def greedy(model, prompt, count, end_of_text):
    """Up to `count` new tokens before end-of-text, and the smallest margin of a chosen token over the runner-up."""
    prompt = torch.tensor([prompt])
    made = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=count, output_logits=True,
        eos_token_id=end_of_text, pad_token_id=end_of_text, return_dict_in_generate=True,
    )
    leads = [scores[0].topk(2).values for scores in made.logits]
    new = made.sequences[0, prompt.shape[1] :].tolist()
    return without_end(new, end_of_text), min((first - second).item() for first, second in leads)


def without_end(tokens, end_of_text):
    return tokens[: tokens.index(end_of_text)] if end_of_text in tokens else tokens


def training_loss(model, inputs, targets, masks=None):
    """Cross-entropy of a batch, and the load-balancing loss averaged over the layers."""
    router_logits = []
    hooks = [
        layer.mlp.router.register_forward_hook(lambda _module, _inputs, routed: router_logits.append(routed[0]))
        for layer in model.model.layers
    ]
    scores = model(input_ids=inputs, attention_mask=masks, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten())
    experts, active = model.config.num_local_experts, model.config.num_experts_per_tok
    balance = torch.stack([load_balancing_loss_func((layer,), experts, active) for layer in router_logits])
    return loss, balance.mean()


def document_masks(ids, end_of_text, window):
    """Additive masks [B, 1, T, T] that restrict attention to a token's own document."""
    document = (ids == end_of_text).cumsum(1)  # end-of-text counts as the first token of the next document
    query, key = torch.arange(ids.shape[1])[:, None], torch.arange(ids.shape[1])[None]
    seen = (document[:, None, :, None] == document[:, None, None, :]) & (key <= query)
    hidden = torch.finfo(torch.float32).min

    def additive(allowed):
        return torch.zeros(allowed.shape).masked_fill(~allowed, hidden)

    return {"full_attention": additive(seen), "sliding_attention": additive(seen & (query - key < window))}


def relative_error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()

"""Language-model rerankers small enough to be made on the spot: byte-level BPE with the published special tokens, the
published templates, random weights.

Sources of the templates: the model cards of Qwen/Qwen3-Reranker-0.6B and mixedbread-ai/mxbai-rerank-base-v2.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from teachers.checkpoints.loading import quiet_loading
from tests.tiny_models import sample_texts

Kind = Literal["qwen3", "qwen2", "gemma2", "llama"]
KINDS: tuple[Kind, ...] = ("qwen3", "qwen2", "gemma2", "llama")

QWEN3_TEMPLATE = (
    "{%- set ns = namespace(instruction='Given a web search query, "
    "retrieve relevant passages that answer the query') -%}"
    "{%- for message in messages -%}{%- if message.role == 'system' -%}{%- set ns.instruction = message.content -%}"
    "{%- elif message.role == 'query' -%}{%- set ns.query = message.content -%}"
    "{%- elif message.role == 'document' -%}{%- set ns.document = message.content -%}{%- endif -%}{%- endfor -%}"
    "{{ '<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: ' + ns.instruction + '\n<Query>: ' + ns.query + '\n<Document>: ' + ns.document + '<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n' }}"
)
MXBAI_TEMPLATE = (
    "{%- for message in messages -%}{%- if message.role == 'query' -%}{%- set query = message.content -%}"
    "{{ '<|endoftext|><|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    "<|im_end|>\n<|im_start|>user\nquery: ' + message.content + '\ndocument: ' }}"
    "{%- elif message.role == 'document' -%}"
    "{{ message.content + '\nYou are a search relevance expert who evaluates how well documents match search queries. "
    "For each query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
    "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:<|im_end|>\n<|im_start|>assistant\n' }}"
    "{%- endif -%}{%- endfor -%}"
)
# How Qwen2 and Qwen3 cut texts into words.
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONFIGS: dict[Kind, Any] = {"qwen3": Qwen3Config, "qwen2": Qwen2Config, "gemma2": Gemma2Config, "llama": LlamaConfig}
_OPTIONS: dict[Kind, dict[str, Any]] = {
    # Small windows and caps, so that they show in scores.
    "gemma2": {"head_dim": 16, "sliding_window": 24, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 5.0},
    "qwen3": {"head_dim": 16},
    "qwen2": {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    "llama": {},
}


def save_decoder(
    kind: Kind,
    directory: Path,
    *,
    template: str | None = QWEN3_TEMPLATE,
    words: bool = True,
    labels: int | None = None,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a causal language model, or with `labels` a classifier, with its tokenizer, and return the directory."""
    tokenizer = decoder_tokenizer(words)
    tokenizer.chat_template = template
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    if labels is not None:
        sizes["num_labels"] = labels
    made = _CONFIGS[kind](**sizes | _OPTIONS[kind] | config)
    auto = AutoModelForCausalLM if labels is None else AutoModelForSequenceClassification
    model = auto.from_config(made)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 0.15, generator=draw)
    with quiet_loading():
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    return directory


@cache
def _trained(words: bool) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.NFC()
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cut = [pre_tokenizers.Split(Regex(_QWEN_WORDS), "isolated")] if words else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cut, bytes_of])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=900,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=12,
        show_progress=False,
    )
    prompts = [
        "yes\nno\nyes\nno",
        "query: \ndocument: yes no",
        "<Query>: what?\n<Document>: it is",
        "Judge whether the Document meets",
    ]
    tokenizer.train_from_iterator(sample_texts(300) + prompts * 20, trainer)
    tokenizer.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    return tokenizer


def decoder_tokenizer(words: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer with Qwen's special tokens; without `words` it merges across words, as SentencePiece's BPE does."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_trained(words), pad_token="<|endoftext|>", eos_token="<|im_end|>", padding_side="left"
    )

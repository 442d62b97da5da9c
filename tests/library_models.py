"""Small random models in the forms in which sentence-transformers and transformers save them, and their own scores.

Each model is saved by the library's classes; `library_scores` loads the directory with the same classes. What a class
of the library says is the truth for the readers here, which share no code with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import processors
from transformers import (
    AlbertConfig,
    BartConfig,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    T5Config,
    XLMRobertaConfig,
)

from tests.tiny_models import randomise, sample_texts, tiny_tokenizer

POSITIONS = 96
QUERIES, PASSAGES = sample_texts(5, longest=12, seed=3), sample_texts(20, longest=40, seed=4)
PAIRS = [(query, passage) for query in QUERIES for passage in PASSAGES]
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": POSITIONS,
}
DECODER = {**SIZES, "num_key_value_heads": 1, "head_dim": 16}
TEMPLATE = "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} {% endfor %}"
CONFIGS: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "bert": (BertConfig, SIZES),
    "roberta": (RobertaConfig, {**SIZES, "type_vocab_size": 1, "max_position_embeddings": POSITIONS + 2}),
    "xlm-roberta": (XLMRobertaConfig, {**SIZES, "type_vocab_size": 1, "max_position_embeddings": POSITIONS + 2}),
    "albert": (AlbertConfig, {**SIZES, "embedding_size": 16}),
    "electra": (ElectraConfig, {**SIZES, "embedding_size": 16}),
    "distilbert": (
        DistilBertConfig,
        {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2, "max_position_embeddings": POSITIONS},
    ),
    "modernbert": (
        ModernBertConfig,
        {**SIZES, "local_attention": 16, "global_attn_every_n_layers": 2}
        | dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
    ),
    "deberta": (DebertaV2Config, {**SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "mpnet": (MPNetConfig, {**SIZES, "max_position_embeddings": POSITIONS + 2}),
    "qwen2": (Qwen2Config, {**DECODER}),
    "qwen3": (Qwen3Config, {**DECODER}),
    "t5": (T5Config, {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}),
    "bart": (
        BartConfig,
        {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2}
        | {"decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 128},
    ),
}
_TOKENIZERS = {"albert": "albert", "roberta": "roberta", "xlm-roberta": "roberta", "modernbert": "modernbert"}


def save_base(kind: str, directory: Path, auto: Any, *, seed: int = 0, **config: Any) -> Path:
    """A model of one of transformers' auto classes with its tokenizer, as transformers saves them."""
    tokenizer = base_tokenizer(kind)
    tokenizer.model_max_length = POSITIONS
    made, sizes = CONFIGS[kind]
    shape = made(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **{**sizes, **config})
    model = auto.from_config(shape)
    randomise(model, seed, 0.3)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def base_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer of the kind that its models have; those of decoders end a text with one token and pad on the left."""
    tokenizer = tiny_tokenizer(_TOKENIZERS.get(kind, "bert"))  # type: ignore[arg-type]
    if kind not in ("qwen2", "qwen3", "t5", "bart"):
        return tokenizer
    bare = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        eos_token="[SEP]",
        padding_side="left" if kind.startswith("qwen") else "right",
    )
    end = (("[SEP]", bare.convert_tokens_to_ids("[SEP]")),)
    bare.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B [SEP]", special_tokens=list(end)
    )
    return bare


def edit(directory: Path, name: str, **values: Any) -> None:
    """Set keys of a JSON file of the directory; None removes one. Of a list, its first entry."""
    path = directory / name
    stated = json.loads(path.read_text()) if path.is_file() else {}
    if isinstance(stated, list):
        stated[0] |= values
        path.write_text(json.dumps(stated))
        return
    stated |= values
    path.write_text(json.dumps({key: value for key, value in stated.items() if value is not None}))


def library_scores(directory: Path, kind: str) -> NDArray[np.float32]:
    """Scores of `PAIRS` by the library's class for this kind of model: raw logits, or similarities."""
    import sentence_transformers

    float32 = {"model_kwargs": {"dtype": torch.float32}, "device": "cpu", "local_files_only": True}
    if kind == "CrossEncoder":
        model = sentence_transformers.CrossEncoder(str(directory), **float32)
        return np.asarray(model.predict(PAIRS, activation_fn=torch.nn.Identity()), np.float32)
    model = getattr(sentence_transformers, kind)(str(directory), **float32)
    queries, passages = model.encode_query(QUERIES), model.encode_document(PASSAGES)
    return model.similarity(queries, passages).cpu().numpy().reshape(-1).astype(np.float32)

"""Cross-encoder checkpoints small enough to be made on the spot: random weights, tokenizers trained here.

The weights are drawn wide, so that scores differ between pairs, and token types and cut points show in them.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from math import log
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertTokenizer,
    AutoModelForSequenceClassification,
    BertConfig,
    BertTokenizer,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaTokenizer,
)

from teachers.checkpoints.loading import quiet_loading

Kind = Literal["bert", "albert", "distilbert", "roberta", "electra", "modernbert", "bert_cat"]
KINDS: tuple[Kind, ...] = ("bert", "albert", "distilbert", "roberta", "electra", "modernbert", "bert_cat")

POSITIONS = 64
VOCABULARY = 400
WIDTH = 32

_SENTENCE = (
    "what is the of and a to in how does who when where why are was many much river lake mountain city "
    "capital temperature boils freezes water ice steam energy light speed sound metal copper iron gold "
    "protein cell plant leaf root tree forest animal whale bird wing engine train station ticket price "
    "cost pay tax law court judge doctor patient fever vaccine dose blood heart lung brain nerve bone "
    "muscle Zürich naïve café 2019 100 km/h state-of-the-art e.g. U.S. (also) 'quoted' 50% $3.99"
)
_WORDS = _SENTENCE.split()


def sample_texts(count: int, *, longest: int = 40, seed: int = 0) -> list[str]:
    """Texts of 1 to `longest` words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(_WORDS, k=draw.randint(1, longest))) for _ in range(count)]


def save_tiny(
    kind: Kind,
    directory: Path,
    *,
    seed: int = 0,
    num_labels: int = 1,
    vocab_from: Sequence[str] | None = None,
    **config: Any,
) -> Path:
    """Write a loadable checkpoint of `kind` with its tokenizer into `directory`, and return it.

    `vocab_from` are the texts to train the tokenizer on; `config` overrides keys of the configuration.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer(kind, vocab_from)
    tokenizer.save_pretrained(directory)
    if kind == "bert_cat":
        save_bert_cat(directory, DistilBertModel(_distilbert(len(tokenizer), dim=128, n_heads=2)), seed=seed)
        return directory
    settings = _CONFIGS[kind](len(tokenizer), num_labels=num_labels, pad_token_id=tokenizer.pad_token_id, **config)
    model = AutoModelForSequenceClassification.from_config(settings)
    randomise(model, seed)
    with quiet_loading():
        model.save_pretrained(directory)
    return directory


def tiny_tokenizer(kind: Kind, vocab_from: Sequence[str] | None = None) -> PreTrainedTokenizerFast:
    """The tokenizer of `kind`, trained on `vocab_from`; the same texts give the same tokenizer."""
    return _TOKENIZERS[kind](list(vocab_from or sample_texts(300)))


def save_bert_cat(
    directory: Path,
    encoder: PreTrainedModel,
    *,
    seed: int = 0,
    named: str = "distilbert-base-uncased",
    **config: Any,
) -> None:
    """Write `encoder`, randomised, under the key names and configuration of matchmaker's models."""
    head = nn.Linear(encoder.config.hidden_size, 1)
    randomise(encoder, seed)
    randomise(head, seed + 1)
    state = {f"bert_model.{key}": value for key, value in encoder.state_dict().items()}
    state |= {f"_classification_layer.{key}": value for key, value in head.state_dict().items()}
    torch.save(state, directory / "pytorch_model.bin")
    published = {
        "architectures": ["BERT_Cat"],
        "bert_model": named,
        "model_type": "BERT_Cat",
        "trainable": True,
    }
    (directory / "config.json").write_text(json.dumps(published | config))


def randomise(module: nn.Module, seed: int, std: float = 0.3) -> None:
    """Draw every weight; those of normalisation layers around one."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        noise = torch.randn(weight.shape, generator=generator) * std
        weight.data = noise + (1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0)


def _bert_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = _pieces(BertTokenizer(), texts, first="", inner="##")
    return BertTokenizer(vocab={piece: number for number, piece in enumerate(specials + list(pieces))})


def _albert_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    specials = [(piece, 0.0) for piece in ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")]
    # Pre-tokenised words begin with the mark already.
    pieces = _pieces(AlbertTokenizer(), texts, first="", inner="")
    total = sum(pieces.values())
    # Declared, as it is where the model was trained with token types; the class's default leaves them out.
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    vocabulary = specials + [(piece, log(n / total)) for piece, n in pieces.items()]
    return AlbertTokenizer(vocab=vocabulary, model_input_names=inputs)


def _pieces(tokenizer: PreTrainedTokenizerFast, texts: list[str], *, first: str, inner: str) -> dict[str, int]:
    """Counted pieces of words: whole, halved, and every character.

    The library's own trainers for WordPiece and Unigram number their pieces anew in each run.
    """
    backend = tokenizer.backend_tokenizer
    counts: Counter[str] = Counter()
    for text in texts:
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text)):
            half = (len(word) + 1) // 2
            counts.update([first + word, first + word[:half], inner + word[half:]])
            counts.update([first + letter for letter in word] + [inner + letter for letter in word])
    counts.pop(inner, None)
    letters = {piece for piece in counts if len(piece.removeprefix("##")) == 1}
    ranked = sorted(counts, key=lambda piece: (piece not in letters, -counts[piece], piece))
    return {piece: counts[piece] for piece in ranked[:VOCABULARY]}


def _roberta_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    return RobertaTokenizer().train_new_from_iterator(texts, VOCABULARY, show_progress=False)


def _modernbert_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    plain = PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="[MASK]", **names)
    trained = plain.train_new_from_iterator(texts, VOCABULARY, show_progress=False)
    trained.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(name, trained.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]")],
    )
    return trained


_TOKENIZERS: dict[Kind, Callable[[list[str]], PreTrainedTokenizerFast]] = {
    "bert": _bert_tokenizer,
    "albert": _albert_tokenizer,
    "distilbert": _bert_tokenizer,
    "roberta": _roberta_tokenizer,
    "electra": _bert_tokenizer,
    "modernbert": _modernbert_tokenizer,
    "bert_cat": _bert_tokenizer,
}


def _usual(make: Callable[..., PreTrainedConfig], **fixed: Any) -> Callable[..., PreTrainedConfig]:
    def build(vocab_size: int, **given: Any) -> PreTrainedConfig:
        sizes = {
            "vocab_size": vocab_size,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": POSITIONS,
        }
        return make(**(sizes | fixed | given))

    return build


def _distilbert(vocab_size: int, **given: Any) -> PreTrainedConfig:
    sizes = {
        "dim": WIDTH,
        "hidden_dim": 2 * WIDTH,
        "n_layers": 2,
        "n_heads": 2,
        "max_position_embeddings": POSITIONS,
    }
    return DistilBertConfig(**({"vocab_size": vocab_size} | sizes | given))


_NO_SPECIALS = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))
_CONFIGS: dict[Kind, Callable[..., PreTrainedConfig]] = {
    "bert": _usual(BertConfig),
    "albert": _usual(AlbertConfig, embedding_size=16),
    "distilbert": _distilbert,
    # Positions are counted from the padding index on, which is 0 here.
    "roberta": _usual(RobertaConfig, type_vocab_size=1, max_position_embeddings=POSITIONS + 1),
    "electra": _usual(ElectraConfig, embedding_size=16),
    "modernbert": _usual(ModernBertConfig, local_attention=16, global_attn_every_n_layers=2, **_NO_SPECIALS),
}

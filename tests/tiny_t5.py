"""A T5 small enough to be made on the spot: SentencePiece pieces of whole words, random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import Unigram
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerFast, T5Config

from teachers.checkpoints.loading import quiet_loading
from tests.tiny_models import sample_texts


def save_t5(directory: Path) -> Path:
    """Write an encoder-decoder whose vocabulary has the words of monoT5, mT5 and RankT5, and return the directory."""
    words = {word for text in sample_texts(300) for word in text.split()}
    pieces = [f"▁{word}" for word in sorted(words | {"Query:", "Document:", "Relevant:", "true", "false", "yes", "no"})]
    letters = sorted({letter for piece in pieces for letter in piece})
    special = ["<pad>", "</s>", "<unk>", "<extra_id_10>"]
    vocabulary = [(one, 0.0) for one in special] + [(one, -8.0) for one in letters] + [(one, -4.0) for one in pieces]
    made = Tokenizer(Unigram(list(dict(vocabulary).items()), unk_id=2, byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", extra_special_tokens=[special[3]]
    )
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 0.3)
    with quiet_loading():
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    return directory

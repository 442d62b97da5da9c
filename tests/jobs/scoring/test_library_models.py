"""Every form in which sentence-transformers and transformers save a model is scored as their classes score it.

Or it is refused under its name, before anything is computed.
"""

import json

import numpy as np
import pytest
import sentence_transformers
import torch
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from sentence_transformers.sparse_encoder.modules import SpladePooling
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

from jobs.scoring.teachers import Teacher
from pipeline.errors import ModelError
from pipeline.fingerprint import digest_files, digest_json
from pipeline.storage.workspace import Workspace
from teachers.checkpoints.checkpoint import resolve
from teachers.scorer import pairs_of
from teachers.settings import ScoringSettings
from tests.library_models import PAIRS, PASSAGES, QUERIES, TEMPLATE, edit, library_scores, save_base

PROMPTS = {"query": "what is the price of: ", "document": "doctor law ", "other": "river "}
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def ours(directory, tmp_path, **settings):
    """Scores of the pairs; those of a bi-encoder without the scale of training."""
    teacher = Teacher("t", str(directory), ScoringSettings(**settings))
    resolved = teacher.resolve()
    scorer = resolved.load(Workspace.open(str(tmp_path / "ws"), create=True))
    assert scorer.fingerprint == resolved.fingerprint
    scores = scorer.score_encoded(scorer.encode(pairs_of(PAIRS))).scores
    return scores / scorer.describe().get("scale", 1.0)


# Cross-encoders.


def cross(kind, *, template=None, **options):
    def build(directory):
        save_base(kind, directory / "base", AutoModelForSequenceClassification, num_labels=1)
        if template:
            (directory / "base" / "chat_template.jinja").write_text(template)
        CrossEncoder(str(directory / "base"), device="cpu", **options).save(str(directory / "saved"))
        return directory / "saved"

    return build, "CrossEncoder"


def plain(kind, **config):
    def build(directory):
        return save_base(kind, directory / "saved", AutoModelForSequenceClassification, num_labels=1, **config)

    return build, "CrossEncoder"


def edited(built, *edits):
    """The same model after keys of its files have been set."""
    build, library = built

    def change(directory):
        saved = build(directory)
        for name, values in edits:
            edit(saved, name, **values)
        return saved

    return change, library


def language_model(kind, side):
    def build(directory):
        base = save_base(kind, directory / "base", AutoModelForCausalLM)
        edit(base, "tokenizer_config.json", padding_side=side)
        transformer = Transformer(str(base), transformer_task="text-generation")
        true, false = (transformer.tokenizer.convert_tokens_to_ids(word) for word in ("ice", "water"))
        model = CrossEncoder(modules=[transformer, LogitScore(true, false)], device="cpu")
        model.save(str(directory / "saved"))
        edit(directory / "saved", "tokenizer_config.json", padding_side=side)
        return directory / "saved"

    return build, "CrossEncoder"


def modular(directory):
    transformer = Transformer(str(save_base("bert", directory / "base", AutoModel)))
    head = [
        Pooling(32, "cls"),
        Dense(32, 32, activation_function=nn.GELU()),
        LayerNorm(32),
        Dense(32, 1, activation_function=nn.Identity(), module_output_name="scores"),
    ]
    CrossEncoder(modules=[transformer, *head], device="cpu").save(str(directory / "saved"))
    return directory / "saved"


# Models that encode query and passage separately.


def bi(kind, *modules, pooling="mean", include_prompt=True, prompts=None, auto=AutoModel, length=None, **options):
    """A SentenceTransformer; `modules` are functions of the width."""

    def build(directory):
        base = save_base(kind, directory / "base", auto)
        transformer = Transformer(str(base), max_seq_length=length)
        width = transformer.get_embedding_dimension()
        pools = Pooling(width, pooling, include_prompt=include_prompt)
        width *= len(pooling) if isinstance(pooling, tuple) else 1
        torch.manual_seed(7)
        above = [make(width) for make in modules]
        model = SentenceTransformer(modules=[transformer, pools, *above], device="cpu", prompts=prompts, **options)
        model.save(str(directory / "saved"))
        return directory / "saved"

    return build, "SentenceTransformer"


def sparse(kind="bert", *, strategy="max", activation="relu", length=None, **options):
    def build(directory):
        base = save_base(kind, directory / "base", AutoModelForMaskedLM)
        transformer = Transformer(str(base), transformer_task="fill-mask", max_seq_length=length)
        pooling = SpladePooling(strategy, activation)
        SparseEncoder(modules=[transformer, pooling], device="cpu", **options).save(str(directory / "saved"))
        return directory / "saved"

    return build, "SparseEncoder"


def multi(
    kind="bert",
    *above,
    skip=(),
    tasks=None,
    keep=None,
    dense=None,
    normalize=True,
    prompts=None,
    similarity=None,
    **transformer,
):
    def build(directory):
        base = save_base(kind, directory / "base", AutoModel)
        torch.manual_seed(8)
        tokens = {"module_input_name": "token_embeddings"}
        layers = dense or [Dense(32, 16, bias=False, activation_function=nn.Identity(), **tokens)]
        mask = MultiVectorMask(list(skip), skiplist_tasks=tasks, keep_only_token_ids=keep)
        end = [Normalize("token_embeddings")] if normalize else []
        model = MultiVectorEncoder(
            modules=[Transformer(str(base), **transformer), *layers, mask, *end],
            device="cpu",
            prompts=prompts,
            similarity_fn_name=similarity,
        )
        model.save(str(directory / "saved"))
        return directory / "saved"

    return build, "MultiVectorEncoder"


def dense(outputs, activation=None, **options):
    return lambda width: Dense(width, outputs, activation_function=activation or nn.Tanh(), **options)


def unit(width):
    return Normalize()


def tokens_dense(inputs, outputs, activation, **options):
    return Dense(inputs, outputs, activation_function=activation, module_input_name="token_embeddings", **options)


def pylate(directory, **config):
    """A directory as PyLate 3 writes it."""
    build, _ = multi(normalize=False)
    saved = build(directory)
    modules = json.loads((saved / "modules.json").read_text())[:2]
    modules[1]["type"] = "pylate.models.Dense.Dense"
    dense = json.loads((saved / "1_Dense" / "config.json").read_text())
    kept = {key: dense[key] for key in ("in_features", "out_features", "bias", "activation_function")}
    (saved / "1_Dense" / "config.json").write_text(json.dumps(kept))
    (saved / "modules.json").write_text(json.dumps(modules))
    (saved / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 60, "do_lower_case": False}))
    stated = {
        "model_type": "ColBERT",
        "similarity_fn_name": "cosine",
        "query_prefix": "[MASK] ",
        "document_prefix": "[UNK] ",
    }
    stated |= {
        "query_length": 16,
        "document_length": 30,
        "attend_to_expansion_tokens": False,
        "skiplist_words": ["ice", "the"],
    }
    (saved / "config_sentence_transformers.json").write_text(json.dumps({**stated, **config}))
    return saved


def causal(directory):
    return save_base("qwen2", directory / "saved", AutoModelForCausalLM)


causal = causal, "CrossEncoder"


def with_file(built, name, content):
    """The same model with one more file."""
    build, library = built

    def add(directory):
        saved = build(directory)
        (saved / name).write_text(content)
        return saved

    return add, library


EXPANSION = {"strategy": "fixed", "attend": False, "length": 16}
CASES = {
    # Cross-encoders
    **{f"cross {kind}": cross(kind) for kind in ("bert", "distilbert", "deberta", "modernbert", "xlm-roberta")},
    **{f"plain {kind}": plain(kind) for kind in ("bert", "roberta", "electra", "mpnet")},
    "cross prompts without a default": cross("bert", prompts=PROMPTS),
    "cross default prompt": cross("bert", prompts=PROMPTS, default_prompt_name="query"),
    "cross other prompt": cross("roberta", prompts=PROMPTS, default_prompt_name="other"),
    "cross short": cross("bert", max_length=24),
    "cross lower case": edited(cross("roberta"), ("sentence_bert_config.json", {"do_lower_case": True})),
    "cross max_seq_length": edited(cross("electra"), ("sentence_bert_config.json", {"max_seq_length": 20})),
    "cross text max_length": edited(
        cross("electra"), ("sentence_bert_config.json", {"processing_kwargs": {"text": {"max_length": 22}}})
    ),
    "cross activation": cross("bert", activation_fn=nn.Tanh()),
    "decoder classifier": plain("qwen2"),
    "decoder classifier saved": cross("qwen3"),
    # Bi-encoders
    "bi mean": bi("bert"),
    "bi albert": bi("albert"),
    "bi cls": bi("roberta", pooling="cls"),
    "bi prompts": bi("bert", unit, prompts=PROMPTS),
    "bi one prompt": bi("bert", prompts={"query": "what is: "}),
    "bi passage prompt": bi("bert", prompts={"query": "query: ", "passage": "passage: "}),
    "bi default prompt": bi("bert", prompts=PROMPTS, default_prompt_name="other"),
    "bi prompt left out": bi("bert", prompts=PROMPTS, include_prompt=False),
    "bi prompt left out cls": bi("distilbert", prompts=PROMPTS, include_prompt=False, pooling="cls"),
    "bi short": bi("bert", length=14),
    "bi dot": bi("bert", similarity_fn_name="dot"),
    "bi cosine": bi("mpnet", similarity_fn_name="cosine"),
    "bi unit dot": bi("bert", unit, similarity_fn_name="dot"),
    "bi cut": bi("bert", unit, truncate_dim=12, similarity_fn_name="dot"),
    "bi cut cosine": bi("bert", truncate_dim=12),
    "bi max": bi("electra", pooling="max"),
    "bi last": bi("qwen3", unit, pooling="lasttoken", prompts=PROMPTS),
    "bi weighted": bi("qwen2", pooling="weightedmean"),
    "bi two": bi("bert", pooling=("cls", "mean_sqrt_len_tokens")),
    "bi dense": bi("bert", dense(16), lambda _: Dense(16, 8, use_residual=True), unit),
    "bi residual": bi("bert", dense(32, nn.GELU(), use_residual=True), LayerNorm),
    "bi t5": bi("t5", dense(16, nn.Identity(), bias=False), unit),
    "bi lower case": edited(bi("roberta"), ("sentence_bert_config.json", {"do_lower_case": True})),
    "bi old keys": edited(
        bi("bert"),
        (
            "1_Pooling/config.json",
            {"pooling_mode": None, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
        ),
    ),
    "bi lengths": edited(bi("bert"), ("sentence_bert_config.json", {"query_length": 9, "document_length": 17})),
    "bi classifier weights": edited(
        bi("bert", auto=AutoModelForSequenceClassification),
        ("config.json", {"architectures": ["BertForSequenceClassification"]}),
    ),
    "bi bidirectional": edited(bi("qwen3"), ("config.json", {"is_causal": False})),
    # Sparse encoders
    "sparse": sparse(),
    "sparse sum": sparse(strategy="sum"),
    "sparse log1p": sparse(activation="log1p_relu"),
    "sparse sum log1p distilbert": sparse("distilbert", strategy="sum", activation="log1p_relu"),
    "sparse cosine": sparse(similarity_fn_name="cosine"),
    "sparse few": sparse(max_active_dims=20),
    "sparse prompts": sparse(prompts=PROMPTS, length=20),
    "sparse old class": edited(
        sparse(),
        (
            "sentence_bert_config.json",
            {"transformer_task": None, "modality_config": None, "module_output_name": None, "max_seq_length": 20},
        ),
        ("modules.json", {"type": "sentence_transformers.sparse_encoder.models.MLMTransformer"}),
    ),
    # Multi-vector encoders
    "multi": multi(),
    "multi prompts": multi(prompts=PROMPTS, query_length=12, document_length=30),
    "multi skip": multi(skip=["ice", "the", "of", "notaword"]),
    "multi skip both": multi(skip=["ice", "the", "of"], tasks=["query", "document"]),
    "multi skip queries": multi(skip=["ice", "the", "what", "is"], tasks="query"),
    "multi keep": multi(keep=list(range(40, 90))),
    "multi expansion": multi(query_expansion=EXPANSION, document_length=20),
    "multi attend": multi(query_expansion={**EXPANSION, "attend": True}),
    "multi min": multi("modernbert", query_expansion={**EXPANSION, "strategy": "min"}),
    "multi min long": multi(query_expansion={"strategy": "min", "length": 8, "token": "water"}, query_length=20),
    "multi called with a length": edited(
        multi(query_length=14),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"max_length": 11}}}),
    ),
    "multi all skipped": multi(keep=[399]),
    "multi t5": multi("t5"),
    "multi decoder": multi("qwen3", prompts=PROMPTS),
    "multi mean": multi(similarity="meanmaxsim"),
    "multi raw": multi("distilbert", normalize=False),
    "multi layers": multi(
        dense=[tokens_dense(32, 24, nn.GELU()), tokens_dense(24, 8, nn.Identity(), use_residual=True)]
    ),
    "multi activation": multi(dense=[tokens_dense(32, 16, nn.Tanh(), bias=False)]),
    "decoder with a template": edited(plain("qwen3"), ("tokenizer_config.json", {"chat_template": TEMPLATE})),
    "decoder with a template, saved": cross("qwen3", template=TEMPLATE),
    "pylate": (pylate, "MultiVectorEncoder"),
    "pylate defaults": (lambda d: pylate(d, query_length=None, skiplist_words=None), "MultiVectorEncoder"),
    "pylate no expansion": (
        lambda d: pylate(d, do_query_expansion=False, prompts={"query": "what "}),
        "MultiVectorEncoder",
    ),
}
OTHER = "Router", "WordEmbeddings", "StaticEmbedding"
KEYS = "sentence_bert_config.json", "config_sentence_transformers.json"
REFUSED = {
    "logits left": (language_model("qwen3", "left"), "LogitScore"),
    "logits right": (language_model("qwen3", "right"), "LogitScore"),
    "a language model": (causal, "language model, which scores a pair by the logits of yes and no"),
    "encoder with a template": (with_file(plain("bert"), "chat_template.jinja", TEMPLATE), "through a chat template"),
    "modular": ((modular, "CrossEncoder"), "modular cross-encoder"),
    "encoder-decoder": (plain("bart"), "encoder-decoder"),
    "bi-encoder of an encoder-decoder": (bi("bart"), "encoder-decoder"),
    "stanford": (edited(plain("bert"), ("config.json", {"architectures": ["HF_ColBERT"]})), "form of Stanford"),
    **{
        name: (edited(bi("bert"), ("modules.json", {"type": f"sentence_transformers.models.{name}"})), name)
        for name in OTHER
    },
    "custom module": (edited(bi("bert"), ("modules.json", {"type": "own.Transformer"})), r"modules.json: type .*never"),
    "adapter": (with_file(cross("bert"), "adapter_config.json", "{}"), "adapter_config.json: a PEFT adapter"),
    "images": (with_file(cross("bert"), "preprocessor_config.json", "{}"), "preprocessor_config.json: a model of"),
    "remote code": (edited(cross("bert"), ("config.json", {"auto_map": {"AutoModel": "a.B"}})), "auto_map"),
    "quantised": (
        edited(cross("bert"), ("config.json", {"quantization_config": {"quant_method": "gptq"}})),
        "quantization_config",
    ),
    "positions": (
        edited(cross("bert"), ("config.json", {"position_embedding_type": "relative_key"})),
        "config.json: position_embedding_type",
    ),
    "euclidean": (bi("bert", similarity_fn_name="euclidean"), "similarity_fn_name"),
    "expanded bi-encoder": (
        edited(bi("bert"), ("sentence_bert_config.json", {"query_expansion": EXPANSION})),
        "query_expansion is not supported in a bi-encoder",
    ),
    "expanded on the left": (multi("qwen3", query_expansion=EXPANSION), "filled up on the left"),
    "padded on the left": (edited(bi("bert"), ("tokenizer_config.json", {"padding_side": "left"})), "pads on the left"),
    "beyond its positions": (
        edited(bi("bert"), ("sentence_bert_config.json", {"max_seq_length": 200})),
        "longer text than it has positions",
    ),
    "default prompt": (
        edited(cross("bert"), ("config_sentence_transformers.json", {"default_prompt_name": "x"})),
        "default_prompt_name",
    ),
    "special tokens": (
        edited(
            cross("bert"),
            ("sentence_bert_config.json", {"processing_kwargs": {"text": {"add_special_tokens": False}}}),
        ),
        "processing_kwargs: text: add_special_tokens is an unknown key",
    ),
    "hidden states": (
        edited(
            bi("bert"),
            (
                "sentence_bert_config.json",
                {"modality_config": {"text": {"method": "forward", "method_output_name": ["hidden_states", 1]}}},
            ),
        ),
        "method_output_name",
    ),
    **{
        f"unknown in {name}": (edited(build, (name, {"foo": 1})), f"{name}: foo is an unknown key")
        for build, names in (
            (cross("bert"), ("config.json", "tokenizer_config.json", "modules.json", *KEYS)),
            (bi("bert", dense(8), unit), ("1_Pooling/config.json", "2_Dense/config.json", "3_Normalize/config.json")),
            (sparse(), ("1_SpladePooling/config.json",)),
            (multi(), ("2_MultiVectorMask/config.json",)),
        )
        for name in names
    },
}


@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_the_library(name, tmp_path):
    build, library = CASES[name]
    directory = build(tmp_path)
    expected = library_scores(directory, library)
    found = ours(directory, tmp_path)
    assert expected.std() > 1e-3 or name == "multi all skipped"
    assert np.abs(found - expected).max() <= 1e-4 * expected.std()


@pytest.mark.parametrize("name", REFUSED)
def test_other_forms_are_refused_under_their_names(name, tmp_path):
    (build, _), match = REFUSED[name]
    with pytest.raises(ModelError, match=match):
        ours(build(tmp_path), tmp_path)


@pytest.mark.parametrize("library", ["CrossEncoder", "SentenceTransformer"])
def test_options_override_prompts(library, tmp_path):
    build, _ = (cross if library == "CrossEncoder" else bi)("bert", prompts=PROMPTS, default_prompt_name="other")
    directory = build(tmp_path)
    model = getattr(sentence_transformers, library)(str(directory), device="cpu")
    if library == "CrossEncoder":
        identity = {"activation_fn": nn.Identity(), "convert_to_tensor": True}
        expected = model.predict(PAIRS, prompt="forest ", **identity)
        none = model.predict(PAIRS, prompt="", **identity)
        passages = model.predict([(query, f"ice {passage}") for query, passage in PAIRS], prompt="", **identity)
    else:
        expected = similarities(model, "forest ", PROMPTS["document"])
        none, passages = similarities(model, "", PROMPTS["document"]), similarities(model, PROMPTS["query"], "ice ")
    assert np.allclose(ours(directory, tmp_path, query_prompt="forest "), expected.cpu(), atol=1e-4)
    assert np.allclose(ours(directory, tmp_path, query_prompt=""), none.cpu(), atol=1e-4)
    options = {"passage_prompt": "ice ", **({"query_prompt": ""} if library == "CrossEncoder" else {})}
    assert np.allclose(ours(directory, tmp_path, **options), passages.cpu(), atol=1e-4)


def similarities(model, query, passage):
    queries, passages = model.encode_query(QUERIES, prompt=query), model.encode_document(PASSAGES, prompt=passage)
    return model.similarity(queries, passages).reshape(-1)


def test_fingerprints_change_where_scores_do_and_nowhere_else(tmp_path):
    def fingerprint(directory, **settings):
        return Teacher("t", str(directory), ScoringSettings(**settings)).resolve().fingerprint

    directory = plain("bert")[0](tmp_path / "plain")
    edit(directory, "tokenizer_config.json", model_max_length=512)
    checkpoint = resolve(str(directory))
    earlier = {
        "weights": checkpoint.weights_hash,
        "tokenizer": digest_files([directory / "tokenizer.json", directory / "tokenizer_config.json"]),
        "token_types": "passed where the model has more than one",
        "max_length_tokens": 230,
        "truncation": "longest_first",
        "dtype": "float32",
        "activation": "identity",
    }
    assert fingerprint(directory) == digest_json(earlier)
    assert fingerprint(directory, query_prompt="") == digest_json(earlier) != fingerprint(directory, query_prompt="q")
    saved = cross("bert", prompts=PROMPTS, default_prompt_name="query")[0](tmp_path / "cross")
    with_prompt = fingerprint(saved)
    assert fingerprint(saved, query_prompt=PROMPTS["query"]) == with_prompt != fingerprint(saved, query_prompt="")
    bare = bi("bert", similarity_fn_name="dot")[0](tmp_path / "bi")
    seen = {fingerprint(bare)}
    for name, values in (
        ("config_sentence_transformers.json", {"similarity_fn_name": "cosine"}),
        ("config_sentence_transformers.json", {"prompts": PROMPTS}),
        ("config_sentence_transformers.json", {"truncate_dim": 8}),
        ("sentence_bert_config.json", {"max_seq_length": 17}),
        ("sentence_bert_config.json", {"max_seq_length": 17, "do_lower_case": True}),
    ):
        edit(bare, name, **values)
        seen.add(fingerprint(bare))
    assert len(seen) == 6

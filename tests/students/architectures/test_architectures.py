import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, BertConfig, BertForMaskedLM, DistilBertConfig, DistilBertModel

from pipeline.errors import InputError, ModelError, UsageError
from students.architectures import ARCHITECTURES, architecture
from students.architectures.tk import KERNEL_MEANS, sinusoids
from students.identity import student_fingerprint
from students.inference.encoded import open_encoded, write_encoded
from students.inference.loading import architecture_of, load_student
from students.inference.scorer import SeparateScorer
from students.inference.scoring import scorer_of
from students.settings import StudentSettings
from students.token_rows import Frame, TextRows
from teachers.scorer import pairs_of
from teachers.settings import ScoringSettings
from tests.tiny_models import randomise, sample_texts, save_bert_cat, save_tiny, tiny_tokenizer

QUERIES, PASSAGES = sample_texts(4, longest=9, seed=1), sample_texts(24, longest=30, seed=2)
PAIRED = [q for q in QUERIES for _ in range(6)], PASSAGES
SIZES = {"max_query_tokens": 12, "max_passage_tokens": 25, "max_length_tokens": 40}
KINDS = {
    "bert_dot": {},
    "colbert": {},
    "colbert unit": {"normalize": True, "projection_width": 8, "query_marker": "[Q]", "passage_marker": "[D]"},
    "colbert filled": {"expand_queries": True},
    "colbert masks": {"query_masks": 3},
    "prettr": {"split_layer": 1},
    "sparse": {},
    "tk": {"tk_heads": 3, "tk_inner": 20},
}


def made(kind, directory, tiny, **options):
    torch.manual_seed(5)
    settings = StudentSettings(**{**SIZES, **KINDS.get(kind, {}), **options})
    student = architecture(kind.split()[0]).from_checkpoint(tiny["mlm" if kind == "sparse" else "bert"], settings)
    saved = directory / kind.replace(" ", "-")
    saved.mkdir(exist_ok=True)
    student.eval().save(saved)
    facts = {"architecture": student.name, "settings": {"student": vars(settings)}}
    (saved / "prep.json").write_text(json.dumps(facts))
    return student, str(saved)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny")
    kinds = {kind: str(save_tiny(kind, directory / kind)) for kind in ("bert", "distilbert")}
    tokenizer = tiny_tokenizer("bert")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), pad_token_id=0, max_position_embeddings=64, **sizes))
    randomise(model, 3, 0.2)
    model.save_pretrained(directory / "mlm")
    tokenizer.save_pretrained(directory / "mlm")
    return {**kinds, "mlm": str(directory / "mlm")}


@pytest.fixture(scope="module")
def students(tiny, tmp_path_factory):
    directory = tmp_path_factory.mktemp("students")
    return {kind: made(kind, directory, tiny) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_saved_student_scores_as_before_alone_and_in_any_batch(students, kind):
    student, directory = students[kind]
    expected = student.score(*PAIRED)
    assert expected.shape == (24,) and expected.std() > 1e-3
    assert architecture_of(directory) == student.name
    assert torch.allclose(load_student(directory).score(*PAIRED), expected, atol=1e-4)
    one = torch.cat([student.score([q], [p]) for q, p in zip(*PAIRED, strict=True)])
    assert torch.allclose(one, expected, atol=1e-4)
    pairs = pairs_of(zip(*PAIRED, strict=True))
    for budget in (64, 10_000):
        found = SeparateScorer.load(directory, ScoringSettings(batch_tokens=budget)).score(pairs)
        assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_candidates_and_whole_batches_agree_with_pairs(students, kind):
    student, _ = students[kind]
    features = student.features(*(TextRows.of(student.tokenizer, texts) for texts in (QUERIES, PASSAGES)))
    own, every = student(**features), student(in_batch=True, **features)
    assert own.shape == (4, 6) and every.shape == (4, 24)
    assert torch.allclose(own.flatten() / student.training_scale, student.score(*PAIRED), atol=1e-4)
    assert torch.allclose(torch.stack([every[i, i * 6 : i * 6 + 6] for i in range(4)]), own, atol=1e-4)
    crossed = student.score(QUERIES, PASSAGES[12:13] * 4) * student.training_scale
    assert torch.allclose(every[:, 12], crossed, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_passages_can_be_encoded_and_stored_beforehand(students, kind, tmp_path):
    student, directory = students[kind]
    scorer = SeparateScorer.load(directory, ScoringSettings())
    passages, queries = [scorer.encode_passages(PASSAGES[a:b]) for a, b in ((0, 10), (10, 24))], QUERIES
    write_encoded(tmp_path / "stored", passages, {"of": "passages"}, "float32")
    stored, facts = open_encoded(tmp_path / "stored")
    assert facts["of"] == "passages" and facts["texts"] == 24
    rows = np.repeat(np.arange(4), 6), np.arange(24)
    found = scorer.score_encoded(scorer.encode_queries(queries), stored, *rows)
    assert np.allclose(found, student.score(*PAIRED), atol=1e-4)


@pytest.mark.parametrize("kind", ["bert_dot", "colbert", "colbert filled", "sparse"])
@torch.inference_mode()
def test_search_finds_the_best_of_all(students, kind, monkeypatch):
    student, directory = students[kind]
    monkeypatch.setattr("students.inference.search.MATCHES_PER_BLOCK", 5000)
    monkeypatch.setattr("students.inference.search.VALUES_PER_BLOCK", 7 * 32 * 25)
    every = torch.stack([student.score([q] * 24, PASSAGES) for q in QUERIES])
    scorer = SeparateScorer.load(directory, ScoringSettings())
    scores, ids = scorer.search(QUERIES, map(scorer.encode_passages, (PASSAGES[:9], PASSAGES[9:])), 5)
    best = every.topk(5)
    assert np.allclose(scores, best.values, atol=1e-4) and np.array_equal(ids, best.indices)


def test_a_student_from_the_hub_is_the_one_of_the_directory(students, tmp_path, monkeypatch):
    """As the Hub's client fetches: the files that were asked for, no others."""

    def fetch(name, *, revision, allow_patterns):
        source, target = Path(students[name.partition("/")[2]][1]), tmp_path / name
        files = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
        for file in filter_repo_objects(files, allow_patterns=allow_patterns):
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / file, target / file)
        return str(target)

    monkeypatch.setattr("teachers.checkpoints.checkpoint.snapshot_download", fetch)
    for name, (_, directory) in students.items():
        assert student_fingerprint(f"hub/{name}", "float32") == student_fingerprint(directory, "float32")


def test_a_sentence_transformer_of_another_form_is_refused(students, tmp_path):
    directory = Path(shutil.copytree(students["bert_dot"][1], tmp_path / "other"))
    (directory / "1_Pooling" / "config.json").write_text('{"pooling_mode": ["cls", "mean"]}')
    assert load_student(str(directory)).pooling == ("cls", "mean")
    assert load_student(str(directory), StudentSettings(pooling="mean")).pooling == ("mean",)
    (directory / "1_Pooling" / "config.json").write_text('{"pooling_mode": "attention"}')
    with pytest.raises(ModelError, match=r"1_Pooling/config.json: pooling_mode is not supported"):
        load_student(str(directory))
    (directory / "1_Pooling" / "config.json").unlink()
    with pytest.raises(ModelError, match="1_Pooling"):
        load_student(str(directory))
    (directory / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    modules = json.loads((directory / "modules.json").read_text())
    other = {"path": "2_LSTM", "type": "sentence_transformers.models.LSTM"}
    (directory / "modules.json").write_text(json.dumps([*modules, other]))
    with pytest.raises(ModelError, match="the module LSTM is not supported"):
        load_student(str(directory))


def test_rerankers_do_not_search(students):
    for kind in ("prettr", "tk"):
        with pytest.raises(UsageError, match="no retriever"):
            SeparateScorer.load(students[kind][1], ScoringSettings()).search(QUERIES, [], 5)


@torch.inference_mode()
def test_colbert_by_hand(students):
    student, directory = students["colbert"]
    encoder, tokenizer = AutoModel.from_pretrained(directory), student.tokenizer
    for query, passage, found in zip(*PAIRED, student.score(*PAIRED), strict=True):
        q, p = (
            student.projection(encoder(**tokenizer(text, truncation=True, max_length=n, return_tensors="pt"))[0][0])
            for text, n in ((query, 12), (passage, 25))
        )
        assert sum(max(float(a @ b) for b in p) for a in q) == pytest.approx(float(found), abs=1e-3)


def test_colbert_inserts_markers_and_masks(students):
    tokenizer = students["colbert"][0].tokenizer
    rows = TextRows.of(tokenizer, ["tree", " ".join(["tree"] * 30)])
    cls, sep, mask = (getattr(tokenizer, f"{name}_token_id") for name in ("cls", "sep", "mask"))
    (tree,) = tokenizer("tree", add_special_tokens=False)["input_ids"]
    masks = students["colbert masks"][0].query_inputs(rows)
    assert masks["input_ids"][0].tolist()[:6] == [cls, tree, sep, mask, mask, mask]
    assert masks["input_ids"][1].tolist() == [cls, *[tree] * 10, sep, mask, mask, mask]
    filled = students["colbert filled"][0].query_inputs(rows)
    assert filled["input_ids"].tolist() == [[cls, tree, sep] + [mask] * 9, [cls, *[tree] * 10, sep]]
    assert filled["attention_mask"].all()
    marker = tokenizer("[D]", add_special_tokens=False)["input_ids"]
    marked = students["colbert unit"][0].passage_inputs(rows)["input_ids"]
    assert marked[0].tolist()[: len(marker) + 3] == [cls, *marker, tree, sep] and marked.shape[1] == 25


@torch.inference_mode()
def test_prettr_without_separate_layers_is_one_encoder(tiny):
    settings = StudentSettings(**SIZES, split_layer=1)
    student = architecture("prettr").from_checkpoint(tiny["distilbert"], settings).eval()
    encoder, tokenizer = AutoModel.from_pretrained(tiny["distilbert"]), student.tokenizer
    query, passage = (
        tokenizer(text, truncation=True, max_length=n)["input_ids"] for text, n in ((QUERIES[1], 12), (PASSAGES[1], 25))
    )
    ids = torch.tensor([query + passage[1:]])
    places = torch.tensor([[*range(len(query)), *range(12, 12 + len(passage) - 1)]])
    states = encoder.embeddings(ids, position_ids=places)
    cut = len(query)
    first, second = encoder.transformer.layer
    apart = torch.cat([first(states[:, :cut]), first(states[:, cut:])], dim=1)
    expected = second(apart)[0, 0] @ student._classification_layer.weight[0]
    assert student.score(QUERIES[1:2], PASSAGES[1:2]).item() == pytest.approx(expected.item(), abs=1e-4)
    with pytest.raises(ModelError, match="no layer is left"):
        architecture("prettr").from_checkpoint(tiny["bert"], StudentSettings(**SIZES, split_layer=2))
    with pytest.raises(ModelError, match="exceed the positions"):
        architecture("prettr").from_checkpoint(tiny["bert"], StudentSettings(split_layer=1))


@torch.inference_mode()
def test_sparse_by_hand(students):
    student, directory = students["sparse"]
    model = BertForMaskedLM.from_pretrained(directory).eval()

    def vector(text, limit):
        tokens = student.tokenizer(text, truncation=True, max_length=limit, return_tensors="pt")
        return torch.log(1 + model(**tokens).logits[0].clamp(min=0)).max(0).values

    q, p = vector(QUERIES[0], 12), vector(PASSAGES[0], 25)
    assert student.score(QUERIES[:1], PASSAGES[:1]).item() == pytest.approx(float(q @ p), rel=1e-4)
    features = student.features(*(TextRows.of(student.tokenizer, texts) for texts in (QUERIES[:2], PASSAGES[:2])))
    student(**features)
    flops = (torch.stack([q, vector(QUERIES[1], 12)]).mean(0) ** 2).sum()
    assert student.penalties[0].item() == pytest.approx(flops.item(), rel=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_a_sparse_student_of_a_bare_encoder_begins_with_the_embeddings_its_states_resemble(tiny, kind):
    student = architecture("sparse").from_checkpoint(tiny[kind], StudentSettings(**SIZES)).eval()
    tokens = student.tokenizer(PASSAGES, padding=True, return_tensors="pt")
    states = AutoModel.from_pretrained(tiny[kind]).eval()(**tokens).last_hidden_state
    head = student.encoder.get_output_embeddings()
    alike = torch.nn.functional.layer_norm(states, states.shape[-1:]) @ head.weight.T
    bias, spread = head.bias[0].item(), alike.std().item()
    assert torch.corrcoef(torch.stack([student.encoder(**tokens).logits.flatten(), alike.flatten()]))[0, 1] > 0.99
    assert -4 * spread < bias < -2 * spread and (head.bias == bias).all()


def test_a_head_that_was_trained_stays_as_it_is_without_its_bias(tiny, tmp_path):
    shutil.copytree(tiny["mlm"], tmp_path / "mlm")
    state = load_file(tmp_path / "mlm" / "model.safetensors")
    del state["cls.predictions.bias"]
    save_file(state, tmp_path / "mlm" / "model.safetensors", metadata={"format": "pt"})
    encoder = architecture("sparse").from_checkpoint(str(tmp_path / "mlm"), StudentSettings(**SIZES)).encoder
    assert torch.equal(encoder.cls.predictions.transform.dense.weight, state["cls.predictions.transform.dense.weight"])
    assert not encoder.get_output_embeddings().bias.any()


@torch.inference_mode()
def test_tk_by_hand(students):
    student, _ = students["tk"]
    assert len(KERNEL_MEANS) == 11 and student.head()[0].abs().max() <= 0.014

    def states(text, limit, first):
        ids = student.tokenizer(text, add_special_tokens=False)["input_ids"][:limit]
        words = student.encoder.weight[ids]
        places = torch.zeros(len(ids), 32)
        for t in range(len(ids)):
            for i in range(16):
                angle = (first + t) / 10_000 ** (i / 15)
                places[t, i], places[t, 16 + i] = math.sin(angle), math.cos(angle)
        context = student.contextualizer((words + places)[None])[0]
        return [v / v.norm() for v in 0.5 * words + 0.5 * context]

    q, p = states(QUERIES[2], 12, 0), states(PASSAGES[2], 25, 500)
    expected = 0.0
    for mean, weight in zip(KERNEL_MEANS, student.head()[0][0], strict=True):
        for a in q:
            count = sum(math.exp(-((float(a @ b) - mean) ** 2) / 0.02) for b in p)
            expected += float(weight) * math.log(max(count, 1e-10))
    assert student.score(QUERIES[2:3], PASSAGES[2:3]).item() == pytest.approx(expected, rel=1e-3)
    assert torch.isfinite(student.score(["", QUERIES[0]], [PASSAGES[0], ""])).all()
    with pytest.raises(ModelError, match="odd width"):
        sinusoids(0, 3, 5)


def test_tk_scales_an_encoders_table(students, tiny):
    student, _ = students["tk"]
    table = AutoModel.from_pretrained(tiny["bert"]).get_input_embeddings().weight
    ratio = student.encoder.weight / table
    assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-3)
    assert student.encoder.weight.norm(dim=1).mean().item() == pytest.approx(math.sqrt(32), rel=1e-4)


def test_tk_starts_from_a_file_of_word_vectors(tmp_path):
    file = tmp_path / "vectors.txt"
    file.write_text("river 1 0 0 .5\nlake 0 1 0 0\nriver 9 9 9 9\n")
    student = architecture("tk").from_checkpoint(str(file), StudentSettings(tk_heads=10))
    rows = TextRows.of(student.tokenizer, ["River, LAKE xyz"])
    assert student.passage_inputs(rows)["input_ids"].tolist() == [[2, 1, 3, 1]]
    assert student.encoder.weight.tolist() == [[0.0] * 4, [0.0] * 4, [1, 0, 0, 0.5], [0, 1, 0, 0]]
    saved = tmp_path / "saved"
    saved.mkdir()
    student.eval().save(saved)
    assert architecture_of(str(saved)) == "tk"
    again = load_student(str(saved)).score(["lake river"], ["a river"])
    assert again.item() == pytest.approx(student.score(["lake river"], ["a river"]).item())
    for broken in ("", "river 1 2\nlake 1\n", "river a b\n", "river nan 1\n"):
        file.write_text(broken)
        with pytest.raises(InputError):
            architecture("tk").from_checkpoint(str(file), StudentSettings())


@pytest.mark.parametrize("kind", ["colbert", "colbert unit", "colbert filled"])
@torch.inference_mode()
def test_a_colbert_leaves_as_a_multi_vector_encoder(students, kind):
    peer = pytest.importorskip("sentence_transformers")
    student, directory = students[kind]
    theirs = peer.MultiVectorEncoder(directory, device="cpu")
    queries, passages = theirs.encode_query(QUERIES), theirs.encode_document(PASSAGES)
    found = theirs.similarity(queries, passages)
    ours = torch.stack([student.score([q] * 24, PASSAGES) for q in QUERIES])
    assert torch.allclose(found.cpu(), ours, atol=1e-3, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@torch.inference_mode()
def test_a_sparse_student_leaves_as_a_sparse_encoder(students):
    peer = pytest.importorskip("sentence_transformers")
    student, directory = students["sparse"]
    theirs = peer.SparseEncoder(directory, device="cpu")
    found = theirs.similarity(theirs.encode_query(QUERIES), theirs.encode_document(PASSAGES))
    ours = torch.stack([student.score([q] * 24, PASSAGES) for q in QUERIES])
    assert torch.allclose(found.cpu(), ours, atol=1e-3, rtol=1e-4)


def published(kind, directory):
    """Random weights under the names of the published checkpoints, and what they are."""
    tokenizer = tiny_tokenizer("distilbert")
    tokenizer.save_pretrained(directory)
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=64, hidden_dim=128, n_layers=4, n_heads=1, max_position_embeddings=64
    )
    encoder = DistilBertModel(config)
    if kind == "bert_cat":
        save_bert_cat(directory, encoder)
        return
    randomise(encoder, 1)
    prefix = "bert_model." if kind in ("colbert", "bert_dot prefixed") else ""
    state = {prefix + name: weight for name, weight in encoder.state_dict().items()}
    if kind == "colbert":
        state |= {"compressor.weight": torch.randn(64, 64), "compressor.bias": torch.randn(64)}
    if kind == "prettr":
        state |= {"_classification_layer.weight": torch.randn(1, 64)}
    torch.save(state, directory / "pytorch_model.bin")
    names = {"colbert": "ColBERT", "prettr": "PreTTR", "bert_dot prefixed": "BERT_Dot"}
    stated = {"model_type": names[kind], "bert_model": "distilbert-base-uncased"} if kind in names else config.to_dict()
    (directory / "config.json").write_text(json.dumps(stated))


@pytest.mark.parametrize("kind", ["bert_dot", "bert_dot prefixed", "bert_cat", "colbert", "prettr"])
def test_published_checkpoints_load_strictly_and_survive_saving(kind, tmp_path):
    source, saved = tmp_path / "published", tmp_path / "saved"
    source.mkdir()
    saved.mkdir()
    published(kind, source)
    assert architecture_of(str(source)) == kind.split()[0]
    settings = StudentSettings(**SIZES, split_layer=3)
    student = load_student(str(source), settings)
    expected = student.score(*PAIRED)
    assert expected.shape == (24,) and expected.std() > 1e-2
    student.save(saved)
    assert torch.allclose(load_student(str(saved), settings).score(*PAIRED), expected, atol=1e-4)
    state = torch.load(source / "pytorch_model.bin", weights_only=True)
    renamed = {name.replace("lin1", "other"): weight for name, weight in state.items()}
    broken = [renamed, {**state, "left.over": torch.ones(1)}]
    for wrong in broken[:1] if kind in ("bert_dot", "bert_cat") else broken:  # whose loaders pass over what is left
        torch.save(wrong, source / "pytorch_model.bin")
        with pytest.raises(ModelError):
            load_student(str(source), settings)


@pytest.mark.parametrize("kind", ["bert_dot prefixed", "colbert", "prettr"])
def test_published_checkpoints_take_the_tokenizer_of_the_encoder_they_name(kind, tmp_path):
    source, encoder = tmp_path / "published", tmp_path / "encoder"
    source.mkdir()
    published(kind, source)
    expected = load_student(str(source), StudentSettings(**SIZES)).score(*PAIRED)
    encoder.mkdir()
    config = json.loads((source / "config.json").read_text())
    for file in [file for file in source.iterdir() if file.name not in ("config.json", "pytorch_model.bin")]:
        file.rename(encoder / file.name)
    with pytest.raises(ModelError):  # distilbert-base-uncased is not on this machine
        load_student(str(source), StudentSettings(**SIZES))
    (source / "config.json").write_text(json.dumps({**config, "bert_model": str(encoder)}))
    assert torch.allclose(load_student(str(source), StudentSettings(**SIZES)).score(*PAIRED), expected)


def test_frames_cut_and_pad_as_the_tokenizer_does(tiny):
    for kind in ("bert", "roberta", "modernbert", "albert"):
        tokenizer = tiny_tokenizer(kind)
        frame = Frame.of(tokenizer, 9)
        texts = ["", "tree", "what is the river " * 9]
        call = tokenizer(texts, truncation=True, max_length=9, padding=True, return_tensors="pt")
        padded = frame.padded(TextRows.of(tokenizer, texts).take(np.array([0, 1, 2])))
        assert torch.equal(padded["input_ids"], call["input_ids"])
        assert torch.equal(padded["attention_mask"], call["attention_mask"])
        assert frame.lengths(TextRows.of(tokenizer, texts)).tolist() == call["attention_mask"].sum(1).tolist()
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    with pytest.raises(ModelError, match="cuts and pads on the right"):
        Frame.of(tokenizer, 9)


def test_freezing(tiny):
    student = architecture("bert_dot").from_checkpoint(tiny["bert"], StudentSettings())
    student.freeze(1)
    free = {name for name, weight in student.encoder.named_parameters() if weight.requires_grad}
    assert free and all(name.startswith("encoder.layer.1.") for name in free)
    with pytest.raises(UsageError, match="fewer layers"):
        student.freeze(3)
    tk = architecture("tk").from_checkpoint(tiny["bert"], StudentSettings())
    tk.freeze(0)
    assert not tk.encoder.weight.requires_grad and tk.mixer.requires_grad
    with pytest.raises(UsageError):
        tk.freeze(1)


def test_every_architecture_has_a_live_scorer(students, tiny):
    pairs = pairs_of(zip(*PAIRED, strict=True))
    cat = architecture("bert_cat").from_checkpoint(tiny["bert"], StudentSettings(**SIZES)).eval()
    for student in [cat, *(own for own, _ in students.values())]:
        with torch.inference_mode():
            assert np.allclose(scorer_of(student).score(pairs), student.score(*PAIRED), atol=1e-4)
    assert {cat.name, *(own.name for own, _ in students.values())} == set(ARCHITECTURES)
    with pytest.raises(UsageError, match="no architecture"):
        architecture("gpt")
    assert isinstance(cat.head()[0], nn.Parameter)


@pytest.mark.parametrize("kind", ["bert_dot", "colbert", "sparse", "tk"])
@torch.inference_mode()
def test_half_precision_ends_where_query_and_passage_meet(students, kind):
    student, _ = students[kind]
    features = student.features(*(TextRows.of(student.tokenizer, texts) for texts in (QUERIES, PASSAGES)))
    queries = student.encode_queries(features["query_input_ids"], features["query_attention_mask"])
    passages = student.encode_passages(features["passage_input_ids"], features["passage_attention_mask"])
    expected = student.interact_all(queries, passages)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(student.interact_all(queries, passages), expected)
        assert torch.isfinite(student(in_batch=True, **features)).all()

"""Each reader is given every other reader's file: it reads it rightly, or refuses it and leaves nothing."""

import io
import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import app
from pipeline.errors import PrepError
from tests.published_files import QUERIES, positive, workspace_of_numbers

Q, P, N = str(QUERIES[0]), str(positive(QUERIES[0])), "101"
TEXT, QUERY = "passage 7 text", "what is it"


def parquet(**columns) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({name: [value] for name, value in columns.items()}), sink)
    return sink.getvalue()


def line(value) -> bytes:
    return json.dumps(value).encode() + b"\n"


FILES = {
    "collection": f"9001\t{TEXT}\n9002\tother text\n".encode(),
    "qrels": f"{Q} 0 {P} 1\n11 0 111 1\n".encode(),
    "qrels with tabs": f"{Q}\t0\t{P}\t1\n11\t0\t111\t1\n".encode(),
    "BEIR qrels": f"query-id\tcorpus-id\tscore\n{Q}\t{P}\t1\n".encode(),
    "BEIR qrels without a header": f"{Q}\t{P}\t1\n11\t111\t1\n".encode(),
    "TREC run": f"{Q} Q0 {P} 1 7.5 tag\n{Q} Q0 {N} 2 1.5 tag\n".encode(),
    "MS MARCO run": f"{Q}\t{P}\t1\n{Q}\t{N}\t2\n".encode(),
    "run of scores": f"{Q}\t{P}\t7.5\n{Q}\t{N}\t1.5\n".encode(),
    "triples": f"{Q}\t{P}\t{N}\n{Q}\t{P}\t102\n".encode(),
    "text triples": f"{QUERY}\t{TEXT}\tother text\n".encode(),
    "top1000": f"{Q}\t{P}\t{QUERY}\t{TEXT}\n".encode(),
    "kd": f"7.5\t1.5\t{Q}\t{P}\t{N}\n".encode(),
    "pickle": pickle.dumps({int(Q): {int(P): 7.5, int(N): 1.5}}),
    "scores": parquet(query_id=Q, passage_id=P, score=7.5),
    "grades": parquet(**{"query-id": Q, "corpus-id": P, "score": 1}),
    "margins": parquet(query_id=Q, positive_id=P, negative_id=N, score=7.5),
    "hard negatives": line({"qid": int(Q), "pos": [int(P)], "neg": {"bm25": [int(N)]}}),
    "scored lists": line(
        {"qid": int(Q), "pos": [{"pid": int(P), "ce-score": 7.5}], "neg": {"x": [{"pid": int(N), "ce-score": 1.5}]}}
    ),
    "colbert": line([int(Q), [int(P), 7.5], [int(N), 1.5]]),
    "tevatron": line({"query_id": Q, "positive_passages": [{"docid": P, "score": 7.5}], "negative_passages": []}),
    "rlhn": line({"query_id": Q, "query": QUERY, "positive_passages": [{"docid": P}], "negative_passages": []}),
    "flag embedding": line({"query": QUERY, "pos": [TEXT], "neg": ["x y"], "pos_scores": [7.5], "neg_scores": [1.5]}),
    "BEIR corpus": line({"_id": "9001", "title": "", "text": TEXT}),
}
SCORES = {"kd", "pickle", "scores", "scored lists", "colbert", "tevatron", "TREC run"}
READERS = {
    "msmarco --collection": ({"collection"}, ["msmarco", "--collection", "{}"]),
    "msmarco --queries": ({"collection"}, ["msmarco", "--queries", "new={}"]),
    "msmarco --qrels": ({"qrels", "qrels with tabs"}, ["msmarco", "--qrels", "train={}"]),
    "scores": (SCORES, ["scores", "{}", "--teacher", "t", "--as-pairs"]),
    "hard-negatives": ({"hard negatives", "scored lists"}, ["hard-negatives", "{}"]),
    "run": ({"TREC run", "MS MARCO run"}, ["run", "{}", "--system", "s"]),
    "top1000": ({"top1000"}, ["top1000", "{}", "--system", "s"]),
    "triples": ({"triples"}, ["triples", "{}", "--system", "s"]),
}


@pytest.fixture(scope="module")
def ws(tmp_path_factory):
    return workspace_of_numbers(tmp_path_factory.mktemp("numbers"))


@pytest.mark.parametrize("reader", READERS)
def test_a_file_of_another_reader_is_refused(ws, tmp_path, reader, monkeypatch):
    own, command = READERS[reader]
    wrong = []
    for kind, content in FILES.items():
        path = tmp_path / "file"
        path.write_bytes(content)
        arguments = [argument.format(path) for argument in command]
        before = set(ws.root.rglob("*.parquet"))
        try:
            app(args=["import", *arguments, "-w", str(ws.root), *overwriting(command)], standalone_mode=False)
            refused = False
        except PrepError:
            refused = True
            assert set(ws.root.rglob("*.parquet")) == before
        if refused != (kind not in own):
            wrong.append((kind, "refused" if refused else "taken"))
    assert not wrong


def overwriting(command):
    return [] if command[0] == "msmarco" else ["--overwrite"]

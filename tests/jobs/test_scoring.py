import shutil

import numpy as np
import pytest

from jobs.scoring import ClusterSettings, plan_scoring, score
from jobs.shard_scorer import ShardScorer, Teacher, pairs_with_texts
from jobs.token_stores import make_stores, open_stores
from pipeline.errors import ModelError, UsageError, WorkspaceError
from pipeline.msmarco import import_msmarco
from pipeline.pairs import load_pairs
from pipeline.scores import load_scores, read_pair_ids, read_scores
from pipeline.texts import Texts
from teachers.engine import load_scorer
from teachers.settings import ScoringSettings
from tests import worlds
from tests.tiny_models import save_tiny

SETTINGS = ScoringSettings(max_length_tokens=24)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(save_tiny("bert", tmp_path_factory.mktemp("teacher")))


def run(workspace, *teachers, **options):
    done = []
    scored = score(workspace, teachers, ClusterSettings(), on_progress=done.append, **options)
    return scored, sum(done)


def test_every_pair_gets_the_score_of_its_texts(paired, checkpoint):
    scored, done = run(paired, Teacher("t", checkpoint, SETTINGS))
    pairs = load_pairs(paired)
    assert scored.pairs == done == pairs.pairs and scored.kept_shards == 0
    scorer = load_scorer(checkpoint, SETTINGS)
    for path, score_path in zip(pairs.paths, load_scores(paired, pairs, "t").paths, strict=True):
        texts = pairs_with_texts(read_pair_ids(path), Texts(paired, "queries"), Texts(paired, "passages"))
        assert np.array_equal(read_scores(score_path), scorer.score(texts))


def test_stored_tokens_give_the_same_scores_to_the_last_bit(paired, checkpoint, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("jobs.shard_scorer.pairs_with_texts", None)  # texts are not asked for
        run(paired, Teacher("t", checkpoint, SETTINGS))
    shutil.rmtree(paired.path(".cache", "tokens"))
    monkeypatch.setattr("jobs.scoring.make_stores", lambda *args, **options: None)
    run(paired, Teacher("without", checkpoint, SETTINGS))
    scores = [[read_scores(path) for path in paired.parts("scores", name)] for name in ("t", "without")]
    assert all(map(np.array_equal, *scores))


def test_stores_follow_the_texts(paired, checkpoint, tmp_path):
    make_stores(paired, checkpoint, processes=2)
    first = {path.name for path in paired.path(".cache", "tokens").iterdir()}
    (tmp_path / "more").write_text("new\tic ice\n")
    import_msmarco(paired, tmp_path / "more", [], [])
    assert open_stores(paired, checkpoint) is None
    make_stores(paired, checkpoint)
    now = {path.name for path in paired.path(".cache", "tokens").iterdir()}
    assert len(first) == len(now) == 2 and len(first & now) == 1
    assert len(open_stores(paired, checkpoint)[1].empty) == worlds.PASSAGES + 1


def test_few_pairs_are_tokenised_without_a_store(workspace, checkpoint):
    worlds.paired(workspace, k=1)
    run(workspace, Teacher("t", checkpoint, SETTINGS))
    assert not workspace.path(".cache", "tokens").exists()


def test_only_missing_and_stale_shards_are_scored(paired, checkpoint, tmp_path):
    teacher = Teacher("t", checkpoint, SETTINGS)
    run(paired, teacher)
    first = {p.name: p.read_bytes() for p in paired.parts("scores", "t")}
    assert run(paired, teacher)[0].pairs == 0
    lost = paired.parts("scores", "t")[1]
    lost.unlink()
    again, _ = run(paired, teacher)
    assert again.shards - again.kept_shards == 1 and lost.read_bytes() == first[lost.name]
    # Other pairs under the same shard numbers: names mean nothing, content does.
    worlds.paired(paired, k=6)
    assert len(plan_scoring(paired, [teacher])[0]) > 0
    run(paired, teacher)
    load_scores(paired, load_pairs(paired), "t")


def test_another_model_under_the_same_name_needs_a_word(paired, checkpoint, tmp_path):
    run(paired, Teacher("t", checkpoint, SETTINGS))
    other = Teacher("t", str(save_tiny("bert", tmp_path / "other", seed=5)), SETTINGS)
    with pytest.raises(WorkspaceError, match="another model"):
        run(paired, other)
    assert run(paired, other, overwrite=True)[0].kept_shards == 0
    with pytest.raises(WorkspaceError, match="another model") as error:
        run(paired, Teacher("t", other.checkpoint, ScoringSettings(max_length_tokens=12)))
    assert "max_length_tokens" in str(error.value)


def test_a_run_cut_short_leaves_whole_shards_only(paired, checkpoint, monkeypatch):
    teacher, scored = Teacher("t", checkpoint, SETTINGS), []
    original = ShardScorer.score

    def dies(self, task, on_progress):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(task.number)
        original(self, task, on_progress)

    monkeypatch.setattr(ShardScorer, "score", dies)
    with pytest.raises(KeyboardInterrupt):
        run(paired, teacher)
    monkeypatch.undo()
    assert len(paired.parts("scores", "t")) == 2
    assert run(paired, teacher)[0].kept_shards == 2


def test_a_node_with_other_files_is_noticed(paired, checkpoint):
    (task, *_), _ = plan_scoring(paired, [Teacher("t", checkpoint, SETTINGS)])
    planned = type(task)(task.teacher, {**task.description, "fingerprint": "other"}, task.number, task.pairs)
    with pytest.raises(ModelError, match="another checkpoint"):
        ShardScorer(str(paired.root)).score(planned, lambda pairs: None)


def test_bad_teachers(paired, checkpoint):
    with pytest.raises(UsageError, match="two teachers"):
        run(paired, Teacher("t", checkpoint, SETTINGS), Teacher("t", checkpoint, SETTINGS))
    with pytest.raises(UsageError, match="bad name"):
        run(paired, Teacher("../t", checkpoint, SETTINGS))
    with pytest.raises(ModelError):
        run(paired, Teacher("t", "/no/such/directory", SETTINGS))
    assert paired.names("scores") == []

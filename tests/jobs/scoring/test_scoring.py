import dataclasses
import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jobs.cluster.settings import ClusterSettings
from jobs.models.token_stores import make_stores, open_stores
from jobs.scoring.estimate import estimate
from jobs.scoring.shard import ShardScorer, pairs_with_texts
from jobs.scoring.stage import plan_scoring, score
from jobs.scoring.teachers import Teacher
from pipeline.collection.texts import Texts
from pipeline.errors import IncompleteError, ModelError, UsageError, WorkspaceError
from pipeline.imports.msmarco import import_msmarco
from pipeline.scores.pairs import load_pairs
from pipeline.scores.scores import load_scores, read_pair_ids, read_scores, write_scores
from pipeline.tables.parts import footer_of
from teachers.checkpoints import checkpoint as checkpoints
from teachers.engine.certificate import LEAST_TAU
from teachers.engine.engine import CrossEncoderScorer, load_scorer
from teachers.scorer import Work
from teachers.settings import ScoringSettings
from tests import worlds
from tests.jobs.test_cli import prep
from tests.tiny_models import save_tiny

SETTINGS = ScoringSettings(max_length_tokens=24)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(save_tiny("bert", tmp_path_factory.mktemp("teacher")))


def run(workspace, *teachers, **options):
    done = []
    scored = score(workspace, teachers, ClusterSettings(), on_progress=done.append, **options)
    return scored, sum(done, Work()).pairs


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
        patched.setattr("jobs.scoring.shard.pairs_with_texts", None)  # texts are not asked for
        run(paired, Teacher("t", checkpoint, SETTINGS))
    shutil.rmtree(paired.path(".cache", "tokens"))
    monkeypatch.setattr("jobs.scoring.stage.make_stores", lambda *args, **options: None)
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
    (task, *_), *_ = plan_scoring(paired, [Teacher("t", checkpoint, SETTINGS)])
    planned = type(task)(task.teacher, {**task.description, "fingerprint": "other"}, task.number, task.pairs, task.rows)
    with pytest.raises(ModelError, match="another checkpoint"):
        ShardScorer(str(paired.root)).score(planned, lambda pairs: None)


def test_bad_teachers(paired, checkpoint):
    with pytest.raises(UsageError, match="two teachers with the same name"):
        run(paired, Teacher("t", checkpoint, SETTINGS), Teacher("t", checkpoint, SETTINGS))
    with pytest.raises(UsageError, match="bad name"):
        run(paired, Teacher("../t", checkpoint, SETTINGS))
    with pytest.raises(ModelError):
        run(paired, Teacher("t", "/no/such/directory", SETTINGS))
    assert paired.names("scores") == []


def scores_by_pair(workspace, name):
    ids = [np.stack(read_pair_ids(path), 1) for path in workspace.parts("scores", name)]
    values = np.concatenate([read_scores(path) for path in workspace.parts("scores", name)])
    return dict(zip(map(tuple, np.concatenate(ids).tolist()), values.tolist(), strict=True))


def test_pairs_built_anew_are_scored_where_they_are_new_only(workspace, checkpoint):
    teacher = Teacher("t", checkpoint, SETTINGS)
    worlds.paired(workspace, k=5)
    run(workspace, teacher)
    before = scores_by_pair(workspace, "t")
    worlds.paired(workspace, k=9, pairs_per_shard=25)
    scored, done = run(workspace, teacher)
    after = scores_by_pair(workspace, "t")
    assert scored.pairs == done == len(after.keys() - before.keys()) > 0
    assert scored.reused_pairs == len(before) and all(after[pair] == before[pair] for pair in before)
    assert not any(workspace.path(".cache", "scores").iterdir())
    # Under another name everything is there already.
    assert run(workspace, Teacher("same", checkpoint, SETTINGS))[0].pairs == 0
    assert scores_by_pair(workspace, "same") == after
    load_scores(workspace, load_pairs(workspace), "same")


def test_old_scores_outlive_a_run_cut_short(workspace, checkpoint, monkeypatch):
    teacher = Teacher("t", checkpoint, SETTINGS)
    worlds.paired(workspace, k=5)
    run(workspace, teacher)
    worlds.paired(workspace, k=6, pairs_per_shard=25)
    monkeypatch.setattr(ShardScorer, "score", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(workspace, teacher)
    monkeypatch.undo()
    assert run(workspace, teacher)[0].reused_pairs > 0


def test_old_scores_of_other_texts_are_not_taken(workspace, checkpoint):
    worlds.paired(workspace, k=5)
    run(workspace, Teacher("t", checkpoint, SETTINGS))
    pairs = load_pairs(workspace)
    path, footer = workspace.parts("scores", "t")[0], pairs.footers[0]
    ids, description = read_pair_ids(path), Teacher("t", checkpoint, SETTINGS).resolve().description
    foreign = dataclasses.replace(footer, extra={**footer.extra, "texts": "of other texts"})
    write_scores(workspace, "t", 0, foreign, ids, np.zeros(len(ids[0]), np.float32), description, {})
    scored, _ = run(workspace, Teacher("t", checkpoint, SETTINGS))
    assert scored.pairs == footer.rows and 0.0 not in scores_by_pair(workspace, "t").values()


def test_a_poisonous_shard_is_set_aside_and_named(paired, checkpoint, monkeypatch):
    teacher, done = Teacher("t", checkpoint, SETTINGS), []
    original = CrossEncoderScorer.score_encoded

    def poisoned(self, encoded, on_progress, **options):
        if len(encoded.lengths) == load_pairs(paired).footers[2].rows and len(done) != 2:
            done.append(encoded)
            raise ModelError("logits that are not finite")
        return original(self, encoded, on_progress, **options)

    monkeypatch.setattr(CrossEncoderScorer, "score_encoded", poisoned)
    run(paired, teacher)  # the third attempt succeeds
    shutil.rmtree(paired.path("scores"))
    monkeypatch.setattr(CrossEncoderScorer, "score_encoded", lambda *args, **options: 1 / 0)
    with pytest.raises(IncompleteError, match=r"shard 2: ZeroDivisionError") as error:
        run(paired, teacher)
    assert error.value.exit_code == 3


def test_a_full_disk_ends_the_run(paired, checkpoint, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device", "part-00000.parquet")

    monkeypatch.setattr("jobs.scoring.shard.write_scores", full)
    with pytest.raises(WorkspaceError, match="No space left"):
        run(paired, Teacher("t", checkpoint, SETTINGS))


def test_the_budget_is_tried_out_once_and_kept(paired, checkpoint, monkeypatch):
    monkeypatch.setattr("jobs.scoring.stage.MIN_PAIRS_TO_TUNE", 1)
    tries = []
    monkeypatch.setattr(CrossEncoderScorer, "tune", lambda self: tries.append(self) or 512)
    for name in ("t", "u"):
        run(paired, Teacher(name, checkpoint, SETTINGS), overwrite=True)
        shutil.rmtree(paired.path("scores"))
    run(paired, Teacher("t", checkpoint, SETTINGS))
    assert len(tries) == 1
    assert {footer_of(path).extra["batch_tokens"] for path in paired.parts("scores", "t")} == {512}


def test_a_low_precision_leaves_its_certificate(workspace, checkpoint, monkeypatch):
    monkeypatch.setitem(LEAST_TAU, "bfloat16", 0.9)  # random weights rank by little
    worlds.paired(workspace, k=10, pairs_per_shard=1000)
    run(workspace, Teacher("half", checkpoint, dataclasses.replace(SETTINGS, dtype="bfloat16", batch_tokens=512)))
    (path,) = workspace.parts("scores", "half")
    certificate = footer_of(path).extra["certificate"]
    assert certificate["pairs"] == 200 and certificate["non_finite"] == 0 and 0.9 < certificate["kendall_tau"] < 1


def test_two_runs_at_once_do_no_harm(paired, checkpoint):
    words = ["-m", "jobs.cli", "score", "-w", str(paired.root), "--teacher", f"t={checkpoint}", "--max-length", "24"]
    both = [subprocess.Popen([sys.executable, *words], cwd=Path(__file__).parents[3]) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    run(paired, Teacher("alone", checkpoint, SETTINGS), overwrite=True)
    mine, alone = (scores_by_pair(paired, name) for name in ("t", "alone"))
    assert mine.keys() == alone.keys() and np.allclose(list(mine.values()), list(alone.values()), atol=1e-5)
    assert not [path for path in paired.path("scores", "t").iterdir() if path.name.startswith(".")]


def test_an_estimate_counts_and_writes_nothing(workspace, checkpoint):
    teacher = Teacher("t", checkpoint, SETTINGS)
    worlds.paired(workspace, k=5)
    run(workspace, teacher)
    worlds.paired(workspace, k=9, pairs_per_shard=25)
    before = sorted(workspace.path("scores").rglob("*"))
    (found,) = estimate(workspace, [teacher], ClusterSettings())
    assert sorted(workspace.path("scores").rglob("*")) == before
    scored, _ = run(workspace, teacher)
    assert (found.pairs, found.reused_pairs) == (scored.pairs, scored.reused_pairs)
    assert 10 < found.tokens / found.pairs < 25 and 0 < found.hours < 1 and found.flop > 0
    assert estimate(workspace, [teacher], ClusterSettings())[0].pairs == 0


def test_what_killed_runs_left_goes_when_it_is_nobodys(paired, checkpoint):
    run(paired, Teacher("t", checkpoint, SETTINGS))
    old, new = (paired.path("scores", "t", f".tmp-part-{age}") for age in ("old", "new"))
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    run(paired, Teacher("t", checkpoint, SETTINGS))
    assert not old.exists() and new.exists()


def test_a_checkpoint_is_resolved_and_hashed_once_planned_and_once_loaded(paired, checkpoint, monkeypatch):
    """However many shards there are; digests are those of the weights."""
    resolved, hashed = [], []
    locate, digest = checkpoints._locate, checkpoints.digest_files
    monkeypatch.setattr(checkpoints, "_locate", lambda *args: resolved.append(args) or locate(*args))
    monkeypatch.setattr(checkpoints, "digest_files", lambda files: hashed.append(files) or digest(files))
    assert run(paired, Teacher("t", checkpoint, SETTINGS))[0].shards > 4
    assert len(resolved) == 2 and len(hashed) == 2 * len(("weights", "tokenizer"))


def test_shards_that_fail_end_the_command_with_3(paired, checkpoint, monkeypatch, capsys):
    """The others are complete, and the same command does only the rest."""
    from jobs.scoring import shard

    def broken(workspace, teacher, number, *arguments):
        if number == 1:
            raise RuntimeError("a shard that breaks")
        return write(workspace, teacher, number, *arguments)

    write, typed = shard.write_scores, ["score", "--teacher", f"t={checkpoint}", "--max-length", "24"]
    monkeypatch.setattr("jobs.scoring.shard.write_scores", broken)
    code, _, error = prep(monkeypatch, capsys, *typed, "-w", paired.root)
    shards = len(load_pairs(paired).paths)
    assert (
        code == 3 and f"1 of {shards} shards failed" in error and "shard 1: RuntimeError: a shard that breaks" in error
    )
    assert paired.read_json("summaries", "score.json")["exit_code"] == 3
    assert len(paired.parts("scores", "t")) == shards - 1
    monkeypatch.setattr("jobs.scoring.shard.write_scores", write)
    code, output, _ = prep(monkeypatch, capsys, *typed, "-w", paired.root)
    assert code == 0 and f"1 of {shards} shards" in output


def test_estimates_divide_the_time_by_the_devices(paired, checkpoint, monkeypatch):
    """A shard has no more than one device: no more count than there are shards."""
    from jobs.cluster import pool
    from jobs.scoring.estimate import estimate
    from teachers.scorer import Work

    shards, pairs = len(load_pairs(paired).paths), load_pairs(paired).pairs

    def sampled(location, make, method, tasks, cluster, on_progress):
        assert len(tasks) == 1
        on_progress(Work(pairs=4, tokens=40, flop=400.0, seconds=72.0))
        return []

    monkeypatch.setattr(pool, "run_on_actors", sampled)
    for fit, devices in ((1, 1), (3, 3), (shards + 9, shards)):
        monkeypatch.setattr(pool, "actors_that_fit", lambda cluster, fit=fit: fit)
        (found,) = estimate(paired, [Teacher("t", checkpoint, SETTINGS)], ClusterSettings(num_actors=fit))
        assert found.devices == devices and found.hours == pytest.approx(pairs / 4 * 72 / 3600 / devices)
        assert (found.pairs, found.shards, found.tokens, found.flop) == (pairs, shards, pairs * 10, pairs * 100)

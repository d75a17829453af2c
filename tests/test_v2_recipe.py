"""The V2 recipe's arithmetic, and what it refuses, without training anything."""
from collections import Counter

import babyvlm  # noqa: F401
import numpy as np
import pytest
from filelock import FileLock

from babyvlm.benchmarks.devcv.files import toy_devcv
from babyvlm.benchmarks.devcv.read import load_items
from babyvlm.benchmarks.devcv.score import COLUMNS, Result, ideal_replies, score_items
from babyvlm.config import profile
from babyvlm.experiments.claims import apart
from babyvlm.experiments.v2 import Scored, Tuned, V2, _read, gain, mean_of, published_cells
from babyvlm.items import Item, Reply
from babyvlm.models.babyllava_v2 import babyllava_v2_toy
from babyvlm.nursery.world import Nursery
from babyvlm.store import Store


def result(task, right, n=20):
    items = [Item(f'{task}/{i}', f'devcv/{task}', (), f'(A) or (B), number {i}?', ('A', 'B'), i % 2, meta=dict(answer='letter'))
             for i in range(n)]
    replies = [Reply(i.uid, text='AB'[(i.gold + (k >= right)) % 2].lower()) for k, i in enumerate(items)]
    return Result(task, items, replies, score_items(items, replies))


def scored(task, *right, n=20, **kwargs): return Scored(task, tuple(result(task, r, n) for r in right), **kwargs)


def test_credit_adds_up_to_the_score():
    for right in (0, 7, 20):
        r = scored('compare_real', right, right)
        assert r.credit.mean() == pytest.approx(right/20) == r.score.value and (r.score.seeds, r.score.n) == (2, 20)


def test_gain_is_paired_and_antisymmetric():
    a, b = scored('compare_real', 15, 14, 16), scored('compare_real', 5, 6, 4)
    assert gain(a, b).value == pytest.approx(.5) and gain(b, a).value == pytest.approx(-.5)
    same = gain(a, a)
    assert same.value == 0 and same.low == pytest.approx(-same.high) and same.seeds == 3 and same.chance is None


def test_a_difference_counts_what_its_scores_count(tmp_path):
    toy_devcv(tmp_path, Nursery(seed=0), {}, {}, dict(memory=4), sources=['home'])
    items = load_items(tmp_path/'home', 'memory')
    said = ideal_replies(items)
    memory = Scored('memory', (Result('memory', items, said, score_items(items, said)),)*2)
    other = scored('compare_real', 15, 14)
    assert memory.score.unit == gain(memory, memory).unit == apart([memory], [memory]).unit == 'records'
    assert other.score.unit == gain(other, other).unit == apart([memory], [other]).unit == ''


def test_a_rule_has_no_seeds_and_stands_beside_each():
    model, rule = scored('compare_real', 15, 15, 15), scored('compare_real', 5, trained=False)
    assert rule.score.seeds == 0 and gain(model, rule).seeds == 3 and gain(model, rule).value == pytest.approx(.5)


def test_mean_weighs_tasks_and_not_items():
    rs = dict(compare_real=scored('compare_real', 20, n=20), compare_synthetic=scored('compare_synthetic', 0, n=200))
    e = mean_of(rs, ('compare_real', 'compare_synthetic'))
    assert e.value == pytest.approx(.5) and e.n == 220 and e.low <= .5 <= e.high


def test_guessing_is_zero_and_perfect_is_one_when_corrected():
    tasks = ('compare_real', 'compare_synthetic')
    for right, reach in ((10, 0.), (20, 1.), (15, .5)):
        rs = {t: scored(t, right, right) for t in tasks}
        assert mean_of(rs, tasks, corrected=True).value == pytest.approx(reach)
    better, guess = ({t: scored(t, r, r) for t in tasks} for r in (15, 10))
    assert mean_of(better, tasks, minus=guess, corrected=True).value == pytest.approx(.5)


def test_held_out_tasks_are_held_out(tmp_path):
    run = V2(profile('toy', {'v2_data': dict(train=8, test=8)}), Store(tmp_path))
    for t in COLUMNS['held_out']:
        with pytest.raises(ValueError, match='held out'): run.instructions(t)
    assert not set(COLUMNS['held_out']) & set(COLUMNS['tuned'])
    assert not any(r.id.split('/')[0] in COLUMNS['held_out'] for r in run.instructions())


def test_a_task_comes_several_times_in_the_mixture(tmp_path):
    small, often = dict(train=8, test=8), dict(count=3, leftright=2)
    once, run = (V2(profile('toy', dict(v2_data=small, v2=v2)), Store(tmp_path)) for v2 in ({}, dict(often=often)))
    def sizes(records): return Counter(r.id.split('/')[0] for r in records)
    before, after = sizes(once.instructions()), sizes(run.instructions())
    assert after == {t: n*often.get(t, 1) for t, n in before.items()}
    assert len(run.instructions('count')) == before['count']   # a task alone comes once
    for wrong in ('subitize', 'cuont'):                        # held out, unknown
        lost = V2(profile('toy', dict(v2_data=small, v2=dict(often={wrong: 2}))), Store(tmp_path))
        with pytest.raises(ValueError, match=f'v2.often: no instructions of {wrong}'): lost.instructions()


def test_an_unfinished_journal_is_an_error(tmp_path):
    items = result('compare_real', 3).items
    with pytest.raises(RuntimeError, match='never answered'): _read(tmp_path/'none.jsonl', items)


def test_names_and_published_cells():
    assert len({Tuned(on).name for on in ('all', 'none', 'all, blind', 'count')}) == 4
    d = published_cells()
    assert not d.metric.str.contains('pct').any()
    assert d[(d.model == 'BabyLLaVA-V2') & (d.task == 'Left/Right')].value.tolist() == [96.4]


def test_the_longest_toy_record_fits():
    c = babyllava_v2_toy(900)
    tokens = (c.vision_config.image_size//c.vision_config.patch_size)**2 + 1
    assert 29*tokens + 15*45 < c.text_config.max_position_embeddings
    assert np.isclose(c.vision_config.hidden_size, c.text_config.hidden_size)


def test_a_seed_that_another_process_trains_is_left_for_the_last(tmp_path, monkeypatch):
    run, order = V2(profile('toy', {'v2.seeds': [0, 1, 2, 3]}), Store(tmp_path)), []
    taken = FileLock(f"{run.store.folder('s', run.store.key('s', {'seed': 1}))}.lock")
    def results(self, spec, tasks, **how):
        def build(path):
            (path/'a').write_text('x'), order.append(spec.seed)
            if spec.seed == 3: taken.release()
        self.store.get('s', dict(seed=spec.seed), build)
        return dict.fromkeys(tasks, spec.seed)
    monkeypatch.setattr(V2, 'results', results)
    (tmp_path/'s').mkdir()
    with taken: found = run.answers(tasks=('count',))
    assert found['count'].runs == (0, 1, 2, 3) and order == [0, 3, 1, 2] and run.store.spare == []

"""What the page on matching cannot show: thousands of random problems, odd inputs, kill and resume."""
import itertools
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from scipy.optimize import linear_sum_assignment

from babyvlm.matching import exact as matching, screening
from babyvlm.matching.exact import match, match_stored, verify
from babyvlm.matching.screening import LEVELS, best_worth, screen, side
from babyvlm.store import Store


def unit(v): return np.float32(v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12))
def scores(x, y): return np.asarray(x, np.float64) @ np.asarray(y, np.float64).T


def problem(rng, style, n, m, d):
    "Vectors of one style: generic, with ties, with copies, in a narrow cone, orthogonal."
    if style == 'generic': return [rng.normal(size=(k, d)).astype(np.float32) for k in (n, m)]
    if style == 'signs': return [np.sign(rng.normal(size=(k, d))).astype(np.float32) for k in (n, m)]
    if style == 'small': return [rng.integers(-1, 2, (k, d)).astype(np.float32) for k in (n, m)]
    if style == 'cone': return [unit(1 + .1 * rng.normal(size=(k, d))) for k in (n, m)]
    if style == 'copies': return [unit(rng.normal(size=(max(1, k // 3), d)))[rng.integers(0, max(1, k // 3), k)] for k in (n, m)]
    x, y = (rng.normal(size=(k, d)).astype(np.float32) for k in (n, m))
    return np.c_[x, np.zeros_like(x)], np.c_[np.zeros((m, d), np.float32), y]


STYLES = ('generic', 'signs', 'small', 'cone', 'copies', 'orthogonal')
styles = st.sampled_from(STYLES)


def brute(x, y, capacity):
    "Best total, and its lowest assignment when all vectors differ."
    s, n = scores(x, y), len(x)
    best, at = -np.inf, None
    for c in itertools.product(range(len(y)), repeat=n):
        if max(c.count(j) for j in set(c)) > capacity: continue
        v = s[range(n), c].sum()
        if v > best + 1e-9: best, at = v, c  # product runs in lexicographic order, so the first is the lowest
    return best, at


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32 - 1), style=styles, n=st.integers(1, 5), capacity=st.integers(1, 2))
def test_equals_trying_everything(seed, style, n, capacity):
    rng = np.random.default_rng(seed)
    x, y = problem(rng, style, n, int(rng.integers(-(-n // capacity), 6)), int(rng.integers(1, 4)))
    best, at = brute(x, y, capacity)
    for solver in ('dense', 'lists'):
        m = match(x, y, capacity=capacity, solver=solver, first=2, precision='float32')
        assert m.total == pytest.approx(best, abs=1e-9)
        if len(np.unique(x, axis=0)) == n and len(np.unique(y, axis=0)) == len(y): assert tuple(m.columns) == at


@pytest.mark.parametrize('n', [6, 7])
def test_equals_all_permutations(n):
    rng = np.random.default_rng(n)
    for style in STYLES:
        x, y = problem(rng, style, n, n, 3)
        orders = np.array(list(itertools.permutations(range(n))))
        best = scores(x, y)[np.arange(n), orders].sum(1).max()
        for solver in ('dense', 'lists'): assert match(x, y, solver=solver, first=2, precision='float32').total == pytest.approx(best, abs=1e-9)


def test_equals_scipy_on_thousands():
    rng, checked = np.random.default_rng(0), 0
    while checked < 2000:
        style, n = STYLES[checked % 6], int(rng.integers(1, 40))
        x, y = problem(rng, style, n, n + int(rng.integers(0, 40)), int(rng.integers(1, 12)))
        s = scores(x, y)
        row, col = linear_sum_assignment(s, maximize=True)
        level = ('float32', 'bfloat16', 'float64')[checked % 3]
        m = match(x, y, solver='lists', first=int(rng.integers(2, 20)), precision=level)
        assert m.total == pytest.approx(s[row, col].sum(), rel=1e-9, abs=1e-9)
        assert m.certificate.gap <= 1e-9 * n and len(set(m.columns.tolist())) == n
        checked += 1


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), style=styles, capacity=st.integers(1, 3), level=st.sampled_from([*LEVELS]))
def test_both_solvers_give_the_same_columns(seed, style, capacity, level):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    x, y = problem(rng, style, n, int(rng.integers(-(-n // capacity), 90)), int(rng.integers(1, 9)))
    a = match(x, y, capacity=capacity, solver='dense')
    b = match(x, y, capacity=capacity, solver='lists', first=int(rng.integers(2, 20)), precision=level)
    assert b.ties_known and (a.columns == b.columns).all()
    for m in (a, b):
        proof = verify(x, y, m)
        assert abs(proof.gap) < 1e-9 * n and proof.min_reduced_cost > -1e-10 and proof.slackness < 1e-10
        assert m.certificate.slackness < 1e-10


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), style=styles)
def test_order_does_not_matter(seed, style):
    rng = np.random.default_rng(seed)
    x, y = problem(rng, style, 20, 30, 4)
    a, b = rng.permutation(20), rng.permutation(30)
    m, p = match(x, y, solver='lists', first=6, precision='float32'), match(x[a], y[b], solver='lists', first=6, precision='float32')
    assert p.total == pytest.approx(m.total, rel=1e-12, abs=1e-12)
    if style in ('generic', 'cone'): assert (b[p.columns] == m.columns[a]).all()


@pytest.mark.parametrize('solver', ['dense', 'lists'])
def test_shapes_at_the_edge(solver):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 4)), rng.normal(size=(9, 4))
    assert sorted(match(x, y, solver=solver).columns) == list(range(9))
    assert match(x[:1], y, solver=solver).columns[0] == scores(x[:1], y).argmax()
    assert match(x[:1], y[:1], solver=solver).columns.tolist() == [0]
    assert match(x[:0], y, solver=solver).total == 0
    assert match(np.ones((5, 2)), np.ones((5, 2)), solver=solver).columns.tolist() == [0, 1, 2, 3, 4]
    assert match(np.zeros((3, 2)), y[:, :2], solver=solver).columns.tolist() == [0, 1, 2]
    assert match(x, y[:1], capacity=9, solver=solver).columns.tolist() == [0] * 9
    assert match(x, y, capacity=10**6, solver=solver).columns.tolist() == scores(x, y).argmax(1).tolist()
    same = match(np.ones((6, 3)), rng.normal(size=(20, 3)), solver=solver, first=2)
    assert verify(np.ones((6, 3)), rng.normal(size=(20, 3)) * 0 + 1, replace(same, certificate=replace(same.certificate, col_prices=np.zeros(20)))).gap < 1e-9


def test_hub():
    "Every query wants the same few items: lists must grow to the number of queries."
    rng = np.random.default_rng(1)
    x, y = unit(1 + .01 * rng.normal(size=(150, 8))), unit(rng.normal(size=(400, 8)))
    m = match(x, y, solver='lists', first=4, precision='float32')
    assert (m.columns == match(x, y, solver='dense').columns).all() and m.rounds > 2


@pytest.mark.parametrize('bad, message', [(np.nan, 'queries: row 2 is not finite'), (np.inf, 'queries: row 2 is not finite')])
def test_a_bad_number_is_named(bad, message):
    x = np.ones((4, 3), np.float32)
    x[2, 1] = bad
    with pytest.raises(ValueError, match=message): match(x, np.ones((5, 3), np.float32))
    with pytest.raises(ValueError, match=message.replace('queries', 'pool')): match(np.ones((2, 3)), x)


@pytest.mark.parametrize('x, y, options, message', [
    (np.ones((3, 2)), np.ones((2, 2)), {}, '3 queries do not fit into 2'),
    (np.ones((3, 2)), np.ones((0, 2)), {}, 'do not fit'),
    (np.ones((3, 2)), np.ones((4, 3)), {}, '2 dimensions, pool 3'),
    (np.ones(3), np.ones((4, 3)), {}, 'queries: expected an'),
    (np.array([['a']]), np.ones((4, 1)), {}, 'queries: expected an'),
    (np.ones((3, 2)), np.ones((4, 2)), dict(capacity=0), 'capacity 0'),
    (np.ones((3, 2)), np.ones((4, 2)), dict(capacity=1.5), 'capacity 1.5'),
    (np.ones((3, 2)), np.ones((4, 2)), dict(precision='float8'), 'precision'),
    (np.ones((3, 2)), np.ones((4, 2)), dict(solver='magic'), 'solver'),
    (np.ones((3, 2)), np.ones((4, 2)), dict(tolerance=-1.), 'tolerance'),
    (np.full((3, 2), 1e200), np.full((4, 2), 1e200), {}, 'overflow'),
])
def test_refusals(x, y, options, message):
    with pytest.raises(ValueError, match=message): match(x, y, **options)


@pytest.mark.parametrize('kind', ['float16', 'bfloat16', 'float32', 'float64', 'numpy16', 'int'])
def test_input_types(kind):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(30, 6)) * 4, rng.normal(size=(50, 6)) * 4
    if kind == 'numpy16': x, y = x.astype(np.float16), y.astype(np.float16)
    elif kind == 'int': x, y = x.astype(int), y.astype(int)
    else: x, y = (torch.tensor(v).to(getattr(torch, kind)) for v in (x, y))
    wide = [(v.double().numpy() if isinstance(v, torch.Tensor) else v.astype(np.float64)) for v in (x, y)]
    s = scores(*wide)
    row, col = linear_sum_assignment(s, maximize=True)
    for solver in ('dense', 'lists'): assert match(x, y, solver=solver, first=5).total == pytest.approx(s[row, col].sum(), rel=1e-12)


@pytest.mark.parametrize('a, b', [(1e-20, 1e20), (1e18, 1e18), (1e-19, 1e-19), (1., 1e3)])
def test_any_scale(a, b):
    rng = np.random.default_rng(3)
    x, y = np.float32(rng.normal(size=(40, 8)) * a), np.float32(rng.normal(size=(60, 8)) * b)
    m = match(x, y, solver='lists', first=6)
    assert (m.columns == match(x, y, solver='dense').columns).all()


def test_one_giant_vector():
    rng = np.random.default_rng(4)
    x, y = unit(rng.normal(size=(40, 8))), unit(rng.normal(size=(60, 8)))
    y[7] *= 1e5
    m = match(x, y, solver='lists', first=6)
    assert (m.columns == match(x, y, solver='dense').columns).all() and abs(verify(x, y, m).gap) < 1e-6


def test_threads_do_not_matter():
    rng = np.random.default_rng(5)
    x, y = problem(rng, 'signs', 300, 500, 8)
    before, got = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        got.append(match(x, y, solver='lists', first=16))
    torch.set_num_threads(before)
    assert all((m.columns == got[0].columns).all() for m in got)


@pytest.mark.parametrize('options', [dict(time_limit=0), dict(tolerance=.05), dict(tolerance=0.)])
@pytest.mark.parametrize('style', STYLES)
def test_stopping_early_is_honest(options, style):
    rng = np.random.default_rng(6)
    x, y = problem(rng, style, 80, 100, 5)
    best = match(x, y, solver='dense').total
    m = match(x, y, solver='lists', first=2, precision='float32', **options)
    assert len(set(m.columns.tolist())) == 80
    assert m.total <= best + 1e-9 <= m.bound + 2e-9
    proof = verify(x, y, m)
    assert proof.gap <= m.certificate.gap + 1e-9 and proof.gap >= best - m.total - 1e-9
    if 'tolerance' in options: assert m.certificate.gap <= options['tolerance'] * 80 + 1e-9


def test_the_bar_shows_the_gap_shrink(capsys):
    rng = np.random.default_rng(15)
    x, y = unit(1 + .05 * rng.normal(size=(200, 8))), unit(rng.normal(size=(500, 8)))
    m = match(x, y, solver='lists', first=3, precision='float32', progress=True)
    said = capsys.readouterr().err
    gaps = [float(g) for g in re.findall(r'gap=([0-9.e+-]+) a row', said)]
    assert m.rounds > 2 and len(set(gaps)) > 2 and gaps == sorted(gaps, reverse=True) and 'gap=0' in said and 'of pass 1' in said


def test_the_best_assignment_met_is_what_comes_back(monkeypatch):
    "A later round may complete worse than an earlier one: what was better is not lost."
    rng = np.random.default_rng(17)
    x, y = unit(1 + .05 * rng.normal(size=(100, 8))), unit(rng.normal(size=(200, 8)))
    totals, complete = [], matching._completed
    def worse(search, quick):
        totals.append(0)
        return complete(search, quick) if len(totals) < 3 else np.argsort(scores(x, y).sum(0))[:100]
    monkeypatch.setattr(matching, '_completed', worse)
    early = match(x, y, solver='lists', first=3, precision='float32', tolerance=.45)
    assert len(totals) > 3 and not early.optimal
    poor = scores(x, y)[np.arange(100), np.argsort(scores(x, y).sum(0))[:100]].sum()
    assert early.total > poor + 1 and early.total <= match(x, y, solver='dense').total <= early.bound + 1e-9


def test_a_match_in_the_store_is_found_once_and_goes_on(tmp_path, monkeypatch):
    rng = np.random.default_rng(18)
    x, y = unit(1 + .05 * rng.normal(size=(150, 8))), unit(rng.normal(size=(400, 8)))
    options = dict(solver='lists', first=3, precision='float32')
    want, store, lengthen = match(x, y, **options), Store(tmp_path), matching._lengthen
    def dies(*a, **k): raise KeyboardInterrupt
    monkeypatch.setattr(matching, '_lengthen', dies)
    with pytest.raises(KeyboardInterrupt): match_stored(x, y, store, **options)
    monkeypatch.setattr(matching, '_lengthen', lengthen)
    everybody, extend = [], matching._extend
    def counted(search, kind, k, *a): everybody.append(k); return extend(search, kind, k, *a)
    monkeypatch.setattr(matching, '_extend', counted)
    m = match_stored(x, y, store, **options)
    assert (m.columns == want.columns).all() and min(everybody) > 3 and verify(x, y, m).gap < 1e-9
    monkeypatch.setattr(matching, 'match', dies)
    again = match_stored(x, y, store, **options)
    assert again.total == m.total and (again.certificate.col_prices == m.certificate.col_prices).all() and again.optimal is True
    assert [p.name for p in store.artifacts('match')[0].path.iterdir() if p.suffix == '.npz'] == ['match.npz']
    with pytest.raises(KeyboardInterrupt): match_stored(x, y, store, capacity=2, **options)


def test_verify_without_fast_products(monkeypatch):
    rng = np.random.default_rng(19)
    x, y = unit(rng.normal(size=(300, 16)) + 1), unit(rng.normal(size=(900, 16)) + 1)
    m = match(x, y)
    monkeypatch.setattr(matching, 'best_worth', None)
    proof = verify(x, y, m, precision='float64')
    assert abs(proof.gap) < 1e-9 and proof.min_reduced_cost > -1e-12
    with pytest.raises(ValueError, match='auto or float64'): verify(x, y, m, precision='bfloat16')


def test_arrays_that_may_not_be_written_to(recwarn):
    rng = np.random.default_rng(20)
    x, y = (unit(rng.normal(size=(k, 8))) for k in (20, 40))
    want = match(x, y).columns
    for v in (x, y): v.flags.writeable = False
    assert (match(x, y).columns == want).all() and not [w for w in recwarn if 'writable' in str(w.message)]


def test_memory_limit_raises():
    rng = np.random.default_rng(7)
    x, y = unit(1 + .01 * rng.normal(size=(200, 8))), unit(rng.normal(size=(400, 8)))
    with pytest.raises(MemoryError, match='tolerance'): match(x, y, solver='lists', first=4, memory=60_000)


def test_imprecise_products_are_noticed(monkeypatch):
    rng = np.random.default_rng(8)
    x, y = unit(rng.normal(size=(60, 32)) + .5), unit(rng.normal(size=(90, 32)) + .5)
    honest, want = torch.mm, match(x, y, solver='dense')

    def sloppy(a, b, out=None):
        r = honest(a, b, out=out)
        return r.copy_(r.bfloat16().to(r.dtype)) if r.dtype == torch.float32 else r
    monkeypatch.setattr(torch, 'mm', sloppy)
    with pytest.warns(UserWarning, match='less precise'): m = match(x, y, solver='lists', first=8, precision='float32')
    assert (m.columns == want.columns).all()
    monkeypatch.setattr(torch, 'mm', lambda a, b, out=None: honest(a, b, out=out).mul_(1.01))
    with pytest.raises(matching.Imprecise), pytest.warns(UserWarning): match(x, y, solver='lists', first=8, precision='float32')


def test_global_precision_switch_is_overruled():
    rng = np.random.default_rng(9)
    x, y = unit(rng.normal(size=(100, 64))), unit(rng.normal(size=(200, 64)))
    torch.set_float32_matmul_precision('medium')
    try:
        m = match(x, y, solver='lists', first=16, precision='float32')
        assert torch.get_float32_matmul_precision() == 'medium'
    finally: torch.set_float32_matmul_precision('highest')
    assert (m.columns == match(x, y, solver='dense').columns).all()


def test_a_false_proof_is_seen_through():
    rng = np.random.default_rng(10)
    x, y = unit(rng.normal(size=(50, 6))), unit(rng.normal(size=(60, 6)))
    m = match(x, y)
    low = replace(m.certificate, row_prices=m.certificate.row_prices - .1)
    assert verify(x, y, replace(m, certificate=low)).min_reduced_cost == pytest.approx(-.1, abs=1e-9)
    free = replace(m.certificate, col_prices=np.zeros(60))
    assert verify(x, y, replace(m, certificate=free)).gap > 1e-3
    odd = replace(m.certificate, col_prices=m.certificate.col_prices + .1)
    assert verify(x, y, replace(m, certificate=odd)).slackness >= .1
    for wrong in (m.columns[:-1], m.columns + 60, np.full(50, -1), m.columns.astype(float)):
        with pytest.raises(ValueError, match='not an assignment'): verify(x, y, replace(m, columns=wrong))
    with pytest.raises(ValueError, match='serves'): verify(x, y, replace(m, columns=np.zeros(50, int)))


@pytest.mark.parametrize('level', [*LEVELS])
def test_screened_verification_equals_the_plain_one(level):
    rng = np.random.default_rng(11)
    x, y = unit(rng.normal(size=(70, 24)) + 1), unit(rng.normal(size=(2100, 24)) + 1)
    price = np.abs(rng.normal(size=2100)) * .01
    want = (scores(x, y) - price).max(1)
    assert best_worth(side(x), side(y), price, level=level, tile=100) == pytest.approx(want, abs=1e-14)
    crowd = np.repeat(y[:1], 2100, 0)  # a plateau larger than any buffer
    assert best_worth(side(x), side(crowd), price * 0, level=level) == pytest.approx(scores(x, crowd).max(1), abs=1e-14)


@pytest.mark.parametrize('level', LEVELS)
def test_columns_that_mislead_about_the_bar(level):
    "Every sixteenth column is better than all others: the first bar is too high and the row reads the pool again."
    rng = np.random.default_rng(0)
    y = rng.standard_normal((8192, 32)).astype(np.float32)
    y[::16] += 3
    x, price = (rng.standard_normal((50, 32)) * .1 + 1).astype(np.float32), np.zeros(8192)
    both = side(x), side(y)
    reach = screening.reach(*both, price, price > 0, level)
    bars = screening._first_bars(both[0].block(slice(None), level)[1], both[1], reach, 600)
    truth = x.astype(np.float64) @ y.T.astype(np.float64)
    assert np.isfinite(bars).all() and ((truth - truth.mean() > truth.std()).sum(1) < 600).all()
    found = next(screen(*both, np.arange(50), 600, price, level=level))
    left = truth.copy()
    np.put_along_axis(left, found.column.astype(int), -np.inf, 1)
    listed = np.take_along_axis(truth, found.column.astype(int), 1)
    assert (left.max(1) <= found.beyond).all() and (np.abs(listed - found.score) <= found.error[:, None]).all()
    assert np.abs(np.sort(listed) - np.sort(truth)[:, -600:]).max() <= 2 * found.error.max()


def test_a_failing_thread_stops_the_others_and_gives_the_threads_back():
    "An interrupt is not kept waiting until the whole pool is read."
    before, seen, both = torch.get_num_threads(), [0, 0], side(np.eye(64, dtype=np.float32))
    torch.set_num_threads(2)
    def look(rows, scores, columns):
        if rows.start == 0: raise KeyboardInterrupt
        seen[1] += 1
        time.sleep(.01)
    try:
        with pytest.raises(KeyboardInterrupt):
            screening._sweep(torch.eye(64), both, 'float32', [slice(0, 64)] * 500, look)
        assert seen[1] < 250 and torch.get_num_threads() == 2
    finally: torch.set_num_threads(before)


def test_tensor_route_equals_threads():
    rng = np.random.default_rng(12)
    x, y = unit(rng.normal(size=(70, 24)) + 1), unit(rng.normal(size=(900, 24)) + 1)
    skip = rng.random(900) < .2
    for level in LEVELS:
        a, b = (next(screen(side(x), side(y), np.arange(70), 20, np.zeros(900), level=level, skip=skip, tensors=t)) for t in (False, True))
        assert not skip[a.column].any() and not skip[b.column].any()
        s = np.where(skip, -9, scores(x, y))
        for got in (a, b):
            rest = s.copy()
            np.put_along_axis(rest, got.column.astype(int), -9, 1)
            assert (rest.max(1) <= got.beyond).all()
            assert (np.abs(np.take_along_axis(s, got.column.astype(int), 1) - got.score) <= got.error[:, None]).all()


@pytest.mark.parametrize('style', ['cone', 'copies', 'signs'])
@pytest.mark.parametrize('level', ['bfloat16', 'float32'])
def test_search_and_check_by_tensor_operations(style, level, monkeypatch):
    "The route of a CUDA device, taken on this one: the columns and the proof are those of the threads."
    rng = np.random.default_rng(16)
    x, y = problem(rng, style, 120, 700, 12)
    want = match(x, y, solver='dense')
    held = lambda data, device='cpu': replace(side(data, device), held=torch.from_numpy(data))
    monkeypatch.setattr(matching, 'side', held)
    monkeypatch.setattr(matching, 'screen', lambda *a, **k: screen(*a, **k, tensors=True))
    m = match(x, y, solver='lists', first=6, precision=level)
    assert (m.columns == want.columns).all() and m.optimal
    best = best_worth(held(x), held(y), m.certificate.col_prices, level=level, tile=2)
    assert best == pytest.approx(m.certificate.row_prices, abs=1e-11)


KILLED = textwrap.dedent('''
    import os, signal, sys
    import numpy as np
    from babyvlm.matching import exact as matching, screening
    rng = np.random.default_rng(13)
    x = 1 + .02 * rng.normal(size=(300, 8)); y = rng.normal(size=(700, 8))
    if sys.argv[2] == 'die':
        save, seen = matching._save, []
        def dying(search, folder):
            save(search, folder); seen.append(1)
            if len(seen) == 2: os.kill(os.getpid(), signal.SIGKILL)
        matching._save = dying
    else:
        first, started = matching._extend, []
        def counted(search, kind, k, *a): started.append(len(kind)); return first(search, kind, k, *a)
        matching._extend = counted
    m = matching.match(np.float32(x), np.float32(y), solver='lists', first=4, precision='float32', checkpoint=sys.argv[1])
    print(m.total.hex(), max(started, default=0), *m.columns)
''')


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='needs SIGKILL')
def test_a_killed_search_goes_on(tmp_path):
    def go(folder, how):
        return subprocess.run([sys.executable, '-c', KILLED, str(folder), how], capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert go(tmp_path/'a', 'die').returncode == -signal.SIGKILL
    state = (tmp_path/'a'/'state.npz').stat().st_mtime_ns
    resumed, whole = go(tmp_path/'a', 'live').stdout.split(), go(tmp_path/'b', 'live').stdout.split()
    assert (tmp_path/'a'/'state.npz').stat().st_mtime_ns >= state
    assert resumed[0] == whole[0] and resumed[2:] == whole[2:]
    rng = np.random.default_rng(13)
    with pytest.raises(ValueError, match='other vectors'):
        match(np.float32(rng.normal(size=(300, 8))), np.float32(rng.normal(size=(700, 8))), solver='lists', first=4, checkpoint=tmp_path/'a')


def test_quicker_than_the_matrix():
    "A loose ratio, so that a busy machine does not fail it: half of what an idle one shows."
    rng = np.random.default_rng(14)
    centres = rng.normal(size=(60, 64))
    x, y = (unit(centres[rng.integers(0, 60, k)] + rng.normal(size=(k, 64))) for k in (3000, 12000))
    match(x[:200], y[:400], solver='lists', first=8)
    begun = time.process_time()
    s = scores(x, y)
    row, col = linear_sum_assignment(s, maximize=True)
    dense = time.process_time() - begun
    begun = time.process_time()
    m = match(x, y, solver='lists')
    ours = time.process_time() - begun
    assert m.total == pytest.approx(s[row, col].sum(), rel=1e-9)
    assert ours < dense


def test_small_problems_are_verified_in_double_precision(monkeypatch):
    rng = np.random.default_rng(21)
    x, y = (unit(rng.normal(size=(k, 4))) for k in (30, 50))
    m = match(x, y)
    monkeypatch.setattr(matching, 'best_worth', None)
    assert abs(verify(x, y, m).gap) < 1e-12


def test_blocks_of_rows_change_nothing():
    rng = np.random.default_rng(22)
    x, y = rng.normal(size=(9000, 2)), rng.normal(size=(4200, 2))
    columns, price = rng.integers(0, 4200, 9000), rng.random(4200)
    np.testing.assert_allclose(matching._paired(x, y, columns), (x*y[columns]).sum(1), atol=1e-12)
    for a, b, p in ((x, y[:7], price[:7]), (x[:7], y, price)): np.testing.assert_allclose(matching._best_worth_plain(a, b, p), (a @ b.T - p).max(1), atol=1e-12)
    for row in (0, 2047, 2048, 4099, 8999):
        long, odd = x.copy(), x.copy()
        long[row] *= 100; odd[row, 1] = np.nan
        assert matching._largest_norm(long) == pytest.approx(np.linalg.norm(long, axis=1).max(), rel=1e-12)
        with pytest.raises(ValueError, match=f'pool: row {row} is not finite'): matching.as_vectors(odd, 'pool')


def test_a_match_reads_as_one_line_and_comes_back_whole(tmp_path):
    rng = np.random.default_rng(23)
    x, y = unit(1 + .05*rng.normal(size=(80, 6))), unit(rng.normal(size=(60, 6)))
    for options in (dict(), dict(solver='lists', first=3, precision='float32', tolerance=.5)):
        m = match(x, y, capacity=2, **options)
        matching.save_match(m, tmp_path/'m.npz'); back = matching.load_match(tmp_path/'m.npz')
        for k in ('columns', 'total', 'rounds', 'capacity', 'optimal', 'ties_known', 'bound'): assert np.array_equal(getattr(back, k), getattr(m, k)), k
        for k in ('row_prices', 'col_prices', 'gap', 'min_reduced_cost', 'slackness'): assert np.array_equal(getattr(back.certificate, k), getattr(m.certificate, k)), k
        assert m.bound == m.total + m.certificate.gap and m.optimal == (not options)
        end = 'optimal' if m.optimal else f'at most {m.certificate.gap:.3g} below the optimum'
        assert repr(m) == f'Match(80 rows, total {m.total:.6f}, {end})'
    assert not matching.match(x[:0], y).rounds and match(x[:2], y).rounds == 0


def test_limits_are_checked_at_their_ends():
    x = np.ones((2, 2))
    for bad in (dict(capacity=2**31), dict(time_limit=-1e-9), dict(time_limit=float('nan')), dict(tolerance=float('nan'))):
        with pytest.raises(ValueError, match=next(iter(bad))): match(x, x, **bad)
    assert match(x, x, capacity=2**31 - 1, tolerance=0., time_limit=1e9).total == 4 and match(x, x[:1], capacity=2).columns.tolist() == [0, 0]


# what changes of single signs showed

def test_the_full_matrix_is_for_small_problems_whatever_the_capacity():
    few, many = np.zeros((2000, 1)), np.zeros((2000, 1))
    assert matching._small(few, many, 1) and not matching._small(few, many, 1000) and matching._small(few[:10], many, 1000) and not matching._small(np.zeros((2001, 1)), many, 1)


def test_a_list_is_coarse_where_errors_blur_what_it_tells_apart():
    class Found: score = np.array([[3., 2., 1.]]*3); error = np.array([.1, .5, .5])
    assert matching._coarse(Found, whole=False) and not matching._coarse(Found, whole=True)
    Found.error = np.array([.1, .1, .5])
    assert not matching._coarse(Found, whole=False)


def test_a_column_behind_the_last_is_no_assignment():
    for wrong in ([0, 2], [-1, 0], [0., 1.], [0]):
        with pytest.raises(ValueError, match='not an assignment: one column from 0 to 1'): matching._check_assignment(np.array(wrong), np.zeros(2), 2, 2, 1)
    assert matching._check_assignment(np.array([1, 0]), np.zeros(2), 2, 2, 1).tolist() == [1, 1]


def test_lists_are_put_in_the_order_of_todays_prices_each_columns_own():
    rng = np.random.default_rng(5)
    x, y = np.float32(rng.normal(size=(6, 8))), np.float32(rng.normal(size=(40, 8)))
    norms = [float(np.linalg.norm(v, axis=1).max()) for v in (x, y)]
    search = matching._new_search(x, y, 1, norms, torch.device('cpu'), 2**30, float('inf'))
    matching._extend(search, np.arange(6), 40)
    used = search.lists.col[:240]
    used[::2] = np.where(used >= 0, used, ~used)[::2]   # as if every second similarity had been computed
    search.seats.price[:] = rng.permutation(40) / 8
    matching._resort(search)
    L = search.lists
    for s, k in zip(L.start, L.size):
        col, key = L.col[s:s+k], L.key[s:s+k]
        plain = np.where(col >= 0, col, ~col)
        assert sorted(plain) == list(range(40)) and (np.diff(key) <= 0).all()
        worth = L.sim[s:s+k] - search.seats.price[plain]
        assert (key >= worth).all() and (key - worth < 1e-5).all()


def test_a_checkpoint_never_runs_what_it_holds(tmp_path):
    class Trap:
        def __reduce__(self): return Path.touch, (tmp_path/'ran',)
    np.savez(tmp_path/'state.npz', fingerprint=np.array(Trap(), dtype=object))
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match='pickle'):
        match(np.float32(rng.normal(size=(30, 8))), np.float32(rng.normal(size=(70, 8))), solver='lists', first=4, checkpoint=tmp_path)
    assert not (tmp_path/'ran').exists()

"Probes: the optimum against scikit-learn, splits, controls, and laws the page does not show."
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from babyvlm.analysis.probing import (PENALTIES, _split, fit_basis, fit_probe, group_split, minimise, new_head, objective,
                                      penalty_path)


def world(n=900, d=20, classes=12, seed=0, noise=1.5, decay=2.):
    rng = np.random.default_rng(seed)
    y, session = rng.integers(0, classes, n), rng.integers(0, 25, n)
    x = rng.normal(size=(classes, d))[y] + noise*rng.normal(size=(n, d))
    x = x*np.logspace(0, -decay, d) @ np.linalg.qr(rng.normal(size=(d, d)))[0] + 3*rng.normal(size=d)
    return x.astype('float32'), y, session


@pytest.mark.parametrize('penalty', [300., 10., .3])
def test_optimum_of_scikit_learn(penalty):
    x, y, _ = world()
    basis = fit_basis(torch.from_numpy(x))
    rows = basis.project(torch.from_numpy(x))
    head = minimise(rows, basis.curvature, [new_head(y, 12, penalty, rows.shape[1])])[0]
    z = ((x - basis.mean.numpy())/basis.std.numpy()).astype('float64')
    peer = LogisticRegression(C=1/penalty, tol=1e-10, max_iter=20000).fit(z, y)
    best = len(y)*log_loss(y, peer.predict_proba(z)) + penalty/2*np.square(peer.coef_).sum()
    assert -1e-5 < head.value/best - 1 < 1e-4
    w, b = basis.export(head.weights)
    agree = (torch.from_numpy(x) @ w + b).argmax(1).numpy() == peer.predict(z)
    assert agree.mean() > .99


def test_gap_is_no_boast():
    "The true distance from the minimum is at most a few times the estimate, and below 1e-4 at the default."
    for seed, penalty in ((0, 100.), (1, 1.), (2, .1)):
        x, y, _ = world(seed=seed, decay=3.)
        basis = fit_basis(torch.from_numpy(x))
        rows = basis.project(torch.from_numpy(x))
        solve = lambda tolerance: minimise(rows, basis.curvature, [new_head(y, 12, penalty, rows.shape[1])], tolerance, 5000)[0]
        head, best = solve(1e-5), solve(1e-9)
        assert head.gap < 1e-5 and head.value/best.value - 1 < 1e-4


@pytest.mark.parametrize('most', [1, 4, 9, 500])
def test_what_is_reported_is_what_the_weights_give(most):
    "Value and gradient of the end belong to the weights of the end, also when passes run out."
    x, y, _ = world(seed=1)
    basis = fit_basis(torch.from_numpy(x))
    rows = basis.project(torch.from_numpy(x))
    heads = minimise(rows, basis.curvature, [new_head(y, 12, 9., 21), new_head(y//3, 4, 1., 21)], most=most)
    for h in heads:
        (value,), (grad,), _ = objective(rows, [h], [h.weights])
        assert math.isclose(value, h.value, rel_tol=1e-7) and torch.allclose(grad, h.grad, atol=1e-3, rtol=1e-4)
        assert h.evaluations <= most and (h.gap < 1e-5 or most < 500)


def test_objective_on_the_quick_way_is_that_of_double_precision():
    "A table large enough for the convolution, with a last block that is no whole picture."
    g = torch.Generator().manual_seed(0)
    rows, sizes = torch.randn(4001, 129, generator=g), (40, 7)
    heads = [new_head(torch.randint(c, (4001,), generator=g), c, 2., 129) for c in sizes]
    weights = [.1*torch.randn(129, c, generator=g) for c in sizes]
    double = [new_head(h.target, c, 2., 129) for h, c in zip(heads, sizes)]
    values, grads, spread = objective(rows, heads, weights)
    exact = objective(rows.double(), double, [w.double() for w in weights])
    for a, b, c, d, e, f in zip(values, exact[0], grads, exact[1], spread, exact[2]):
        assert math.isclose(a, b, rel_tol=1e-6)
        assert torch.allclose(c.double(), d, atol=1e-4*float(d.abs().max())) and torch.allclose(e.double(), f, rtol=1e-4)


def test_gradient_is_the_slope_of_the_objective():
    x, y, _ = world(200, 6, 5)
    rows = fit_basis(torch.from_numpy(x)).project(torch.from_numpy(x))
    head, g = new_head(y, 5, 2., 7), torch.Generator().manual_seed(0)
    w, move = torch.randn(7, 5, generator=g), torch.randn(7, 5, generator=g)
    (value,), (grad,), _ = objective(rows, [head], [w])
    (ahead,), _, _ = objective(rows, [head], [w + 1e-3*move])
    (behind,), _, _ = objective(rows, [head], [w - 1e-3*move])
    assert math.isclose((ahead - behind)/2e-3, float((grad*move).sum()), rel_tol=2e-3)


def test_blocks_do_not_change_the_objective(monkeypatch):
    import babyvlm.analysis.probing as module
    x, y, _ = world(500)
    rows = fit_basis(torch.from_numpy(x)).project(torch.from_numpy(x))
    heads = [new_head(y, 12, 1., 21), new_head(y//3, 4, 1., 21)]
    ws = [torch.randn(21, 12), torch.randn(21, 4)]
    whole = objective(rows, heads, ws)
    monkeypatch.setattr(module, '_block', lambda rows, w: 37)
    parts = objective(rows, heads, ws)
    for a, b in zip(whole[0], parts[0]): assert math.isclose(a, b, rel_tol=1e-6)
    for a, b in zip(whole[1], parts[1]): assert torch.allclose(a, b, rtol=1e-3, atol=1e-2)


def test_constant_and_duplicate_columns_are_harmless():
    x, y, _ = world(300)
    x = np.column_stack([x, np.full(300, 7.), x[:, :3]]).astype('float32')
    basis = fit_basis(torch.from_numpy(x))
    rows = basis.project(torch.from_numpy(x))
    head = minimise(rows, basis.curvature, [new_head(y, 12, 1., rows.shape[1])])[0]
    assert math.isfinite(head.value) and head.gap < 1e-4


def test_rows_in_another_order_give_the_same_probe():
    x, y, s = world(600)
    test = group_split(s, .3)
    order = np.random.default_rng(0).permutation(600)
    a = fit_probe(x, y, s, test=test, device='cpu', control=False)
    b = fit_probe(x[order], y[order], s[order], test=test[order], device='cpu', control=False)
    assert a.scores.accuracy['label'].value == pytest.approx(b.scores.accuracy['label'].value, abs=.01)
    assert a.scores.penalty['label'] == b.scores.penalty['label']


def test_scale_and_shift_of_the_features_do_not_matter():
    x, y, s = world(600)
    a = fit_probe(x, y, s, device='cpu', control=False)
    b = fit_probe(100*x - 50, y, s, device='cpu', control=False)
    assert a.scores.accuracy['label'].value == pytest.approx(b.scores.accuracy['label'].value, abs=.01)


def test_standardisation_and_choice_never_see_test_rows():
    x, y, s = world(600)
    test = group_split(s, .3)
    wild = x.copy()
    wild[test] = 1e3*np.random.default_rng(1).normal(size=wild[test].shape)
    a, b = (fit_probe(v, y, s, test=test, device='cpu', control=False) for v in (x, wild))
    assert a.path.equals(b.path) and torch.equal(a.weights['label'][0], b.weights['label'][0])


def test_control_of_shuffled_labels_is_at_chance():
    x, y, s = world(1500, classes=4, noise=3.)
    row = fit_probe(x, y, s, device='cpu').scores.loc['label']
    assert abs(row.control.value - .25) < .12 and row.accuracy.value > .4


def test_a_class_that_is_new_in_the_test_rows_counts_as_wrong():
    x, y, s = world(600, classes=5)
    test = np.zeros(600, bool)
    test[:100] = True
    y = np.array([f'c{v}' for v in y], dtype='<U9')
    y[:20] = 'newcomer'
    row = fit_probe(x, y, s, test=test, device='cpu', control=False).scores.loc['label']
    assert row.unseen == 20 and row.accuracy.n == 100 and row.accuracy.value <= .8 and row.classes == 5


def test_path_stops_only_after_two_fruitless_penalties():
    x, y, _ = world(400)
    basis = fit_basis(torch.from_numpy(x))
    rows = basis.project(torch.from_numpy(x))
    script = iter([.1, .3, .2, .2])
    seen = [p for _, p, _, _ in penalty_path(rows, basis.curvature, {'a': (y, 12)}, judge=lambda k, w: next(script))]
    assert seen == sorted(PENALTIES, reverse=True)[:4]
    assert len(list(penalty_path(rows, basis.curvature, {'a': (y, 12)}))) == len(PENALTIES)


@pytest.mark.parametrize('bad, words', [
    (dict(groups=None), 'session or species'), (dict(groups=[1, 2]), '2 groups for 60 rows'),
    (dict(labels=np.zeros(60)), 'one class only'), (dict(labels=np.zeros(59)), '59 labels for 60 rows'),
    (dict(mode='best'), "use 'validated' or 'reference'"), (dict(penalties=()), 'penalties'), (dict(penalties=(1., -1.)), 'all >= 0'),
    (dict(features=np.zeros(60)), r'\(n, d\) table'), (dict(test=np.zeros(60, bool)), 'some of each'), (dict(test=np.arange(5)), 'one True or False a row'),
    (dict(groups=np.where(np.arange(60) == 7, np.nan, 1.)), 'row 7 has no group')])
def test_requests_that_make_no_sense(bad, words):
    x, y, s = world(60)
    with pytest.raises(ValueError, match=words): fit_probe(**{**dict(features=x, labels=y, groups=s, device='cpu'), **bad})


@pytest.mark.parametrize('row', range(0, 60, 7))
@pytest.mark.parametrize('mode', ['validated', 'reference'])
def test_feature_that_is_no_number_names_its_row_in_every_part(row, mode):
    x, y, s = world(60)
    x[row, 3] = np.nan
    with pytest.raises(ValueError, match=f'row {row} is not finite'): fit_probe(x, y, s, mode=mode, device='cpu')


def test_groups_on_both_sides_of_given_test_rows_are_named():
    x, y, s = world(60)
    with pytest.warns(UserWarning, match='groups are on both sides of the test rows'): fit_probe(x, y, s, test=np.arange(60) % 2 == 0, device='cpu', control=False)


def test_reference_reports_the_best_test_epoch():
    x, y, s = world(500, noise=4.)
    probe = fit_probe(x, dict(a=y//6, b=y), s, mode='reference', epochs=40, lr=1e-2, device='cpu')
    for k, row in probe.scores.iterrows():
        curve = probe.path[probe.path.level == k]
        assert row.reported.value == pytest.approx(curve.test.max(), abs=1e-6)
        assert row.accuracy.value == pytest.approx(curve.test.iloc[curve.validation.argmax()], abs=1e-6)
        assert row.inflation >= 0 and len(curve) == 40


def test_bench_quick():
    "The committed benchmark runs, and ours is not slower."
    import importlib.util
    from pathlib import Path
    spec = importlib.util.spec_from_file_location('bench_probing', Path(__file__).parent.parent/'tools'/'bench'/'bench_probing.py')
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    for row in bench.rows(quick=True):
        assert set(row) == {'part', 'size', 'peer', 'ours', 'ratio', 'memory_ratio', 'exactness'}
        if 'scikit-learn' in row['peer']: assert row['ratio'] > 1, row


def test_whole_groups_are_drawn_until_they_hold_the_share():
    s = np.repeat(np.arange(40), 5)
    assert group_split(s, .4).sum() in range(75, 81) and (group_split(s, .4) == group_split(s, .4, 0)).all() and (group_split(s, .4) != group_split(s, .4, 1)).any()
    two = group_split(np.repeat(['a', 'b'], 4), .1)
    assert two.sum() == 4 and two[:4].all() != two[4:].all()
    with pytest.raises(ValueError, match='at least two groups; found one'): group_split(np.zeros(9), .5)


def test_shares_of_validation_and_test_are_not_swapped():
    test, val = _split(1000, 'rows', None, (.1, .4), 3)
    assert 390 <= test.sum() <= 400 and not (test & val).any() and 50 <= val.sum() <= 61 and (test == group_split(np.arange(1000), .4, 3)).all()
    assert (val[~test] == group_split(np.arange(1000)[~test], .1, 4)).all()
    given, _ = _split(1000, list(range(1000)), test, (.1, .4), 3)
    assert (given == test).all()
    for bad in (np.ones(1000, bool), np.zeros(1000, bool), test[:-1], test.astype(int)):
        with pytest.raises(ValueError, match='one True or False a row'): _split(1000, 'rows', bad, (.1, .4), 0)
    for groups, words in ((None, "each row's session"), (['a', 'b'], '2 groups for 1000 rows'), (['a']*999 + [None], 'row 999 has no group')):
        with pytest.raises(ValueError, match=words): _split(1000, groups, None, (.1, .4), 0)

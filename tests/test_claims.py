"""Laws of verdicts: what a rule may say where its claim is true, where it is false, and when too little was run."""
import json
from importlib import resources

import numpy as np
import pytest

from babyvlm.analysis.claims import (VERDICTS, Claim, expected_false, flips, in_counter_worlds, judge, on_other_half, planted, power,
                                     verdicts, with_reruns)
from babyvlm.config import profile
from babyvlm.estimate import FEWEST, Estimate
from babyvlm.experiments.claims import QUANTITIES, claim_of, seeds_of

RULES = [Claim('a', 'above', 'a difference'), Claim('b', 'below', 'a difference', 'below', .05, smallest=0.),
         Claim('c', 'above', 'a share', bound=.8), Claim('d', 'above', 'a difference', bound=-.1, smallest=0.)]


@pytest.mark.parametrize('seed', range(20))
def test_no_rule_supports_its_claim_where_it_is_false(seed):
    for c in RULES:
        assert judge(c, planted(c, False, seed=seed)) != 'supported' and judge(c, planted(c, True, seed=seed)) != 'contradicted'


@pytest.mark.parametrize('claim', RULES, ids=lambda c: c.id)
def test_a_claim_and_its_opposite_never_agree(claim):
    opposite = Claim('x', '', '', dict(above='below', below='above')[claim.side], claim.bound, smallest=claim.smallest)
    swap = dict(supported='contradicted', contradicted='supported')
    for seed in range(10):
        e = planted(claim, seed % 2 == 0, seed=seed)
        assert judge(opposite, e) == swap.get(judge(claim, e), judge(claim, e)) and judge(claim, e) in VERDICTS


@pytest.mark.parametrize('seeds', [1, 2])
def test_nothing_is_judged_from_fewer_than_three_seeds(seeds):
    t = verdicts(RULES, {c.id: planted(c, True, seeds=seeds) for c in RULES})
    assert set(t.verdict) == set(t['read together']) == {'not judged'} and expected_false(t) == 0


def test_more_items_mean_more_power_and_at_last_an_equivalence():
    rule, wide, narrow = RULES[0], Estimate(0., -.06, .06, 100, seeds=3), Estimate(0., -.02, .02, 900, seeds=3)
    assert power(rule, wide) < power(rule, narrow) and power(rule, narrow) > .9
    assert (judge(rule, wide), judge(rule, narrow)) == ('undecided', 'no effect of that size')


def test_read_together_a_narrow_verdict_among_many_falls():
    many = [Claim(str(i), '', '') for i in range(10)]
    results = {c.id: Estimate(0., -.2, .2, 9, seeds=3) for c in many} | {'0': Estimate(.11, .005, .215, 9, seeds=3)}
    t = verdicts(many, results).set_index('claim')
    assert (t.verdict['0'], t['read together']['0']) == ('supported', 'undecided')
    alone = verdicts(many[:1], {'0': results['0']})
    assert alone['read together'][0] == 'supported' and expected_false(t) == pytest.approx(.25)


def asset(name): return json.loads(resources.files('babyvlm').joinpath('assets', name).read_text())


def test_no_claim_is_supported_in_the_world_where_it_is_false():
    found = asset('counter_worlds.json')
    assert found, 'tools/counter_worlds.py writes them'
    for c, r in found.items():
        assert r['verdict'] in VERDICTS[1:], f"{c} is {r['verdict']} where it is false: {r['why']}"
        assert {'date', 'processor', 'instructions', 'precision', 'torch', 'seeds', 'why'} <= set(r)


def test_kept_verdicts_follow_from_the_kept_intervals():
    rows = [*asset('counter_worlds.json').items(), *((c, r) for c, rs in asset('stability.json').items() for r in rs.values())]
    for c, r in rows:
        assert c in QUANTITIES and r['low'] <= r['value'] <= r['high']
        near = min(abs(v - claim_of(c)[1].bound) for v in (r['low'], r['high']))
        if near < 1e-4: continue   # kept to four digits
        seeds = 0 if c == 'v1.1' else len(r['seeds'])
        assert judge(claim_of(c)[1], Estimate(r['value'], r['low'], r['high'], r['n'], seeds=seeds)) == r['verdict']


def test_reruns_use_fresh_seeds_and_no_set_twice():
    trained = {s for p in ('toy', 'study') for c in QUANTITIES for s in seeds_of(c, profile(p))}
    for c, rs in asset('stability.json').items():
        sets = [tuple(r['seeds']) for r in rs.values()]
        assert len(sets) == len(set(sets)) and not trained & {s for x in sets for s in x}, c
        assert all(len(set(x)) == len(x) >= FEWEST for x in sets), c


def test_a_choice_made_on_the_other_half_earns_nothing_by_luck():
    best = [on_other_half({k: np.random.default_rng([s, k]).random((3, 40)) < .5 for k in range(8)}, np.arange(40) % 2)[0].mean()
            for s in range(300)]
    assert abs(np.mean(best) - .5) < .01
    x = {'bad': np.zeros((2, 6)), 'good': np.ones((2, 6))}
    assert on_other_half(x, np.arange(6) % 2)[0].all() and on_other_half(x, np.arange(6) % 2)[1] == ('good',)


def test_reruns_stand_beside_the_verdict():
    t = verdicts(RULES, {'a': planted(RULES[0], True)})
    shown = with_reruns(t, {'a': {'0': dict(verdict='supported'), '1': dict(verdict='contradicted')}}).set_index('claim')
    assert shown.reruns['a'] == '2: 1 supported, 1 contradicted' and shown.reruns['b'] == 'none yet'
    drawn = {str(k): dict(verdict='undecided', seeds=s) for k, s in enumerate([(1, 2, 3), (1, 2, 4), (5, 6, 7)])}
    assert with_reruns(t, {'b': drawn}).set_index('claim').reruns['b'] == '3 from 7 seeds: 3 undecided'
    assert in_counter_worlds(t, {}).shape[0] == len(RULES) and flips({}) == []

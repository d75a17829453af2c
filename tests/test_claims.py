"""Laws of verdicts: what a rule may say where its claim is true, where it is false, and when too little was run."""
import pytest

from babyvlm.analysis.claims import VERDICTS, Claim, counter_worlds, expected_false, judge, planted, power, verdicts
from babyvlm.estimate import Estimate

RULES = [Claim('a', 'above', 'a difference'), Claim('b', 'below', 'a difference', 'below', .05, smallest=0.),
         Claim('c', 'above', 'a share', bound=.8), Claim('d', 'above', 'a difference', bound=-.1, smallest=0.)]


@pytest.mark.parametrize('seed', range(20))
def test_no_rule_supports_its_claim_where_it_is_false(seed):
    t = counter_worlds(RULES, seed=seed)
    assert not (t['where false'] == 'supported').any() and not (t['where true'] == 'contradicted').any()


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

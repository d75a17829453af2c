"""One scorer: laws of the tie rule, a mean over seeds, and nobody else picks the best score."""
import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import babyvlm
from babyvlm.benchmarks.devcv.files import toy_devcv
from babyvlm.benchmarks.devcv.score import ask, load_items, score_items
from babyvlm.benchmarks.devcv.tasks import TASKS as DEVCV
from babyvlm.benchmarks.hierarchy import run as protocol, questions
from babyvlm.benchmarks.v1 import TASKS, choice_outcome, score, winoground_outcomes
from babyvlm.config import profile
from babyvlm.credit import MODES, Credit, best, is_tie, known_mode, pick, reply_shares, shares
from babyvlm.data.taxonomy import build_questions, random_taxonomy, save_annotations
from babyvlm.estimate import bootstrap, wilson
from babyvlm.experiments.v1 import Spec, V1
from babyvlm.items import Item, Reply, Status, scored, score_shape
from babyvlm.nursery.world import Nursery
from babyvlm.run.evaluate import SUITES, scored_evaluation
from babyvlm.store import Store

PACKAGE = Path(babyvlm.__file__).parent
some_scores = st.lists(st.integers(-2, 2), min_size=1, max_size=6)


# the rule

@given(some_scores, st.randoms())
def test_fair_shares_are_a_point_and_follow_the_candidates(scores, rnd):
    s = shares(scores)
    assert s.sum() == pytest.approx(1) and set(s[s > 0]) == {1/scores.count(max(scores))}
    order = rnd.sample(range(len(scores)), len(scores))
    assert shares([scores[i] for i in order]).tolist() == s[order].tolist()


@given(some_scores)
def test_modes_agree_without_ties_and_are_ordered_with_them(scores):
    fair, reference, strict = (shares(scores, m) for m in MODES)
    assert (strict <= fair).all() and reference.sum() == 1 and (reference[fair == 0] == 0).all()
    if scores.count(max(scores)) == 1: assert fair.tolist() == reference.tolist() == strict.tolist()
    else: assert strict.sum() == 0 and best(scores) is None and reference.argmax() == scores.index(max(scores))


def test_a_pick_among_equals_favours_no_place_and_stays():
    picks = [pick([1, 1, 0, 1], f'item {n}') for n in range(3000)]
    assert picks == [pick([1, 1, 0, 1], f'item {n}') for n in range(3000)] and 2 not in picks
    assert all(abs(picks.count(k)/3000 - 1/3) < .04 for k in (0, 1, 3))


@pytest.mark.parametrize('call', [
    lambda: shares([1, 1], 'fare'), lambda: choice_outcome([1, 1], 0, 'fare'), lambda: winoground_outcomes(np.zeros((1, 2, 2)), 'fare'),
    lambda: score('vtwt', [[1, 1]], 'fare'), lambda: reply_shares(Reply('0', [1, 1]), 2, 'fare'), lambda: protocol.score('cub200', [], [], 'fare'),
    lambda: questions.credit(Item('0', 'b', (), options=('x', 'y'), gold=0), Reply('0', chosen=0), 'fare')])
def test_an_unknown_mode_is_an_error_everywhere(call):
    with pytest.raises(ValueError, match="unknown mode 'fare': one of fair, reference, strict"): call()


def test_what_is_no_number_or_no_candidate_is_refused():
    for bad, says in (([1, np.nan], 'is not a number'), ([], 'rank no candidates'), (5., 'rank no candidates')):
        with pytest.raises(ValueError, match=says): shares(bad)
    for bad in ((1., np.inf), (1., 2., 3.)):
        with pytest.raises(ValueError, match="item 'x'"): reply_shares(Reply('x', bad), 2)
    with pytest.raises(ValueError, match='choice 5 of 2'): reply_shares(Reply('x', chosen=5), 2)


# a table and `babyvlm evaluate`; test_agreement.py asks both from end to end

def mixed(items, say, seed=0):
    "Replies of every fate: ties (scores are whole numbers), no answer, skipped."
    rng, out = np.random.default_rng(seed), []
    for k, i in enumerate(items):
        if k % 7 == 3: out.append(Reply(i.uid, status=Status.SKIPPED, reason='no such file'))
        elif k % 5 == 2: out.append(Reply(i.uid, status=Status.NOANSWER, reason='said nothing'))
        else: out.append(say(i, rng))
    return out


def rounded(item, rng): return scored(item, rng.integers(0, 2, score_shape(item)))


@pytest.fixture(scope='module')
def v1(tmp_path_factory):
    small = dict(utterances=420, web=400, labeled_s=22, vtwt=61, baby_winoground=53, captions=23)
    return V1(profile('toy', {'nursery': small, 'evaluation.n_boot': 100}), Store(tmp_path_factory.mktemp('store')))


def test_several_seeds_are_the_mean_of_their_evaluations(v1):
    items = v1.items('vtwt')
    by = {Spec('CVCL', 'filtered', s): {'vtwt': mixed(items, rounded, s)} for s in range(3)}
    (cell,) = v1.rows(by, ['vtwt'])
    each = [SUITES['v1'].score('vtwt', items, r['vtwt'], 'fair')['acc'] for r in by.values()]
    assert cell['estimate'].value == pytest.approx(np.mean([e.value for e in each]), abs=1e-12)
    assert (cell['estimate'].skipped, cell['estimate'].no_answer) == (each[0].skipped, each[0].no_answer)


def test_a_table_names_the_runs_behind_each_cell(v1):
    specs = [Spec('CVCL', 'filtered', s) for s in (0, 1)]
    answers = {s: {'vtwt': mixed(v1.items('vtwt'), rounded, s.seed)} for s in specs}
    v1.run_of.update({s: f'run{s.seed}' for s in specs})
    assert [r['run'] for r in v1.rows(answers, ['vtwt'])] == ['run0 run1']


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    root = tmp_path_factory.mktemp('home')
    toy_devcv(root, Nursery(seed=5), train=4, val=0, test={t: 16 for t in DEVCV} | {'memory': 8}, recordings=9)
    return root/'home'


def test_a_memory_record_counts_once_and_words_to_all_of_it_answer_nothing(home):
    items = load_items(home, 'memory')
    texts = ['I see a cup', '"A"', '{"A": 1}', '["A"]', '[3, null, []]', '']
    replies = [Reply(i.uid, text=t) for i, t in zip(items, texts)]
    some = items[:len(texts)]
    for e in score_items(some, replies).values(): assert (e.n, e.no_answer, e.unit) == (len(texts), len(texts), 'records')
    done = scored_evaluation(SUITES['devcv'], 'memory', some, replies, 'fair')
    assert done.counts == {'asked': len(texts), 'answered': 0, 'no answer': len(texts), 'skipped': 0}


class Constant:
    "Every option is as good as any other."
    name = 'constant'
    def loglik(self, items): return [np.zeros(len(i.options)) for i in items]


@pytest.mark.parametrize('task', DEVCV)
def test_a_constant_scorer_gets_one_of_k(home, task):
    items = load_items(home, task)
    for m, e in score_items(items, ask(Constant(), items)).items():
        assert e.value == pytest.approx(e.chance, abs=1e-12), (m, e)
        assert e.ties and not e.no_answer
    if task != 'memory': assert score_items(items, ask(Constant(), items))[DEVCV[task].primary].value == pytest.approx(np.mean([1/len(i.options) for i in items]))


@pytest.mark.parametrize('task', protocol.RELEASED)
def test_a_hierarchy_table_and_evaluate_agree(task, tmp_path):
    plan = protocol.plan_of(task)
    if plan.style == 'binary' or plan.order == 'cyclic': pytest.skip('no table shows these')
    tree = random_taxonomy((3, 3, 3), root='')
    save_annotations(build_questions(tree, [f'{i}.png' for i in range(40)], (list(tree)*2)[:40], wrong=2), tmp_path/'rows.jsonl')
    items = protocol.load_items(task, tmp_path/'rows.jsonl')
    levels = max(i.meta['level'] for i in items)
    replies = mixed(items, rounded)
    found = SUITES['hierarchy'].score(task, items, replies, 'fair')
    whole = questions.of_seeds([questions.earned(items, replies, levels)])
    species = [i.group for i in items if i.meta['level'] == 1]
    for m, e in questions.crossed_scores(whole, species, options=3).items():
        def told(x): return round(x.value, 12), x.n, x.ties, x.no_answer, x.skipped
        assert told(e) == told(found[m]), m
        assert e.skipped > 0 and found[m].ties > 0 and found[m].no_answer > 0


# nobody else

ALLOWED = {  # file: {function: why it may look for a largest value}
    'credit.py': {'shares': 'the rule itself', 'best': 'of the shares'},
    'benchmarks/likelihood.py': {'_tried': 'a distance between two computations'},
    'benchmarks/devcv/build.py': {'oddest': 'a builder picks a picture, not an answer'},
    'benchmarks/devcv/shortcuts.py': {'_say': 'a rule names one option', '_new_by_pixels': 'a rule names one option', 'blobs': 'brightness'},
    'analysis/survey/mixed_logistic.py': {'_step': 'size of a step'},
    'analysis/claims.py': {'on_other_half': 'a choice among rules, on other items than those it is judged on'},
    'analysis/survey/exports.py': {'read_shares': 'the row that comes twice'},
    'analysis/survey/concordance.py': {'_consensus': 'the answer of most people; ties are left out', 'kappa': 'size of a table'},
    'analysis/survey/difficulty.py': {'_scores': 'numerical scale of an exponential'},
    'analysis/survey/answers.py': {'people_table': 'a constant of each person', '_others': 'size of a table'},
    'analysis/probing.py': {f: 'a classifier over labels, not a choice among options' for f in (
        '_scores_to_residuals', 'penalty_path', 'Probe', '_split', '_checked', '_choose', '_outcomes', '_majority', '_epochs', '_reference_report')}}


def largest(source):
    "(function, line) wherever an array's largest value is looked for."
    def walk(node, name):
        for c in ast.iter_child_nodes(node):
            inner = name or c.name if isinstance(c, (ast.FunctionDef, ast.ClassDef)) else name
            if isinstance(c, ast.Call) and isinstance(c.func, ast.Attribute) and c.func.attr in (
                    'max', 'amax', 'nanmax', 'argmax', 'nanargmax', 'idxmax'): yield name, c.lineno
            equal = isinstance(c, ast.Compare) and any(isinstance(o, ast.Eq) for o in c.ops)
            if equal and any(isinstance(x, ast.Call) and getattr(x.func, 'id', '') == 'max' for x in (c.left, *c.comparators)): yield name, c.lineno
            yield from walk(c, inner)
    yield from walk(ast.parse(source), '')


def test_ties_are_decided_in_one_place():
    seen = {(p.relative_to(PACKAGE).as_posix(), f): line for p in PACKAGE.rglob('*.py')
            if p.relative_to(PACKAGE).parts[0] in ('credit.py', 'items.py', 'benchmarks', 'analysis', 'experiments') for f, line in largest(p.read_text())}
    allowed = {(file, f) for file, names in ALLOWED.items() for f in names}
    strange = [f'{file} line {seen[file, f]}, {f}: use shares, best or pick of benchmarks.credit' for file, f in seen.keys() - allowed]
    assert not strange, '\n'.join(strange)
    assert not allowed - seen.keys(), 'no longer needed in ALLOWED'


@pytest.mark.parametrize('source', ['def f(s): return s == s.max()', 'def f(s): return int(np.argmax(s))', 'def f(s): return s[0] == max(s)'])
def test_the_lint_sees(source): assert [f for f, _ in largest(source)] == ['f']


@pytest.mark.parametrize('mode', MODES)
@given(scores=st.integers(1, 4).flatmap(lambda k: st.lists(st.lists(st.integers(0, 2), min_size=k, max_size=k), min_size=1, max_size=4)))
def test_each_row_has_its_own_shares(mode, scores):
    "A row's shares do not depend on the rows above and below it, and there may be as many rows as candidates."
    assert np.array_equal(shares(scores, mode), np.stack([shares(row, mode) for row in scores]))


@pytest.mark.parametrize('mode', MODES)
def test_a_chosen_candidate_gets_the_whole_point(mode):
    assert known_mode(mode) == mode
    for k in (2, 4):
        for i in range(k): assert reply_shares(Reply('u', chosen=i), k, mode).tolist() == [float(j == i) for j in range(k)]
        for i in (-1, k):
            with pytest.raises(ValueError, match=f'choice {i} of {k}'): reply_shares(Reply('u', chosen=i), k, mode)


def test_a_credit_keeps_the_places_of_its_items_and_names_what_did_not_count():
    c = Credit(np.array([1., .5]), (2, 0), 4, .25, dict(ties=1, skipped=2, no_answer=0), 'records')
    assert np.array_equal(c.full, [.5, np.nan, 1., np.nan], equal_nan=True)
    for e in (c.wilson(), c.bootstrap()): assert (e.value, e.n, e.chance, e.ties, e.skipped, e.no_answer, e.unit) == (.75, 2, .25, 1, 2, 0, 'records')
    many = Credit(np.random.default_rng(0).random(50), tuple(range(50)), 50)
    assert many.bootstrap() == many.bootstrap(None, 2000, 0) == bootstrap(many.values, None, 2000, 0) and many.bootstrap(np.arange(50) // 5) != many.bootstrap()
    assert many.wilson() == wilson(many.values.sum(), 50) and many.chance is None


def test_only_an_answer_with_equal_best_scores_is_a_tie():
    assert [is_tie(r) for r in (Reply('a', (1., 1., 0.)), Reply('a', (1., 0., 0.)), Reply('a', chosen=0), Reply('a', status='no answer'))] == [True, False, False, False]
    assert reply_shares(Reply('a', status='no answer'), 2) is None and reply_shares(Reply('a', text='x'), 2) is None
    assert best([0, 2, 1]) == 1 and best([2, 2]) is None and pick([0, 3, 1], 'u') == 1
    assert shares([[1, 1], [0, 2]], 'reference').tolist() == [[1, 0], [0, 1]] and shares([-1., -2., -1.]).tolist() == [.5, 0, .5]

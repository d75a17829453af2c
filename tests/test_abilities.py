"Laws of the test of general abilities: two pictures, two questions, one yes and one no each."
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from babyvlm.benchmarks.abilities import (SKILLS, ability_credits, blind_abilities, build_abilities, frequent_abilities, ideal_abilities, is_true,
                                          load_abilities, parse_answer, score_abilities)
from babyvlm.benchmarks.protocols import evaluate
from babyvlm.estimate import Estimate, versus_chance
from babyvlm.experiments.abilities import ability_scores, cost
from babyvlm.items import Reply, Status
from babyvlm.nursery.world import Nursery, load_truth


@pytest.fixture(scope='module')
def built(tmp_path_factory): return build_abilities(Nursery(size=32), tmp_path_factory.mktemp('abilities'), 12, seed=3, size=32)


@pytest.fixture(scope='module')
def items(built): return load_abilities(built)


def says(items, word): return [Reply(i.uid, text=word) for i in items]


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(built, tmp_path):
    again, other = (build_abilities(Nursery(size=32), tmp_path/str(s), 12, seed=s, size=32) for s in (3, 4))
    files = [p.relative_to(built.parent) for p in sorted(built.parent.rglob('*')) if p.is_file()]
    assert len(files) == 5*12 + 2 and all((built.parent/f).read_bytes() == (again.parent/f).read_bytes() for f in files)
    assert built.read_bytes() != other.read_bytes()


def test_more_pictures_keep_the_first_ones(items, tmp_path):
    more = {i.uid: i.prompt for i in load_abilities(build_abilities(Nursery(size=32), tmp_path, 14, seed=3, size=32))}
    assert len(more) == 140 and all(more[i.uid] == i.prompt for i in items)


def test_every_picture_has_one_yes_and_one_no(items):
    assert Counter(i.meta['skill'] for i in items) == dict.fromkeys(SKILLS, 24)
    golds = {}
    for i in items: golds.setdefault(i.images, []).append(i.gold)
    assert all(sorted(g) == [0, 1] for g in golds.values()) and len(golds) == 60


def test_the_text_alone_tells_nothing(items):
    "In every group each question, so each word, has yes as often as no; so has its place in the pair."
    for key in (lambda i: (i.group, i.prompt), lambda i: i.prompt, lambda i: (i.meta['skill'], i.uid[-1])):
        count = Counter((key(i), i.gold) for i in items)
        assert all(count[k, 0] == count[k, 1] > 0 for k, _ in count)


def test_who_knows_the_scene_is_always_right(built, items):
    got = score_abilities(items, ideal_abilities(items, load_truth(built.parent)))
    assert {e.value for e in got.values()} == {1.} and len(got) == 3*(1 + len(SKILLS))


def test_each_truth_of_a_skill_by_hand():
    def thing(c, x=.5, colour='red', count=1): return dict(category=c, colour=colour, count=count, box=(x, 0, x + .2, .2))
    g = dict(nouns=['ball', 'cup'], things=[thing('ball', .1), thing('ball', .3), thing('cup', .7, 'blue')])
    true = [('existence', 'cup'), ('colour', 'cup', 'blue'), ('count', 'ball', 'two'), ('position', 'ball', 'cup'), ('odd one out', 'cup')]
    false = [('existence', 'dog'), ('colour', 'cup', 'red'), ('count', 'ball', 'three'), ('position', 'cup', 'ball'), ('odd one out', 'ball')]
    assert [is_true(g, *q) for q in true] == [True]*5 and [is_true(g, *q) for q in false] == [False]*5


@pytest.mark.parametrize('seed', range(5))
def test_who_never_looks_gets_half(items, seed):
    got = score_abilities(items, blind_abilities(items, seed))
    assert all(e.value == .5 and versus_chance(e) == 'at' for k, e in got.items() if not k.endswith('acc+'))
    assert all(0 <= e.value <= .5 for e in got.values()) and got['acc+'].low <= .25 <= got['acc+'].high


def test_the_usual_answer_is_a_tie(items):
    got = score_abilities(items, frequent_abilities(items, items))
    assert (got['acc'].value, got['acc+'].value, got['acc'].ties, got['acc+'].ties) == (.5, .25, 120, 60)


@pytest.mark.parametrize('word', ['yes', 'No.'])
def test_one_word_for_everything_gets_half_and_no_picture(items, word):
    got = score_abilities(items, says(items, word))
    assert (got['acc'].value, got['acc+'].value, got['acc'].chance, got['acc+'].chance) == (.5, 0, .5, .25)
    assert 'ranked' not in got and got['acc'].n == 120 and (got['acc+'].n, got['acc+'].unit) == (60, 'pictures')


def test_a_preference_for_yes_does_not_hide_what_is_seen(items):
    replies = [Reply(i.uid, scores=(5 - i.gold, 0)) for i in items]
    got = score_abilities(items, replies)
    assert (got['acc'].value, got['acc+'].value, got['ranked'].value) == (.5, 0, 1)


def test_an_unreadable_reply_is_no_answer(items):
    replies = [Reply(i.uid, text='yes' if i.gold == 0 else 'no') for i in items]
    replies[0] = Reply(items[0].uid, text='a nice ball')
    replies[5] = replace(replies[5], text='', status=Status.NOANSWER)
    got = score_abilities(items, replies)
    assert (got['acc'].value, got['acc'].no_answer, got['acc'].n) == (118/120, 2, 120)
    assert (got['acc+'].value, got['acc+'].no_answer, got['acc+'].n) == (58/60, 2, 60)


def test_a_skipped_question_leaves_its_picture_out(items):
    replies = [Reply(i.uid, scores=(1 - i.gold, i.gold)) for i in items]
    replies[7] = Reply(items[7].uid, status=Status.SKIPPED, reason='x.png: no such file')
    got = score_abilities(items, replies)
    for k, n in dict(acc=119, ranked=59, **{'acc+': 59}).items(): assert (got[k].value, got[k].n, got[k].skipped) == (1, n, 1), k


def test_equal_scores_share_the_point(items):
    even = [Reply(i.uid, scores=(0., 0.)) for i in items]
    assert [ability_credits(items, even)[k].values.mean() for k in ('acc', 'acc+', 'ranked')] == [.5, .25, .5]
    assert ability_credits(items, even, 'strict')['acc+'].values.sum() == 0


def test_the_order_of_the_items_changes_nothing(items):
    rng = np.random.default_rng(0)
    replies = [Reply(i.uid, scores=rng.normal(size=2).round()) for i in items]
    order = rng.permutation(len(items))
    assert score_abilities(items, replies) == score_abilities([items[k] for k in order], [replies[k] for k in order])


def test_replies_in_another_order_are_refused(items):
    with pytest.raises(ValueError, match='keep one order'): score_abilities(items, says(items, 'yes')[::-1])


def test_a_model_that_talks_is_read_by_the_parser(items):
    class Talker:
        name = 'talker'
        def reply(self, items): return [Reply(i.uid, text='Yes, there is.' if i.gold == 0 else '**No**') for i in items]
    assert score_abilities(items, evaluate(Talker(), items, parser=parse_answer))['acc+'].value == 1


@pytest.mark.parametrize('change,why', [
    (lambda d: d['items'].pop(), 'has the answers'), (lambda d: d['items'][0].update(answer='maybe'), "item 1: the answer 'maybe' is neither"),
    (lambda d: d['items'][1].update(image='../x.png'), "item 2: the picture '../x.png' is outside"), (lambda d: d['items'][2].pop('question'), "item 3: no 'question'"),
    (lambda d: d.pop('abilities'), 'not written by build_abilities'), (lambda d: d['items'][1].update(answer='yes'), 'has the answers yes and yes'),
    (lambda d: d['items'][1].update(uid=d['items'][0]['uid']), 'stands twice')])
def test_a_file_that_was_changed_is_refused(built, tmp_path, change, why):
    d = json.loads(built.read_text()); change(d)
    Path(tmp_path/'abilities.json').write_text(json.dumps(d))
    with pytest.raises(ValueError, match=why): load_abilities(tmp_path/'abilities.json')


@pytest.mark.parametrize('n', [0, 1, 3, -2])
def test_pictures_come_in_twos(tmp_path, n):
    with pytest.raises(ValueError, match='give an even number'): build_abilities(Nursery(), tmp_path, n)


def test_a_model_beside_itself_does_not_change(items):
    rng = np.random.default_rng(1)
    seeds = [[Reply(i.uid, scores=rng.normal(size=2)) for i in items] for _ in range(3)]
    table = ability_scores(items, dict(a=seeds, b=seeds, ideal=[ideal_of(items)]*3), 'b', 'a')
    assert set(table.skill) == {'all', *SKILLS} and len(table) == 18 and all(c.value == 0 for c in table.change)
    assert all((e.value, e.seeds, e.chance) == (1, 3, .25 if m == 'acc+' else .5) for e, m in zip(table.ideal, table.metric))


def ideal_of(items): return [Reply(i.uid, scores=(1 - i.gold, i.gold)) for i in items]


def test_seeds_and_skills_are_means_of_what_they_hold(items):
    rng = np.random.default_rng(2)
    seeds = [[Reply(i.uid, scores=rng.normal(size=2)) for i in items] for _ in range(3)]
    table = ability_scores(items, dict(a=seeds, b=[ideal_of(items)]*3), 'b', 'a').set_index(['skill', 'metric'])
    for metric in ('acc', 'acc+', 'ranked'):
        assert np.isclose(table.a['all', metric].value, np.mean([score_abilities(items, r)[metric].value for r in seeds]))
        assert np.isclose(table.a['all', metric].value, np.mean([table.a[s, metric].value for s in SKILLS]))
        assert np.isclose(table.change['all', metric].value, 1 - table.a['all', metric].value)


@pytest.mark.parametrize('before,change,seeds,said', [((.8, .7, .9), (-.2, -.3, -.1), 3, 'costs'), ((.8, .7, .9), (0, -.04, .04), 3, 'keeps'),
                                                      ((.8, .7, .9), (-.05, -.2, .1), 3, 'undecided'), ((.5, .4, .6), (-.2, -.3, -.1), 3, 'nothing to lose'),
                                                      ((0, 0, .1), (0, -.01, .01), 3, 'nothing to lose'), ((.8, .7, .9), (-.2, -.3, -.1), 2, 'not judged')])
def test_what_was_never_there_cannot_be_lost(before, change, seeds, said):
    assert cost(Estimate(*before, 100, .5, seeds=seeds), Estimate(*change, 100, seeds=seeds)) == said

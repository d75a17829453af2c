"The released label files, the golden metric values, faults in label files, and laws of the scorers."
import itertools
import json
import math
import random
import shutil
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babyvlm.credit import MODES
from babyvlm.benchmarks import v1
from babyvlm.benchmarks.v1 import (FILES, HEADLINE, LOADERS, TASKS, LabelError, choice_outcome, load_baby_winoground,
                                   load_labeled_s, load_saycam_caption, load_vtwt, meteor, score, unknown_words,
                                   winoground_outcomes, word_frequency_rule)
from babyvlm.items import Item, Reply


@pytest.fixture(scope='module')
def labels(real_data):
    d = real_data/'babylmms-eval'
    if not d.is_dir(): pytest.skip(f'no folder babylmms-eval under {real_data}')
    return d


@pytest.fixture(scope='module')
def vocab(real_data):
    f = real_data/'multimodal-baby'/'vocab.json'
    if not f.is_file(): pytest.skip(f'no multimodal-baby/vocab.json under {real_data}')
    return json.loads(f.read_text())


@pytest.fixture(scope='module')
def cases(golden): return json.loads((golden/'v1.json').read_text())


# the released files

def test_released_files_load_strictly(labels):
    rows = {t: sum(1 for _ in open(labels/f)) - 1 for t, f in FILES.items()}
    assert rows == dict(labeled_s=8800, vtwt=967, baby_winoground=730, saycam_caption=294)
    items = {t: load(labels/FILES[t]) for t, load in LOADERS.items()}
    assert {t: len(i) for t, i in items.items()} == dict(labeled_s=2200, vtwt=967, baby_winoground=365, saycam_caption=294)
    for t, i in items.items(): assert len({x.uid for x in i}) == len(i) == i.ledger.kept == i.ledger.seen, t
    assert all(i.gold == 0 for i in items['labeled_s'])
    assert items['vtwt'][0].images == ('S_20140420_1803_01_082_00.jpg',) and items['vtwt'][0].options == ('see person', 'touch pillow')
    assert items['baby_winoground'][0].images[1].endswith('_neg.jpeg')
    assert load_vtwt(labels/'vtwt.csv', '/frames')[0].images[0] == '/frames/S_20140420_1803_01_082_00.jpg'


def test_facts_of_the_released_files(labels):
    s, v, w, c = (LOADERS[t](labels/FILES[t]) for t in TASKS)
    kinds = Counter(i.group for i in s)
    assert (len(s), len(kinds), set(kinds.values()), {i.gold for i in s}) == (2200, 22, {100}, {0})
    assert all(len(set(i.meta['categories'])) == 4 for i in s)
    assert (len({p for i in s for p in i.images}), len({i.images[i.gold] for i in s})) == (6846, 2046)
    words = [[o.split() for o in i.options] for i in v]
    where = Counter((a[0] != b[0], a[-1] != b[-1]) for a, b in words)
    assert len({i.options for i in v}) == 867 and not any(sorted(a) == sorted(b) for a, b in words)
    assert (where[True, False], where[False, True], where[True, True]) == (500, 84, 383)
    assert len(w) == 365 and {(i.images[0], *i.options) for i in w} <= {(i.images[0], *i.options) for i in v}
    said = [i.gold.split() for i in c]
    assert (sum('<unk>' in t for t in said), np.median([len(t) for t in said])) == (1, 8)


def test_frequency_rule_and_unknown_words(labels, vocab):
    items = load_vtwt(labels/'vtwt.csv')
    assert len(vocab) == 2350
    assert unknown_words(items, vocab) == dict(items=967, any=175, first_only=63, second_only=58, both=54)
    rule = word_frequency_rule(items, vocab)
    strict, fair, reference = (score('vtwt', rule, m, items)['acc'] for m in ('strict', 'fair', 'reference'))
    assert round(strict.value, 3) == .543 and strict.ties == 5
    assert math.isclose(fair.value - strict.value, 2.5 / 967) and math.isclose(reference.value - strict.value, 5 / 967)


# golden values

def test_golden_winoground(cases):
    for c in cases['baby_winoground']:
        found = score('baby_winoground', -np.array(c['losses']), 'reference')
        for m, v in c['expected'].items(): assert math.isclose(found[m].value, v, abs_tol=1e-12), (c['name'], m)


@pytest.mark.parametrize('task, key', [('labeled_s', 'losses_target_first'), ('vtwt', 'losses_positive_negative')])
def test_golden_choices(cases, task, key):
    for c in cases[task]:
        assert math.isclose(score(task, -np.array(c[key]), 'reference')['acc'].value, c['expected_acc'], abs_tol=1e-12), c['name']


def test_golden_meteor(cases):
    c, = cases['meteor']
    assert round(meteor(c['reference'], c['hypothesis']), 4) == c['expected']


def test_not_a_number_raises_in_every_mode_and_names_the_item():
    shapes = dict(labeled_s=(5, 4), vtwt=(5, 2), baby_winoground=(5, 2, 2))
    for (task, shape), mode, bad in itertools.product(shapes.items(), MODES, (math.nan, math.inf)):
        s = np.ones(shape); s[3].flat[0] = bad
        with pytest.raises(ValueError, match="item '3'"): score(task, s, mode)


def test_published_handling_of_not_a_number():
    nan = math.nan
    ref = dict(mode='reference', nan='published')
    assert [score('vtwt', [s], **ref)['acc'].value for s in ([nan, 1], [1, nan], [nan, nan])] == [1, 1, 1]
    assert score('labeled_s', [[nan, 1, 2, 3]], **ref)['acc'].value == 0
    with pytest.raises(ValueError, match='crashes'): score('labeled_s', [[nan] * 4], **ref)
    found = score('baby_winoground', [[[nan, 1], [1, 2]]], **ref)
    assert (found['group_score'].value, found['positive_context_group_score'].value, found['negative_context_group_score'].value) == (0, 0, 1)
    with pytest.raises(ValueError, match="needs mode='reference'"): score('vtwt', [[nan, 1]], nan='published')


def test_constant_scorer():
    shapes = dict(labeled_s=(40, 4), vtwt=(40, 2), baby_winoground=(40, 2, 2))
    fair, reference = ([score(t, np.full(s, .3), m)[HEADLINE[t]].value for t, s in shapes.items()] for m in ('fair', 'reference'))
    assert np.allclose(fair, [1/4, 1/2, 1/6]) and reference == [1, 1, 0]
    w = score('baby_winoground', np.zeros((7, 2, 2)))
    assert all(math.isclose(e.value, e.chance) for e in w.values())


def test_monte_carlo_chance():
    s = np.random.default_rng(0).normal(size=(60_000, 2, 2))
    for m, o in winoground_outcomes(s).items(): assert abs(o.mean() - v1.WINOGROUND[m][1]) < .007, m


# laws

@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_fair_winoground_is_the_mean_over_all_orders(levels):
    s = np.array(levels, float).reshape(2, 2)
    slow = {m: [] for m in v1.WINOGROUND}
    for order in itertools.permutations(range(4)):
        t = s + 1e-3 * np.array(order).reshape(2, 2)
        img, txt = t[0, 0] > t[1, 0] and t[1, 1] > t[0, 1], t[0, 0] > t[0, 1] and t[1, 1] > t[1, 0]
        slow['image_score'].append(img); slow['text_score'].append(txt); slow['group_score'].append(img and txt)
        slow['positive_context_group_score'].append(t[0, 0] > t[1, 0] and t[0, 0] > t[0, 1])
        slow['negative_context_group_score'].append(t[1, 1] > t[0, 1] and t[1, 1] > t[1, 0])
        slow['positive_context_score'].append(t[0, 0] > t[0, 1]); slow['negative_context_score'].append(t[1, 1] > t[1, 0])
    for m, v in winoground_outcomes(s[None]).items(): assert math.isclose(v[0], np.mean(slow[m]), abs_tol=1e-12), m


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=2, max_size=6), st.randoms())
def test_a_choice_is_worth_the_same_after_a_shift_and_credits_add_to_one(scores, rnd):
    credit = [choice_outcome(scores, g) for g in range(len(scores))]
    assert math.isclose(sum(credit), 1)
    assert credit == [choice_outcome([2. * s + 7 for s in scores], g) for g in range(len(scores))]
    order = list(range(len(scores))); rnd.shuffle(order)
    assert credit == [choice_outcome([scores[i] for i in order], order.index(g)) for g in range(len(scores))]
    for g in range(len(scores)): assert choice_outcome(scores, g, 'strict') <= choice_outcome(scores, g) <= max(1, choice_outcome(scores, g))


def test_order_of_replies_does_not_matter():
    items = [Item(str(i), 'vtwt', (), options=('x y', 'z w'), gold=i % 2, group=str(i // 5)) for i in range(40)]
    rng = np.random.default_rng(0)
    replies = [Reply(i.uid, scores=rng.normal(size=2)) for i in items]
    shuffled = random.Random(0).sample(replies, len(replies))
    for g in (None, True): assert score('vtwt', replies, items=items, groups=g) == score('vtwt', shuffled, items=items, groups=g)
    right = np.mean([np.argmax(r.scores) == i.gold for r, i in zip(replies, items)])
    assert score('vtwt', replies, items=items)['acc'].value == right


def test_float32_is_part_of_the_winoground_reference_only():
    close = [[[1.00000001, 1.], [1., 1.00000001]]]
    assert score('baby_winoground', close)['group_score'].value == 1
    assert score('baby_winoground', close, 'reference')['group_score'].value == 0
    assert score('vtwt', [[1., 1.00000001]], 'reference')['acc'].value == 0


def test_replies_and_items_must_fit():
    items = [Item('a', 'vtwt', (), options=('x', 'y'), gold=0), Item('b', 'vtwt', (), options=('x', 'y'), gold=0)]
    with pytest.raises(ValueError, match="no reply to 'b'"): score('vtwt', [Reply('a', (1., 0.))], items=items)
    with pytest.raises(ValueError, match='one uid'): score('vtwt', [Reply('a', (1., 0.))] * 2)
    with pytest.raises(ValueError, match='3 replies for 2 items'): score('vtwt', [Reply(u, (1., 0.)) for u in 'abc'], items=items)
    with pytest.raises(ValueError, match="item 'a': scores of shape"): score('baby_winoground', [Reply('a', (1., 0.))])
    with pytest.raises(ValueError, match='an item has no group'): score('vtwt', [Reply(u, (1., 0.)) for u in 'ab'], items=items, groups=True)
    with pytest.raises(ValueError, match='captions need references'): score('saycam_caption', ['a ball'])


def test_everything_skipped_has_no_value():
    e = score('vtwt', [Reply('a', status='skipped', reason='no such file')])['acc']
    assert math.isnan(e.value) and (e.n, e.skipped) == (0, 1)


def test_captions_without_wordnet_carry_their_own_name(monkeypatch):
    items = [Item('a', 'saycam_caption', (), gold='a big dog .', choice='open')]
    assert list(score('saycam_caption', ['a big hound .'], items=items, wordnet=False)) == ['METEOR (exact+stem)']
    class Synonyms:
        def synsets(self, word):
            class Lemma:
                def __init__(self, n): self.n = n
                def name(self): return self.n
            class Set:
                def lemmas(self): return [Lemma('dog'), Lemma('hound')]
            return [Set()] if word in ('dog', 'hound') else []
    monkeypatch.setattr(v1, 'installed', Synonyms)
    both = [score('saycam_caption', ['a big hound .'], items=items, wordnet=w) for w in (False, True)]
    assert list(both[1]) == ['METEOR'] and both[1]['METEOR'].value > both[0]['METEOR (exact+stem)'].value


# faults in label files

LABELED = 'trial_id,target_category,real_category,image\n0,cat,cat,cat/1.jpeg\n0,cat,dog,dog/1.jpeg\n0,cat,car,car/1.jpeg\n0,cat,cup,cup/1.jpeg\n'
WINO = 'instance_id,positive_phrase,negative_phrase,image,image_tag\n0,red ball,blue box,a.jpg,positive\n0,red ball,blue box,a_neg.jpeg,negative\n'
VTWT = 'image,positive_phrase,negative_phrase\na.jpg,red ball,blue box\nb.jpg,big dog,big cat\n'
CAPTION = 'image,text\na.jpg,"a ball , yes"\nb.jpg,"he said ""no"" ."\n'

FAULTS = [
    (load_labeled_s, LABELED.replace('real_category', 'category'), r"line 1: no column 'real_category'"),
    (load_labeled_s, LABELED.rsplit('0,', 1)[0], r'line 2: trial 0 has 3 rows, expected 4'),
    (load_labeled_s, LABELED + '1,cat,cat,cat/9.jpeg\n', r'line 6: trial 1 has 1 rows'),
    (load_labeled_s, LABELED.replace('0,cat,cat', '0,cat,dog', 1).replace('cat/1', 'dog/2'), r"shows 'cat' in 0 images"),
    (load_labeled_s, LABELED.replace('0,cat,dog,dog/1', '0,cat,cat,cat/2'), r"shows 'cat' in 2 images"),
    (load_labeled_s, LABELED.replace('0,cat,cup', '0,dog,cup'), r'names several targets'),
    (load_labeled_s, LABELED.replace('dog/1.jpeg', 'cat/1.jpeg'), r'has cat/1.jpeg under another category'),
    (load_labeled_s, LABELED.replace('0,', '1,'), r"line 2: trial_id '1', expected 0"),
    (load_labeled_s, LABELED.replace('0,', 'x,'), r"trial_id 'x', expected 0"),
    (load_labeled_s, LABELED + LABELED.split('\n', 1)[1].replace('0,', '1,') + LABELED.split('\n', 1)[1], r"trial_id '0' stands in two places"),
    (load_labeled_s, LABELED + LABELED.split('\n', 1)[1], r'trial 0 has 8 rows'),
    (load_baby_winoground, WINO.rsplit('0,', 1)[0], r'instance 0 has 0 negative images'),
    (load_baby_winoground, WINO.replace('_neg.jpeg,negative', '_neg.jpeg,positive'), r'instance 0 has 2 positive images'),
    (load_baby_winoground, WINO.replace(',negative\n', ',neg\n'), r"tag 'neg'"),
    (load_baby_winoground, WINO.replace('a_neg', 'b_neg'), r'pairs a.jpg with b_neg.jpeg'),
    (load_baby_winoground, WINO.replace('blue box,a_neg', 'blue cup,a_neg'), r'different phrases'),
    (load_baby_winoground, WINO.replace('\n0,', '\n3,'), r"instance_id '3', expected 0"),
    (load_vtwt, VTWT.replace('b.jpg', 'a.jpg'), r"line 3: 'vtwt/a' occurs twice"),
    (load_vtwt, VTWT.replace('b.jpg', './a.jpg'), r"line 3: 'vtwt/a' occurs twice"),
    (load_vtwt, VTWT.replace('b.jpg', 'x/../a.jpg'), r"line 3: 'vtwt/a' occurs twice"),
    (load_vtwt, VTWT.replace('big cat', 'big dog'), r"line 3: both phrases are 'big dog'"),
    (load_vtwt, VTWT.replace('big cat', ''), r"line 3: 'negative_phrase' is empty"),
    (load_vtwt, VTWT.replace(',big cat', ''), r'line 3: the row does not have 3 cells'),
    (load_vtwt, VTWT.replace('big cat', 'big cat,x'), r'line 3: the row does not have 3 cells'),
    (load_saycam_caption, CAPTION.replace('"a ball , yes"', 'a ball , yes'), r'line 2: the row does not have 2 cells'),
    (load_saycam_caption, CAPTION + 'c.jpg,"open\n', r'not CSV'),
    (load_saycam_caption, '', r"no column 'image'"),
    (load_saycam_caption, 'image,text\n\n', r'line 1: no rows below the header'),
    (load_vtwt, VTWT.replace('negative_phrase', 'positive_phrase,negative_phrase', 1), r"two columns 'positive_phrase'"),
    (load_vtwt, VTWT.replace('big cat', ' big dog '), r"line 3: both phrases are 'big dog'"),
    (load_baby_winoground, WINO.replace('blue box', 'red ball'), r"has 'red ball' as both phrases"),
]


@pytest.mark.parametrize('load, text, message', FAULTS, ids=range(len(FAULTS)))
def test_a_faulty_label_file_says_where_and_what(tmp_path, load, text, message):
    (tmp_path/'f.csv').write_text(text)
    with pytest.raises(LabelError, match=message) as e: load(tmp_path/'f.csv')
    assert str(e.value).startswith('f.csv line ') and ';' in str(e.value)


def test_whole_files_load_and_quotes_are_read(tmp_path):
    for load, text in ((load_labeled_s, LABELED), (load_baby_winoground, WINO), (load_vtwt, VTWT), (load_saycam_caption, CAPTION)):
        (tmp_path/'f.csv').write_text('\ufeff' + text, encoding='utf-8')
        assert len(load(tmp_path/'f.csv')) >= 1
    assert [i.gold for i in load_saycam_caption(tmp_path/'f.csv')] == ['a ball , yes', 'he said "no" .']


def test_lenient_reading_counts_what_it_leaves_out(tmp_path):
    (tmp_path/'f.csv').write_text(VTWT + 'a.jpg,one two,three four\nc.jpg,x y,x y\nd.jpg,p q,r s\n')
    items = load_vtwt(tmp_path/'f.csv', lenient=True)
    assert [i.uid for i in items] == ['vtwt/a', 'vtwt/b', 'vtwt/d']
    assert (items.ledger.seen, items.ledger.kept, dict(items.ledger.skipped)) == (5, 3, {'equal phrases': 1, 'occurs twice': 1})


def test_spaces_around_cells_and_another_order_of_columns_change_nothing(tmp_path):
    (tmp_path/'f.csv').write_text(VTWT); plain = load_vtwt(tmp_path/'f.csv')
    rows = [line.split(',') for line in VTWT.strip().split('\n')]
    (tmp_path/'f.csv').write_text('\r\n'.join(f' {c} ,{a},\t{b} ,note' for a, b, c in rows))
    assert load_vtwt(tmp_path/'f.csv') == plain


def test_replies_that_say_nothing_are_refused_not_counted(tmp_path):
    (tmp_path/'f.csv').write_text(VTWT); items = load_vtwt(tmp_path/'f.csv')
    with pytest.raises(ValueError, match="'vtwt/a': neither scores nor a choice"): score('vtwt', [Reply(i.uid, text='A') for i in items], items=items)
    with pytest.raises(ValueError, match=r"'vtwt/a': scores of shape \(3,\), expected \(2,\)"): score('vtwt', [Reply(i.uid, [1, 2, 3]) for i in items], items=items)
    assert score('vtwt', [Reply(i.uid, chosen=0) for i in items], items=items)['acc'].value == 1


def test_other_encodings_and_missing_files(tmp_path):
    (tmp_path/'f.csv').write_bytes(CAPTION.replace('yes', 'caf\xe9').encode('latin-1'))
    with pytest.raises(LabelError, match='line 2: not UTF-8'): load_saycam_caption(tmp_path/'f.csv')
    with pytest.raises(FileNotFoundError, match='babylmms-eval'): load_vtwt(tmp_path/'none.csv')


def test_damaged_copies_of_the_released_files(labels, tmp_path):
    for task in ('labeled_s', 'baby_winoground'):
        lines = (labels/FILES[task]).read_text().splitlines(keepends=True)
        for drop in random.Random(0).sample(range(1, len(lines)), 12):
            (tmp_path/'f.csv').write_text(''.join(l for n, l in enumerate(lines) if n != drop))
            with pytest.raises(LabelError): LOADERS[task](tmp_path/'f.csv')
    shutil.copy(labels/'vtwt.csv', tmp_path/'v.csv')
    with pytest.raises(LabelError, match="no column 'trial_id'"): load_labeled_s(tmp_path/'v.csv')
    assert set(TASKS) == set(FILES)


# what no test caught before

def labels_of(folder, name, *rows):
    (folder/name).write_text('\n'.join(rows) + '\n')
    return folder/name


def test_chance_is_one_of_k():
    assert [score('vtwt', np.zeros((3, k)))['acc'].chance for k in (2, 4)] == [1/2, 1/4]
    assert score('labeled_s', [Reply(str(k), chosen=0) for k in range(3)])['acc'].chance == 1/4
    assert score('vtwt', [Reply(str(k), chosen=0) for k in range(3)])['acc'].chance == 1/2


def test_no_answer_stays_in_the_mean_and_skipped_does_not():
    replies = [Reply('0', (2., 1.)), Reply('1', status='no answer'), Reply('2', status='skipped', reason='x')]
    e = score('vtwt', replies)['acc']
    assert (e.value, e.n, e.no_answer, e.skipped) == (.5, 2, 1, 1)
    four = [Reply('0', ((2., 1.), (1., 2.))), Reply('1', status='no answer')]
    assert {(e.value, e.n, e.no_answer, e.ties) for e in score('baby_winoground', four).values()} == {(.5, 2, 1, 0)}


def test_items_share_their_session_not_their_child(tmp_path):
    names = [f'S_{day}_1803_01_082_0{k}.jpg' for day in (20140420, 20140427) for k in (1, 2)]
    items = load_vtwt(labels_of(tmp_path, 'v.csv', 'image,positive_phrase,negative_phrase', *(f'{n},red cup,big dog' for n in names)))
    assert [i.group for i in items] == ['S_20140420_1803']*2 + ['S_20140427_1803']*2


@pytest.mark.parametrize('name', ['../../etc/passwd', '/etc/passwd', 'a/../../b.jpg', '..\\\\b.jpg', 'C:\\\\b.jpg'])
def test_a_picture_outside_the_folder_is_refused_by_name(tmp_path, name):
    f = labels_of(tmp_path, 'v.csv', 'image,positive_phrase,negative_phrase', 'a.jpg,red cup,big dog', f'{name},red cup,big dog')
    with pytest.raises(LabelError, match=r'v.csv line 3: the image .* is outside'): load_vtwt(f, tmp_path)
    assert [i.uid for i in load_vtwt(f, tmp_path, lenient=True)] == ['vtwt/a']


def test_a_nul_is_refused_with_its_line(tmp_path):
    f = labels_of(tmp_path, 'v.csv', 'image,positive_phrase,negative_phrase', 'a.jpg,red cup,big dog', 'b.jpg,red \0cup,big dog')
    with pytest.raises(LabelError, match='v.csv line 3: a NUL'): load_vtwt(f)


def test_equal_file_names_in_two_folders_are_two_items(tmp_path):
    f = labels_of(tmp_path, 'v.csv', 'image,positive_phrase,negative_phrase', 'kid1/1.jpg,red cup,blue cup', 'kid2/1.jpg,big dog,big cat')
    assert [i.uid for i in load_vtwt(f)] == ['vtwt/kid1/1', 'vtwt/kid2/1']


@pytest.mark.parametrize('load, head, row', [(v1.load_vtwt, 'image,positive_phrase,negative_phrase', 'a ball,a cat'), (v1.load_saycam_caption, 'image,text', 'a ball')])
def test_an_ending_tells_two_pictures_apart(tmp_path, load, head, row):
    path = tmp_path/'labels.csv'
    path.write_text(head + ''.join(f'\n{p},{row}' for p in ('kid1/1.jpg', 'kid1/1.png', 'kid2/1.jpg')) + '\n')
    assert [i.uid.partition('/')[2] for i in load(path)] == ['kid1/1.jpg', 'kid1/1.png', 'kid2/1']
    path.write_text(f'{head}\nkid1/1.jpg,{row}\n./kid1/1.jpg,{row}\n')
    with pytest.raises(v1.LabelError, match='occurs twice'): load(path)


# what changes of single signs showed

def test_common_words_score_higher_and_unknown_words_are_counted():
    vocab = {w: k for k, w in enumerate('the a ball zebra'.split())}
    item = Item('0', 'vtwt', (), options=('a ball', 'zebra quark'), gold=0)
    (reply,) = word_frequency_rule([item], vocab)
    np.testing.assert_allclose(reply.scores, [-math.log(3) - math.log(4), -math.log(5) - math.log(6)])
    words = [('a', 'the'), ('quark', 'a'), ('a', 'quark'), ('a', 'the quark'), ('quark', 'quark a')]
    items = [Item(str(k), 'vtwt', (), options=o) for k, o in enumerate(words)]
    assert unknown_words(items, vocab) == dict(items=5, any=4, first_only=1, second_only=2, both=1)


def test_ties_are_those_of_the_rule_that_scored():
    close = [[[1.00000001, 1.], [1., 1.00000001]], [[2., 1.], [1., 2.]]]
    assert [score('baby_winoground', close, m)['group_score'].ties for m in MODES] == [0, 1, 0]
    assert [score('vtwt', [Reply('0', chosen=k)])['acc'].ties for k in (0, 1)] == [0, 0] and score('vtwt', [[1, 1], [2, 1]], 'strict')['acc'].ties == 1


def test_a_wordnet_that_is_found_is_one(monkeypatch):
    for found in (None, 'somewhere'):
        monkeypatch.setattr(v1, 'find_wordnet', lambda: found)
        assert v1.has_wordnet() is (found is not None)


def test_each_metric_of_winoground_has_its_chance():
    chance = {m: e.chance for m, e in score('baby_winoground', [[[2., 1.], [1., 2.]]]).items()}
    assert chance == dict(image_score=1/4, text_score=1/4, positive_context_group_score=1/3, negative_context_group_score=1/3, group_score=1/6,
                          positive_context_score=1/2, negative_context_score=1/2)


def test_intervals_are_wilsons_or_over_groups_and_of_captions_by_resampling():
    items = [Item(str(i), 'vtwt', (), options=('x', 'y'), gold=0, group=str(i // 5)) for i in range(40)]
    replies = [Reply(i.uid, s) for i, s in zip(items, np.random.default_rng(0).normal(size=(40, 2)))]
    c = v1.credit('vtwt', replies, items)['acc']
    assert score('vtwt', replies, items=items)['acc'] == score('vtwt', replies, items=items, groups=False)['acc'] == c.wilson()
    by = [i.group for i in items]
    assert score('vtwt', replies, items=items, groups=True)['acc'] == score('vtwt', replies, items=items, groups=by, seed=0, n_boot=2000)['acc'] == c.bootstrap(by, 2000, 0)
    spoken = [Item(str(i), 'saycam_caption', (), gold='a red ball .', choice='open') for i in range(9)]
    said = ['a red ball .', 'ball', 'dog']*3
    (e,) = score('saycam_caption', said, items=spoken, wordnet=False).values()
    assert e == v1.credit('saycam_caption', said, spoken, wordnet=False)['METEOR (exact+stem)'].bootstrap(None, 2000, 0) and e.chance is None
    bench = v1.benchmark('vtwt', items)
    assert (bench.name, bench.items, bench.score(items, replies)) == ('vtwt, fair', items, score('vtwt', replies, items=items))


def test_a_caption_that_is_silent_earns_nothing():
    items = [Item(str(i), 'saycam_caption', (), gold='a dog', choice='open') for i in range(3)]
    (e,) = score('saycam_caption', [Reply('0', text='a dog'), Reply('1', status='no answer'), Reply('2', status='skipped', reason='x')], items=items, wordnet=False).values()
    assert e.value == pytest.approx(meteor('a dog', 'a dog')/2) and (e.n, e.no_answer, e.skipped) == (2, 1, 1)
    assert v1.word_tokens(" A dog. It's  here! (yes) ") == ['A', 'dog', '.', 'It', "'s", 'here', '!', '(', 'yes', ')']


def test_what_an_item_of_each_file_holds(tmp_path):
    def read(load, text, *args):
        (tmp_path/'f.csv').write_text(text)
        (item, *_) = items = load(tmp_path/'f.csv', *args)
        return items, (item.uid, item.benchmark, item.images, item.options, item.gold, item.choice, item.group)
    head, *rows = LABELED.strip().split('\n')
    items, got = read(load_labeled_s, '\n'.join([head, rows[1], rows[2], rows[0], rows[3]]) + '\n')
    assert got == ('labeled_s/0000', 'labeled_s', ('dog/1.jpeg', 'car/1.jpeg', 'cat/1.jpeg', 'cup/1.jpeg'), ('cat',), 2, 'images', 'cat')
    assert items[0].meta == {'categories': ['dog', 'car', 'cat', 'cup']} and (items.ledger.seen, items.ledger.kept) == (1, 1)
    items, got = read(load_baby_winoground, WINO.replace('a.jpg', 'S_20140420_1803_01_082_00.jpg').replace('a_neg', 'S_20140420_1803_01_082_00_neg'), 'frames')
    assert got == ('baby_winoground/000', 'baby_winoground', ('frames/S_20140420_1803_01_082_00.jpg', 'frames/S_20140420_1803_01_082_00_neg.jpeg'),
                   ('red ball', 'blue box'), None, 'both', 'S_20140420_1803')
    assert read(load_vtwt, VTWT, 'frames')[1] == ('vtwt/a', 'vtwt', ('frames/a.jpg',), ('red ball', 'blue box'), 0, 'options', '')
    assert read(load_saycam_caption, CAPTION, 'frames')[1] == ('saycam_caption/a', 'saycam_caption', ('frames/a.jpg',), (), 'a ball , yes', 'open', '')
    flat = LABELED.replace('cat/1', '1').replace('dog/1', '2').replace('car/1', '3').replace('cup/1', '4')
    assert read(load_labeled_s, flat, 'set')[1][2] == ('set/1.jpeg', 'set/2.jpeg', 'set/3.jpeg', 'set/4.jpeg')
    with pytest.raises(LabelError, match='line 2: trial 0 shows one image twice'): read(load_labeled_s, flat.replace('4.jpeg', '3.jpeg'))


def test_a_label_error_has_a_reason_for_the_ledger():
    assert (LabelError('a/b.csv', 3, 'odd').reason, str(LabelError('a/b.csv', 3, 'odd'))) == ('odd', 'b.csv line 3: odd')
    assert (LabelError('b.csv', 3, 'odd', 'mend it', 'short').reason, str(LabelError('b.csv', 3, 'odd', 'mend it', 'short'))) == ('short', 'b.csv line 3: odd; mend it')

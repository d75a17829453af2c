"Word classes of VTWT contrasts, on hand-labelled cases and on the released file; leakage between splits."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from babyvlm.analysis.composition import (CLASSES, accuracy_by, by_context, candidates, class_difference, contrast, contrasts,
                                          known_items, tag_pair)
from babyvlm.analysis.contamination import (LEVELS, capture_recapture, drop_shared, frame_hash, hamming, leakage, near_duplicates)
from babyvlm.benchmarks.v1 import FILES, load_saycam_caption, load_vtwt
from babyvlm.data.saycam import parse_name
from babyvlm.items import Item, Reply


def trial(a, b, n='0'): return Item(n, 'vtwt', (f'{n}.jpg',), options=(a, b), gold=0)


# labelled by a reader, before the rule saw them
LABELLED = """
happy faces|sad faces|adjective
blue cloth|red cloth|adjective
read book|eat book|verb
fridge open|fridge closed|adjective
wet road|dry road|adjective
basket full|basket empty|adjective
clean plate|dirty plate|adjective
wash cup|dry cup|verb
open door|close door|verb
open door|shut door|adjective
hold ball|drop ball|verb
leaves fall|leaves fly|verb
baby eat|baby sleep|verb
drawing dots|erasing dots|verb
kitty book|puppy book|noun
count dogs|count lions|noun
sand play|water play|noun
banana slice|apple slice|noun
rubber duck|rubber ball|noun
orange slice|banana slice|noun
orange ball|blue ball|adjective
light on|light off|other
outside play|inside play|other
toy truck|real truck|several
parked cars|moving cars|several
play mat|read book|several
see person|touch pillow|several
""".split('\n')[1:-1]


@pytest.mark.parametrize('line', LABELLED)
def test_hand_labelled_contrasts(line):
    a, b, kind = line.split('|')
    assert contrast(trial(a, b)).kind == kind


WORDS = sorted({w for line in LABELLED for p in line.split('|')[:2] for w in p.split()})


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(WORDS), st.sampled_from(WORDS), st.sampled_from((0, 1)))
def test_tags_do_not_depend_on_which_phrase_comes_first(a, b, place):
    ta, tb = tag_pair(a, b, place)
    assert tag_pair(b, a, place) == (tb, ta)
    assert {ta, tb} <= set(CLASSES) and ta in candidates(a) and tb in candidates(b)


@pytest.fixture(scope='module')
def labels(real_data):
    d = real_data/'babylmms-eval'
    if not d.is_dir(): pytest.skip(f'no folder babylmms-eval under {real_data}')
    return d


def test_released_items(labels):
    t = contrasts(load_vtwt(labels/FILES['vtwt']))
    assert (t.place != 'both').sum() == 584 and (t.place == 'both').sum() == 383
    one = t[t.place != 'both'].kind.value_counts()
    assert one.sum() == 584 and one['several'] < 30 and one['other'] < 15
    assert {k: one[k] > 100 for k in ('noun', 'verb', 'adjective')} == dict(noun=True, verb=True, adjective=True)


def test_accuracy_by_class_adds_up_and_skips_are_shown():
    items = [trial('red cup', 'blue cup', '0'), trial('red cup', 'red ball', '1'), trial('eat pie', 'hold pie', '2')]
    kinds = [contrast(i).kind for i in items]
    found = accuracy_by(items, kinds, [Reply('0', (1., 0.)), Reply('1', (1., 1.)), Reply('2', status='skipped')])
    assert (found['adjective'].value, found['noun'].value, found['verb'].skipped, found['all'].n) == (1, .5, 1, 2)
    with pytest.raises(ValueError, match="item '0'"): accuracy_by(items[:1], kinds[:1], [Reply('0', (float('nan'), 0.))])
    with pytest.raises(ValueError, match="0 items of 'verb'"):
        class_difference(items[:2], kinds[:2], [Reply('0', (1., 0.)), Reply('1', (1., 1.))], 'verb', ('noun',))


def test_contexts_carry_their_own_chance():
    t = by_context(np.random.default_rng(0).normal(size=(500, 2, 2)))
    assert [round(e.chance, 3) for e in t.estimate] == [.333, .333, .5, .5]
    assert all(abs(e.value - e.chance) < .07 for e in t.estimate)


def test_known_items_need_every_vocabulary():
    items = [trial('red cup', 'blue cup', '0'), trial('red zebra', 'red cup', '1')]
    assert [i.uid for i in known_items(items, {'red', 'cup', 'blue'})] == ['0']
    with pytest.raises(ValueError, match='at least one'): known_items(items)


# contamination

def names(sessions, utterances, frames=2):
    return [f'S_2013{1 + s // 28:02}{1 + s % 28:02}_{6 + s // 30:02}{s % 30:02}_01_{u:03}_{5 * f:02}.jpg'
            for s in sessions for u in utterances for f in range(frames)]


def test_a_split_by_session_shares_nothing_and_a_split_by_utterance_does():
    train, test = names(range(20), range(1, 40)), names(range(20, 25), range(1, 40))
    assert leakage(train, test).set_index('level').shared.loc[list(LEVELS)].eq(0).all()
    every = names(range(25), range(1, 40))
    odd = [n for n in every if parse_name(n).utterance % 7 == 3]
    rest = [n for n in every if parse_name(n).utterance % 7 != 3]
    t = leakage(rest, odd).set_index('level')
    assert t.shared['frame'] == t.shared['utterance'] == 0
    assert (t.share['neighbouring utterance'], t.share['recording'], t.share['session']) == (1, 1, 1)


def test_levels_are_nested():
    rng = np.random.default_rng(0)
    every = names(range(10), range(1, 30))
    a, b = (list(rng.choice(every, 60, replace=False)) for _ in range(2))
    t = leakage(a, b).set_index('level')
    shares = [t.share[l] for l in LEVELS]
    assert shares == sorted(shares)
    kept, ledger = drop_shared(a, b, 'session')
    assert ledger.kept == len(kept) and ledger.seen == len(a) and leakage(kept, b).set_index('level').shared['session'] == 0


def test_names_that_are_no_frames_are_an_error():
    with pytest.raises(ValueError, match='is not a SAYCam name'): leakage(['ball/img_1.jpeg'], ['S_20140420_1803_01_082_00.jpg'])
    with pytest.raises(ValueError, match='names no utterance'): leakage(['S_20140420_1803_01.csv'], ['S_20140420_1803_01_082_00.jpg'])


def test_capture_recapture():
    e = capture_recapture(745, 294, 140)
    assert 1550 < e.value < 1570 and e.low < 1564 < e.high
    rng, total = np.random.default_rng(0), 1500
    hits = 0
    for _ in range(200):
        a, b = (set(rng.choice(total, n, replace=False).tolist()) for n in (700, 300))
        c = capture_recapture(700, 300, len(a & b))
        hits += c.low <= total <= c.high
    assert hits > 180
    with pytest.raises(ValueError, match='5 shared of 3 and 9'): capture_recapture(3, 9, 5)


def test_released_files_share_utterances(labels):
    vtwt, caption = load_vtwt(labels/FILES['vtwt']), load_saycam_caption(labels/FILES['saycam_caption'])
    t = leakage([i.images[0] for i in vtwt], [i.images[0] for i in caption]).set_index('level')
    assert (t.train['utterance'], t.benchmark['utterance'], t.shared['utterance']) == (745, 294, 140)
    assert 1540 < capture_recapture(745, 294, 140).value < 1580


def test_near_duplicates_survive_jpeg_and_size_and_nothing_else(tmp_path):
    rng = np.random.default_rng(0)
    def picture(k): return Image.fromarray(np.kron(np.random.default_rng(k).integers(0, 255, (9, 9, 3), np.uint8), np.ones((8, 8, 1), np.uint8)))
    for k in range(12): picture(k).save(tmp_path/f'train{k}.png')
    picture(3).resize((50, 50)).save(tmp_path/'test0.jpg', quality=60)
    noisy = np.clip(np.asarray(picture(5), int) + rng.integers(-8, 8, (72, 72, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path/'test1.png')
    picture(99).save(tmp_path/'test2.png')
    found = near_duplicates(sorted(tmp_path.glob('train*')), sorted(tmp_path.glob('test*')), 6)
    pairs = {(r.train.split('/')[-1], r.benchmark.split('/')[-1]) for r in found.itertuples()}
    assert pairs == {('train3.png', 'test0.jpg'), ('train5.png', 'test1.png')} and len(found) == 2


def test_hashes_against_a_slow_count():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 2**63, n, dtype=np.uint64) for n in (5, 7))
    slow = [[bin(int(x) ^ int(y)).count('1') for y in b] for x in a]
    assert (hamming(a, b) == slow).all()
    flat = Image.new('RGB', (20, 20), 'white')
    assert frame_hash(flat) == frame_hash(flat.resize((64, 64)))

"Word classes of VTWT contrasts, on hand-labelled cases and on the released file; leakage between splits."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babyvlm.analysis.composition import CLASSES, candidates, contrast, contrasts, tag_pair
from babyvlm.analysis.contamination import LEVELS, drop_shared, leakage
from babyvlm.benchmarks.v1 import FILES, load_saycam_caption, load_vtwt
from babyvlm.data.saycam import parse_name
from babyvlm.items import Item


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


def test_released_files_share_utterances(labels):
    vtwt, caption = load_vtwt(labels/FILES['vtwt']), load_saycam_caption(labels/FILES['saycam_caption'])
    t = leakage([i.images[0] for i in vtwt], [i.images[0] for i in caption]).set_index('level')
    assert (t.train['utterance'], t.benchmark['utterance'], t.shared['utterance']) == (745, 294, 140)

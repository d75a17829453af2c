"""The rehearsal's files: every data card is green, a wrong file is named, a set of one's own is read; a killed rehearsal ends equal."""
import json
import os
import shutil
from collections import Counter

import pytest

import rehearsal_kills
from babyvlm.config import profile
from babyvlm.experiments.rehearsal import write_other_cards, write_own_sets, write_saycam_cards, write_survey_card, write_taxonomy_cards
from babyvlm.experiments.sources import MissingData
from babyvlm.experiments.v1 import V1, Spec
from babyvlm.experiments.v2 import V2, Tuned
from babyvlm.nursery.world import Nursery
from babyvlm.reporting.cards import all_cards, check_card
from babyvlm.run.replies import Replies
from babyvlm.store import Store

CARDS = {n: c for n, c in all_cards().items() if c.places}
SMALL = {'nursery': dict(utterances=200, web=50, labeled_s=22, vtwt=10, baby_winoground=4, captions=4),
         'v2_data': dict(recordings=2, utterances=12, train=8, test=8)}
BRIEF = SMALL | {'clip': dict(batch=16), 'cvcl': dict(batch=16)}


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    root, settings = tmp_path_factory.mktemp('drawn'), profile('rehearsal', SMALL)
    world = Nursery(settings.nursery.seed, settings.nursery.size)
    write_saycam_cards(root, world, settings); write_other_cards(root, world, settings)
    write_own_sets(root); write_taxonomy_cards(root); write_survey_card(root)
    return root


@pytest.mark.parametrize('name', CARDS)
def test_every_card_is_green(drawn, name):
    assert [f'{f.place}: {f.problem}' for f in check_card(name, drawn) if f.problem] == []


def first_file(place, root):
    "A file of a place; of a folder its first."
    files = [root/place.fixed] if place.fixed == place.pattern.rstrip('/') else sorted(root.glob(place.pattern))
    return files[0] if files and files[0].is_file() else next((f for f in sorted(files[0].rglob('*')) if f.is_file()), None)


@pytest.mark.parametrize('name', [n for n in CARDS if n != 'survey'])   # answers are read when they are analysed
def test_a_wrong_file_is_named(drawn, name):
    for place in CARDS[name].places:
        if place.pattern.endswith('/'): continue   # a folder of pictures that a label file names
        file = first_file(place, drawn)
        kept = file.read_bytes()
        file.write_bytes(b'{ no such thing')
        said = [f.problem for f in check_card(name, drawn) if f.problem]
        file.write_bytes(kept)
        assert any(file.name in s for s in said), (place.shown, said)


def test_records_whose_pictures_are_elsewhere_are_named(drawn, tmp_path):
    shutil.copytree(drawn/'transferred', tmp_path/'transferred')
    problem, = [f.problem for f in check_card('transferred', tmp_path) if f.place.startswith('transferred')]
    assert 'transferred.json names' in problem


def test_sets_of_ones_own_are_read_and_enter_the_keys(drawn, tmp_path, monkeypatch):
    monkeypatch.setenv('BABYVLM_DATA', str(drawn))
    mine = profile('rehearsal', SMALL | {'own': ['transferred', 'v2_pretraining']})
    run, two = V1(mine, Store(tmp_path)), V2(mine, Store(tmp_path))
    web = json.loads((drawn/'transferred'/'transferred.json').read_text())
    assert run.transferred()['uid'][:] == [r['id'] for r in web] and run.moved_by() == [run.given]
    assert two.pictures() == two.pretraining() == drawn/'v2_pretraining' and two.flow().check().records['train']
    assert len(two.records('mix_format')) == len(json.loads((drawn/'v2_pretraining'/'train'/'mix_format.json').read_text()))
    assert two.given in two._rests_on('pretraining')
    (drawn/'v2_pretraining'/'flow.json').rename(tmp_path/'flow.json')
    with pytest.raises(MissingData, match='flow.json'): two.flow()
    (tmp_path/'flow.json').rename(drawn/'v2_pretraining'/'flow.json')


def test_counts_of_real_files(drawn, tmp_path, monkeypatch):
    monkeypatch.setenv('BABYVLM_DATA', str(drawn))
    facts = {f[1:4]: f[4] for f in V2(profile('rehearsal', SMALL), Store(tmp_path)).file_facts()}
    assert facts['raw corpus', 'all', 'hours'] > 0 and facts['interleaved sequences', 'all', 'stride of windows'] == .5
    sample = {t for s, t, _ in facts if s.startswith('Ego4D')}
    assert sample == {'count', 'leftright', 'spatialdetails', 'compare_synthetic', 'subitize'}


AFTER_VIDEOS = 'clip_scores frames pair_embeddings pretraining v2-dino v2-language v2-pretrained v2-tuned v2-replies'
CHANGES = {'babylmms-eval/vtwt.csv': 'replies', 'hierarchy/taxonomies/hierarchy_CUB200.json': 'questions',
           'devcv/saycam/train/*/data.json': 'v2-language v2-pretrained v2-tuned v2-replies',
           'devcv/saycam/test/*/data.json': 'v2-replies',
           'saycam/videos/*.mp4': AFTER_VIDEOS}   # file -> what is made again, one each


def made(root, store):
    "Everything that a run asks for, by processes that know nothing of each other."
    mine = profile('rehearsal', BRIEF)
    one, two, asked = V1(mine, store), V2(mine, store), Replies(mine, store)
    one.eyes(), one.language('BabyLLaVA-GPT2', 0), one.transferred(), one.answers([Spec('CVCL')])
    two.results(Tuned(), ('leftright',))
    for name in ('CUB-200', 'ImgNet-Animal'): asked.questions(name, 'random')
    return {a.key: a.stage for a in store.artifacts()}


def test_a_changed_file_makes_again_what_rests_on_it_and_nothing_else(drawn, tmp_path, monkeypatch):
    root, store = shutil.copytree(drawn, tmp_path/'data'), Store(tmp_path/'store')
    monkeypatch.setenv('BABYVLM_DATA', str(root))
    before, seen = made(root, store), {}
    assert made(root, store) == before
    for name in CHANGES:
        first, *others = sorted(root.glob(name))
        first.write_bytes(others[0].read_bytes() if first.suffix == '.mp4' else first.read_bytes() + b'\n')
        after = made(root, store)
        seen[name], before = Counter(after[k] for k in after.keys() - before.keys()), after
    assert seen == {name: Counter(stages.split()) for name, stages in CHANGES.items()}


@pytest.mark.slow
@pytest.mark.parametrize('how', ('measure', 'again'))
def test_a_killed_rehearsal_ends_equal(tmp_path, how):
    got = getattr(rehearsal_kills, how)(tmp_path, int(os.environ.get('BABYVLM_KILLS', 3)), only=os.environ.get('BABYVLM_ONLY', '62'))
    assert got['kills'] and got['same'] == got['kills'], got

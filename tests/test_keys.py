"""Keys: whatever decides a result changes the key, and nothing else does; kills leave a store that ends equal."""
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from babyvlm.config import profile
from babyvlm.experiments.roster import weights_of
from babyvlm.experiments import sources, v2_data
from babyvlm.experiments.sources import DRAWN, PARTS, Sources, contents
from babyvlm.experiments.v1 import Spec, V1
from babyvlm.experiments.v2 import V2
from babyvlm.experiments.v2_data import V2Data
from babyvlm.store import Store

NAMES = st.text('abc', min_size=1, max_size=3)
VALUES = st.one_of(st.integers(-9, 9), st.floats(-1, 1), st.booleans(), NAMES)
CONFIGS = st.dictionaries(NAMES, VALUES, min_size=1, max_size=4)
INPUTS = st.lists(st.text('0123456789abcdef', min_size=4, max_size=4), max_size=3)


@given(CONFIGS, INPUTS, st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_order_of_settings_does_not_matter(config, inputs, rng):
    store, shuffled = Store('nowhere'), list(config.items())
    rng.shuffle(shuffled)
    assert store.key('s', config, inputs) == store.key('s', dict(shuffled), inputs)


@given(CONFIGS, INPUTS, NAMES, VALUES)
@settings(max_examples=60, deadline=None)
def test_a_changed_setting_input_version_or_stage_is_another_key(config, inputs, name, value):
    store = Store('nowhere')
    old = store.key('s', config, inputs)
    other = dict(config, **{name: value})
    same = name in config and type(config[name]) is type(value) and config[name] == value
    assert (store.key('s', other, inputs) == old) == same
    assert old not in (store.key('s', config, [*inputs, 'more']), store.key('s', config, inputs, 2), store.key('t', config, inputs))


def write(name): return lambda *how, **more: (how[-1] if isinstance(how[-1], Path) else how[0]).joinpath(name).write_text('drawn')


@pytest.fixture
def drawn(monkeypatch):
    "The nursery writes a word where it would draw a world."
    monkeypatch.setattr(sources, '_draw', write('part'))
    monkeypatch.setattr(v2_data, 'toy_devcv', write('toolbox'))


@pytest.mark.parametrize('field', type(profile('toy').nursery).model_fields)
def test_each_part_of_the_nursery_is_named_by_its_own_settings(field, drawn, tmp_path):
    toy, store = profile('toy'), Store(tmp_path)
    more = profile('toy', {f'nursery.{field}': getattr(toy.nursery, field) + 22})
    changed = {p for p in PARTS if Sources(toy, store).folder(p)[1].key != Sources(more, store).folder(p)[1].key}
    assert changed == (set(PARTS) if field in ('seed', 'size') else {p for p in PARTS if field in DRAWN[p]})


@pytest.mark.parametrize('field, split', [('train', 'train'), ('vocabulary', 'train'), ('test', 'test')])
def test_more_test_items_leave_what_was_tuned(field, split, drawn, tmp_path):
    toy, store = profile('toy'), Store(tmp_path)
    more = profile('toy', {f'v2_data.{field}': getattr(toy.v2_data, field) + 1})
    keys = [{s: V2Data(p, store)._asked(s).key for s in ('train', 'test')} for p in (toy, more)]
    assert [s for s in keys[0] if keys[0][s] != keys[1][s]] == [split]


def test_a_model_that_learns_from_captions_rests_on_who_wrote_them(monkeypatch, tmp_path):
    v2, told = V2(profile('paper'), Store(tmp_path)), set()
    monkeypatch.setenv('OPENAI_API_KEY', 'none')
    for model, url in (('a', 'http://one.test/v1'), ('a', 'http://two.test/v1'), ('b', 'http://two.test/v1')):
        monkeypatch.setenv('BABYVLM_CAPTIONER', model); monkeypatch.setenv('OPENAI_BASE_URL', url)
        told.update(v2._told_by('captions'))
    assert len(told) == 3 and v2._told_by('speech') == []


ASKED = {'data.threshold': .3, 'clip.epochs': 3, 'vision.epochs': 3, 'cvcl.epochs': 3, 'babyllava.phase1.epochs': 3, 'threads': 2,
         'nursery.vtwt': 700, 'nursery.utterances': 800, 'nursery.web': 900, 'evaluation.batch': 3, 'v2.vision_lr': .1, 'creatures.epochs': 2}
ALWAYS = {'data.threshold', 'clip.epochs', 'threads', 'nursery.vtwt', 'nursery.utterances'}
OWN = {'CVCL': {'cvcl.epochs'}, 'BabyLLaVA-GPT2': {'vision.epochs', 'babyllava.phase1.epochs'}}


@pytest.mark.parametrize('model', OWN)
def test_replies_rest_on_the_settings_of_their_own_model(model, drawn, tmp_path):
    store, spec = Store(tmp_path), Spec(model)
    def key(changes):
        r = V1(profile('toy', changes), store).request(spec)
        return store.key(r['stage'], r['config'], r['inputs'])
    assert {k for k, v in ASKED.items() if key({k: v}) != key({})} == ALWAYS | OWN[model]
    assert V1(profile('toy', {'nursery.size': 96}), store).request(spec)['config']['world'] == 96   # real files say nothing of it


@given(st.integers(0, 2), st.integers(0, 7), st.integers(1, 255))
@settings(max_examples=25, deadline=None)
def test_one_byte_of_data_or_weights_is_another_key(tmp_path_factory, which, place, by):
    root = tmp_path_factory.mktemp('files')
    for i in range(3): (root/f'{i}.bin').write_bytes(bytes(range(8)))
    mine = profile('toy', {'models': {'BioCLIP2': str(root)}})
    old = contents(root), weights_of('BioCLIP2', mine)
    assert old == (contents(root), weights_of('BioCLIP2', mine))
    file = root/f'{which}.bin'
    data = bytearray(file.read_bytes())
    data[place] ^= by
    before = file.stat().st_mtime_ns
    file.write_bytes(data)
    if file.stat().st_mtime_ns == before: os.utime(file, ns=(before + 1, before + 1))   # a coarse clock
    assert contents(root) != old[0] and weights_of('BioCLIP2', mine) != old[1]
    assert profile('toy', {'models': {'BioCLIP2': 'x'}}) != profile('toy', {})


BATCH = '''
import sys, time, json
from babyvlm.store import Store
store = Store(sys.argv[1])
def build(i, before):
    def write(path):
        for k in range(3):
            part = path/f'{k}.txt'
            if not part.exists():
                time.sleep(.02); part.with_suffix('.new').write_text(f'{i} {k} {[a.key for a in before]}'); part.with_suffix('.new').rename(part)
    return write
made = []
for i in range(8): made.append(store.get('step', dict(i=i), build(i, made[-2:]), made[-2:]))
print(json.dumps({a.key: a.manifest['files'] for a in made}, sort_keys=True))
'''


def run_batch(root, wait=None):
    "What a small batch leaves; killed after so many seconds."
    proc = subprocess.Popen([sys.executable, '-c', BATCH, str(root)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)
    if wait is None: return proc.communicate(timeout=300)[0]
    step = Path(root)/'step'
    while proc.poll() is None and not step.exists(): time.sleep(.01)   # imports are over
    time.sleep(wait)
    if proc.poll() is None: proc.send_signal(signal.SIGKILL)
    proc.wait()
    return None


def kills(tmp_path, n):
    "A batch that is killed n times, each time in a store of its own, ends as one that was not."
    whole, rng = run_batch(tmp_path/'whole'), random.Random(0)
    for k in range(n):
        root = tmp_path/f'killed{k}'
        run_batch(root, rng.uniform(0, .5))
        assert run_batch(root) == whole
        assert not [p for a in Store(root).artifacts() for p in Store(root).check(a)]


def test_two_kills_end_equal(tmp_path): kills(tmp_path, 2)


@pytest.mark.skipif('BABYVLM_SLOW' not in os.environ, reason='twenty kills take minutes: set BABYVLM_SLOW')
def test_twenty_kills_end_equal(tmp_path): kills(tmp_path, 20)

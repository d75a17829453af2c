"""The store under faults: kills, races, damage; and keys that mean what they say."""
import csv
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from threading import Event, Thread

import pandas as pd
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from babyvlm.config import Profile
from babyvlm.store import Store, StoreError, canonical_json, csv_rows, csv_text, sha256_file, sha256_text, sha256_tree, write_whole


@pytest.fixture
def store(tmp_path): return Store(tmp_path/'store')


def wait_for(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f'no {what} within {seconds} s'
        time.sleep(.01)


def process(code, *args):
    "Another Python with the store imported."
    head = 'import os, sys, time\nfrom pathlib import Path\nfrom babyvlm.store import Store\n'
    return subprocess.Popen([sys.executable, '-c', head + textwrap.dedent(code), *map(str, args)], stdout=subprocess.PIPE, text=True,
                            env=os.environ | {'OMP_NUM_THREADS': '1'}, cwd=Path(__file__).parent.parent)


def write(name, text='x'):
    def build(path): (path/name).write_text(text)
    return build


HANG = '''
def build(path):
    (path/'half.bin').write_bytes(b'half')
    Path(sys.argv[2]).touch()
    time.sleep(600)
Store(sys.argv[1]).get('train', {'lr': 1}, build)
'''


def test_a_killed_build_leaves_nothing_finished_and_the_next_succeeds(store, tmp_path):
    p = process(HANG, store.root, tmp_path/'building')
    try:
        wait_for((tmp_path/'building').exists, 'build')
        assert store.get('train', {'lr': 1}, write('a'), wait=False) is None, 'somebody is building it'
        assert store.get('other', {}, write('a'), wait=False) is not None, 'another request has another lock'
    finally: p.send_signal(signal.SIGKILL); p.wait()
    folder = store.folder('train', store.key('train', {'lr': 1}))
    assert len(list(folder.parent.glob(f'{folder.name}.*.part'))) == 1, 'the kill came in the middle of the build'
    assert not folder.exists() and store.artifacts('train') == []
    def resume(path):
        assert (path/'half.bin').read_bytes() == b'half', 'a build may resume what its predecessor left'
        (path/'half.bin').write_bytes(b'whole')
    a = store.get('train', {'lr': 1}, resume, wait=False)
    assert a is not None, 'a lock dies with its process'
    assert (a.path/'half.bin').read_bytes() == b'whole' and store.check(a) == []
    assert not list(store.root.rglob('*.part'))


def test_a_kill_between_manifest_and_rename(store, monkeypatch):
    def killed(*_): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(os, 'replace', killed)
        with pytest.raises(KeyboardInterrupt): store.get('s', {}, write('a'))
    assert store.artifacts() == []
    a = store.get('s', {}, write('a', 'second'))
    assert set(a.manifest['files']) == {'a'} and store.check(a) == []


TWO = '''
def job(i):
    def build(path):
        (Path(sys.argv[2])/f'{i}-{os.getpid()}').touch()
        time.sleep(.25)
        (path/'i').write_text(f'{i} by {os.getpid()}')
    return dict(stage='job', config={'i': i}, build=build)
print('ready', flush=True)
while not (Path(sys.argv[2])/'go').exists(): time.sleep(.005)
store = Store(sys.argv[1])
same = store.get(**job('same'))
print(*[(a.path/'i').read_text() for a in (same, *store.get_many([job(i) for i in range(6)], pause=.02))], sep=',')
'''


@pytest.fixture(scope='module')
def race(tmp_path_factory):
    "Two processes that start the same work at the same moment: their outputs, and (job, process) of every build."
    root = tmp_path_factory.mktemp('race')
    two = [process(TWO, root/'store', root) for _ in range(2)]
    try:
        for p in two: assert p.stdout.readline() == 'ready\n'
        (root/'go').touch()
        outputs = [p.communicate(timeout=60)[0].strip().split(',') for p in two]
    finally: [p.kill() for p in two]
    assert [p.returncode for p in two] == [0, 0]
    return outputs, [p.name.split('-') for p in root.glob('*-*')]


def test_two_processes_build_the_same_artifact_once(race):
    outputs, built = race
    assert len([1 for job, _ in built if job == 'same']) == 1
    assert outputs[0][0] == outputs[1][0] and outputs[0][0].startswith('same by ')


def test_two_processes_share_a_list(race):
    outputs, built = race
    assert outputs[0] == outputs[1] and [x.split()[0] for x in outputs[0][1:]] == list('012345'), 'all of it, in order'
    listed = [(job, pid) for job, pid in built if job != 'same']
    assert sorted(job for job, _ in listed) == list('012345'), 'nothing is built twice'
    assert len({pid for _, pid in listed}) == 2, 'both did a part of the work'


def test_who_waits_does_spare_work_but_never_inside_a_build(store):
    "Inside a build it would hold one lock while it takes another, whose owner may wait for the first."
    lock, taken, done = f"{store.folder('inner', store.key('inner', {}))}.lock", Event(), []
    Path(lock).parent.mkdir(parents=True)
    def other():
        with FileLock(lock): taken.set(); time.sleep(.3)
    def busy(): taken.clear(); Thread(target=other).start(); taken.wait()
    def outer(path):
        busy(); store.get('inner', {}, write('a'))
        (path/'b').write_text(str(done))
    store.spare = [lambda: done.append('spare')]
    assert (store.get('outer', {}, outer).path/'b').read_text() == '[]' and done == []
    busy(); store.get('inner', {}, write('a')), store.get('new', {}, write('a'))
    assert done == [], 'finished, or nobody else builds it'
    time.sleep(.4); store.forget(store.get('inner', {}, write('a')))
    busy()
    assert store.get('inner', {}, write('a')) and done == ['spare'] and store.spare == []


@pytest.mark.parametrize('text, says', [('', 'not JSON'), ('{"key": ', 'not JSON'), ('[]', 'lacks'), ('{"key": "a"}', 'lacks'),
                                        (b'\xff\xfe', 'not JSON'), ('{"key":"abc","stage":"s","files":{}}', 'manifest of key abc')])
def test_a_damaged_manifest_is_named(store, text, says):
    a = store.get('s', {'x': 1}, write('a'))
    (a.path/'manifest.json').write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StoreError, match=f's/{a.path.name}.*{says}.*delete the folder and rerun'): store.get('s', {'x': 1}, write('a'))


def test_a_lost_manifest_is_not_built_over(store):
    a = store.get('s', {}, write('a'))
    (a.path/'manifest.json').unlink()
    with pytest.raises(StoreError, match='has no manifest; delete the folder'): store.get('s', {}, lambda path: 1/0)
    assert (a.path/'a').exists()


def test_check_finds_a_changed_and_a_missing_file(store):
    def build(path): write('a')(path); (path/'sub').mkdir(); write('sub/b')(path)
    a = store.get('s', {}, build)
    assert store.check(a) == []
    (a.path/'a').write_text('y'); (a.path/'sub'/'b').unlink()
    assert sorted(store.check(a)) == ['a: changed since it was written', 'sub/b: missing']


def test_the_manifest_tells_how_it_was_made(store):
    first = store.get('s', {'x': (1, 2)}, write('a'))
    m = store.get('t', Profile().cvcl, lambda path: write('b')(path) or {'loss': .5}, [first, 'abc'], version=3).manifest
    assert m['inputs'] == [first.key, 'abc'] and m['version'] == 3 and m['extra'] == {'loss': .5}
    assert m['config'] == Profile().cvcl.model_dump(mode='json')
    assert m['files'] == {'b': sha256_text('x')} and {'commit', 'dirty', 'packages', 'device'} <= set(m['record'])
    assert m['seconds'] >= 0 and m['peak_gib'] > 0


def test_forget_builds_again(store):
    a = store.get('s', {}, write('a', '1'))
    store.forget(a)
    assert store.artifacts() == [] and not list(store.root.rglob('*.gone'))
    assert (store.get('s', {}, write('a', '2')).path/'a').read_text() == '2'


GOLDEN = '225397cdab89ca26fdaf4838a1f8a506a07dea35991c0043b2906be087f8c119'


def test_golden_keys():
    "A key may never change by accident: every artifact that exists would be lost. Change these only on purpose."
    s = Store('unused')
    assert s.key('embed', {'model': 'CVCL', 'lr': 1e-4, 'seeds': (0, 1)}, ['abc'], 2) == GOLDEN
    assert GOLDEN == sha256_text('{"config":{"lr":0.0001,"model":"CVCL","seeds":[0,1]},"inputs":["abc"],"stage":"embed","version":2}')
    assert canonical_json({'b': [1, 1.0, True, None, 'ö'], 'a': {2, 1}}) == '{"a":[1,2],"b":[1,1.0,true,null,"ö"]}'


values = st.recursive(st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False) | st.text('ab,"[]', max_size=4),
                      lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text('ab,"', max_size=3), v, max_size=3), max_leaves=6)
requests = st.fixed_dictionaries(dict(stage=st.sampled_from(['a', 'b', 'ab']), config=st.dictionaries(st.text('ab', max_size=2), values, max_size=3),
                                      inputs=st.lists(st.text('ab,', max_size=3), max_size=3), version=st.integers(1, 3)))


def exact(x):
    "A value in which 1, 1.0 and True differ, as they do in JSON."
    if isinstance(x, dict): return ('d', *sorted((k, exact(v)) for k, v in x.items()))
    if isinstance(x, list): return ('l', *map(exact, x))
    return type(x).__name__, repr(x)


@settings(max_examples=200)
@given(requests, requests)
def test_keys_differ_exactly_when_requests_do(a, b):
    same = exact(a) == exact(b)
    assert (Store('unused').key(**a) == Store('unused').key(**b)) is same


def test_inputs_that_change_places_are_another_artifact():
    "A pool matched to queries is not queries matched to a pool."
    assert Store('unused').key('s', {}, ['a', 'b']) != Store('unused').key('s', {}, ['b', 'a'])


@given(st.dictionaries(st.text(max_size=3), values, min_size=2, max_size=5), st.randoms())
def test_the_order_of_a_configuration_does_not_matter(d, random):
    items = list(d.items()); random.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(d)


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), Path('x'), b'x', object(), lambda: 1])
def test_what_json_cannot_say_is_refused(bad):
    with pytest.raises((TypeError, ValueError)): Store('unused').key('s', {'a': bad})


def test_a_tree_hash_sees_names_and_bytes(tmp_path):
    for n in 'ab': (tmp_path/n).write_text(n)
    first = sha256_tree(tmp_path)
    assert first == sha256_text(json.dumps([[n, sha256_file(tmp_path/n)] for n in 'ab'], separators=(',', ':')))
    (tmp_path/'b').rename(tmp_path/'c')
    assert sha256_tree(tmp_path) != first


ODD = st.text(alphabet="=+-@\t\r\n'\",; a5.e_＝", max_size=6)


@given(st.lists(st.tuples(ODD, ODD), max_size=4))
def test_no_cell_of_a_csv_is_run_and_all_are_read_back(rows):
    "A spreadsheet runs a cell that begins with one of these and is no number."
    table = pd.DataFrame(rows, columns=['a', '=b'], dtype=object)
    text = csv_text(table)
    for cell in (c for row in csv.reader(io.StringIO(text, newline='')) for c in row):
        assert cell == '-' or not cell.startswith(tuple('=+-@\t\r\n＝')) or float(cell) is not None
    names, back, _ = csv_rows(text, 'a.csv')
    assert names == ['a', '=b'] and [tuple(r.values()) for r in back] == rows


@pytest.mark.parametrize('text, why', [('a,b\n1,"2\n3,4\n5,6\n', 'f.csv: a quotation mark is never closed, in line 2'), ('a,b\n1,2\n3,"', 'never closed, in line 3'),
                                       ('a,b\n1,2\n3,\0\n', 'f.csv line 3: a NUL'), ('a, a\n1,2\n', "two columns are called 'a'")])
def test_no_row_of_a_csv_is_swallowed(text, why):
    with pytest.raises(ValueError, match=why): csv_rows(text, 'f.csv')


def test_blank_lines_of_a_csv_are_no_rows_and_lines_are_told():
    assert csv_rows('\r\n\na,b\n\n"x\ny",2\n3\n4,5,6', 'f.csv') == (['a', 'b'], [dict(a='x\ny', b='2'), dict(a='3', b=None), {'a': '4', 'b': '5', '': ['6']}], [6, 7, 8])


def test_numbers_in_a_csv_stay_and_so_does_a_dash():
    assert csv_text(pd.DataFrame(dict(x=['-', '--1', "'-"]))) == "x\n-\n'--1\n''-\n" and csv_rows("x\n-\n'-\n", 'a.csv')[1] == [{'x': '-'}] * 2
    assert csv_text(pd.DataFrame(dict(x=[-1.5, 2.]))) == 'x\n-1.5\n2.0\n' and csv_text(pd.DataFrame(dict(x=['-1.5', '+3']))) == 'x\n-1.5\n+3\n'


@pytest.mark.parametrize('old', [b'old', None])
def test_a_file_is_written_whole_or_not_at_all(tmp_path, old):
    "A disk that is full stands in for every fault between the first byte and the last."
    path = tmp_path/'new'/'a.txt'
    if old: write_whole(path, old)
    done = subprocess.run([sys.executable, '-c', f"import resource; from babyvlm.store import write_whole; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
                           f"import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); write_whole({str(path)!r}, 'x'*5000)"], capture_output=True, text=True)
    assert 'File too large' in done.stderr and (path.read_bytes() == old if old else not path.exists()) and len(list(path.parent.iterdir())) == bool(old)


def test_a_link_stays_a_link_and_a_pipe_a_pipe(tmp_path):
    (tmp_path/'link').symlink_to('real'); write_whole(tmp_path/'link', 'a')
    assert (tmp_path/'link').is_symlink() and (tmp_path/'real').read_text() == 'a'
    os.mkfifo(tmp_path/'pipe'); got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path/'pipe').read_text())); reader.start()
    write_whole(tmp_path/'pipe', 'b'); reader.join(10)
    assert got == ['b'] and (tmp_path/'pipe').is_fifo()
    with pytest.raises(IsADirectoryError): write_whole(tmp_path, 'c')


def test_a_build_that_other_code_began_is_not_taken_up(tmp_path, monkeypatch):
    s = Store(tmp_path)
    def half(path): (path/'checkpoint').write_text('old'); raise KeyboardInterrupt
    def build(path): (path/'model').write_text('resumed' if (path/'checkpoint').exists() else 'new')
    with pytest.raises(KeyboardInterrupt): s.get('stage', {}, half)
    with pytest.raises(KeyboardInterrupt): s.get('other', {}, half)
    assert (s.get('stage', {}, build).path/'model').read_text() == 'resumed'
    monkeypatch.setattr('babyvlm.store._code', lambda: 'f'*64)
    assert (s.get('other', {}, build).path/'model').read_text() == 'new' and not list((tmp_path/'other').glob('*.part'))

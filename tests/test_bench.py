"The speed table: records are whole, a part that breaks keeps its rows, the GPU entry point runs without a GPU as a rehearsal."
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from babyvlm.run import speed as bench

BENCH = Path(__file__).parent.parent/'tools'/'bench'
RECORDS = sorted((BENCH/'results').glob('*.json'))


def load(name):
    sys.path.insert(0, str(BENCH))
    spec = importlib.util.spec_from_file_location(name, BENCH/f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_gpu_entry_point_in_rehearsal(tmp_path):
    "The very code of the GPU rows, at small sizes on this machine."
    assert load('gpu').run('matching', tmp_path, 'cpu', 60, True) == 0
    record = json.loads((tmp_path/'gpu_matching.json').read_text())
    assert record['context']['device'].endswith('rehearsal') and record['context']['date'] and 'gpu.py matching' in record['command']
    assert len(record['rows']) == 5 and all(set(r) >= set(bench.COLUMNS) for r in record['rows'])


def test_no_row_starts_when_time_is_out(tmp_path):
    assert load('gpu').run('matching', tmp_path, 'cpu', -1, True) == 0
    assert not (tmp_path/'gpu_matching.json').exists()


def test_a_part_that_breaks_keeps_its_rows_and_says_why(tmp_path, monkeypatch):
    (tmp_path/'bench_broken.py').write_text("def gpu_rows(quick, device, late):\n    yield dict(part='x', size='1')\n    raise RuntimeError('card on fire')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load('gpu').run('broken', tmp_path, 'cpu', 60, True) == 1
    record = json.loads((tmp_path/'gpu_broken.json').read_text())
    assert record['rows'] == [dict(part='x', size='1')] and 'card on fire' in record['stopped']


def test_a_record_without_a_peer_says_what_it_measured_under_ours(tmp_path):
    (tmp_path/'gpu_other_step.json').write_text(json.dumps(dict(context=dict(device='a card', date='2026-01-02T03:04'), rows=[dict(tokens=8, seconds=.5)])))
    row, = bench.read_records(tmp_path, 'gpu')
    assert row['part'] == 'other step' and row['size'] == 'tokens 8' and row['ours'] == 'seconds 0.5' and row['date'] == '2026-01-02'
    assert 'tokens 8' in bench.bench_table([row]).frame.to_string()


@pytest.mark.parametrize('path', RECORDS, ids=lambda p: p.stem)
def test_committed_records_say_where_when_and_how(path):
    record = json.loads(path.read_text())
    assert record['context']['device'] and record['context']['date'] and record['command'] and record['rows']
    bench.bench_table(bench.read_records(path.parent))


def test_committed_matches_are_proved():
    rows = [r for r in bench.read_records(BENCH/'results') if r['part'] == 'matching' and r['ratio'] is not None]
    gaps = [float(r['exactness'].split('gap ')[1].split(',')[0].split(';')[0]) for r in rows if 'gap ' in r['exactness']]
    assert gaps and len(gaps) == len(rows) and max(gaps) < 1e-9


def test_outside_a_checkout_commands_say_so(tmp_path, monkeypatch):
    "An installed package has no notebooks and no scripts: the error says where to go, and nothing is written."
    from babyvlm.run.batch import paper_notebooks
    (tmp_path/'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path/'elsewhere')
    for command in (paper_notebooks, bench.bench):
        with pytest.raises(ValueError, match="below 'elsewhere': this works inside a checkout"): command()
    assert not list(Path('.').iterdir())

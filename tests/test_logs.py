"""Logs of other harnesses in their real shapes, wrong files refused by name, and the commands that read them."""
import csv
import json
import struct
import zipfile
import zlib

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from babyvlm.run.cli import app
from babyvlm.run.compare import Answers, as_lines, compare_all
from babyvlm.run.evaluate import Unit
from babyvlm.run.logs import read_answers, read_inspect, read_lmms_eval, read_vlmevalkit

RIGHT = [1, 0, 1, 1, 0, 1, 0, 1, 1, 1]


def lmms(folder, right=RIGHT, task='vtwt', model='org__model'):
    path = folder/model/f'20260101_120000_samples_{task}.jsonl'
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [dict(doc_id=k, doc=dict(question=f'q{k}'), target='B', arguments=[f'q{k}', {}], input=f'q{k}', resps=['B'], filtered_resps=['B'],
                 doc_hash=f'h{k}', prompt_hash='p', target_hash='t', token_counts=[None], input_media=[f'{k}.png'], acc=float(r)) for k, r in enumerate(right)]
    path.write_text('\n'.join(map(json.dumps, rows)) + '\n')
    return path


def inspect(folder, values, form='eval', task='vtwt', status='success'):
    head = dict(version=2, status=status, eval=dict(task=task, model='openai/gpt-4o', dataset=dict(name='d')), results=dict(scores=[]))
    samples = [dict(id=k, epoch=e, input=f'q{k}', target='B', choices=['x', 'y'], messages=[], output=dict(model='m', choices=[]),
                    scores=dict(choice=dict(value=v, answer='B'))) for k, epochs in enumerate(values) for e, v in enumerate(epochs, 1)]
    path = folder/f'2026-01-01T12-00-00_{task}_x.{form}'
    if form == 'json': path.write_text(json.dumps(head | dict(samples=samples)))
    else:
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z:
            z.writestr('_journal/start.json', '{}'); z.writestr('summaries.json', '[]'); z.writestr('header.json', json.dumps(head))
            for s in samples: z.writestr(f"samples/{s['id']}_epoch_{s['epoch']}.json", json.dumps(s))
    if form == 'eval': with_zstandard(path)
    return path


def with_zstandard(path):
    "Pack an archive again as Inspect does: method 93, which Python's zip module neither writes nor reads before 3.14."
    with zipfile.ZipFile(path) as z: files = [(i.filename.encode(), z.read(i)) for i in z.infolist()]
    body, index = b'', b''
    for name, data in files:
        packed = pa.compress(data, 'zstd', asbytes=True)
        common = struct.pack('<HHHHHIIIHH', 45, 0, 93, 0, 33, zlib.crc32(data), len(packed), len(data), len(name), 0)
        index += b'PK\1\2' + struct.pack('<H', 45) + common + struct.pack('<HHHII', 0, 0, 0, 0, len(body)) + name
        body += b'PK\3\4' + common + name + packed
    path.write_bytes(body + index + b'PK\5\6' + struct.pack('<HHHHIIH', 0, 0, len(files), len(files), len(index), len(body), 0))


def kit(folder, rows, name='LLaVA-7B_MMBench_DEV_EN.tsv'):
    (folder/'LLaVA-7B').mkdir(exist_ok=True)
    with open(folder/'LLaVA-7B'/name, 'w', newline='') as f:
        w = csv.DictWriter(f, rows[0], delimiter='\t'); w.writeheader(); w.writerows(rows)
    return folder/'LLaVA-7B'/name


def lm(folder, rows, name):
    "What lm-eval (0.4) writes: its file's name begins with samples_, its rows name a filter and all metrics."
    path = folder/name/'samples_vtwt_2026-01-01T12-00-00.000001.jsonl'
    path.parent.mkdir(parents=True, exist_ok=True)
    said = [dict(doc_id=k, doc=dict(q=q), target=t, arguments={}, resps=[], filtered_resps=[], filter=f, metrics=['acc', 'acc_norm'],
                 doc_hash=f'h{q}', prompt_hash='p', target_hash='t', acc=a, acc_norm=1 - a) for k, q, t, a, f in rows]
    path.write_text('\n'.join(map(json.dumps, said)) + '\n')
    return path


HERE = [(k, f'q{k}', 'B', float(r), 'none') for k, r in enumerate(RIGHT * 2)]
WRONG = [(k, q, t, 1 - a, f) for k, q, t, a, f in HERE]
MISMATCH = {'other labels': ([(k, q, 'A', a, f) for k, q, t, a, f in WRONG], '20 of the same name are other questions, or have other labels'),
            'other items': ([(k + 99, f'x{k}', t, a, f) for k, q, t, a, f in WRONG], 'no question in common'),
            'other items of the same name': ([(k, f'x{k}', t, a, f) for k, q, t, a, f in WRONG], '20 of the same name are other questions'),
            'another order': ([(19 - k, q, t, a, f) for k, q, t, a, f in WRONG], '20 pairs have other names, yet the same question'),
            'fewer': (WRONG[:12], '8 units of one only'), 'more': (WRONG + [(k + 20, f'n{k}', 'B', 1., 'none') for k in range(4)], '4 units of one only'),
            'duplicates': (WRONG + WRONG[:1], "the sample '0' occurs twice"), 'nothing': ([], 'no samples log of lmms-eval'),
            'several filters': (WRONG + [(k, q, t, a, 'loose') for k, q, t, a, f in HERE], "b: answers filtered by 'none'"),
            'a credit that is none': ([(k, q, t, 7., f) for k, q, t, a, f in WRONG], 'line 1: 7.0 is no credit from 0 to 1')}


@pytest.mark.parametrize('kind', MISMATCH)
def test_logs_that_do_not_fit_are_refused_or_told(tmp_path, kind):
    rows, said = MISMATCH[kind]
    one, other = lm(tmp_path, HERE, 'a'), lm(tmp_path, rows, 'b')
    out = CliRunner().invoke(app, ['compare', str(one), str(other), '--out', str(tmp_path/'o')])
    assert said in out.output and out.exit_code in (0, 2), out.output
    if out.exit_code == 2: return
    row, = csv.DictReader(open(tmp_path/'o'/'compare.csv'))
    paired = kind in ('another order', 'fewer', 'more', 'several filters')
    assert row['pairing'] == ('paired' if paired else 'unpaired') and said.split(' units')[0] in out.output
    if kind == 'another order': assert int(row['only_a']) == 2 * sum(RIGHT) and int(row['only_b']) == 2 * (len(RIGHT) - sum(RIGHT)), 'each beside its own question'


def test_other_metrics_modes_models_and_unfinished_runs_are_refused_or_told(tmp_path):
    def compare(*logs, more=()): return CliRunner().invoke(app, ['compare', *map(str, logs), *more]).output
    a, b, kits = lm(tmp_path, HERE, 'a'), lm(tmp_path, WRONG, 'b'), [dict(index=k, answer='B', prediction='B', hit=.25) for k in range(20)]
    assert "no metric 'exact'; it has acc, acc_norm" in compare(a, b, more=['--metric', 'exact'])
    out = compare(a, b, kit(tmp_path, kits, 'LLaVA-7B_vtwt.tsv'))
    assert 'compared with nothing: LLaVA-7B: vtwt (accuracy)' in out and 'b is better' not in out
    assert 'a answered vtwt in 2 logs that nothing tells apart' in compare(a, a)
    assert "holds LLaVA-7B, a, b, which cannot all be called 'mine'" in compare(f'mine={tmp_path}')
    done = [['C'], ['I'], ['C'], ['C']]
    for status in ('error', 'cancelled', 'started'):
        path = inspect(tmp_path, done, task=status, status=status)
        assert f"{path.name}: its status is '{status}', 4 of 4 samples have a score" in compare(path, a)
    assert 'acc of the one, choice of the other' in compare(a, inspect(tmp_path, done))
    lost = inspect(tmp_path, done, 'json', 'lost'); d = json.loads(lost.read_text()); d['samples'][0]['scores'] = None
    lost.write_text(json.dumps(d)); lost = read_inspect(lost)
    assert lost.note == '1 of 4 samples have no score and are left out' and len(lost.units) == 3
    d['samples'][2]['id'] = d['samples'][1]['id']; d['samples'][2]['input'] = d['samples'][1]['input']
    (tmp_path/'twice.json').write_text(json.dumps(d))
    with pytest.raises(ValueError, match="twice.json: the sample '1' occurs twice"): read_inspect(tmp_path/'twice.json')
    bad = kit(tmp_path, [kits[0] | dict(hit='yes')], 'LLaVA-7B_bad.tsv')
    with pytest.raises(ValueError, match="LLaVA-7B_bad.tsv row 2, hit 'yes': nan is no credit"): read_vlmevalkit(bad)
    fair, strict = (Answers(m, 'vtwt', 'acc', read_lmms_eval(p).units, mode=m) for m, p in (('fair', a), ('strict', b)))
    assert as_lines(compare_all([fair, strict])).endswith('note: scored as fair and as strict')


def test_lmms_eval(tmp_path):
    a = read_lmms_eval(lmms(tmp_path))
    assert (a.model, a.task, a.metric) == ('org__model', 'vtwt', 'acc') and [u.credit for u in a.units] == RIGHT
    path = lmms(tmp_path, task='twice'); path.write_text(path.read_text() * 2)
    with pytest.raises(ValueError, match="twice.jsonl: the sample '0' occurs twice"): read_lmms_eval(path)


@pytest.mark.parametrize('form', ['eval', 'json'])
def test_inspect(tmp_path, form):
    a = read_inspect(inspect(tmp_path, [['C', 'I'], ['P', 'P'], [1, True], ['N', 'I']], form))
    assert (a.model, a.task, a.metric) == ('openai/gpt-4o', 'vtwt', 'choice') and [u.credit for u in a.units] == [.5, .5, 1, 0]


def test_vlmevalkit(tmp_path):
    rows = [dict(index=k, question='Which?', A='cup', B='ball', C='dog', D='', answer='B', category='x', prediction=p)
            for k, p in enumerate(['B', '(B) ball', 'A', 'I cannot tell', 'The answer is B.'])]
    a = read_vlmevalkit(kit(tmp_path, rows))
    assert (a.model, a.task) == ('LLaVA-7B', 'MMBench_DEV_EN') and [u.credit for u in a.units] == [1, 1, 0, 0, 1]
    scored = [dict(r, hit=k % 2) for k, r in enumerate(rows)]
    assert [u.credit for u in read_vlmevalkit(kit(tmp_path, scored)).units] == [0, 1, 0, 1, 0]
    sheet = tmp_path/'LLaVA-7B'/'LLaVA-7B_x.xlsx'; sheet.write_bytes(b'PK')
    with pytest.raises(ValueError, match='LLaVA-7B_x.xlsx: (reading .xlsx needs openpyxl|no Excel sheet)'): read_vlmevalkit(sheet)
    sheet = sheet.rename(sheet.with_suffix('.XLSX'))
    with pytest.raises(ValueError, match='LLaVA-7B_x.XLSX: (reading .xlsx needs openpyxl|no Excel sheet)'): read_vlmevalkit(sheet)


@pytest.mark.parametrize('name,text', [('a.jsonl', '{"x": 1}\n'), ('a.tsv', 'index\tanswer\n1\tA\n'), ('a.eval', 'not a zip'), ('a.json', '{"eval": {}}'),
                                       ('a.json', '[1]'), ('a.txt', 'hello'), ('a.jsonl', '{"journal": 1}\n')])
def test_a_wrong_file_is_refused_by_name(tmp_path, name, text):
    (tmp_path/name).write_text(text)
    with pytest.raises(ValueError, match=name.replace('.', r'\.')): read_answers(tmp_path/name)
    out = CliRunner().invoke(app, ['compare', str(tmp_path/name), str(tmp_path/name)])
    assert out.exit_code == 2 and name in out.output and len(out.output.strip().splitlines()) == 1


def test_logs_of_two_harnesses_are_compared(tmp_path):
    many = RIGHT * 5
    one = lmms(tmp_path, many)
    other = inspect(tmp_path, [['C' if k < 5 else 'I'] for k in range(50)])
    out = CliRunner().invoke(app, ['compare', f'mine={one}', f'gpt={other}', '--out', str(tmp_path/'out')])
    assert out.exit_code == 0 and 'mine' in out.output and 'Holm' in out.output, out.output
    row, = csv.DictReader(open(tmp_path/'out'/'compare.csv'))
    assert float(row['difference']) == pytest.approx(.6) and row['pairing'] == 'unpaired', 'fingerprints of two harnesses differ'
    assert '<table>' in (tmp_path/'out'/'compare.html').read_text()
    for more, said in ((['--metric', 'nope'], 'no metric'), (['--margin', '2'], "'--margin'")):
        out = CliRunner().invoke(app, ['compare', str(one), str(one), *more])
        assert out.exit_code == 2 and said in out.output, out.output


def test_three_harnesses_and_two_label_sets_are_compared(tmp_path, monkeypatch):
    from babyvlm.nursery.world import Nursery
    from babyvlm.run import evaluate as evaluation
    import numpy as np
    many = RIGHT * 5
    rows = [dict(index=k, question='Which?', A='cup', B='ball', answer='B', prediction='B' if k < 5 else 'I cannot tell') for k in range(50)]
    logs = lmms(tmp_path, many, 'MMBench_DEV_EN'), kit(tmp_path, rows), inspect(tmp_path, [['C' if r else 'N'] for r in many], task='MMBench_DEV_EN')
    out = CliRunner().invoke(app, ['compare', *map(str, logs), '--out', str(tmp_path/'out')])
    found = {(r['a'], r['b']): float(r['difference']) for r in csv.DictReader(open(tmp_path/'out'/'compare.csv'))}
    assert out.exit_code == 0 and found == {('org__model', 'LLaVA-7B'): pytest.approx(.6), ('org__model', 'openai/gpt-4o'): 0, ('LLaVA-7B', 'openai/gpt-4o'): pytest.approx(-.6)}, out.output
    class First:
        name = 'first@1'
        def loglik(self, items): return [np.array([1., 0.]) for _ in items]
    monkeypatch.setattr(evaluation, 'load_model', lambda spec, out='.': First())
    said = []
    for seed in (0, 1, 0):
        labels = tmp_path/f'home{seed}'
        if not labels.exists(): Nursery(seed, 64).write_benchmarks(labels, labeled_s=1, vtwt=12, winoground=1, captions=1)
        said.append(CliRunner().invoke(app, ['evaluate', '--model', 'm', '--benchmark', 'v1/vtwt', '--labels', str(labels), '--out', str(tmp_path/'r')]))
    assert [o.exit_code for o in said] == [0]*3 and not any('NOT EVALUATED' in o.output for o in said), [o.output for o in said]
    assert all('items: asked 12 = answered 12 + no answer 0 + skipped 0' in o.output for o in said)
    assert ['also here' in o.output for o in said] == [False, True, True] and '(home0)' in said[1].output and '(home1)' in said[2].output
    assert 'this one minus that, unpaired' in said[1].output
    both = CliRunner().invoke(app, ['compare', str(tmp_path/'r')])
    assert both.exit_code == 0 and 'first@1, home0' in both.output and 'first@1, home1' in both.output, both.output


def test_power():
    run = lambda *w: CliRunner().invoke(app, ['power', *w])
    assert run('--difference', '.1').output == '234 items\n' and run('--items', '234').output == 'smallest difference 0.100\n'
    assert run().exit_code == 2 and run('--difference', '.5').exit_code == 2
    assert run('--items', '5').output == '5 items can show no difference between models that disagree on 30%: the largest, 0.3, needs 24\n'


def test_kept_replies_are_scored_by_another_rule(tmp_path):
    from babyvlm.benchmarks.devcv.files import write_devcv
    from babyvlm.items import Reply
    from babyvlm.nursery.clips import draw_bank
    from babyvlm.nursery.world import Nursery
    from babyvlm.run.evaluate import evaluate_benchmark
    from babyvlm.run.results import journal_of, rescored
    write_devcv(tmp_path/'d', draw_bank(tmp_path/'bank', Nursery(), 40, 6, 4), dict(count=8, memory=3))
    class Says:
        name = 'm@1'
        def reply(self, items): return [Reply(i.uid, text='A' if i.rounds or len(i.options) < 3 else 'I see 2 of them') for i in items]
    for task in ('count', 'memory'):
        how = dict(journal=lambda t, key: journal_of(tmp_path/'r', 'devcv', t, key))
        for e in rescored(f'devcv/{task}', (done := evaluate_benchmark(Says(), f'devcv/{task}', tmp_path/'d', **how)[0]).journal, tmp_path/'d'):
            again = evaluate_benchmark(Says(), f'devcv/{task}', tmp_path/'d', mode=e.mode)[0]
            assert e.scores == again.scores and e.units == again.units and e.model == 'm@1', task
    out = CliRunner().invoke(app, ['rescore', '--benchmark', 'devcv/count', '--journal', str(tmp_path/'none.jsonl'), '--labels', str(tmp_path/'d')])
    assert out.exit_code == 2 and 'none.jsonl' in out.output


def test_words_beside_ranks_are_told():
    units = tuple(Unit(f'{k}', f'q{k}', '', float(r)) for k, r in enumerate(RIGHT * 3))
    words, ranks = (Answers(m, 'count', 'acc', units, protocol=p) for m, p in (('talks', 'chat'), ('ranks', 'loglik')))
    for pair in ((words, ranks), (ranks, words)): assert as_lines(compare_all(pair)).endswith('note: talks answered in words, ranks ranked the options')
    assert 'note' not in as_lines(compare_all([ranks, Answers('clip', 'count', 'acc', units, protocol='contrastive')]))


def test_kept_replies_without_labels_are_refused_in_a_line(tmp_path):
    out = CliRunner().invoke(app, ['rescore', '--benchmark', 'v1/vtwt', '--journal', str(tmp_path/'j.jsonl')], env=dict(BABYVLM_DATA=''))
    assert out.exit_code == 2 and "'v1/vtwt' needs labels" in out.output


SAMPLE, RUN = dict(id=1, epoch=1, input='q', target='B', scores=dict(choice=dict(value='C'))), dict(task='t', model='m')
LINE = dict(doc_id=0, target='B', input='q', acc=1.)
DAMAGED = {f'{k}.json': json.dumps(v) for k, v in dict(
    sample=dict(eval=RUN, samples=[None]), number=dict(eval=RUN, samples=[5]), object=dict(eval=RUN, samples=dict(a=SAMPLE)), scores=dict(eval=RUN, samples=[SAMPLE | dict(scores=[1])]),
    score=dict(eval=RUN, samples=[SAMPLE | dict(scores=dict(choice=None))]), bare=dict(eval=RUN, samples=[SAMPLE | dict(scores=dict(choice=1))]), id=dict(eval=RUN, samples=[{'scores': {}}]),
    model=dict(eval=dict(task='t'), samples=[SAMPLE]), null=dict(eval=dict(task='t', model=None), samples=[SAMPLE]), record=dict(record=1, scores=None, notes=[], units=[]),
    value=dict(record=1, scores=dict(acc=dict(value='x', low=0, high=1, n=1)), notes=[], units=[]), credit=dict(record=1, scores={}, notes=[], units=[dict(uid='a', key='k', group='', credit='x')]),
    audit=dict(record=1, scores={}, notes=[], units=[], audit=5), rows=dict(record=1, scores={}, notes=[], units=[], audit=dict(rows=5, name='x'))).items()}
DAMAGED |= {'a_samples_t.jsonl': json.dumps(LINE | dict(doc_id=None)), 'b_samples_t.jsonl': json.dumps(LINE | dict(acc=None)), 'M_twice.tsv': 'index\tanswer\tprediction\thit\thit\n1\tB\tB\t1\t0\n',
            'M_beyond.tsv': 'index\tanswer\tA\tB\tprediction\n1\tD\tx\ty\tB\n', 'M_empty.tsv': 'index\tanswer\tA\tB\tprediction\n1\t\tx\ty\tB\n'}


@pytest.mark.parametrize('name', DAMAGED)
def test_a_damaged_log_is_named(tmp_path, name):
    (tmp_path/name).write_text(DAMAGED[name])
    with pytest.raises(ValueError, match=name.replace('.', r'\.')): read_answers(tmp_path/name)


def test_a_status_that_is_null_and_a_hit_in_words(tmp_path):
    (tmp_path/'a.json').write_text(json.dumps(dict(status=None, eval=RUN, samples=[SAMPLE])))
    assert read_answers(tmp_path/'a.json')[0].units[0].credit == 1
    rows = [dict(index=k, answer='B', prediction='B', hit=h) for k, h in enumerate(('True', 'FALSE', '1.0'))]
    assert [u.credit for u in read_vlmevalkit(kit(tmp_path, rows)).units] == [1, 0, 1]


NOTED = dict(shard='1/1', call=dict(benchmark=['devcv/count'], labels=None, images=None, split='test', page=False), broken={}, absent=[],
             found=[dict(dict.fromkeys(('model', 'task', 'mode', 'labels', 'source', 'protocol', 'problem'), 'x'), skipped={}, journal='replies/x.jsonl.shard1of1')])
ROW = NOTED['found'][0]
NOTES = [[1], dict(shard='1/2'), NOTED | dict(call=None), NOTED | dict(call={}), NOTED | dict(absent=[5]), NOTED | dict(found=[None]), NOTED | dict(found=[ROW | dict(skipped=[1])]),
         *(NOTED | dict(found=[{k: v for k, v in ROW.items() if k != gone}]) for gone in ('task', 'journal', 'labels'))]


@pytest.mark.parametrize('note', [json.dumps(n) for n in NOTES])
def test_a_note_of_a_shard_that_is_none_is_named(tmp_path, note):
    (tmp_path/'shards').mkdir(); (tmp_path/'shards'/'x.1of2.json').write_text(note)
    out = CliRunner().invoke(app, ['merge', str(tmp_path)])
    assert out.exit_code == 2 and 'x.1of2.json: no note of a shard' in out.output, out.output


@pytest.mark.parametrize('journal', ['../x.jsonl.shard1of1', 'replies/../../x.jsonl.shard1of1', '/x.jsonl.shard1of1'])
def test_a_note_of_a_shard_writes_nowhere_else(tmp_path, journal):
    (tmp_path/'in'/'shards').mkdir(parents=True)
    (tmp_path/'in'/'shards'/'x.1of1.json').write_text(json.dumps(NOTED | dict(found=[ROW | dict(journal=journal)])))
    out = CliRunner().invoke(app, ['merge', str(tmp_path/'in')])
    assert out.exit_code == 2 and 'is outside its folder' in out.output, out.output


@pytest.mark.parametrize('change, why', [
    (dict(units=[dict(uid='a', key='k', group='g', credit=7)]), 'a credit is not from 0 to 1'), (dict(units=[dict(uid='a', key='k', group='g', credit=float('nan'))]), 'a credit is not'),
    (dict(units=[dict(uid='a', key='k', group='g', credit=1)]*2), 'an item is there twice'), (dict(units=[dict(uid=None, key='k', group='g', credit=1)]), 'a name is no text'),
    (dict(model=None), 'a name is no text'), (dict(scores=dict(acc=dict(value=1, low=None, high=1, n=1))), 'a score is no number')])
def test_a_record_of_impossible_numbers_is_refused(tmp_path, change, why):
    from babyvlm.run.results import load_result
    sound = dict(record=1, model='m', task='t', mode='fair', notes=[], scores=dict(acc=dict(value=1, low=0, high=1, n=1)), units=[dict(uid='a', key='k', group='g', credit=1)])
    (tmp_path/'a.json').write_text(json.dumps(sound)); assert load_result(tmp_path/'a.json').model == 'm'
    (tmp_path/'a.json').write_text(json.dumps(sound | change))
    with pytest.raises(ValueError, match=f'a.json: a damaged record .{why}'): load_result(tmp_path/'a.json')


@pytest.mark.parametrize('name, inside', [('a.eval', 'samples/1.json'), ('a.eval', 'header.json'), ('m_d.xlsx', 'xl/workbook.xml')])
def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(tmp_path, monkeypatch, name, inside):
    import zipfile

    from babyvlm.run import logs
    monkeypatch.setattr(logs, '_MOST', 1000)
    with zipfile.ZipFile(tmp_path/name, 'w', zipfile.ZIP_DEFLATED) as z:
        for file in {'header.json', 'samples/1.json', inside}: z.writestr(file, ' '*2000 if file == inside else '{}')
    with pytest.raises(ValueError, match=f'{name}.*{inside}'): logs.read_answers(tmp_path/name)

"""Hostile weights and pictures through the command line, in a child: no traceback, no process started, memory bounded, each named.

With BABYVLM_RELIABILITY=1 what was seen goes to tests/reliability/hostile.json."""
import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin


def main(cases, out):
    "The child: every command line of a file; what it printed, raised and started, and its peak memory in MiB."
    import torch
    from typer.testing import CliRunner

    from babyvlm.run.cli import app
    torch.set_num_threads(1)
    started, found = [], []
    sys.addaudithook(lambda event, args: started.append(str(args)[:200]) if event in ('subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn') else None)
    for words in json.loads(Path(cases).read_text()):
        r = CliRunner().invoke(app, words)
        trace = None if r.exception is None or isinstance(r.exception, SystemExit) else f'{type(r.exception).__name__}: {r.exception}'[:500]
        found.append(dict(status=r.exit_code, said=r.output, trace=trace, started=list(started), mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024))
        started.clear()
    Path(out).write_text(json.dumps(found))


def child(folder, cases):
    (folder/'cases.json').write_text(json.dumps([[str(w) for w in c] for c in cases]))
    subprocess.run([sys.executable, __file__, folder/'cases.json', folder/'found.json'], check=True, cwd=folder, timeout=580)
    return json.loads((folder/'found.json').read_text())


def keep(**found):
    "Figures for the page on reliability."
    path = Path(__file__).parent/'reliability'/'hostile.json'
    known = json.loads(path.read_text()) if path.is_file() else {}
    if os.environ.get('BABYVLM_RELIABILITY'): path.write_text(json.dumps(known | found, indent=1, sort_keys=True) + '\n')


def records(folder, pictures):
    "A count task, one record a picture."
    ask = "<image>\nHow many cups do you see in the image? Respond with a number."
    rows = [dict(id=str(i), image=[p], conversations=[{'from': 'human', 'value': ask}, {'from': 'gpt', 'value': '2'}]) for i, p in enumerate(pictures)]
    (folder/'test'/'count').mkdir(parents=True)
    (folder/'test'/'count'/'data.json').write_text(json.dumps(rows))
    return folder/'test'/'count'


def model(folder, **facts):
    "A tiny model as it is saved."
    from babyvlm.models.tiny import tiny_vlm
    return tiny_vlm(folder, 'qwen2_5_vl', ['How many cups do you see in the image? Respond with a number. 1 2 3'])


class Bomb:
    def __reduce__(self): return os.system, ('echo boom',)


def header(n, text=b'{}'): return struct.pack('<Q', n) + text


def weights(m):
    "18 ways to be no model: name -> what is done to a copy of a good one."
    from safetensors.torch import load_file, save_file
    file, config = m/'model.safetensors', m/'config.json'
    def state(change): s = load_file(file); change(s); save_file(s, file, dict(format='pt'))
    def first(s): return next(k for k in s if 'q_proj.weight' in k)
    def put(path, data): path.unlink(missing_ok=True); path.write_bytes(data)
    def bin(data): file.unlink(); put(m/'pytorch_model.bin', data)
    def setting(**k): d = json.loads(config.read_text()); d.update(k); config.write_text(json.dumps({a: b for a, b in d.items() if b is not None}))
    def loop(): file.unlink(); file.symlink_to('model.safetensors')
    def folder(): file.unlink(); file.mkdir()
    return {
        'truncated': lambda: put(file, file.read_bytes()[:1000]), 'web page': lambda: put(file, b'<!DOCTYPE html><html>not found</html>'),
        'pickle bomb': lambda: bin(pickle.dumps(Bomb())), 'zero bytes': lambda: put(file, b''),
        'wrong shape': lambda: state(lambda s: s.update({first(s): s[first(s)][:3].clone()})), 'missing key': lambda: state(lambda s: s.pop(first(s))),
        'not a number': lambda: state(lambda s: s[first(s)].fill_(float('nan'))), 'other config': lambda: setting(model_type='qwen9_vl'),
        'deep config': lambda: put(config, b'[' * 100_000), 'LFS pointer': lambda: put(file, b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n'),
        'huge header': lambda: put(file, header(2**62)), 'link in a circle': loop, 'folder': folder,
        'whole numbers': lambda: state(lambda s: s.update({k: v.round().to(__import__('torch').int64) for k, v in s.items()})),
        'no architecture': lambda: setting(architectures=None, model_type=None), 'no tokenizer': lambda: put(m/'tokenizer.json', b'{"version": '),
        'config not UTF-8': lambda: put(config, '{"model_type": "é"}'.encode('latin-1')), 'unpicklable': lambda: bin(b'\x80\x04\x95garbage')}


NAMES = ('truncated', 'web page', 'pickle bomb', 'zero bytes', 'wrong shape', 'missing key', 'not a number', 'other config', 'deep config', 'LFS pointer', 'huge header',
         'link in a circle', 'folder', 'whole numbers', 'no architecture', 'no tokenizer', 'config not UTF-8', 'unpicklable')


@pytest.fixture(scope='module')
def refused(tmp_path_factory):
    "What the command line said about each."
    root = tmp_path_factory.mktemp('weights')
    labels = records(root/'labels', ['a.png'])
    Image.new('RGB', (64, 64), 'red').save(labels/'a.png')
    cases = []
    for name in NAMES:
        weights(model(root/'models'/name))[name]()
        cases.append(['evaluate', '--model', root/'models'/name, '--benchmark', 'devcv/count', '--labels', root/'labels', '--out', root/f'{name}.jsonl'])
    cases.append(['evaluate', '--models', root/'models', '--benchmark', 'devcv/count', '--labels', root/'labels', '--out', root/'out'])
    return dict(zip((*NAMES, 'all'), child(root, cases), strict=True))


@pytest.mark.parametrize('name', NAMES)
def test_weights_that_are_none_are_refused_in_a_line(refused, name):
    got = refused[name]
    assert got['trace'] is None and got['started'] == [] and got['status'] == 2, got
    assert got['said'].startswith('babyvlm: ') and name in got['said'] and len(got['said'].strip().split('\n')) == 1, got['said']


def test_a_folder_of_such_weights_names_each(refused):
    got = refused['all']
    assert got['trace'] is None and got['started'] == [] and got['status'] == 1
    named = [name for name in NAMES if f'{name}: NOT READ: ' in got['said']]
    assert named == [*NAMES], got['said']
    keep(weights=dict(files=len(NAMES), named=len(named), started=len(got['started'])))


def test_a_changed_chat_template_is_another_model(tmp_path):
    from babyvlm.run.evaluate import weights_id
    m = model(tmp_path/'m'); config = m/'config.json'
    config.write_text(json.dumps(json.loads(config.read_text())))   # on one line, as some tools write it
    ids = [weights_id(m)]
    for name in ('chat_template.jinja', 'generation_config.json', 'tokenizer.json', 'merges.txt', 'adapter_model.safetensors', 'additional_chat_templates/short.jinja'):
        (m/name).parent.mkdir(exist_ok=True)
        with (m/name).open('a') as f: f.write(' ')
        ids.append(weights_id(m))
    (m/'README.md').write_text('words')
    assert len(set(ids)) == 7 and weights_id(m) == ids[-1]


@pytest.mark.parametrize('template', ['{% for', "{{ raise_exception('no system') }}", '{{ messages.x.y }}'])
def test_a_template_that_fails_is_one_line(tmp_path, template):
    from babyvlm.models.chat import Question
    from babyvlm.models.hub_models import load_vlm
    m = model(tmp_path/'m'); (m/'chat_template.jinja').write_text(template)
    with pytest.raises(ValueError, match="'m': its chat template fails"): load_vlm(m, device='cpu').say([Question('How many?')])


LOOP = '{% for i in range(99999) %}{% for j in range(99999) %}'
TEMPLATES = {'loops': LOOP + '{% endfor %}{% endfor %}', 'loops that write': LOOP + 'x{% endfor %}{% endfor %}', 'calls itself': '{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}',
             'adds a number': "{{ messages[0]['content'] + 1 }}", 'long prompt': "{{ 'x'*3000000 }}", 'long': '{# ' + 'x'*2**20 + ' #}', 'filters': LOOP.replace('99999', '99999)|map("string"') + '{% endfor %}{% endfor %}'}


@pytest.mark.parametrize('template', TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_neither_computes_nor_writes_without_end(monkeypatch, template):
    import sys, time
    from babyvlm.data import rewriters
    from babyvlm.models.tiny import tiny_tokenizer
    monkeypatch.setattr(rewriters, '_SECONDS', .3)
    talk, watched, began = [dict(role='user', content='How many?')], sys.gettrace(), time.thread_time()
    reader = tiny_tokenizer(['How many cups?'])
    assert 'How many?' in rewriters._templated(reader, talk, 'm')
    reader.chat_template = template
    with pytest.raises(ValueError, match="'m': its chat template fails"): rewriters._templated(reader, talk, 'm')
    assert time.thread_time() - began < 10 and sys.gettrace() is watched


def chunk(kind, data, crc=0): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data) ^ crc)
def png(w, h, crc=0): return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, 1, 0, 0, 0, 0), crc) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


def saved(im, kind, **how): b = io.BytesIO(); im.save(b, kind, **how); return b.getvalue()


def pictures(folder):
    "name -> whether it is a picture; all are written."
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8))
    deep = Image.fromarray(np.arange(64*64, dtype=np.uint16).reshape(64, 64)*16)
    turned = Image.Exif(); turned[0x0112] = 6
    frames = [Image.new('RGB', (64, 64), c) for c in ('red', 'blue')]
    good = {
        'cmyk.jpg': saved(noise.convert('CMYK'), 'JPEG'), '16 bits.png': saved(deep, 'PNG'), 'moves.gif': saved(frames[0], 'GIF', save_all=True, append_images=frames[1:]),
        'moves.png': saved(frames[0], 'PNG', save_all=True, append_images=frames[1:]), 'alpha.png': saved(noise.convert('RGBA'), 'PNG'),
        'turned.jpg': saved(noise, 'JPEG', exif=turned), 'colours.jpg': saved(noise, 'JPEG', icc_profile=b'no profile'),
        'pages.tiff': saved(frames[0], 'TIFF', save_all=True, append_images=frames[1:]), 'a.bmp': saved(noise, 'BMP'), 'a.webp': saved(noise, 'WEBP'),
        'palette.png': saved(noise.quantize(256), 'PNG'), 'one.png': saved(Image.new('RGB', (1, 1)), 'PNG'), 'ö "quoted\' %2F\n;$(x).png': saved(noise, 'PNG')}
    bad = {
        'eps.jpg': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n(%pipe%touch x) (w) file\n', 'ps.jpg': b'%!PS\nshowpage\n', 'cut.jpg': saved(noise, 'JPEG')[:900],
        'empty.png': b'', 'text.png': b'hello', 'drawing.png': b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        'bomb.png': saved(Image.new('1', (12_000, 12_000)), 'PNG'), 'header.png': png(50_000, 50_000), '32 bits.tiff': saved(Image.fromarray(np.ones((64, 64), np.float32)), 'TIFF'),
        'chunk.png': png(64, 64, crc=1), 'heic.jpg': b'\0\0\0\x18ftypheic' + bytes(64), 'pdf.png': b'%PDF-1.7\n', 'thin.png': saved(Image.new('RGB', (4000, 1)), 'PNG')}
    for name, data in (good | bad).items(): (folder/name).write_bytes(data)
    (folder/'folder.png').mkdir(); os.mkfifo(folder/'pipe.png')
    (folder.parents[2]/'secret.png').write_bytes(good['alpha.png']); (folder/'link.png').symlink_to('../../../secret.png')
    return dict.fromkeys(good, True) | dict.fromkeys([*bad, 'folder.png', 'pipe.png', 'link.png'], False)


@pytest.fixture(scope='module')
def answered(tmp_path_factory):
    "A good picture alone, then all of them."
    root = tmp_path_factory.mktemp('pictures')
    alone = records(root/'alone', ['a.png']); Image.new('RGB', (64, 64), 'red').save(alone/'a.png')
    (root/'labels'/'test'/'count').mkdir(parents=True); known = pictures(root/'labels'/'test'/'count')
    (root/'labels').rename(root/'made'); folder = records(root/'labels', list(known))
    for p in (root/'made'/'test'/'count').iterdir(): p.rename(folder/p.name)
    cases = [['evaluate', '--model', model(root/'tiny'), '--benchmark', 'devcv/count', '--labels', root/where, '--out', root/f'{where}.jsonl'] for where in ('alone', 'labels')]
    return known, child(root, cases), root/'labels.jsonl'


def test_hostile_pictures_are_named_and_the_others_answered(answered):
    known, (alone, got), journal = answered
    assert got['trace'] is None and got['started'] == [] and got['status'] == 0, got
    assert got['mib'] - alone['mib'] < 1000, (alone['mib'], got['mib'])
    good = sum(known.values())
    assert sum('"uid"' in l for l in journal.read_text().splitlines()[1:]) == good, got['said']
    assert f'asked {len(known)} = ' in got['said'] and f'skipped {len(known) - good}' in got['said'], got['said']
    named = [n for n, fine in known.items() if not fine and any(n in l and 'left out' in l for l in got['said'].splitlines())]
    assert named == [n for n, fine in known.items() if not fine], got['said']
    more = max(0, round((got['mib'] - alone['mib'])/100)*100)
    keep(pictures=dict(files=len(known), answered=good, named=len(named), started=len(got['started']), more_mib=more))


if __name__ == '__main__': main(*sys.argv[1:])

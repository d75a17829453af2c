"babyvlm evaluate and audit on a DevCV folder."
import json
import shutil

from typer.testing import CliRunner

from babyvlm.benchmarks.devcv.files import write_devcv
from babyvlm.benchmarks.devcv.tasks import TASKS
from babyvlm.items import Reply
from babyvlm.nursery.clips import draw_bank
from babyvlm.nursery.world import Nursery
from babyvlm.pictures import open_image
from babyvlm.run import cli, evaluate as evaluation


class First:
    "Always the first option."
    name = 'a model'
    def reply(self, items):
        for i in items: [open_image(p) for p in i.images]
        return [Reply(i.uid, text=i.options[0]) for i in items]


def test_one_command(tmp_path, monkeypatch):
    "babyvlm evaluate --benchmark devcv on a folder with holes: scores, audit and every lost record."
    write_devcv(tmp_path/'their', draw_bank(tmp_path/'bank', Nursery(), 60, 8, 4), {t: 6 if t in ('memory', 'vdr-binary', 'vdr-open') else 12 for t in TASKS})
    folder = tmp_path/'their'/'test'
    rows = json.loads((folder/'count'/'data.json').read_text()); rows[0]['conversations'] = []
    (folder/'count'/'data.json').write_text(json.dumps(rows))
    (folder/'leftright'/'images'/'leftright_0002_1.jpeg').write_bytes(b'')
    monkeypatch.setattr(evaluation, 'load_model', lambda spec, out='.': First())
    run = lambda *w: CliRunner().invoke(cli.app, [str(x) for x in w])
    out = run('evaluate', '--model', 'x', '--benchmark', 'devcv', '--labels', tmp_path/'their', '--out', tmp_path/'r')
    assert out.exit_code == 0, out.output
    for task in TASKS: assert f'a model on devcv/{task}, fair' in out.output and len(list((tmp_path/'r'/'replies'/'devcv'/task).glob('*.jsonl'))) == 1
    assert 'empty conversation' in out.output and 'leftright_0002_1.jpeg: the file is empty' in out.output
    assert 'pixel matcher, acc' in out.output and out.output.count('most frequent answer, acc') >= 13
    one = run('evaluate', '--model', 'x', '--benchmark', 'devcv/baby_count', '--labels', tmp_path/'their', '--out', tmp_path/'one.jsonl', '--mode', 'reference')
    assert one.exit_code == 0 and 'devcv/count, reference' in one.output
    audit = run('audit', '--benchmark', 'devcv/leftright', '--labels', tmp_path/'their')
    assert audit.exit_code == 0 and '! devcv/leftright acc: pixel matcher gets 1.000' in audit.output
    for words, said in ((('evaluate', '--model', 'x', '--benchmark', 'devcv/counts', '--labels', folder), "did you mean 'count'"),
                        (('evaluate', '--model', 'x', '--benchmark', 'devcv', '--labels', tmp_path/'r'), 'no DevCV file'),
                        (('audit', '--benchmark', 'devcv/count', '--labels', folder, '--mode', 'strict'), 'unknown mode')):
        bad = run(*words)
        assert bad.exit_code == 2 and said in bad.output and len(bad.output.strip().splitlines()) == 1, bad.output

"Pictures of label files stay in their folder, links too, unless they are allowed; labels are read before a model is loaded."
import json
from functools import partial

import pytest
from PIL import Image
from typer.testing import CliRunner

from babyvlm.pictures import following, leads_out
from babyvlm.run.cli import app
from babyvlm.run.evaluate import evaluations, suite_of


@pytest.fixture
def labels(tmp_path):
    "One item of V1, DevCV and a list of trials, each with a picture that is a link to a file outside."
    secret = tmp_path/'secret.png'; Image.new('RGB', (32, 32)).save(secret)
    for at in ('labels/frames', 'labels/count', 'labels/trials'):
        (tmp_path/at).mkdir(parents=True); (tmp_path/at/'a.png').symlink_to(secret)
    (tmp_path/'labels'/'vtwt.csv').write_text('image,positive_phrase,negative_phrase\na.png,a cup,a dog\n')
    turns = [{'from': 'human', 'value': '<image>\nHow many cups do you see in the image? Respond with a number.'}, {'from': 'gpt', 'value': '2'}]
    (tmp_path/'labels'/'count'/'data.json').write_text(json.dumps([dict(id='1', image=['a.png'], conversations=turns)]))
    (tmp_path/'labels'/'trials'/'mine.csv').write_text('images,options,answer\na.png,cup | dog,cup\n')
    return tmp_path/'labels'


def read(name, labels):
    suite, task = suite_of(name)
    return suite.find_items(task, labels, None, 'test')


def test_a_link_out_of_the_folder_is_refused_unless_asked_for(labels):
    mine = f"trials:{labels/'trials'/'mine.csv'}"
    for name in ('v1/vtwt', mine):
        with pytest.raises(OSError, match='a.png: a link out of its folder .*--links'): read(name, labels)
    assert read('devcv/count', labels).ledger.skipped == {'link leaves the folder': 1}
    with following(): assert [len(read(name, labels)) for name in ('v1/vtwt', mine, 'devcv/count')] == [1, 1, 1]
    (labels/'frames').rename(labels.parent/'elsewhere'); (labels/'frames').symlink_to(labels.parent/'elsewhere')
    (labels/'frames'/'a.png').unlink(); Image.new('RGB', (32, 32)).save(labels/'frames'/'a.png')
    assert len(read('v1/vtwt', labels)) == 1   # the folder itself may be a link
    (labels/'frames'/'b.png').symlink_to('b.png')
    assert not leads_out(labels/'frames'/'b.png', labels/'frames') and not leads_out('a\0b', '.')


def test_the_command_line_has_a_switch(labels):
    words = ['audit', '--benchmark', 'v1/vtwt', '--labels', str(labels)]
    got = CliRunner().invoke(app, words)
    assert got.exit_code == 2 and got.output.startswith('babyvlm: ') and '--links' in got.output
    assert CliRunner().invoke(app, [*words, '--links']).exit_code == 0


class Loaded(Exception): pass


def load(): raise Loaded


def test_labels_are_read_before_the_model_is_loaded(labels, tmp_path):
    with pytest.raises(OSError, match='link out'): list(evaluations(partial(load), 'v1/vtwt', labels))
    with following(), pytest.raises(Loaded): list(evaluations(partial(load), 'v1/vtwt', labels))
    (labels/'count'/'data.json').write_text('{')
    with pytest.raises(ValueError, match='data.json: not JSON'): list(evaluations(partial(load), 'devcv/count', labels))
    got = CliRunner().invoke(app, ['evaluate', '--model', str(tmp_path/'no_model'), '--benchmark', 'devcv/count', '--labels', str(labels)])
    assert got.exit_code == 2 and 'data.json: not JSON' in got.output, got.output
    got = CliRunner().invoke(app, ['evaluate', '--models', str(tmp_path), '--benchmark', 'devcv', '--labels', str(tmp_path/'none')])
    assert got.exit_code == 2 and 'none' in got.output, got.output



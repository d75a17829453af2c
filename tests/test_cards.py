"""Data cards: complete, the same facts in three places, checked by the field's validator; a push goes where it should and nowhere else."""
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from babyvlm.reporting.cards import all_cards, check_card, croissant, list_cards, push_card

ROOT = Path(__file__).parent.parent
CARDS = all_cards()
SECTIONS = ['What it is', 'Who may have it', 'Licence and consent', 'Where the loader looks', 'What to expect', 'Known defects']
DEVCV = ['looking_while_listening', 'picture_vocabulary', 'localization', 'left_right', 'spatial_details', 'visual_delayed_response', 'memory',
         'who_has_more', 'subitizing', 'object_counting']
TAXONOMIES = ['inat21_animal', 'inat21_plant', 'imagenet_animal', 'imagenet_artifact', 'cub200', 'food101']
WANTED = ['saycam', 'saycam_frames', 'labeled_s', 'vtwt', 'baby_winoground', 'saycam_caption', 'llava_pretrain', 'transferred', 'v2_pretraining',
          *(f'devcv_{t}' for t in DEVCV), 'devcv_ego4d', *(f'taxonomy_{t}' for t in TAXONOMIES),
          'images_inat21', 'images_imagenet', 'images_cub200', 'images_food101', 'survey', 'nursery']


def test_every_data_set_of_the_papers_has_a_card(): assert set(WANTED) <= set(CARDS)


@pytest.mark.parametrize('name', CARDS)
def test_card_is_complete(name):
    card, text = CARDS[name], (ROOT/'data_cards'/name/'README.md').read_text()
    assert re.findall(r'^## (.+)$', text, re.M) == SECTIONS
    for part in re.split(r'^## .+$', text, flags=re.M)[1:]: assert len(part.split()) >= 3, f'an empty section in {name}'
    for key in ('pretty_name', 'description', 'license', 'language', 'tags'): assert card.head.get(key), key
    for key in ('access', 'homepage', 'creators', 'paper', 'published', 'version'): assert card.facts.get(key), key
    assert set(card.also) <= set(CARDS), f'{name} refers to a card that does not exist'
    for file in card.files: assert any(Path(file).match(p.pattern) or file == p.pattern for p in card.places), f'{file} is in the head and not in the text'


@pytest.mark.parametrize('name', CARDS)
def test_croissant_is_made_from_the_card(name):
    "`babyvlm.reporting.cards.write_croissant()` brings the file up to date."
    assert json.loads((ROOT/'data_cards'/name/'croissant.json').read_text()) == json.loads(json.dumps(croissant(CARDS[name])))


@pytest.mark.parametrize('name', CARDS)
def test_croissant_is_valid(name):
    mlc = pytest.importorskip('mlcroissant', reason='mlcroissant is not installed')
    data = mlc.Dataset(jsonld=str(ROOT/'data_cards'/name/'croissant.json'))   # what `mlcroissant validate` does
    assert data.metadata.name == name and not data.metadata.ctx.issues.errors


def test_validator_can_fail(tmp_path):
    mlc = pytest.importorskip('mlcroissant', reason='mlcroissant is not installed')
    bad = croissant(CARDS['vtwt'])
    del bad['distribution'][0]['sha256']
    (tmp_path/'bad.json').write_text(json.dumps(bad))
    with pytest.raises(mlc.ValidationError): mlc.Dataset(jsonld=str(tmp_path/'bad.json'))


def test_released_files_are_what_the_cards_say(real_data):
    checked = 0
    for name, card in CARDS.items():
        for place in card.places:
            if place.pattern not in card.files or not (real_data/place.pattern).exists(): continue
            found = next(f for f in check_card(name, real_data) if f.place == place.shown)
            assert not found.problem and not found.differs, found
            checked += 1
    assert checked >= 10


def test_a_wrong_file_is_named_in_plain_words(tmp_path):
    (tmp_path/'hierarchy'/'taxonomies').mkdir(parents=True)
    file = tmp_path/'hierarchy'/'taxonomies'/'hierarchy_Food.json'
    file.write_text(json.dumps({f'dish {i}': ['food', f'dish {i}'] for i in range(84)}))
    assert 'another checksum' in str(check_card('taxonomy_food101', tmp_path)[0])
    file.write_text('{}')
    assert '0 rows, the card says 84' in str(check_card('taxonomy_food101', tmp_path)[0])
    file.write_text('<!doctype html>')
    assert 'MISSING or WRONG' in str(check_card('taxonomy_food101', tmp_path)[0])
    assert dict((n, s) for n, _, s in list_cards(tmp_path))['taxonomy_food101'] == 'here'


class FakeHub:
    "Has the signatures of `huggingface_hub.HfApi` and remembers what it was asked."
    def __init__(self): self.calls = []
    def __getattr__(self, name):
        import inspect
        from huggingface_hub import HfApi
        known = inspect.signature(getattr(HfApi, name))
        def call(*a, **k):
            known.bind(self, *a, **k)   # a wrong argument fails here as it would on the hub
            self.calls.append((name, a, k))
            return f'https://hub.example/{a[0]}' if a else None
        return call


def test_pictures_that_a_label_file_names_are_looked_for(tmp_path):
    labels, frames = tmp_path/'babylmms-eval', tmp_path/'saycam'/'frames'
    for d in (labels, frames): d.mkdir(parents=True)
    names = [f'S_20140420_1803_01_{k:03d}_00.jpg' for k in range(3)]
    (labels/'SAYCam_caption.csv').write_text('image,text\n' + ''.join(f'{n},a cup\n' for n in names))
    for n in names: Image.new('RGB', (8, 8)).save(frames/n)
    assert str(check_card('saycam_caption', tmp_path)[0]).partition('; ')[0].endswith('there, 3 items')
    (frames/names[1]).unlink()
    assert f"1 of the 3 pictures that SAYCam_caption.csv names are not here, the first '{names[1]}'" in str(check_card('saycam_caption', tmp_path)[0])


def test_each_file_of_a_task_tells_what_it_lacks(tmp_path):
    for split in ('train', 'test'):
        (there := tmp_path/'devcv'/'saycam'/split/'subitize').mkdir(parents=True)
        (there/'data.json').write_text(json.dumps([dict(image=[f'{k}.jpg']) for k in range(3)]))
        for k in range(2): Image.new('RGB', (8, 8)).save(there/f'{k}.jpg')
    said = str(check_card('devcv_subitizing', tmp_path)[0])
    for split in ('train', 'test'): assert f"1 of the 3 pictures that {split}/subitize/data.json names are not here, the first '2.jpg'" in said


def test_push_sends_card_and_data_where_allowed(tmp_path):
    hub = FakeHub()
    assert push_card('nursery', 'me/nursery', tmp_path, api=hub) == 'https://hub.example/me/nursery'
    assert [c[0] for c in hub.calls] == ['create_repo', 'upload_file', 'upload_file', 'upload_folder']
    assert hub.calls[0][2] == dict(repo_type='dataset', private=True, exist_ok=True)
    assert {c[2]['path_in_repo'] for c in hub.calls[1:3]} == {'README.md', 'croissant.json'}


@pytest.mark.parametrize('name', [n for n, c in CARDS.items() if c.facts['access'] not in ('public', 'made by this package')])
def test_gated_data_are_never_sent(name, tmp_path):
    hub = FakeHub()
    with pytest.raises(ValueError, match='may not be sent'): push_card(name, 'me/x', tmp_path, api=hub)
    assert not hub.calls
    push_card(name, 'me/x', api=hub)
    assert 'upload_folder' not in [c[0] for c in hub.calls]


def test_a_model_goes_to_the_hub_with_its_card(tmp_path):
    from babyvlm.estimate import Estimate
    from babyvlm.reporting.hub import hub_card, push_model
    (tmp_path/'config.json').write_text('{"model_type": "cvcl"}')
    card = hub_card(tmp_path, 'CVCL', ['saycam_frames', 'nursery'], {'VTWT': Estimate(.7, .6, .8, 400)})
    assert 'SAYCam frames (request)' in card and '0.700 [0.600, 0.800]' in card and card.startswith('---\n')
    hub = FakeHub()
    push_model(tmp_path, 'me/cvcl', card, api=hub)
    assert [c[0] for c in hub.calls] == ['create_repo', 'upload_folder', 'upload_file']
    assert hub.calls[0][2]['private'] is True and '*.jsonl' in hub.calls[1][2]['ignore_patterns']


def test_drawn_items_are_told_beside_the_recordings_that_are_missing(tmp_path):
    for task in ('memory', 'compare_real', 'compare_synthetic'):
        (tmp_path/'devcv'/'nursery'/'test'/task).mkdir(parents=True)
        (tmp_path/'devcv'/'nursery'/'test'/task/'data.json').write_text('[]')
    states = {n: s for n, _, s in list_cards(tmp_path)}
    assert {states[f'devcv_{n}'] for n in ('memory', 'who_has_more')} == {'missing (request); here from another source: devcv/nursery'}
    assert states['devcv_object_counting'] == 'missing (request)'
    (tmp_path/'devcv'/'nursery').rename(tmp_path/'devcv'/'saycam')
    (tmp_path/'devcv'/'saycam'/'test'/'compare_real'/'data.json').unlink()
    states = {n: s for n, _, s in list_cards(tmp_path)}
    assert [states[f'devcv_{n}'] for n in ('memory', 'who_has_more', 'object_counting')] == ['here', 'partly here', 'missing (request)']

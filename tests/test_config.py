"""Profiles: overrides from YAML and variables, mistakes that name their repair."""
import json
import time

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from babyvlm import config
from babyvlm.config import PROFILES, Profile, data_root, describe_device, did_you_mean, pick_device, profile, read_yaml, store_root
from babyvlm.data.taxonomy import RELEASED


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for v in ('PROFILE', 'OVERRIDES', 'DATA', 'STORE', 'DEVICE'): monkeypatch.delenv(f'BABYVLM_{v}', raising=False)


def write(path, text): path.write_text(text); return path


def test_yaml_overrides_nest_and_reach_in_by_dots(tmp_path):
    f = write(tmp_path/'p.yaml', 'cvcl: {epochs: 3}\nbabyllava.phase1.lr: 0.01\nevaluation: {seeds: [4, 5]}\n')
    p = profile('toy', f)
    assert (p.cvcl.epochs, p.babyllava.phase1.lr, p.evaluation.seeds) == (3, .01, (4, 5))
    assert p.cvcl.lr == Profile().cvcl.lr and p.babyllava.phase2 == Profile().babyllava.phase2
    assert p == profile('toy', str(f)) == profile('toy', {'cvcl': {'epochs': 3}, 'babyllava.phase1': {'lr': .01},
                                                          'evaluation.seeds': [4, 5]})


def test_overrides_keep_the_rest_of_the_paper_profile():
    p = profile('paper', {'babyllava.phase0.epochs': 1})
    assert p.babyllava.phase0 == profile('paper').babyllava.phase0.model_copy(update={'epochs': 1})
    assert PROFILES['paper']['babyllava']['phase0']['epochs'] == 10, 'an override must not change the profile itself'


def test_an_empty_yaml_changes_nothing(tmp_path): assert profile('toy', write(tmp_path/'p.yaml', '# nothing\n')) == profile('toy')


def test_a_yaml_that_is_no_mapping(tmp_path):
    with pytest.raises(ValueError, match='expected a mapping of settings, found list'):
        profile('toy', write(tmp_path/'p.yaml', '- cvcl\n'))


@pytest.mark.parametrize('text, says', [
    (b'cvcl: {epochs: 3\n', r'p\.yaml line 2: not YAML'), (b'cvcl:\n\tepochs: 3\n', r'p\.yaml line 2: not YAML'),
    (b'cvcl: {epochs: 2}\ncvcl: {batch: 8}\n', r"line 2: .*'cvcl' occurs twice"), (b'name: caf\xe9\n', r'p\.yaml is not UTF-8'),
    (b'a: \x00', r'p\.yaml: not YAML'), (b'cvcl: {lr: .inf}\n', r'cvcl\.lr = inf')])
def test_a_broken_yaml_names_file_and_line(tmp_path, text, says):
    (tmp_path/'p.yaml').write_bytes(text)
    with pytest.raises(ValueError, match=says): profile('toy', tmp_path/'p.yaml')


def test_a_missing_yaml_names_its_path():
    with pytest.raises(FileNotFoundError, match=r"no profile file at 'nowhere\.yaml'"): profile('toy', 'nowhere.yaml')


@pytest.mark.parametrize('key, near', [('wrold', 'world'), ('cvcl.epoch', 'epochs'), ('babyllava.phase1.warm_up', 'warmup'),
                                       ('babyllava.phase4', 'phase'), ('evaluation.nboot', 'n_boot')])
def test_an_unknown_key_names_itself_and_the_nearest(key, near):
    with pytest.raises(ValueError, match=f"unknown key '{key}': did you mean '{near}"): profile('toy', {key: 1})


@pytest.mark.parametrize('key, value', [('cvcl.epochs', 'many'), ('cvcl.epochs', 2.5), ('cvcl.epochs', 0), ('cvcl', 3), ('cvcl', None),
                                        ('data.split', 'row'), ('babyllava.phase1.warmup', 1), ('evaluation.seeds', [0, 'x']),
                                        ('name.x', 1), ('nursery.size', float('nan')), ('evaluation.seeds', []), ('evaluation.seeds', [0, 1, 0]), ('v2.seeds', [-1]),
                                       ('creatures.seeds', [2**32]), ('creatures.branching', []), ('creatures.branching', [4, 0]), ('creatures.shares', [1.5]), ('creatures.penalties', [-1.]),
                                       ('cvcl.epochs', True), ('evaluation.seeds', [True, 2]), ('v2.often', {'count': True}), ('name', False), ('nursery.labeled_s', 23),
                                       ('models', {'Foo-7B': 'x'}), ('taxonomies', []), ('taxonomies', ['CUB-200', 'CUB-200']), ('taxonomies.0', ['Birds'])])
def test_a_wrong_value_names_its_key(key, value):
    with pytest.raises(ValueError, match=rf"profile 'toy': {key.removesuffix('.x')}"): profile('toy', {key.removesuffix('.0'): value})


@pytest.mark.parametrize('given', [{'cvcl': {'lr': .1}, 'cvcl.lr': .2}, {'cvcl.lr': .2, 'cvcl': {'lr': .1}}, {'babyllava': {'phase0.lr': 1, 'phase0': {'lr': 1}}}])
def test_one_setting_in_two_spellings_is_no_setting(tmp_path, given):
    with pytest.raises(ValueError, match=r"lr' is set twice, in two spellings"): profile('toy', write(tmp_path/'p.yaml', json.dumps(given)))


def test_an_error_is_one_line_of_bounded_length(tmp_path):
    with pytest.raises(ValueError, match='and 2991 more$') as e: profile('toy', {f'k{n}': 1 for n in range(3000)})
    assert len(str(e.value)) < 3000
    with pytest.raises(ValueError, match='special characters') as e: profile('toy', write(tmp_path/'p.yaml', 'name: a\1'))
    assert '\n' not in str(e.value)


def test_every_mistake_is_named_at_once():
    with pytest.raises(ValueError) as e: profile('toy', {'cvcl': {'epoch': 1, 'lr': -1}})
    assert "'cvcl.epoch'" in str(e.value) and 'cvcl.lr = -1' in str(e.value)


def test_variables_choose_and_arguments_win(monkeypatch, tmp_path):
    monkeypatch.setenv('BABYVLM_PROFILE', 'paper')
    monkeypatch.setenv('BABYVLM_OVERRIDES', str(write(tmp_path/'p.yaml', 'cvcl.epochs: 2')))
    assert (profile().name, profile().cvcl.epochs) == ('paper', 2)
    assert (profile('toy').name, profile('toy', {}).cvcl.epochs) == ('toy', Profile().cvcl.epochs)
    monkeypatch.setenv('BABYVLM_PROFILE', 'papr')
    with pytest.raises(ValueError, match="unknown profile 'papr': did you mean 'paper'"): profile()


@pytest.mark.parametrize('name', PROFILES)
def test_a_profile_survives_yaml(name, tmp_path):
    p = profile(name)
    assert profile('toy', write(tmp_path/'p.yaml', yaml.safe_dump(p.model_dump(mode='json')))) == p


def keys(cls, at=()):
    for name, field in cls.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, config.Section): yield from keys(field.annotation, (*at, name))
        else: yield (*at, name)


@given(st.sampled_from(sorted(keys(Profile))), st.sampled_from(sorted(PROFILES)))
def test_setting_a_key_to_its_own_value_changes_nothing(key, name):
    p = value = profile(name, {})
    for part in key: value = getattr(value, part)
    assert profile(name, {'.'.join(key): value}) == p


def test_places(monkeypatch, tmp_path):
    assert data_root() is None and store_root().name == '_store'
    monkeypatch.setenv('BABYVLM_STORE', str(tmp_path/'s'))
    assert store_root() == tmp_path/'s'
    (tmp_path/'gated').mkdir(); monkeypatch.chdir(tmp_path)
    for d in ('gated', str(tmp_path/'gated')):
        monkeypatch.setenv('BABYVLM_DATA', d)
        assert data_root() == tmp_path/'gated'
    monkeypatch.setenv('BABYVLM_DATA', 'gone')
    with pytest.raises(FileNotFoundError, match="BABYVLM_DATA='gone' is not a folder"): data_root()


def test_relative_data_are_found_from_a_notebook_folder(monkeypatch, tmp_path):
    for d in ('nbs/papers', 'gated'): (tmp_path/d).mkdir(parents=True)
    (tmp_path/'settings.ini').touch()
    monkeypatch.chdir(tmp_path/'nbs'/'papers'); monkeypatch.setenv('BABYVLM_DATA', 'gated')
    assert data_root() == tmp_path/'gated'


def test_device_variable(monkeypatch):
    monkeypatch.setenv('BABYVLM_DEVICE', 'cpu')
    assert pick_device() == torch.device('cpu') and describe_device() == 'cpu'
    monkeypatch.setenv('BABYVLM_DEVICE', 'tpu')
    with pytest.raises(ValueError, match="'tpu' is not available here; use one of .*cpu"): pick_device()
    assert pick_device('cpu').type == 'cpu', 'an argument wins over the variable'


DOUBLED = 'a: &a [x, x]\n' + ''.join(f'{n}: &{n} [*{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}]\n' for p, n in zip('abcdefghijkl', 'bcdefghijklm'))


@pytest.mark.parametrize('text, why', [
    (DOUBLED, 'line 2: not YAML .an alias: write out what it stands for'), ('a: &a {b: *a}', 'line 1: not YAML .an alias'), ('a: ' + '[' * 100_000, 'more than 50 levels'),
    ('\n'.join(' ' * i + 'a:' for i in range(200)), 'more than 50 levels'), ('? [a, b]\n: 1', 'line 1: not YAML .a key is a list or a mapping'),
    ('{a: 1}: 2', 'a key is a list'), ('x: 1\na: 1\na: 2', "line 3: not YAML .'a' occurs twice"), ('a: 2026-99-99', 'month must be'), ('a: ' + '9' * 5000, 'digits'),
    ('- a', 'expected a mapping of settings, found list'), ('7', 'found int'), ('a: \0', 'not YAML'), ('!!python/object/apply:os.system [ls]', 'line 1: not YAML'),
    ('a: 1\n---\nb: 2', 'line 2: not YAML'), ('a:\n\t- b', 'line 2: not YAML'), ('<<: 5', 'line 1: not YAML')])
def test_a_yaml_text_that_is_no_settings_is_refused_with_its_place(tmp_path, text, why):
    (tmp_path/'own.yaml').write_text(text)
    began = time.monotonic()
    with pytest.raises(ValueError, match=f'own.yaml.*{why}'): profile('toy', tmp_path/'own.yaml')
    assert time.monotonic() - began < 20


def test_yaml_that_is_fine_is_read():
    assert read_yaml('', 'f') == read_yaml('# nothing', 'f') == {} and read_yaml('a: [1, {b: x}]\n"1": y', 'f') == {'a': [1, {'b': 'x'}], '1': 'y'}


@pytest.mark.parametrize('word, said', [('zzz', 'known: vtwt, labeled_s'), ('vtvt', "did you mean 'vtwt'? known: vtwt, labeled_s"), ('Label', "did you mean 'labeled_s'? known: vtwt, labeled_s")])
def test_only_a_name_that_is_like_it_is_offered(word, said): assert did_you_mean(word, ['vtwt', 'labeled_s']) == said


def test_taxonomies_of_a_profile_are_the_released_ones():
    assert set(config.get_args(config._Taxonomy)) == set(RELEASED)
    assert profile('toy', {'taxonomies': ['Food-101']}).taxonomies == ('Food-101',)
    assert profile('toy', {'v2.real_size': True, 'models': {'CVCL': 'a-folder'}}).v2.real_size

"""The plan of the house: imports point one way, numbers are the reading order, public names import."""
import ast
import functools
import importlib
import json
import re
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ('', 'data', 'matching', 'nursery', 'models', 'training', 'benchmarks', 'reporting', 'analysis', 'experiments', 'run')
# `babyvlm.models.load_model` has to know how every family is asked; it is fetched from above when it is used
DOORS = {('models', 'run.evaluate')}
GROUND = {'reporting.figures'}   # imports nothing of the package: everything that draws takes its colours there
PUBLIC = {'matching': 'match verify', 'data.conversations': 'load_records save_records', 'data.taxonomy': 'load_hierarchy load_annotations build_questions',
          'benchmarks.v1': 'load_labeled_s load_vtwt load_baby_winoground load_saycam_caption score',
          'benchmarks.devcv': 'load_items score_items TASKS leaderboard_scores', 'benchmarks.hierarchy': 'hca leaf_acc por s_por tor score_paths',
          'benchmarks.parsing': 'parse_letter parse_number parse_direction', 'benchmarks.likelihood': 'loglik', 'benchmarks.audit': 'audit',
          'models': 'load_model', 'analysis.probing': 'fit_probe', 'analysis.survey': 'read_responses analyse',
          'estimate': 'Estimate bootstrap paired_difference', 'reporting.published': 'published'}


def modules():
    "Every module of the package that is not an asset: name without the package -> file."
    files = (f for f in (ROOT/'babyvlm').rglob('*.py') if not {'assets', '__pycache__'} & set(f.parts) and f.name != '_modidx.py')
    return {'.'.join(f.relative_to(ROOT/'babyvlm').with_suffix('').parts).removesuffix('__init__').strip('.'): f for f in files}


MODULES = modules()


def imported(source, package):
    "Modules of this package that a text imports, at the top or inside a function."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import): names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = ['babyvlm', *package][:1 + len(package) - (node.level - 1)] if node.level else []
            base = '.'.join([*up, *filter(None, [node.module])])
            names = [f'{base}.{a.name}' if f'{base}.{a.name}'.removeprefix('babyvlm.') in MODULES else base for a in node.names]
        else: continue
        yield from (n.removeprefix('babyvlm').strip('.') for n in names if n.split('.')[0] == 'babyvlm')


def graph():
    "Module -> modules that it imports."
    out = {}
    for name, file in MODULES.items():
        package = name.split('.') if file.name == '__init__.py' and name else name.split('.')[:-1]
        out[name] = {u for u in imported(file.read_text(encoding='utf-8'), package) if u not in ('', '_compat', name)}
    return out


GRAPH = graph()


def floor(module):
    "The floor on which a module stands; packages stand on their own floor."
    if module in GROUND: return 0
    head = module.split('.')[0]
    return FLOORS.index(head if head in FLOORS else '')


def test_every_module_has_a_floor():
    assert {m.split('.')[0] for m in MODULES if '.' in m} <= set(FLOORS), 'a folder without a place in FLOORS'
    assert not any(GRAPH[m] for m in GROUND)
    assert sum(map(len, GRAPH.values())) > 200, 'the test must see the imports it judges'


def test_imports_point_one_way():
    wrong = [(m, u) for m, used in GRAPH.items() for u in used if floor(u) > floor(m) and (m, u) not in DOORS]
    assert not wrong, f'these import something from further up: {wrong}'


def test_imports_have_no_circle():
    TopologicalSorter({m: {u for u in used if (m, u) not in DOORS} for m, used in GRAPH.items()}).prepare()


def test_benchmarks_never_import_training_nor_models_benchmarks():
    wrong = [(m, u) for m, used in GRAPH.items() for u in used if (m.split('.')[0], u.split('.')[0]) in (('benchmarks', 'training'), ('models', 'benchmarks'))]
    assert not wrong


def test_few_modules_at_the_top():
    assert len([m for m in MODULES if m and '.' not in m and MODULES[m].name != '__init__.py' and m != '_compat']) <= 8


@functools.cache
def source(f):
    "All cells of a notebook as one text; several tests ask, and outputs make the files large."
    return '\n'.join(''.join(c['source']) for c in json.loads(f.read_text(encoding='utf-8'))['cells'])


def pages():
    "Numbered library pages: (folder, number, module, file)."
    for f in sorted((ROOT/'nbs').rglob('[0-9][0-9]_*.ipynb')):
        if '.ipynb_checkpoints' in f.parts: continue
        module = next((line.split()[-1] for line in source(f).splitlines() if line.startswith('#| default_exp ')), None)
        yield f.parent.relative_to(ROOT/'nbs').as_posix(), f.name[:2], module, f


def test_no_number_twice_in_a_folder():
    seen = {}
    for folder, number, _, f in pages():
        if folder.startswith('papers'): continue
        assert seen.setdefault((folder, number), f) == f, f'{f.name} and {seen[folder, number].name} share a number'


def test_a_page_says_its_folder_and_name():
    for folder, _, module, f in pages():
        if module is None: continue
        assert module == '.'.join([*(p for p in folder.split('/') if p != '.'), f.stem[3:]]), f'{folder}/{f.name} exports {module}'


def test_no_page_imports_a_later_one_of_its_folder():
    where = {module: (folder, number) for folder, number, module, _ in pages() if module}
    wrong = [(m, u) for m in where for u in GRAPH[m] if u in where and where[u][0] == where[m][0] and where[u] > where[m]]
    assert not wrong, f'these import a later page of their folder: {wrong}'


@pytest.mark.parametrize('module', PUBLIC)
def test_names_that_other_programs_rely_on_import(module):
    found = importlib.import_module(f'babyvlm.{module}')
    for name in PUBLIC[module].split(): assert getattr(found, name) is not None


@pytest.mark.parametrize('package, module', [('benchmarks.devcv', 'score'), ('benchmarks.hierarchy', 'metrics'), ('analysis.survey', 'answers'), ('matching', 'exact')])
def test_a_package_shows_the_names_of_its_first_module(package, module):
    outer, inner = importlib.import_module(f'babyvlm.{package}'), importlib.import_module(f'babyvlm.{package}.{module}')
    for name in inner.__all__: assert getattr(outer, name) is getattr(inner, name)


def mentions():
    "Words of every page, test and program: path -> names that appear there."
    found = {}
    for f in (ROOT/'nbs').rglob('*.ipynb'):
        if '.ipynb_checkpoints' in f.parts: continue
        found[f.relative_to(ROOT).as_posix()] = set(re.findall(r'\w+', source(f)))
    others = [f for g in ('tests/*.py', 'tools/**/*.py', '.ci/*', 'Snakefile', 'Makefile', 'babyvlm/assets/**/*.py') for f in ROOT.glob(g) if f.is_file()]
    return found | {f.relative_to(ROOT).as_posix(): set(re.findall(r'\w+', f.read_text(encoding='utf-8', errors='ignore'))) for f in others if f.name != 'test_house.py'}


def idle_names():
    "Public functions and classes that are mentioned on their own page alone and that nothing there calls: 'module.name'."
    seen = Counter(w for words in mentions().values() for w in words)
    for name, file in MODULES.items():
        text = file.read_text(encoding='utf-8')
        tree, words = ast.parse(text), Counter(re.findall(r'\w+', text))
        exported = {e.value for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], 'id', '') == '__all__' for e in n.value.elts}
        for n in tree.body:
            if not isinstance(n, (ast.FunctionDef, ast.ClassDef)) or n.decorator_list or n.name not in exported: continue
            if seen[n.name] <= 1 and words[n.name] <= 2: yield f'{name}.{n.name}'   # its definition and `__all__`


KEPT = {'benchmarks.hierarchy.questions.order_sensitivity': 'for readers of cyclic runs',
        'data.question_wordings.is_published': 'checks a wording that may not be printed', 'data.saycam.prepare_frame': 'the released preparation, for real frames'}


def test_every_public_name_has_a_user():
    "A name that only its own lesson mentions is a line to maintain for nobody: use it, delete it, or say here whom it is for."
    found = set(idle_names()) - set(KEPT)
    assert not found, 'nobody uses: ' + ', '.join(sorted(found))


def test_no_committed_file_is_heavier_than_a_mebibyte():
    "Every clone downloads every version of every picture."
    heavy = {f: n for f in (p for g in ('figures/**/*', 'nbs/**/*', 'tests/**/*', 'babyvlm/**/*', 'tools/**/*') for p in ROOT.glob(g))
             if f.is_file() and '.ipynb_checkpoints' not in f.parts and f.name != 'report.html' and (n := f.stat().st_size) > 2**20}
    assert not heavy, f'use fewer colours or pixels: {heavy}'

"""Faults that can be read off the code: names that are not there, imports that nobody uses, unsafe loading, machines' paths, network at import."""
import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(p for p in (ROOT/'babyvlm').rglob('*.py') if p.name not in ('__init__.py', '_modidx.py') and 'assets' not in p.parts)
NAMES = ['.'.join(p.relative_to(ROOT).with_suffix('').parts) for p in MODULES]
TREES = {p.relative_to(ROOT).as_posix(): ast.parse(p.read_text()) for p in MODULES}


def unused(tree):
    "Names that a module imports at its top and never uses; '_compat' and whole submodules are imported for what they do."
    brought = {(a.asname or a.name).split('.')[0]: n.lineno for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom)) for a in n.names}
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {'_compat', 'babyvlm', '*'}
    return {k: line for k, line in brought.items() if k not in used}


def called(node):
    "Dotted name of what is called, '' when it has none."
    parts, f = [], node.func
    while isinstance(f, ast.Attribute): parts.append(f.attr); f = f.value
    return '.'.join([*([f.id] if isinstance(f, ast.Name) else []), *reversed(parts)])


def unsafe(tree):
    "Calls that may run what a file holds: (line, what)."
    for n in ast.walk(tree):
        if isinstance(n, (ast.Import, ast.ImportFrom)):
            for name in [getattr(n, 'module', '') or '', *(a.name for a in n.names)]:
                if name.split('.')[0] in ('cPickle', 'dill', 'cloudpickle', 'joblib', 'shelve', 'marshal'): yield n.lineno, name
        if not isinstance(n, ast.Call): continue
        name, given = called(n), {k.arg: k.value for k in n.keywords}
        def says(key, value): return isinstance(given.get(key), ast.Constant) and given[key].value is value
        if name == 'torch.load' and not says('weights_only', True): yield n.lineno, 'torch.load without weights_only=True'
        if name in ('pickle.load', 'pickle.loads', 'os.system', 'yaml.unsafe_load'): yield n.lineno, name
        if name in ('yaml.load', 'yaml.load_all') and 'afe' not in ast.dump(n): yield n.lineno, 'yaml.load without a safe loader'
        if name in ('np.load', 'numpy.load') and says('allow_pickle', True): yield n.lineno, 'np.load with allow_pickle'
        if isinstance(n.func, ast.Name) and name in ('eval', 'exec'): yield n.lineno, name
        if says('shell', True): yield n.lineno, f'{name} through a shell'
        if says('trust_remote_code', True): yield n.lineno, f'{name} with code of strangers'


def broad(tree):
    "Handlers that catch everything and do not raise again."
    for n in ast.walk(tree):
        if not isinstance(n, ast.ExceptHandler): continue
        kinds = [n.type] if not isinstance(n.type, ast.Tuple) else n.type.elts
        wide = n.type is None or any(isinstance(k, ast.Name) and k.id in ('Exception', 'BaseException') for k in kinds)
        if wide and not any(isinstance(x, ast.Raise) for x in ast.walk(n)): yield n.lineno, 'catches everything'


HOME = re.compile(r'(?<![\w.])/(?:home|root|Users|work|mnt|tmp|private)/\w')


def paths(tree):
    "Texts that name a place on one machine."
    for n in ast.walk(tree):
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and HOME.search(n.value): yield n.lineno, n.value[:60]


def halves(tree):
    "Files written in place, which a kill or a full disk leaves half; inside `with writing(...) as new:` they are beside their place."
    whole = {id(x) for n in ast.walk(tree) if isinstance(n, ast.With) and any(isinstance(i.context_expr, ast.Call) and called(i.context_expr) == 'writing'
             for i in n.items) for x in ast.walk(n)}
    for n in ast.walk(tree):
        if not isinstance(n, ast.Call) or id(n) in whole: continue
        last = n.func.attr if isinstance(n.func, ast.Attribute) else getattr(n.func, 'id', '')
        mode = next((a.value for a in [*n.args[:2], *(k.value for k in n.keywords if k.arg == 'mode')]
                     if isinstance(a, ast.Constant) and re.fullmatch('[rwaxbt+]{1,3}', str(a.value))), '')
        if last == 'open' and set(mode) & set('wx'): yield n.lineno, f"open with '{mode}'"
        if last in ('write_text', 'write_bytes', 'savefig', 'save_file', 'savez', 'savez_compressed', 'to_parquet', 'to_excel', 'to_pickle'): yield n.lineno, last
        if last == 'to_csv' and (n.args or any(k.arg == 'path_or_buf' for k in n.keywords)): yield n.lineno, 'to_csv into a file'
        if last == 'to_csv' and not n.args: yield n.lineno, 'to_csv, where csv_text marks formulas'
        if called(n) in ('np.save', 'torch.save', 'json.dump', 'csv.writer', 'csv.DictWriter'): yield n.lineno, called(n)
        if last == 'save' and len(n.args) == 1 and {k.arg for k in n.keywords} & {'quality', 'optimize', 'dpi'}: yield n.lineno, 'a picture'


def idle(tree):
    "Imports that nobody uses."
    for name, line in unused(tree).items(): yield line, name


def cased(tree):
    "Endings of files that are compared as they are written: A.JSON is a .json too."
    for n in ast.walk(tree):
        left = n.left if isinstance(n, ast.Compare) else None
        while isinstance(left, ast.Subscript): left = left.value
        if isinstance(left, ast.Attribute) and left.attr == 'suffix': yield n.lineno, ast.unparse(n)
        ends = n.args[0] if isinstance(n, ast.Call) and n.args and isinstance(n.func, ast.Attribute) and n.func.attr == 'endswith' else None
        known = [x.value for x in ast.walk(ends) if isinstance(x, ast.Constant)] if ends else []
        if any(re.fullmatch(r'\.(?:[jJ]sonl?|csv|tsv|txt|jpe?g|png|mp4|pt|pth|bin|ckpt|parquet|safetensors|eval|xlsx)', str(k)) for k in known) \
            and not ast.unparse(n.func.value).endswith('.lower()'): yield n.lineno, ast.unparse(n)


@pytest.mark.parametrize('rule', [unsafe, broad, paths, halves, idle, cased], ids=lambda f: f.__name__)
def test_the_package_keeps_the_rule(rule):
    found = [f'{p}:{line}: {what}' for p, tree in TREES.items() for line, what in rule(tree) if (p, what) not in ARGUED]
    assert not found, '\n'.join(found)


ARGUED = {('babyvlm/config.py', 'yaml.load without a safe loader'): 'its loader is a SafeLoader that refuses a key twice',
          ('babyvlm/store.py', 'to_csv, where csv_text marks formulas'): 'csv_text itself',
          ('babyvlm/run/batch.py', "open with 'w'"): 'the log of a running batch, read while it grows'}


@pytest.mark.parametrize('rule, bad, good', [
    (unsafe, 'torch.load(p)', 'torch.load(p, weights_only=True)'), (unsafe, 'pickle.loads(b)', 'json.loads(b)'),
    (unsafe, 'yaml.load(t)', 'yaml.load(t, Loader=yaml.SafeLoader)'), (unsafe, 'run(c, shell=True)', 'run(c)'), (unsafe, 'import dill', 'import json'),
    (unsafe, 'np.load(p, allow_pickle=True)', 'np.load(p, allow_pickle=False)'), (unsafe, 'm.from_pretrained(p, trust_remote_code=True)', 'm.from_pretrained(p)'),
    (broad, 'try: f()\nexcept Exception: pass', 'try: f()\nexcept Exception as e: raise ValueError from e'), (broad, 'try: f()\nexcept: pass', 'try: f()\nexcept OSError: pass'),
    (halves, "open(p, 'w')", "open(p, 'a')"), (halves, "p.write_text(t)", "with writing(p) as new: new.write_text(t)"), (halves, 'p.open(mode="wb")', 'p.open("rb")'),
    (halves, 'table.to_csv(p)', 'csv_text(table)'), (halves, 'np.save(p, x)', 'with writing(p) as new, new.open("wb") as f: np.save(f, x)'),
    (cased, "p.suffix == '.json'", "p.suffix.lower() == '.json'"), (cased, "p.suffix[:3] in ends", "p.suffix.lower() in ends"), (cased, "n.endswith('.csv')", "n.lower().endswith('.csv')"),
    (idle, 'import re', 'import re\nre.sub'), (paths, "p = '/" + "home/me/data'", "p = 'home/me'")])
def test_the_lints_see(rule, bad, good):
    assert list(rule(ast.parse(bad))) and not list(rule(ast.parse(good)))


ORDERS = '''
import json
from babyvlm.credit import pick
from babyvlm.data.filters import Selection
from babyvlm.data.saycam import assign_splits
from babyvlm.items import Item, item_key
from babyvlm.store import Store, canonical_json
words = {f'w{i}' for i in range(50)}
item = Item('a', 'b', (), 'p', tuple('xyz'), 0, meta={k: 1 for k in words})
print(json.dumps(dict(key=Store('s').key('stage', dict(words=words)), item=item_key(item), plain=canonical_json(words),
    selection=Selection(words).sha256, splits=sorted(assign_splits(list(words)).items()), pick=[pick([1, 1, 1], w) for w in sorted(words)])))
'''


ALONE = '''
import ast, builtins, dis, importlib, json, socket, sys, types
def refuse(*a, **k): raise RuntimeError('network at import')
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
def codes(code):
    yield code
    for c in code.co_consts:
        if hasattr(c, 'co_code'): yield from codes(c)
lost = {}
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    text = open(module.__file__).read()
    whole = compile(text, name, 'exec')
    known = vars(module).keys() | vars(builtins).keys()
    wanted = {i.argval for c in codes(whole) for i in dis.get_instructions(c) if i.opname == 'LOAD_GLOBAL'}
    for n in ast.walk(ast.parse(text)):
        part = isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and vars(module).get(n.value.id)
        if isinstance(part, types.ModuleType) and not hasattr(part, n.attr): wanted.add(f'{n.value.id}.{n.attr}')
    if wanted - known: lost[name] = sorted(wanted - known)
print(json.dumps(lost))
'''


@pytest.fixture(scope='module')
def alone():
    "All modules imported by a process that can reach nobody, also without the variables that keep the hub away."
    env = {k: v for k, v in os.environ.items() if not k.startswith(('HF_', 'TRANSFORMERS_'))} | dict(PYTHONPATH=str(ROOT), PYTHONHASHSEED='1')
    return subprocess.run([sys.executable, '-c', ALONE + ORDERS, *NAMES], env=env, capture_output=True, text=True)


def test_importing_opens_no_connection(alone): assert alone.returncode == 0, alone.stderr[-2000:]


def test_every_global_name_that_a_function_loads_is_there(alone): assert json.loads(alone.stdout.splitlines()[-2]) == {}


def test_keys_and_orders_do_not_depend_on_the_process(alone):
    "Sets are walked in another order in every process; nothing that is kept may follow it."
    env = dict(os.environ, PYTHONHASHSEED='2', PYTHONPATH=str(ROOT))
    other = subprocess.run([sys.executable, '-c', ORDERS], env=env, capture_output=True, text=True, check=True)
    a, b = (json.loads(text.splitlines()[-1]) for text in (alone.stdout, other.stdout))
    assert a == b and len(a['splits']) == 50

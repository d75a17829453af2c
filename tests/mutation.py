"""Change one thing in a copy of the package, run the tests that should notice, and say which one did.

`python tests/mutation.py [--module NAME] [--seed N] [--jobs N]` draws mutants of the modules below and writes the share killed to tests/reliability.
A sample that tests were written for says nothing of the others: draw with another seed when they are there.
"""
import argparse
import ast
import json
import multiprocessing.connection
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT/'tests'/'reliability'
SECONDS = 180   # of one trial; a mutant that hangs counts as noticed


@dataclass(frozen=True)
class Trial:
    "A change and the tests that should notice it."
    name: str
    file: str = ''       # below babyvlm; '' changes nothing
    text: str = ''       # what the file says then
    tests: tuple = ()    # arguments of pytest
    took: dict = field(default_factory=dict)   # test -> seconds without a change: short ones are run first


class Failure:
    "The first test that failed, and how long each took."
    def __init__(self, before): self.name, self.before, self.took = '', before, Counter()

    def pytest_collection_modifyitems(self, items):
        whole = Counter()
        for i in items: whole[i.path] += self.before.get(i.nodeid, 0)
        items.sort(key=lambda i: (whole[i.path], i.path, self.before.get(i.nodeid, 0)))

    def pytest_runtest_logreport(self, report):
        self.took[report.nodeid] += report.duration
        if report.failed and not self.name: self.name = report.nodeid.removeprefix('tests/')
    def pytest_collectreport(self, report):
        if report.failed and not self.name: self.name = f'{report.nodeid} does not import'


def try_one(trial: Trial) -> dict:
    "Run a trial; to be called in a process of its own."
    import pytest
    place = Path(tempfile.mkdtemp(prefix='babyvlm-trial-'))
    try:
        pictures = shutil.ignore_patterns('*.svg', '*.png', '*.html')   # compiled files come along: a changed text is newer than its own
        for part in ('babyvlm', 'tests', 'tools', 'figures'): shutil.copytree(ROOT/part, place/part, ignore=pictures if part == 'figures' else None)
        if trial.file: (place/'babyvlm'/trial.file).write_text(trial.text)
        for k in ('BABYVLM_DATA', 'PYTEST_ADDOPTS'): os.environ.pop(k, None)
        os.environ |= dict(PYTHONPATH=str(place), HOME=str(place), BABYVLM_STORE=str(place/'store'), OMP_NUM_THREADS='1')
        os.chdir(place)
        sys.path.insert(0, str(place)); sys.dont_write_bytecode = True
        log, found = os.open(place/'log', os.O_CREAT | os.O_WRONLY), Failure(trial.took)
        os.dup2(log, 1); os.dup2(log, 2)
        code = pytest.main([*trial.tests, '-x', '-q', '-p', 'no:cacheprovider', '-m', ''], plugins=[found])
        known = {0: 'missed', 1: 'caught', 2: 'caught' if trial.file else 'broken'}
        end = dict(name=trial.name, status=known.get(int(code), 'broken'), by=found.name, took=dict(found.took))
        return end if end['status'] != 'broken' else end | dict(log=(place/'log').read_text()[-2000:])
    finally: shutil.rmtree(place, ignore_errors=True)


def _serve(trial, pipe):
    os.setsid()
    pipe.send(try_one(trial)); pipe.close()
    os._exit(0)


def run(trials: Sequence[Trial], jobs: int = 1) -> Iterator[dict]:
    "Results in the order they come; each trial in a process that is forked after the slow imports."
    import datasets, great_tables, hypothesis, matplotlib.pyplot, numba, numpy, pandas, pytest, scipy.stats, sklearn.linear_model, torch._dynamo, transformers, typer  # noqa: E401,F401  inherited by every fork
    fork, left, going = multiprocessing.get_context('fork'), list(trials), {}
    while left or going:
        while left and len(going) < jobs:
            trial = left.pop(0); here, there = fork.Pipe(False)
            proc = fork.Process(target=_serve, args=(trial, there)); proc.start(); there.close()
            going[proc] = trial, here
        multiprocessing.connection.wait([here for _, here in going.values()], 1)
        for proc, (trial, here) in list(going.items()):
            if here.poll():
                try: end = here.recv()
                except EOFError: end = dict(name=trial.name, status='caught', by='the process ended')
            elif proc.exitcode is not None: end = dict(name=trial.name, status='caught', by='the process ended')
            elif _age(proc) < SECONDS: continue
            else: end = dict(name=trial.name, status='caught', by=f'no end within {SECONDS} seconds')
            _end(proc); del going[proc]
            yield end


def _age(proc):
    "CPU seconds that a process has had, its children left out."
    fields = Path(f'/proc/{proc.pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def _end(proc):
    "End a trial and whatever it started."
    try: os.killpg(proc.pid, signal.SIGKILL)
    except ProcessLookupError: pass
    proc.join()


def write(name: str, found: dict) -> Path:
    "A result, one line an entry, so that changes can be read."
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS/f'{name}.json'
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + '\n')
    return path


SWAPS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In,
         ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
         ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}


def sites(tree: ast.Module) -> Iterator[tuple]:
    "What can be changed inside functions: (node, how). Error messages, annotations and docstrings are no behaviour."
    for outer in tree.body:
        if isinstance(outer, (ast.Import, ast.ImportFrom)): continue
        todo = [outer]
        while todo:
            n = todo.pop()
            if isinstance(n, (ast.Raise, ast.JoinedStr)): continue
            if isinstance(n, ast.Compare): yield from ((n, ('op', i)) for i in range(len(n.ops)) if type(n.ops[i]) in SWAPS)
            if isinstance(n, (ast.BinOp, ast.BoolOp)) and type(n.op) in SWAPS and not _text(n): yield n, ('op', None)
            if isinstance(n, ast.Constant) and isinstance(n.value, bool): yield n, ('constant', not n.value)
            elif isinstance(n, ast.Constant) and isinstance(n.value, (int, float)): yield n, ('constant', n.value + 1)
            if isinstance(n, ast.UnaryOp) and isinstance(n.op, (ast.Not, ast.USub)): yield n, ('drop', None)
            if isinstance(n, (ast.If, ast.IfExp, ast.comprehension)) and (n.ifs if isinstance(n, ast.comprehension) else True): yield n, ('condition', None)
            if isinstance(n, ast.Return) and n.value is not None and not isinstance(n.value, ast.Constant): yield n, ('return', None)
            skip = ('annotation', 'returns', 'decorator_list')
            todo += [c for k, v in ast.iter_fields(n) if k not in skip for c in (v if isinstance(v, list) else [v]) if isinstance(c, ast.AST)]


def _text(n):
    "Whether an operation joins texts or lists: another sign there is an error at once, and teaches nothing."
    return isinstance(n, ast.BinOp) and any(isinstance(x, (ast.JoinedStr, ast.List, ast.Tuple)) or isinstance(getattr(x, 'value', None), str)
                                            for x in (n.left, n.right))


def ordered(tree: ast.Module) -> list[tuple]:
    "Sites in the order of the text: (line, node, how)."
    def line(n): return (n.target if isinstance(n, ast.comprehension) else n).lineno
    return sorted(((line(n), n, how) for n, how in sites(tree)), key=lambda s: (s[0], getattr(s[1], 'col_offset', 0), str(s[2])))


def mutate(text: str, number: int) -> tuple[str, str, str]:
    "The text with one change, the line as it was, and as it is."
    tree = ast.parse(text)
    line, node, (how, what) = ordered(tree)[number]
    before = ast.unparse(node)
    if how == 'op' and what is None: node.op = SWAPS[type(node.op)]()
    elif how == 'op': node.ops[what] = SWAPS[type(node.ops[what])]()
    elif how == 'constant': node.value = what
    elif how == 'drop' and isinstance(node.op, ast.USub): node.op = ast.UAdd()
    elif how == 'drop': node.operand = ast.UnaryOp(ast.Not(), node.operand)
    elif how == 'condition' and isinstance(node, ast.comprehension): node.ifs = node.ifs[1:]
    elif how == 'condition': node.test = ast.UnaryOp(ast.Not(), node.test)
    elif how == 'return': node.value = ast.Constant(None)
    after = ast.unparse(node)
    short = lambda t: t.splitlines()[0][:100]
    return ast.unparse(ast.fix_missing_locations(tree)), f'line {line}: {short(before)}', short(after)


MODULES = {   # module -> the tests that stand nearest to it
    'benchmarks/hierarchy/metrics.py': 'hierarchy laws_metrics', 'estimate.py': 'estimate laws_metrics', 'credit.py': 'credit laws_metrics',
    'benchmarks/v1.py': 'v1 credit laws_metrics', 'benchmarks/devcv/score.py': 'devcv laws_metrics', 'benchmarks/parsing.py': 'parsing', 'matching/exact.py': 'matching laws',
    'data/saycam.py:assign_splits,split_pairs': 'saycam laws', 'analysis/probing.py:group_split,_split,_given': 'probing laws'}
ARGUED = {   # (module, line and number as in the record, as it is): another of the kind inherits nothing -> why no test can tell ('equivalent: ...'), or which test was written since
    ('benchmarks/v1.py', 'line 252: 0', '1'): 'equivalent: VTWT has two losses, and where one is no number neither is below the other',
    ('credit.py', 'line 32: not s.ndim or not s.shape[-1]', 'not s.ndim and (not s.shape[-1])'): 'noticed since: test_credit.py::test_what_is_no_number_or_no_candidate_is_refused',
    ('benchmarks/parsing.py', 'line 442: len(listed) > 1', 'len(listed) >= 1'): 'noticed since: test_parsing.py::test_the_other_readers_name_their_rule_too',
    ('benchmarks/devcv/score.py', 'line 46: 1', '2'): 'noticed since: test_devcv.py::test_likelihood_ranking_of_memory_and_letters',
    ('matching/exact.py', 'line 211: search.used + entries <= len(L.col)', 'search.used + entries < len(L.col)'): 'equivalent: lists that just fit are moved once more, and say the same',
    ('matching/exact.py', 'line 231: 2', '3'): 'equivalent: a wider bound on rounding; more is read again, and the proof stands',
    ('matching/exact.py', 'line 308: 0', '1'): 'equivalent: the progress bar only, whose count is set just before',
    ('matching/exact.py', 'line 329: 0.5', '1.5'): 'equivalent: how finely a list is read again; slower or faster, the proof stands',
    ('matching/exact.py', 'line 331: if len(kind) <= 1024 or len(kind) * goal.max() <= 2 * goal.sum():', 'if not (len(kind) <= 1024 or len(kind) * goal.max() <= 2 * goal.sum()):'):
        'equivalent: whether the pool is read once for all lists or once a length; slower or faster, the proof stands',
    ('matching/exact.py', 'line 252: not whole', 'not not whole'): 'noticed since: test_matching.py::test_a_list_is_coarse_where_errors_blur_what_it_tells_apart',
    ('matching/exact.py', 'line 466: len(x) * len(y) * min(capacity, max(len(x), 1))', 'len(x) * len(y) + min(capacity, max(len(x), 1))'):
        'noticed since: test_matching.py::test_the_full_matrix_is_for_small_problems_whatever_the_capacity',
    ('matching/exact.py', 'line 518: columns >= m', 'columns > m'): 'noticed since: test_matching.py::test_a_column_behind_the_last_is_no_assignment',
    ('benchmarks/hierarchy/metrics.py', 'line 181: 2000', '2001'): 'equivalent: one more draw of a bootstrap',
    ('benchmarks/devcv/score.py', 'line 154: if isinstance(said, list):', 'if not isinstance(said, list):'):
        'noticed since: test_devcv.py::test_a_round_that_is_answered_with_several_letters_shares_its_point',
    ('benchmarks/devcv/score.py', 'line 291: return task_name(name)', 'return None'): 'noticed since: test_devcv.py::test_leaderboard',
    ('benchmarks/parsing.py', "line 632: ends and before.endswith(', ') and (not _WHEN.search(before))", "ends or before.endswith(', ') or (not _WHEN.search(before))"):
        'noticed since: test_parsing.py::test_a_yes_that_ends_a_sentence_is_said',
    ('benchmarks/parsing.py', 'line 81: 2', '3'): 'noticed since: test_parsing.py::test_marks_of_thoughts_close_each_other_whatever_their_names',
    ('matching/exact.py', 'line 279: 2', '3'): 'equivalent: how many lists are sorted at a time',
    ('matching/exact.py', 'line 282: 0', '1'): 'noticed since: test_matching.py::test_lists_are_put_in_the_order_of_todays_prices_each_columns_own',
    ('matching/exact.py', 'line 313: 512', '513'): 'equivalent: how many queries a pass takes at least; slower or faster, the proof stands',
    ('matching/exact.py', 'line 364: 2', '3'): 'equivalent: how much further a list that ends in a tie is read; slower or faster, the ties are the same',
    ('matching/exact.py', 'line 365: 26', '27'): 'equivalent: how many entries ties may take, 1 GiB here; smaller problems never come near',
    ('matching/exact.py', 'line 454: False', 'True'): 'noticed since: test_matching.py::test_a_checkpoint_never_runs_what_it_holds',
    ('benchmarks/devcv/score.py', 'line 71: len(said[i.uid]) < len(i.rounds)', 'len(said[i.uid]) <= len(i.rounds)'): 'equivalent: all records that can be read have sixteen rounds',
    ('matching/exact.py', 'line 151: used < capacity', 'used <= capacity'): 'noticed since: test_matching.py::test_both_solvers_give_the_same_columns',
    ('matching/exact.py', 'line 321: len(short) // 10', 'len(short) * 10'): 'equivalent: how many lists that came close are read with those that are short; slower or faster, the proof stands',
    ('matching/exact.py', 'line 330: (4 if many else 2) * size', '(4 if many else 2) + size'): 'equivalent: how much longer a list becomes; slower or faster, the proof stands',
    ('matching/exact.py', 'line 331: 1024', '1025'): 'equivalent: whether the pool is read once for all lists or once a length; slower or faster, the proof stands',
    ('data/saycam.py:assign_splits,split_pairs', 'line 551: 0', '1'): 'noticed since: test_saycam.py::test_shares_of_splits_are_checked_and_whole'}


def mutants(module: str, n: int, seed: int = 0) -> list[tuple]:
    "A sample of the changes of a module, or of some of its functions: (Trial, what was there, what is there)."
    file, _, functions = module.partition(':')
    text = (ROOT/'babyvlm'/file).read_text()
    tree = ast.parse(text)
    spans = [(f.lineno, f.end_lineno) for f in tree.body if getattr(f, 'name', None) in functions.split(',')] or [(0, 10**9)]
    inside = [i for i, (line, *_) in enumerate(ordered(tree)) if any(a <= line <= b for a, b in spans)]
    drawn = [mutate(text, i) for i in random.Random(f'{module}/{seed}').sample(inside, min(n, len(inside)))]
    tests = tuple(f'tests/test_{t}.py' for t in MODULES[module].split())
    return [(Trial(f'{module} {i}', file, new, tests), old, now) for i, (new, old, now) in enumerate(drawn)]


def argued(known: dict) -> dict:
    "Results in the order of the modules, each survivor with what is said of it in `ARGUED`."
    for module, r in known.items():
        for s in r['survivors']: s['reason'] = ARGUED.get((module, s['was'], s['now']), '')
        r['equivalent'] = sum(s['reason'].startswith('equivalent') for s in r['survivors'])
    return {m: known[m] for m in MODULES if m in known}


def main(argv: Sequence[str] = None) -> int:
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--module', nargs='*', default=list(MODULES), choices=list(MODULES), metavar='NAME', help='default: all')
    p.add_argument('--n', type=int, default=25, help='mutants of each module; 0: only the reasons of survivors are written anew')
    p.add_argument('--seed', type=int, default=0, help='of the sample')
    p.add_argument('--jobs', type=int, default=1, help='trials at a time')
    a = p.parse_args(argv)
    path = RESULTS/'mutation.json'
    known = json.loads(path.read_text()) if path.is_file() else {}
    for module in a.module if a.n else ():
        drawn = mutants(module, a.n, a.seed)
        what = {t.name: (old, now) for t, old, now in drawn}
        (clean,), found = run([Trial('unchanged', tests=drawn[0][0].tests)]), {}
        if clean['status'] != 'missed': raise SystemExit(f"{module}: the tests fail on the code as it is: {clean['by']}")
        for end in run([replace(t, took=clean['took']) for t, *_ in drawn], a.jobs):
            found[end['name']] = end
            print(end['name'], end['status'], end['by'], flush=True)
        alive = sorted(what[k] for k, e in found.items() if e['status'] != 'caught')
        known[module] = dict(mutants=len(drawn), killed=len(drawn) - len(alive), equivalent=0, seed=a.seed,
                             survivors=[dict(was=old, now=now, reason='') for old, now in alive])
        print(module, known[module], flush=True)
        write('mutation', argued(known))
    write('mutation', argued(known))
    return 0


if __name__ == '__main__': sys.exit(main())

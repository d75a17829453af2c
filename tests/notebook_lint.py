"""The notebook guide as checks. Each check yields (notebook, cell, message)."""
import ast
import io
import re
import tokenize
from pathlib import Path

import nbformat

EXPORT_LINES, LESSON_LINES, WIDTH = 25, 12, 110
EXPORT = re.compile(r'^#\|\s*export\b', re.M)
DIRECTIVE = re.compile(r'^#\|\s*(\S+)', re.M)
UNSTEADY = {'absolute path': re.compile(r'(?<![\w.:/])/(?:home|tmp|work|root|Users|var|opt|mnt)/\w'),
            'memory address': re.compile(r'\b0x[0-9a-f]{6,}'),
            'time of day': re.compile(r'\b\d{1,2}:\d{2}:\d{2}\b'),
            'date and time': re.compile(r'\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d')}


def is_export(c): return c.cell_type == 'code' and bool(EXPORT.search(c.source))
def is_hidden(c): return bool(re.search(r'^#\|\s*hide\b', c.source, re.M))
def body(c): return [l for l in c.source.splitlines() if l.strip() and not l.lstrip().startswith('#|')]
def parse(c): return ast.parse('\n'.join(l if not l.lstrip().startswith(('%', '!')) else 'pass' for l in c.source.splitlines()))


def title(nb):
    first = next((c for c in nb.cells if c.cell_type == 'markdown'), None)
    lines = [l for l in (first.source.splitlines() if first else []) if l.strip()]
    if not lines or not lines[0].startswith('# '): yield 0, 'no title: the first markdown cell starts with "# "'
    elif len(lines) < 2 or not lines[1].startswith('> '): yield 0, 'no "> subtitle" under the title'


def cell_sizes(nb):
    for i, c in enumerate(nb.cells):
        if c.cell_type != 'code' or is_hidden(c): continue
        n, most = len(body(c)), EXPORT_LINES if is_export(c) else LESSON_LINES
        only_imports = c.source.strip() and all(isinstance(s, (ast.Import, ast.ImportFrom)) for s in parse(c).body)
        if n > most and not only_imports: yield i, f'{n} lines in a cell; at most {most}'
        for line in c.source.splitlines():
            if len(line) > WIDTH: yield i, f'line of {len(line)} characters; at most {WIDTH}'


def imports_alone(nb):
    for i, c in enumerate(nb.cells):
        if c.cell_type != 'code': continue
        top = parse(c).body
        has = [isinstance(s, (ast.Import, ast.ImportFrom)) for s in top]
        if any(has) and not all(has): yield i, 'imports and other code in one cell'


def no_print_last(nb):
    for i, c in enumerate(nb.cells):
        if c.cell_type != 'code' or is_export(c): continue
        top = parse(c).body
        last = top[-1] if top else None
        if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) and getattr(last.value.func, 'id', '') == 'print':
            yield i, 'ends in print: end in a value'


def narrow_excepts(nb):
    for i, c in enumerate(nb.cells):
        if c.cell_type != 'code': continue
        for node in ast.walk(parse(c)):
            if not isinstance(node, ast.ExceptHandler): continue
            broad = node.type is None or getattr(node.type, 'id', '') in ('Exception', 'BaseException')
            if broad and not any(isinstance(n, ast.Raise) for n in ast.walk(node)): yield i, 'broad except that does not raise'


def _commented(source):
    "Line numbers that carry a comment."
    return {t.start[0] for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT}


def docments(nb):
    for i, c in enumerate(nb.cells):
        if not is_export(c): continue
        lines = _commented(c.source)
        for node in parse(c).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
                if not ast.get_docstring(node): yield i, f'class {node.name} has no docstring'
                funcs = [n for n in node.body if isinstance(n, ast.FunctionDef) and (n.name == '__init__' or not n.name.startswith('_'))]
            else: funcs = [node] if isinstance(node, ast.FunctionDef) and not node.name.startswith('_') else []
            for f in funcs: yield from ((i, m) for m in _function(f, lines))


def _function(f, lines):
    args = [a for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs) if a.arg not in ('self', 'cls')]
    args += [a for a in (f.args.vararg, f.args.kwarg) if a]
    typer_option = {d.lineno for d in f.args.defaults if isinstance(d, ast.Call) and getattr(d.func, 'value', None)
                    and getattr(d.func.value, 'id', '') == 'typer'}
    inherited = any(getattr(d, 'id', '') in ('property',) for d in f.decorator_list)
    overrides = f.name in OVERRIDES
    for a in args:
        if a.lineno not in lines and a.lineno not in typer_option and not overrides: yield f'{f.name}: parameter {a.arg} has no docment'
    if f.name != '__init__' and len(args) and not ast.get_docstring(f) and not overrides: yield f'{f.name} has no docstring'
    if (f.end_lineno - f.lineno + 1) > 40: yield f'{f.name} has {f.end_lineno - f.lineno + 1} lines'


# methods that a base class of torch, transformers or the standard library documents
OVERRIDES = {'forward', 'training_step', 'compute_loss', 'evaluate', 'log', 'get_train_dataloader', 'save_model', 'prepare_inputs_for_generation',
             'preprocess', 'get_input_embeddings', 'set_input_embeddings', 'get_output_embeddings', 'set_output_embeddings',
             'on_step_end', 'on_log', 'on_evaluate', 'on_train_begin', 'on_train_end', 'on_epoch_end', 'on_epoch_begin',
             'create_optimizer', 'create_scheduler', 'prediction_step', 'run', 'update'}


def shown(nb):
    code = [(i, c) for i, c in enumerate(nb.cells) if c.cell_type == 'code']
    exports = [(k, i, c) for k, (i, c) in enumerate(code) if is_export(c) and not _only_imports(c)]
    bare = [i for k, i, c in exports if not any(not is_export(x) for _, x in code[k+1:k+3])]
    if exports and len(bare) / len(exports) > .2:
        yield bare[0], f'{len(bare)} of {len(exports)} exported cells are not followed by a lesson within two cells: {bare}'


def _only_imports(c): return all(isinstance(s, (ast.Import, ast.ImportFrom)) for s in parse(c).body)


def outputs(nb):
    for i, c in enumerate(nb.cells):
        if c.cell_type != 'code': continue
        for o in c.get('outputs', []):
            if o.output_type == 'error': yield i, 'a stored error'
            if o.output_type == 'stream' and o.name == 'stderr': yield i, 'a stored warning or progress bar (stderr)'
            texts = [o.get('text', '')] + [v for k, v in o.get('data', {}).items() if k.startswith('text/')]
            for t in texts:
                t = ''.join(t) if isinstance(t, list) else str(t)
                for what, pattern in UNSTEADY.items():
                    m = pattern.search(re.sub(r'data:[\w/+;=,-]+', '', t))
                    if m: yield i, f'{what} in an output: {t[max(0, m.start()-20):m.end()+20]!r}'


CUT = re.compile(r'<t[dh][^>]*>[^<]*(?:\.\.\.|…)\s*</t[dh]>')   # of pandas: 50 characters of a cell, and columns left out


def whole(nb):
    for i, c in enumerate(nb.cells):
        for o in c.get('outputs', []):
            m = CUT.search(''.join(o.get('data', {}).get('text/html', '')))
            if m: yield i, f'a table with a cell that is cut: {m[0]!r}; call whole_tables() first'


CHECKS = [title, cell_sizes, imports_alone, no_print_last, narrow_excepts, docments, shown, outputs, whole]


def lint(path):
    "All violations of one notebook, as lines."
    nb = nbformat.read(path, 4)
    return [f'{Path(path).name} cell {i}: {check.__name__}: {message}' for check in CHECKS for i, message in check(nb)]


if __name__ == '__main__':
    import sys
    found = [m for p in sys.argv[1:] for m in lint(p)]
    sys.exit('\n'.join(found) if found else 0)

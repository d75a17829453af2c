"""README.md out of nbs/index.ipynb, without Quarto."""
import posixpath
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

root = Path(__file__).resolve().parent.parent
LINK = re.compile(r'(!?\[[^\]]*\]\()([^)\s]+)([^)]*\))|((?:src|href)=")([^"]+)(")')


def from_top(target):
    "A link of nbs/index.ipynb as seen from the top of the checkout."
    if re.match(r'[a-z]+:|#|/', target): return target
    path, hash_, part = target.partition('#')
    return posixpath.normpath(posixpath.join('nbs', path)) + hash_ + part


def relinked(text):
    "Markdown with links that work in README.md; code blocks stay as they are."
    def one(m):
        before, target, after = m.groups()[:3] if m[1] else m.groups()[3:]
        return before + from_top(target) + after
    parts = re.split(r'(^```.*?^```$)', text, flags=re.M | re.S)
    return ''.join(p if p.startswith('```') else LINK.sub(one, p) for p in parts)


def visible(nb):
    "The notebook without hidden cells and directives."
    hidden = re.compile(r'^#\|\s*(hide|default_exp|include:\s*false)\b', re.M)
    nb.cells = [c for c in nb.cells if not hidden.search(c.source)]
    for c in nb.cells:
        if c.cell_type == 'markdown': c.source = relinked(c.source)
        else:
            c.metadata['as_written'] = c.source
            if re.search(r'^#\|\s*echo:\s*false', c.source, re.M): c.metadata['transient'] = dict(remove_source=True)
            c.source = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M)
    nb.metadata['language_info'] = dict(name='python')
    return nb


def readme():
    "Text of README.md and the pictures it shows, {path: bytes}."
    nb = visible(nbformat.read(root/'nbs'/'index.ipynb', 4))
    text, resources = MarkdownExporter().from_notebook_node(nb, resources=dict(output_files_dir='figures/readme', unique_key='index'))
    for n, c in enumerate(nb.cells):   # a picture that a cell drew is described as the cell says
        alt = re.search(r'^#\|\s*fig-alt:\s*(.+)$', c.get('metadata', {}).get('as_written', ''), re.M)
        if alt: text = re.sub(rf'!\[\w+\]\((figures/readme/index_{n}_)', lambda m: f'![{alt[1]}]({m[1]}', text)
    head = '<!-- made from nbs/index.ipynb by .ci/readme.py; edit that notebook -->\n\n'
    return head + re.sub(r'\n{3,}', '\n\n', text).strip() + '\n', resources.get('outputs', {})


def write():
    "Bring README.md up to date; the paths that changed."
    if not (root/'nbs'/'index.ipynb').exists(): return []
    text, pictures = readme()
    files = {'README.md': text.encode()} | pictures
    changed = [f for f, b in files.items() if not (root/f).exists() or (root/f).read_bytes() != b]
    for old in (root/'figures'/'readme').glob('*'):
        if f'figures/readme/{old.name}' not in files: old.unlink(); changed.append(f'figures/readme/{old.name}')
    for f in (f for f in changed if f in files):
        (root/f).parent.mkdir(parents=True, exist_ok=True)
        (root/f).write_bytes(files[f])
    return changed


if __name__ == '__main__': sys.stdout.write(f"written: {', '.join(write()) or 'nothing, all is up to date'}\n")

"""Everything that nbdev_docs does before it calls Quarto, without Quarto; then what both renderings of the site need."""
import ast
import inspect
import os
import re
import shutil
import tempfile
from pathlib import Path

import fastcore.docments as docments
import nbformat
from nbdev.config import get_config
from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
from nbdev.serve import proc_nbs
from typer.models import ParameterInfo

from babyvlm.reporting.page import anchor, collect, report_html
from babyvlm.store import Store

_signature, _facts = docments.signature, docments._DocmentBase.__init__
LINK = re.compile(r'(\]\()([^)\s#]+)((?:#[^)\s]*)?\))')
FENCE = re.compile(r'(^```.*?^```$|`[^`\n]+`)', re.M | re.S)


def signature(obj, eval_str=False, **kwargs):
    "Configurations of transformers carry annotations as text whose names are not all importable: show those as text."
    try: return _signature(obj, eval_str=eval_str, **kwargs)
    except NameError: return _signature(obj, **kwargs)


def facts(self, obj):
    "A parameter of a command has the default that a user gets, not the object that describes the option."
    _facts(self, obj)
    for p in self.dm.values():
        if isinstance(option := p.get('default'), ParameterInfo): p['default'] = inspect.Parameter.empty if option.default is ... else option.default


docments._DocmentBase.__init__ = facts
docments.signature = signature   # here and not in a function: each worker imports this file


def data_cards(site):
    "Quarto renders no file called README: in the site a card is the index page of its folder."
    for card in site.glob('data_cards/*/README.md'): shutil.copyfile(card, card.with_name('index.md'))
    config = site/'_quarto.yml'
    text = re.sub(r'(data_cards/\w+)/README\.md', r'\1/index.md', config.read_text(encoding='utf-8'))
    config.unlink()   # it may be a link to the source
    config.write_text(text, encoding='utf-8')


def notebooks(folder):
    "Relative names of the notebooks below a folder."
    return {p.relative_to(folder) for p in folder.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts}


def in_site(target, page, source, site):
    "Where a link that leaves the notebooks' folder leads in the site; files that it needs are copied there."
    file = Path(os.path.normpath(source/page.parent/target))
    if re.match(r'[a-z]+:', target) or not file.exists() or file.is_relative_to(source): return target
    inside = file.relative_to(source.parent)
    if inside.parts[0] == 'data_cards': inside = inside.with_name('index.md') if inside.name == 'README.md' else inside
    elif inside.parts[0] == 'figures':
        (site/inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, site/inside)
    else: return target
    return os.path.relpath(site/inside, (site/page).parent)


def relink(text, page, source, site):
    "A page's Markdown with every link as the site needs it; code stays as it is."
    def one(m): return m[1] + in_site(m[2], page, source, site) + m[3]
    return ''.join(part if k % 2 else LINK.sub(one, part) for k, part in enumerate(FENCE.split(text)))


def _literal(node):
    try: return ast.literal_eval(node)
    except ValueError: return None


def described(source, before):
    "Alt text for a picture: what `save_figure` was told, or the last sentence above it."
    try: tree = ast.parse(re.sub(r'^[#%!].*$', '', source, flags=re.M))
    except SyntaxError: tree = ast.Module([], [])
    for n in ast.walk(tree):
        if isinstance(n, ast.Assign) and any(getattr(t, 'id', '') == 'alt' for t in n.targets) and isinstance(_literal(n.value), str):
            return ' '.join(_literal(n.value).split())
    plain = re.sub(r'[*_`#]|\[([^\]]*)\]\([^)]*\)', r'\1', before).strip()
    sentence = re.split(r'(?<=[.!?:])\s+', ' '.join(plain.split()))[-1] if plain else ''
    return f'Picture made by this cell. {sentence}'.strip()


def alt_texts(nb):
    "Every picture of a page gets words; a cell that says its own (`fig-alt`) keeps them."
    changed, before = False, ''
    for c in nb.cells:
        if c.cell_type == 'markdown': before = c.source or before
        drawn = any(k.startswith('image/') for o in c.get('outputs', ()) for k in o.get('data', {}))
        if not drawn or '#| fig-alt:' in c.source: continue
        words = described(c.source, before).replace('"', "'").replace('\\', '')
        c.source, changed = f'#| fig-alt: "{words}"\n{c.source}', True
    return changed


def finish(site, source):
    "Links and alt texts of the processed pages."
    for page in sorted(notebooks(site)):
        nb = nbformat.read(site/page, 4)
        changed = alt_texts(nb) | committed(nb, page, source)
        for c in nb.cells:
            if c.cell_type != 'markdown': continue
            text = relink(c.source, page, source, site)
            changed, c.source = changed or text != c.source, text
        if changed: nbformat.write(nb, site/page)
    for profile in sorted((source.parent/'figures').glob('*/report.md')): publish(profile.parent, site/'figures'/profile.parent.name)


def publish(profile, to):
    "The report and the explorer of a run; git keeps no report.html, so it is written from the tables where it is missing or older than they are."
    to.mkdir(parents=True, exist_ok=True)
    for name in ('report.html', 'explorer.html'):
        if (profile/name).exists(): shutil.copyfile(profile/name, to/name)
    if (profile/'report.html').exists(): return
    newest = max(f.stat().st_mtime for f in profile.rglob('*.*'))
    if (to/'report.html').exists() and (to/'report.html').stat().st_mtime > newest: return
    with tempfile.TemporaryDirectory() as empty: text = report_html(collect(profile, Store(empty)))
    (to/'report.html').write_text(text, encoding='utf-8')


SMALL = '*This page shows a run of the small profile `toy`. Of the committed run, profile `study`, which the front page counts:*'
SAVED = re.compile(r"'((?:v1|v2|hierarchy)/\d\d_\w+)'")


def committed(nb, page, source):
    "A paper page shows a run of the small profile: where the tables and figures of the committed run are."
    first, study = next((c for c in nb.cells if c.cell_type == 'markdown'), None), source.parent/'figures'/'study'
    if page.parts[0] != 'papers' or SMALL in first.source: return False
    to, code = os.path.relpath('figures/study', page.parent), '\n'.join(c.source for c in nb.cells if c.cell_type == 'code')
    names = [n for n in dict.fromkeys(SAVED.findall(code)) if (study/f'{n}.json').exists()]
    links = [f"[{n.partition('_')[2].replace('_', ' ')}]({to}/report.html#{anchor(n)})" for n in names]
    if len(page.parts) == 2: links = [f'[report]({to}/report.html)', f'[items and answers]({to}/explorer.html)']
    if links: first.source += f'\n\n{SMALL} {", ".join(links)}.'
    return bool(links)


def prepare():
    "Fill _proc/ with the processed notebooks and the site's configuration."
    refresh_quarto_yml()
    nbdev_sidebar.__wrapped__()
    source, site = get_config().nbs_path, get_config().config_path/'_proc'
    pages, made = notebooks(source), notebooks(site)
    for gone in made - pages: (site/gone).unlink()
    site = proc_nbs(source, n_workers=2, force=bool(pages - made))   # a run that was cut short is done again
    data_cards(site)
    finish(site, Path(source).resolve())
    return site


if __name__ == '__main__': print('prepared', prepare().name)

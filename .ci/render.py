"""The prepared pages as plain HTML in _site/, without Quarto: for a local look and for a test with a real browser."""
import html
import json
import os
import re
import shutil
import sys
from pathlib import Path

import latex2mathml.converter
import nbformat
import yaml
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html

here = Path(__file__).resolve().parent
root = here.parent
FENCE = re.compile(r'(^```.*?^```$|`[^`\n]+`)', re.M | re.S)
MATH = re.compile(r'\$\$(.+?)\$\$|(?<![\\$\w])\$(?! )([^$\n]+?)(?<! )\$(?!\w)', re.S)
exporter = HTMLExporter(template_name='basic', exclude_input_prompt=True, exclude_output_prompt=True, embed_widgets=False, exclude_anchor_links=True)


def outline(site):
    "[(section, [page, ...]), ...] of the site, from its own configuration."
    config = yaml.safe_load((site/'_quarto.yml').read_text(encoding='utf-8'))
    return [(s['section'], s['contents']) for s in config['website']['sidebar']['contents']]


def front_matter(text):
    m = re.match(r'---\n(.*?)\n---\n', text, re.S)
    return (yaml.safe_load(m[1]), text[m.end():]) if m else ({}, text)


def target(page, front):
    "The HTML file of a page."
    return (Path(page).parent/front.get('output-file', Path(page).stem + '.html')).with_suffix('.html').as_posix()


def equations(text):
    "LaTeX between dollar signs as MathML, which browsers draw by themselves."
    def one(m):
        tex, display = (m[1], 'block') if m[1] else (m[2], 'inline')
        try: return latex2mathml.converter.convert(tex.strip(), display=display)
        except Exception as e: raise ValueError(f'not LaTeX: {tex!r}') from e
    return ''.join(p if k % 2 else MATH.sub(one, p) for k, p in enumerate(FENCE.split(text)))


def slug(heading): return re.sub(r'[^0-9a-z]+', '-', re.sub(r'<[^>]+>', '', heading).lower()).strip('-')


def anchored(page):
    "Headings that can be linked to; below the title the first level is 2."
    seen, first = {}, page.find('<h2')
    def one(m):
        level, attrs, text = m.groups()
        if level == '3' and not 0 <= first < m.start(): level = '2'
        known = re.search(r'id="([^"]+)"', attrs)
        name = known[1] if known else slug(html.unescape(text)) or 'section'
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1: name += f'-{seen[name]}'
        return f'<h{level} id="{name}">{text}</h{level}>'
    return re.sub(r'<h([1-6])([^>]*)>(.*?)</h\1>', one, page, flags=re.S)


def results_first(page, nb):
    "On pages of results plumbing leaves no trace: what a cell only echoes is not shown, and code without a result joins the next."
    if not page.startswith('papers/'): return nb
    cells, waiting = [], []
    for c in nb.cells:
        if c.cell_type == 'code':
            c.outputs = [o for o in c.outputs if o.output_type != 'execute_result' or set(o.data) - {'text/plain'}]
            if not c.outputs: waiting.append(c.source); continue
            c.source, waiting = '\n\n'.join([*waiting, c.source]), []
        cells.append(c)
    if waiting: cells.append(nbformat.v4.new_code_cell('\n\n'.join(waiting), metadata=dict(alt='')))
    nb.cells = figure_first(cells)
    return nb


def figure_first(cells):
    "The first figure stands above everything but the introduction; its code stays where it was."
    k = next((k for k, c in enumerate(cells) if c.cell_type == 'code' and any(is_picture(o) for o in c.outputs)), None)
    if k is None: return cells
    drawn = [o for o in cells[k].outputs if is_picture(o)]
    cells[k].outputs = [o for o in cells[k].outputs if not is_picture(o)]
    above = nbformat.v4.new_code_cell('', outputs=drawn, metadata=dict(alt=cells[k].metadata['alt'], transient=dict(remove_source=True)))
    start = next((j for j, c in enumerate(cells) if c.cell_type == 'markdown'), -1) + 1
    return [*cells[:start], above, *cells[start:]]


def is_picture(output): return any(k.startswith('image/') for k in output.get('data', {}))


def shorter(page, body):
    "On pages of results a long table is a click away, under its caption."
    least = 16 if page.startswith('papers/') else 40
    if not page.startswith(('papers/', 'guides/')): return body
    def one(m):
        said = re.search(r'<(?:caption|td class="gt_heading[^"]*")[^>]*>(.*?)</(?:caption|td)>', m[0], re.S)
        rows, words = m[0].count('<tr') - 2, re.sub('<[^>]+>', '', said[1]).strip() if said else 'Table'
        return m[0] if rows < least else f'<details class="long"><summary>{words} ({rows} rows)</summary>{m[0]}</details>'
    return re.sub(r'<table\b.*?</table>', one, body, flags=re.S)


def one_header(body):
    "The name of an index stands in the header of its column, not in a row of its own."
    two = re.compile(r'(<tr[^>]*>\s*)<th>[^<]*</th>((?:\s*<th>[^<]*</th>)*\s*</tr>)\s*<tr>\s*(<th>[^<]+</th>)(?:\s*<th></th>)+\s*</tr>')
    return two.sub(r'\1\3\2', body)


def folded(page, body):
    "On pages about results the code is a click away, as in Quarto."
    if not page.startswith(('papers/', 'guides/')): return body
    area = re.compile(r'<div class="input_area">\s*(<div class="highlight.*?</pre>\s*</div>)\s*</div>', re.S)
    return area.sub(lambda m: f'<details class="code"><summary>Code</summary>{m[1]}</details>', body)


def shown(nb):
    "A processed notebook without directives and without what they hide; pictures know their alt text."
    cells = []
    for c in nb.cells:
        if c.cell_type == 'raw': continue
        if c.cell_type == 'markdown': c.source = equations(c.source)
        else:
            said = dict(re.findall(r'^#\|\s*([\w-]+):?[ \t]*(.*)$', c.source, re.M))
            if 'hide' in said or said.get('include') == 'false': continue
            alt = said.get('fig-alt', '').strip('"')
            for o in c.get('outputs', ()):
                for kind in [k for k in o.get('data', {}) if k.startswith('image/') and k != 'image/svg+xml']:
                    o.metadata.setdefault(kind, {})['alt'] = alt
                if 'text/markdown' in o.get('data', {}):
                    text = re.sub(r'(?<=\))\{[^{}\n]*\}', '', ''.join(o.data['text/markdown']))   # attributes that only Quarto reads
                    o.data['text/markdown'] = equations(text)
                if 'text/html' in o.get('data', {}): o.data['text/html'] = unlinked(''.join(o.data['text/html']))
                if any('widget' in k for k in o.get('data', {})): o.data = {k: v for k, v in o.data.items() if 'widget' not in k}
            if said.get('echo') == 'false': c.metadata['transient'] = dict(remove_source=True)
            c.source = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M)
            c.metadata['alt'] = alt
        cells.append(c)
    nb.cells = cells
    return nb


def unlinked(part):
    "A piece of another file, as a cell shows it: what its links lead to is not here."
    return re.sub(r' href="(?![a-z]+:)([^"]*)"', lambda m: m[0] if m[1][:1] == '#' and f'id="{m[1][1:]}"' in part else '', part)


def with_alt(body, alts):
    "nbconvert's placeholder for a missing description, replaced in order."
    todo = iter(alts)
    return re.sub(r'alt="No description has been provided for this image"', lambda m: f'alt="{html.escape(next(todo, "Picture"), quote=True)}"', body)


def body_of(site, page):
    "(front matter, HTML of the body) of a notebook or a Markdown page."
    if page.endswith('.ipynb'):
        nb = nbformat.read(site/page, 4)
        front = front_matter(nb.cells[0].source + '\n')[0] if nb.cells and nb.cells[0].cell_type == 'raw' else {}
        nb = results_first(page, shown(nb))
        alts = [c.metadata['alt'] for c in nb.cells if c.cell_type == 'code' for o in c.get('outputs', ())
                if any(k in o.get('data', {}) for k in ('image/png', 'image/jpeg')) and 'text/html' not in o.get('data', {})]
        return front, shorter(page, folded(page, one_header(with_alt(exporter.from_notebook_node(nb)[0], alts))))
    front, text = front_matter((site/page).read_text(encoding='utf-8'))
    return front, re.sub('<a class="anchor-link".*?</a>', '', markdown2html(equations(text)))


def relinked(body, page, out, targets):
    "Links between sources as links between HTML pages."
    def one(m):
        name, hash_, part = m[2].partition('#')
        goal = os.path.normpath(os.path.join(os.path.dirname(page), name))
        if goal not in targets: return m[0]
        return f'{m[1]}{os.path.relpath(targets[goal], os.path.dirname(out) or ".")}{hash_}{part}"'
    return re.sub(r'((?:href|src)=")((?![a-z]+:|#)[^"]+)"', one, body)


def said(text): return re.sub('`([^`]+)`', r'<code>\1</code>', html.escape(str(text)))


def side(sections, titles, targets, page, out):
    "The list of pages, the section of this page open."
    up = os.path.dirname(out) or '.'
    def link(p):
        mark = ' aria-current="page"' if p == page else ''
        return f'<li><a href="{os.path.relpath(targets[p], up)}"{mark}>{html.escape(titles[p])}</a></li>'
    parts = (f'<details{" open" if page in pages else ""}><summary>{html.escape(s)}</summary><ul>{"".join(map(link, pages))}</ul></details>'
             for s, pages in sections)
    return ''.join(parts)


def contents(body):
    "The headings of a page as a list of links; nothing for a short page."
    found = re.findall(r'<h2 id="([^"]+)">(.*?)</h2>', body, re.S)
    if len(found) < 3: return ''
    rows = ''.join(f'<li><a href="#{name}">{re.sub("<[^>]+>", "", text).strip()}</a></li>' for name, text in found)
    return f'<details class="contents"><summary>On this page</summary><ul>{rows}</ul></details>'


def neighbours(pages, titles, targets, page):
    "Links to the page before and the page after."
    k, up, out = pages.index(page), os.path.dirname(targets[page]) or '.', ''
    for rel, word, at in (('prev', '← ', k - 1), ('next', '', k + 1)):
        if not 0 <= at < len(pages): continue
        text = f'{word}{html.escape(titles[pages[at]])}' + ' →'*(rel == 'next')
        out += f'<a rel="{rel}" href="{os.path.relpath(targets[pages[at]], up)}">{text}</a>'
    return f'<nav class="neighbours" aria-label="Neighbouring pages">{out}</nav>'


def overview(sections, fronts, targets):
    "llms.txt: what this is, and a line on every page."
    lines = ['# babyvlm', '', f"> {fronts['index.ipynb'].get('description', '')}"]
    for section, pages in sections:
        lines += ['', f'## {section}', '']
        lines += [f"- [{fronts[p].get('title', Path(p).stem)}]({targets[p]}): {fronts[p].get('description') or ''}".rstrip(': ') for p in pages]
    return '\n'.join(lines) + '\n'


def words(body):
    "What a page says; its code is no answer to somebody who searches."
    body = re.sub(r'<pre>.*?</pre>|<summary>Code</summary>', ' ', body, flags=re.S)
    return ' '.join(html.unescape(re.sub(r'<(script|style|svg|math)\b.*?</\1>|<[^>]+>|data:[^"\s]+', ' ', body, flags=re.S)).split())


def render(site=root/'_proc', to=root/'_site', only=None):
    "Render all pages, or those in `only`; the index of the search holds what was rendered."
    sections = outline(site)
    pages = [p for _, ps in sections for p in ps]
    fronts = {p: head(site, p) for p in pages}
    titles = {p: f.get('title', Path(p).stem) for p, f in fronts.items()}
    targets = {p: target(p, f) for p, f in fronts.items()}
    shell, index = (here/'site.html').read_text(encoding='utf-8'), []
    for p in (p for p in pages if only is None or p in only):
        front, body = body_of(site, p)
        body, out = anchored(relinked(body, p, targets[p], targets)), targets[p]
        up = os.path.relpath('.', os.path.dirname(out) or '.')
        lead = f'<h1>{html.escape(titles[p])}</h1><p class="lead">{said(front.get("description") or "")}</p>'
        parts = dict(title='babyvlm' if p == 'index.ipynb' else f'{html.escape(titles[p])} – babyvlm', up=up, nav=side(sections, titles, targets, p, out),
                     body=lead + contents(body) + body + neighbours(pages, titles, targets, p))
        (to/out).parent.mkdir(parents=True, exist_ok=True)
        (to/out).write_text(re.sub(r'\{\{(\w+)\}\}', lambda m: parts[m[1]], shell), encoding='utf-8')
        index.append(dict(url=out, title=titles[p], text=words(body)[:4000]))
    (to/'search-index.js').write_text('const PAGES = ' + json.dumps(index, ensure_ascii=False).replace('</', '<\\/') + ';\n', encoding='utf-8')
    (to/'llms.txt').write_text(overview(sections, fronts, targets), encoding='utf-8')
    for name in ('site.css', 'site.js'): shutil.copyfile(here/name, to/name)
    if (site/'figures').exists(): shutil.copytree(site/'figures', to/'figures', dirs_exist_ok=True)
    return to


def head(site, page):
    "Title and output file of a page."
    if page.endswith('.ipynb'):
        cells = nbformat.read(site/page, 4).cells
        return front_matter(cells[0].source + '\n')[0] if cells and cells[0].cell_type == 'raw' else {}
    return front_matter((site/page).read_text(encoding='utf-8'))[0]


if __name__ == '__main__': print('rendered', render(only=sys.argv[1:] or None).name)

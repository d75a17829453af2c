// Everything that comes from data goes through textContent: a caption cannot become part of the page.
const DATA = JSON.parse(document.getElementById('data').textContent);
const $ = id => document.getElementById(id);
const STEP = 25;
let limit = STEP;

function make(tag, text, kind) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (kind) e.className = kind;
  return e;
}

function fill(select, values) {
  select.append(new Option('all', ''));
  for (const v of values) select.append(new Option(v, v));
}

// '/a pattern/' is a regular expression; else all words must occur.
function finder(find) {
  if (find.length > 2 && find.startsWith('/') && find.endsWith('/')) {
    try { const rule = new RegExp(find.slice(1, -1), 'i'); return t => rule.test(t); } catch { return null; }
  }
  const words = find.toLowerCase().split(/\s+/).filter(Boolean);
  return t => words.every(w => t.toLowerCase().includes(w));
}

function fits(row, holds) {
  const [task, model, verdict] = [$('task').value, $('model').value, $('verdict').value];
  if (task && row.task !== task) return false;
  if ($('disagree').checked && !row.disagree) return false;
  const answers = row.answers.filter(a => !model || a.model === model);
  if (model && !answers.length) return false;
  if (verdict && !answers.some(a => a.verdict === verdict)) return false;
  return holds([row.uid, row.prompt, ...row.options, ...row.answers.map(a => a.text)].join('\n'));
}

function pictures(row) {
  const box = make('div', undefined, 'pictures');
  row.images.forEach((k, i) => {
    const f = make('figure', undefined, row.gold_image === i ? 'gold' : '');
    const name = row.images.length > 1 ? `picture ${i + 1}` : 'picture';
    if (k >= 0) {
      const im = make('img');
      im.src = DATA.pictures[k];
      im.alt = `${name} of ${row.uid}`;
      im.loading = 'lazy';
      f.append(im);
    }
    f.append(make('figcaption', (k >= 0 ? name : `${name} (not in this file)`) + (row.gold_image === i ? ', right ✓' : '')));
    box.append(f);
  });
  return box;
}

const COLUMNS = { chosen: a => a.chosen, scores: a => a.scores, reply: a => a.text, rule: a => [a.rule, a.reason].filter(Boolean).join('; ') };

function answers(row) {
  const table = make('table'), head = make('tr');
  const shown = Object.entries(COLUMNS).filter(([, get]) => row.answers.some(get));   // no empty columns
  for (const h of ['model', 'verdict', ...shown.map(([name]) => name)]) { const th = make('th', h); th.scope = 'col'; head.append(th); }
  table.append(head);
  for (const a of row.answers) {
    const line = make('tr');
    line.append(make('td', a.model), make('td', a.verdict, a.verdict.replace(' ', '-')),
      ...shown.map(([name, get]) => make('td', get(a), { scores: 'num', reply: 'said' }[name])));
    table.append(line);
  }
  const box = make('div', undefined, 'scroll');   // wide tables scroll, by keys too
  box.tabIndex = 0;
  box.setAttribute('role', 'region');
  box.setAttribute('aria-label', `answers to ${row.uid}`);
  box.append(table);
  return box;
}

function show() {
  const holds = finder($('find').value);
  if (!holds) { $('count').textContent = 'no regular expression yet'; return; }
  const found = DATA.rows.filter(row => fits(row, holds));
  $('count').textContent = `${found.length} of ${DATA.rows.length} items`;
  $('items').replaceChildren(...found.slice(0, limit).map(row => {
    const card = make('article');
    card.id = row.uid;
    card.append(make('h2', row.title), pictures(row));
    if (row.prompt) card.append(make('p', row.prompt, 'prompt'));
    if (row.options.length) card.append(make('p', row.options.join('\n'), 'prompt'));
    if (row.reference) card.append(make('p', `reference: ${row.reference}`, 'prompt'));
    card.append(answers(row));
    return card;
  }));
  $('more').hidden = found.length <= limit;
}

// A link may name a task as a table does: 'Labeled-S' is 'labeled_s'.
function plain(name) { return name.toLowerCase().replace(/[^0-9a-z]/g, ''); }

const FILTERS = ['task', 'model', 'verdict', 'disagree', 'find'];

// The address names the filter, so that a link shows the same items; the first hit is in sight.
function restart() {
  limit = STEP;
  show();
  const set = FILTERS.map(id => [id, $(id).type === 'checkbox' ? ($(id).checked ? 'true' : '') : $(id).value]).filter(([, v]) => v);
  history.replaceState(null, '', set.length ? '#' + new URLSearchParams(set) : location.pathname + location.search);
  const top = $('items').getBoundingClientRect().top, bar = $('filters').getBoundingClientRect().bottom;
  if (top < bar) window.scrollBy(0, top - bar - 8);
}

fill($('task'), [...new Set(DATA.rows.map(r => r.task))]);
fill($('model'), [...new Set(DATA.rows.flatMap(r => r.answers.map(a => a.model)))]);
fill($('verdict'), [...new Set(DATA.rows.flatMap(r => r.answers.map(a => a.verdict)))]);
for (const [k, v] of new URLSearchParams(location.hash.slice(1))) {
  const e = $(k);
  if (!e) continue;
  if (e.type === 'checkbox') e.checked = v === 'true';
  else if (e.tagName === 'SELECT') e.value = [...e.options].map(o => o.value).find(o => plain(o) === plain(v)) ?? '';
  else e.value = v;
}
for (const id of FILTERS) $(id).addEventListener('input', restart);
$('more').addEventListener('click', () => { limit += STEP; show(); });
show();

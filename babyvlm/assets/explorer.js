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

function fits(row) {
  const [task, model, verdict, word] = [$('task').value, $('model').value, $('verdict').value, $('find').value.toLowerCase()];
  if (task && row.task !== task) return false;
  if ($('disagree').checked && !row.disagree) return false;
  const answers = row.answers.filter(a => !model || a.model === model);
  if (model && !answers.length) return false;
  if (verdict && !answers.some(a => a.verdict === verdict)) return false;
  return !word || [row.uid, row.prompt, ...row.options, ...row.answers.map(a => a.text)].join('\n').toLowerCase().includes(word);
}

function pictures(row) {
  const box = make('div', undefined, 'pictures');
  row.images.forEach((k, i) => {
    const f = make('figure', undefined, row.gold_image === i ? 'gold' : '');
    const name = row.images.length > 1 ? `picture ${i}` : 'picture';
    if (k >= 0) {
      const im = make('img');
      im.src = DATA.pictures[k];
      im.alt = `${name} of ${row.uid}`;
      im.loading = 'lazy';
      f.append(im);
    }
    f.append(make('figcaption', k >= 0 ? name : `${name} (not in this file)`));
    box.append(f);
  });
  return box;
}

function answers(row) {
  const table = make('table'), head = make('tr');
  for (const h of ['model', 'verdict', 'chosen', 'scores', 'reply', 'rule']) head.append(make('th', h));
  table.append(head);
  for (const a of row.answers) {
    const line = make('tr');
    line.append(make('td', a.model), make('td', a.verdict, a.verdict.replace(' ', '-')), make('td', a.chosen),
      make('td', a.scores, 'num'), make('td', a.text, 'said'), make('td', [a.rule, a.reason].filter(Boolean).join('; ')));
    table.append(line);
  }
  const box = make('div', undefined, 'scroll');
  box.append(table);
  return box;
}

function show() {
  const found = DATA.rows.filter(fits);
  $('count').textContent = `${found.length} of ${DATA.rows.length} items`;
  $('items').replaceChildren(...found.slice(0, limit).map(row => {
    const card = make('article');
    card.id = row.uid;
    card.append(make('h2', `${row.task}: ${row.uid}`), pictures(row));
    if (row.prompt) card.append(make('p', row.prompt, 'prompt'));
    if (row.options.length) card.append(make('p', row.options.length === 1 ? row.options[0]
      : row.options.map((o, i) => `${i}: ${o}${i === row.gold ? ' ✓' : ''}`).join('\n'), 'prompt'));
    if (row.reference) card.append(make('p', `reference: ${row.reference}`, 'prompt'));
    card.append(answers(row));
    return card;
  }));
  $('more').hidden = found.length <= limit;
}

// A link may name a task as a table does: 'Labeled-S' is 'labeled_s'.
function plain(name) { return name.toLowerCase().replace(/[^0-9a-z]/g, ''); }

function restart() { limit = STEP; show(); }

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
for (const id of ['task', 'model', 'verdict', 'disagree', 'find']) $(id).addEventListener('input', restart);
$('more').addEventListener('click', () => { limit += STEP; show(); });
show();

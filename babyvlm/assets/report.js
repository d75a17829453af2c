const rows = [...document.querySelectorAll('#cells tbody tr')];
const [find, paper, status, count] = ['q', 'p', 's', 'count'].map(i => document.getElementById(i));

// The address names the filter: '#values&q=CVCL&p=v1'.
function restart() {
  narrow();
  const set = [find, paper, status].map(e => [e.id, e.value]).filter(([, v]) => v);
  history.replaceState(null, '', '#' + ['values', ...(set.length ? [new URLSearchParams(set)] : [])].join('&'));
}

function narrow() {
  let shown = 0;
  const word = find.value.toLowerCase();
  for (const r of rows) {
    const fits = (!status.value || r.dataset.status === status.value) && (!paper.value || r.dataset.paper === paper.value)
      && (!word || r.textContent.toLowerCase().includes(word));
    r.hidden = !fits;
    shown += fits;
  }
  count.textContent = shown ? `${shown} of ${rows.length}` : 'nothing fits; clear a filter';
}

function unfold() {
  const target = document.getElementById(location.hash.slice(1).split('&')[0]);
  if (!target) return;
  for (let e = target; e; e = e.parentElement) if (e.tagName === 'DETAILS') e.open = true;
  target.scrollIntoView();
}

// A table that is too wide for its place becomes a card a row; wide again, it is a table again.
function fit(part) {
  for (const box of part.querySelectorAll('.scroll')) {
    box.classList.remove('cards');
    if (!box.clientWidth || box.scrollWidth <= box.clientWidth + 1) continue;
    const heads = [...box.querySelectorAll('thead th')].map(h => h.textContent);
    for (const row of box.querySelectorAll('tbody tr')) [...row.cells].forEach((c, k) => { c.dataset.head = heads[k]; });
    box.classList.add('cards');
  }
}
document.addEventListener('toggle', e => fit(e.target), true);
addEventListener('resize', () => fit(document));

for (const b of document.querySelectorAll('.zoom')) b.addEventListener('click', () => b.setAttribute('aria-pressed', b.ariaPressed !== 'true'));

for (const e of [find, paper, status]) {
  e.value = new URLSearchParams(location.hash.slice(1)).get(e.id) ?? '';
  e.addEventListener('input', restart);
}
addEventListener('hashchange', unfold);
fit(document);
narrow();
unfold();

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

for (const e of [find, paper, status]) {
  e.value = new URLSearchParams(location.hash.slice(1)).get(e.id) ?? '';
  e.addEventListener('input', restart);
}
addEventListener('hashchange', unfold);
narrow();
unfold();

// Menu, dark mode and search of the plain site; works from a file, without a server.
const up = document.currentScript?.dataset.up ?? document.querySelector('script[data-up]').dataset.up;
const [menu, nav, dark, search, found] = ['menu', 'pages', 'dark', 'search', 'found'].map(i => document.getElementById(i));

function paint(on) {
  document.documentElement.dataset.theme = on ? 'dark' : 'light';
  dark.textContent = on ? 'Light' : 'Dark';
}

let night = matchMedia('(prefers-color-scheme: dark)').matches;
try { const kept = localStorage.getItem('theme'); if (kept) night = kept === 'dark'; } catch (e) { /* a file may have no storage */ }
paint(night);
dark.addEventListener('click', () => {
  night = !night;
  paint(night);
  try { localStorage.setItem('theme', night ? 'dark' : 'light'); } catch (e) { /* as above */ }
});
menu.addEventListener('click', () => menu.setAttribute('aria-expanded', nav.classList.toggle('open')));

function load(then) {
  if (typeof PAGES !== 'undefined') { then(); return; }
  const s = document.createElement('script');
  s.src = `${up}/search-index.js`;
  s.onload = then;
  document.head.append(s);
}

function look() {
  const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  if (!terms.length) { close(); return; }
  const score = p => terms.reduce((n, t) => {
    const [inTitle, inText] = [p.title.toLowerCase().includes(t), p.text.toLowerCase().includes(t)];
    return n < 0 || !(inTitle || inText) ? -1 : n + (inTitle ? 10 : 1);
  }, 0);
  const hits = PAGES.map(p => [score(p), p]).filter(([s]) => s > 0).sort((a, b) => b[0] - a[0]).slice(0, 12);
  found.replaceChildren(...hits.map(([, p], k) => {
    const a = document.createElement('a'), part = document.createElement('small');
    a.href = `${up}/${p.url}`;
    a.id = `hit${k}`;
    a.setAttribute('role', 'option');
    a.textContent = p.title;
    part.textContent = excerpt(p.text, terms);
    a.append(part);
    return a;
  }));
  if (!hits.length) found.textContent = 'nothing found';
  found.hidden = false;
  search.setAttribute('aria-expanded', 'true');
  mark(0);
}

// The words around the first hit.
function excerpt(text, terms) {
  const at = Math.max(0, ...terms.map(t => text.toLowerCase().indexOf(t)));
  const from = at < 50 ? 0 : text.indexOf(' ', at - 50) + 1, to = text.lastIndexOf(' ', from + 140);
  return (from ? '… ' : '') + text.slice(from, to > from ? to : text.length) + ' …';
}

function close() {
  found.hidden = true;
  search.setAttribute('aria-expanded', 'false');
  search.removeAttribute('aria-activedescendant');
}

function mark(k) {
  const hits = [...found.querySelectorAll('a')];
  if (!hits.length) return;
  const now = (k + hits.length) % hits.length;
  hits.forEach((a, i) => a.setAttribute('aria-selected', i === now));
  search.setAttribute('aria-activedescendant', hits[now].id);
  hits[now].scrollIntoView({ block: 'nearest' });
}

search.addEventListener('input', () => load(look));
search.addEventListener('keydown', e => {
  const hits = [...found.querySelectorAll('a')], now = hits.findIndex(a => a.getAttribute('aria-selected') === 'true');
  if (e.key === 'Escape') { close(); search.blur(); }
  if (found.hidden || !hits.length) return;
  if (e.key === 'Enter') hits[Math.max(0, now)].click();
  if (e.key === 'ArrowDown' || e.key === 'ArrowUp') { e.preventDefault(); mark(now + (e.key === 'ArrowDown' ? 1 : -1)); }
});
document.addEventListener('keydown', e => {
  if (e.key !== '/' || /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? '')) return;
  e.preventDefault();
  search.focus();
});
document.addEventListener('click', e => { if (!found.contains(e.target) && e.target !== search) close(); });

// Code can be taken along.
for (const pre of document.querySelectorAll('main .highlight pre')) {
  const b = document.createElement('button');
  b.type = 'button';
  b.className = 'copy';
  b.textContent = 'Copy';
  b.addEventListener('click', async () => {
    try { await navigator.clipboard.writeText(pre.innerText); b.textContent = 'Copied'; } catch { b.textContent = 'Select and copy'; }
    setTimeout(() => { b.textContent = 'Copy'; }, 1500);
  });
  pre.parentElement.classList.add('with-copy');
  pre.parentElement.append(b);
}

// A figure that is drawn smaller than it was made is enlarged by a press; then its place is scrolled.
function enlargeable() {
  for (const img of document.querySelectorAll('main img')) {
    const made = Number(img.getAttribute('width')) || img.naturalWidth;
    if (img.closest('a, td, .zoom') || made <= img.clientWidth + 8) continue;
    const b = document.createElement('button');
    b.type = 'button';
    b.className = 'zoom';
    b.setAttribute('aria-pressed', 'false');
    b.addEventListener('click', () => { b.setAttribute('aria-pressed', b.getAttribute('aria-pressed') !== 'true'); reach(); });
    img.parentElement.classList.add('cut');
    img.replaceWith(b);
    b.append(img);
  }
}

// What is wider than the page is scrolled by key too, and shows that it goes on.
function goesOn(e) { e.classList.toggle('more', e.tabIndex === 0 && e.scrollLeft + e.clientWidth < e.scrollWidth - 1); }

function reach() {
  for (const e of document.querySelectorAll('main pre, main table, main .output_subarea, main .rendered_html, main .cut, main [style*=overflow]')) {
    if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'visible') e.tabIndex = 0;
    else e.removeAttribute('tabindex');
    goesOn(e);
    e.onscroll = () => goesOn(e);
  }
}
for (const when of ['load', 'resize']) addEventListener(when, () => { enlargeable(); reach(); });

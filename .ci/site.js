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
  if (!terms.length) { found.hidden = true; return; }
  const score = p => terms.reduce((n, t) => {
    const [inTitle, inText] = [p.title.toLowerCase().includes(t), p.text.toLowerCase().includes(t)];
    return n < 0 || !(inTitle || inText) ? -1 : n + (inTitle ? 10 : 1);
  }, 0);
  const hits = PAGES.map(p => [score(p), p]).filter(([s]) => s > 0).sort((a, b) => b[0] - a[0]).slice(0, 12);
  found.replaceChildren(...hits.map(([, p]) => {
    const a = document.createElement('a');
    a.href = `${up}/${p.url}`;
    a.textContent = p.title;
    return a;
  }));
  if (!hits.length) found.textContent = 'nothing found';
  found.hidden = false;
}

search.addEventListener('input', () => load(look));

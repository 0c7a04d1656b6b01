// Views by the address's fragment: #/, #/problem/N[/W], #/compare, #/provenance.
import { dropCharts } from './charts.js';
import { compare } from './compare.js';
import { h } from './dom.js';
import { overview } from './overview.js';
import { problemView } from './problem.js';
import { provenance } from './provenance.js';

const main = document.getElementById('main');
const views = [
  { path: '#/', name: 'Overview', show: () => overview(render) },
  { path: '#/compare', name: 'Compare', show: () => compare(render) },
  { path: '#/provenance', name: 'Provenance', show: () => provenance() },
];

function render() {
  dropCharts();
  const hash = location.hash || '#/';
  const [, kind, number, winner] = hash.split('/');
  const view = views.find((v) => v.path === hash) ?? views[0];
  const content = kind === 'problem' ? problemView(Number(number), Number(winner ?? 0)) : view.show();
  main.replaceChildren(...content.flat(Infinity).filter(Boolean));
  document.title = `${main.querySelector('h1').textContent} – kgen report`;
  document
    .getElementById('nav')
    .replaceChildren(...views.map((v) => h('a', { href: v.path, 'aria-current': kind !== 'problem' && v === view && 'page' }, v.name)));
}

// Dark, light, or as the system says; kept where the browser lets a page from a file keep anything.
const themes = ['system', 'light', 'dark'];
const button = document.getElementById('theme');
let theme = 'system';
try {
  theme = themes.find((t) => t === localStorage.getItem('kgen-theme')) ?? theme;
} catch {}
function applyTheme() {
  if (theme === 'system') document.documentElement.removeAttribute('data-theme');
  else document.documentElement.dataset.theme = theme;
  button.textContent = `Theme: ${theme}`;
}
button.addEventListener('click', () => {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  try {
    localStorage.setItem('kgen-theme', theme);
  } catch {}
  applyTheme();
  render();
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', render);
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener('hashchange', () => {
  render();
  scrollTo(0, 0);
  main.focus({ preventScroll: true });
});
applyTheme();
render();

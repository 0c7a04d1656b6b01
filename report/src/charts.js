// Chart.js, with as little of it as the page needs. Charts say in words what they show; what they plot is also in tables.
import {
  Chart,
  LinearScale,
  LineController,
  LineElement,
  LogarithmicScale,
  PointElement,
  ScatterController,
  Legend,
} from 'chart.js';
import { h } from './dom.js';

Chart.register(LinearScale, LineController, LineElement, LogarithmicScale, PointElement, ScatterController, Legend);
Chart.defaults.animation = false;
Chart.defaults.font.family = 'inherit';

let alive = [];
export function dropCharts() {
  alive.forEach((chart) => chart.destroy());
  alive = [];
}

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// A dot drawn once: thousands of them are then copies, not paths.
function dot(fill, radius) {
  const size = 2 * radius + 2;
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = size;
  const pen = canvas.getContext('2d');
  pen.fillStyle = fill;
  pen.beginPath();
  pen.arc(size / 2, size / 2, radius, 0, 2 * Math.PI);
  pen.fill();
  return canvas;
}

// 1, 2 and 5 times a power of ten.
const isRound = (value) => /^[125](\.0*)?e/.test(value.toExponential(6));

// Chart.js would draw all again for each dot that the pointer passes; this draws nothing.
function listen(chart, canvas, tip, about, onPick) {
  const under = (event) => {
    const hits = chart.getElementsAtEventForMode(event, 'nearest', { intersect: true }, false);
    const hit = hits.find(({ datasetIndex }) => !chart.data.datasets[datasetIndex].showLine);
    return hit && { point: chart.data.datasets[hit.datasetIndex].data[hit.index], at: hit.element };
  };
  canvas.addEventListener('pointermove', (event) => {
    const hit = under(event);
    canvas.style.cursor = hit && onPick ? 'pointer' : '';
    tip.hidden = !hit;
    if (!hit) return;
    tip.replaceChildren(...about(hit.point).map((line) => h('div', {}, line)));
    const left = Math.max(0, Math.min(hit.at.x + 12, canvas.clientWidth - tip.offsetWidth));
    const below = hit.at.y + 14 + tip.offsetHeight < canvas.clientHeight;
    tip.style.left = `${left}px`;
    tip.style.top = `${below ? hit.at.y + 14 : Math.max(0, hit.at.y - 14 - tip.offsetHeight)}px`;
  });
  canvas.addEventListener('pointerleave', () => (tip.hidden = true));
  canvas.addEventListener('click', (event) => {
    const hit = under(event);
    if (hit) onPick?.(hit.point);
  });
}

// series: {label, points: [{x, y, …}], colour (a CSS variable), line, radius, dash}. about(point) → lines that say what is
// under the pointer; a click on it calls onPick(point).
export function plot({ series, x, y, summary, about, onPick, tall }) {
  const canvas = h('canvas', { role: 'img', 'aria-label': summary });
  const tip = h('div', { class: 'tip', hidden: true });
  const box = h('div', { class: tall ? 'chart tall' : 'chart' }, canvas, tip);
  const axis = (options) => ({
    type: options.log ? 'logarithmic' : 'linear',
    min: options.min,
    max: options.max,
    reverse: options.reverse,
    title: { display: true, text: options.title, color: colour('quiet') },
    grid: { color: colour('line') },
    border: { color: colour('line') },
    ticks: {
      color: colour('quiet'),
      maxRotation: 0,
      includeBounds: false,
      precision: options.whole ? 0 : undefined,
      callback(value, _, ticks) {
        if (options.tick) return options.tick(value);
        if (!options.log) return Number(value.toPrecision(6)).toLocaleString('en');
        const round = ticks.filter((tick) => isRound(tick.value)).length;
        return round < 3 || isRound(value) ? String(Number(value.toPrecision(3))) : '';
      },
      ...(options.step ? { stepSize: options.step, autoSkip: false } : {}),
    },
  });
  const chart = () =>
    new Chart(canvas, {
      type: 'scatter',
      data: {
        datasets: series
          .filter((s) => s.points.length > 0)
          .map((s) => ({
            label: s.label,
            data: s.points,
            parsing: false,
            showLine: Boolean(s.line),
            stepped: s.line === 'step',
            borderColor: colour(s.colour),
            backgroundColor: colour(s.colour),
            borderDash: s.dash ? [6, 4] : [],
            borderWidth: 2,
            pointStyle: s.line ? false : dot(colour(s.colour), s.radius ?? 3),
            hitRadius: s.line ? 0 : 6,
          })),
      },
      options: {
        responsive: true,
        maintainAspectRatio: false,
        normalized: true,
        events: [],
        scales: { x: axis(x), y: axis(y) },
        plugins: {
          legend: { labels: { color: colour('text'), usePointStyle: false, boxWidth: 12, boxHeight: 12 } },
        },
      },
    });
  // Chart.js measures its parent: wait until it stands in the page.
  queueMicrotask(() => {
    if (!box.isConnected) return;
    const drawn = chart();
    alive.push(drawn);
    listen(drawn, canvas, tip, about, onPick);
  });
  return box;
}

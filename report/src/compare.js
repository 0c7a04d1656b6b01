// Two devices, or the same in two files, side by side.
import { plot } from './charts.js';
import { rows, sides } from './data.js';
import { h, num, section, table, times } from './dom.js';
import { problemLink } from './overview.js';
import { difference, geomean } from './stats.js';

let [first, second] = [sides[0]?.id, sides[1]?.id];

export function compare(rerender) {
  if (sides.length < 2)
    return [
      h('h1', {}, 'Compare'),
      h('p', {}, 'There is one device of one file here. Give several files, or one with several devices: '),
      h('pre', {}, 'kgen report before.db after.db -o report.html'),
    ];
  const pick = (id, label, value, set) =>
    h(
      'label',
      {},
      `${label} `,
      h('select', { id, onchange: (e) => (set(e.target.value), rerender()) }, sides.map((s) => h('option', { value: s.id, selected: s.id === value }, s.name))),
    );
  const of = (side) =>
    new Map(rows.filter((r) => r.problem.side === side && r.trial).map((r) => [`${r.problem.key} | ${r.goal} | ${r.winner.serves?.first ?? ''}`, r]));
  const [a, b] = [of(first), of(second)];
  const both = [...a].filter(([key]) => b.has(key)).map(([key, left]) => ({ left, right: b.get(key), ratio: left.trial.time / b.get(key).trial.time }));
  const only = (mine, other) => [...mine.keys()].filter((key) => !other.has(key)).length;
  const nameOf = (id) => sides.find((s) => s.id === id).name;
  const changed = ({ left, right }) => difference(left.trial.config, right.trial.config);
  const columns = [
    { label: 'Operator', value: (r) => r.left.problem.op, text: (r) => r.left.problem.signature, show: (r) => h('span', {}, r.left.problem.op, h('small', {}, r.left.problem.attributes)) },
    { label: 'Shape', value: (r) => r.left.problem.dims, show: (r) => r.left.problem.dims },
    { label: 'Label', value: (r) => r.left.problem.label, show: (r) => r.left.problem.label },
    { label: 'Left µs', numeric: true, value: (r) => r.left.trial.time, show: (r) => h('a', { href: problemLink(r.left) }, num(r.left.trial.time)) },
    { label: 'Right µs', numeric: true, value: (r) => r.right.trial.time, show: (r) => h('a', { href: problemLink(r.right) }, num(r.right.trial.time)) },
    { label: 'Left over right', numeric: true, largeFirst: true, value: (r) => r.ratio, show: (r) => h('span', { class: r.ratio > 1.02 ? 'good' : r.ratio < 0.98 ? 'failed' : '' }, times(r.ratio)) },
    { label: 'Trials', numeric: true, value: (r) => r.left.tried + r.right.tried, show: (r) => `${r.left.tried} / ${r.right.tried}` },
    {
      label: 'Winners differ in',
      value: (r) => changed(r).map((d) => d.join(' ')).join(', '),
      show: (r) => {
        const list = changed(r);
        return list.length === 0 ? 'nothing' : h('span', { class: 'chips' }, list.map(([name, x, y]) => h('code', {}, `${name} ${x} → ${y}`)));
      },
    },
  ];
  const sorted = [...both].sort((x, y) => x.ratio - y.ratio);
  return [
    h('h1', {}, 'Compare'),
    h('p', { class: 'controls' }, pick('left', 'Left', first, (v) => (first = v)), pick('right', 'Right', second, (v) => (second = v))),
    both.length === 0
      ? h('p', {}, 'They have no problem with a winner for the same goal in common.')
      : [
          h(
            'p',
            { id: 'summary' },
            `${both.length} problem${both.length === 1 ? '' : 's'} in common; right is ${times(geomean(both.map((r) => r.ratio)))} as fast as left (geometric mean), faster by over 2 % in ${both.filter((r) => r.ratio > 1.02).length}, slower in ${both.filter((r) => r.ratio < 0.98).length}. Only left: ${only(a, b)}; only right: ${only(b, a)}.`,
          ),
          section(
            'Each problem',
            plot({
              summary: `Time of left over that of right for ${both.length} problems, sorted`,
              series: [
                { label: 'left over right', points: sorted.map((r, at) => ({ x: at + 1, y: r.ratio, r })), colour: 'dot' },
                { label: 'the same', points: [{ x: 0, y: 1 }, { x: both.length + 1, y: 1 }], colour: 'roof', line: true },
              ],
              x: { title: 'problems, sorted', min: 0, max: both.length + 1, whole: true },
              y: { title: 'time of left over time of right', log: true },
              about: ({ r, y }) => [`${r.left.problem.op} ${r.left.problem.dims}`, `${num(r.left.trial.time)} and ${num(r.right.trial.time)} µs: ${times(y)}`],
              onPick: ({ r }) => (location.hash = problemLink(r.right)),
            }),
            table({ id: 'compare', caption: `${nameOf(first)} (left) and ${nameOf(second)} (right)`, search: 'operator, shape, label, parameter', columns, rows: both, sort: 5, descending: true }),
          ),
        ],
  ];
}

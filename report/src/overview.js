// All problems: a table to search and sort, and the roofline of what the search leaves.
import { ceilings, devices, files, roofShare, rows, shellQuoted } from './data.js';
import { code, h, num, percent, section, table, times } from './dom.js';
import { rooflineBox } from './roofline.js';

export const problemLink = (row) => `#/problem/${row.problem.number}${row.number ? `/${row.number}` : ''}`;

const columns = [
  {
    label: 'Operator',
    value: (r) => r.problem.op,
    text: (r) => r.problem.signature,
    show: (r) =>
      h('a', { href: problemLink(r) }, r.problem.op, h('small', {}, r.problem.attributes)),
  },
  { label: 'Shape', value: (r) => r.problem.dims, show: (r) => h('span', { class: 'shape' }, r.problem.dims) },
  { label: 'Time µs', numeric: true, value: (r) => r.trial?.time, show: (r) => (r.trial ? num(r.trial.time) : r.untimed ? 'untimed' : 'none of its own') },
  { label: 'TFLOP/s', numeric: true, largeFirst: true, value: (r) => r.trial && r.problem.tflops(r.trial.time), show: (r) => r.trial && num(r.problem.tflops(r.trial.time)) },
  { label: 'GB/s', numeric: true, largeFirst: true, value: (r) => r.trial && r.problem.gbps(r.trial.time), show: (r) => r.trial && num(r.problem.gbps(r.trial.time)) },
  { label: 'Of roof', numeric: true, value: (r) => r.trial && roofShare(r.problem, r.trial.time), show: (r) => r.trial && percent(roofShare(r.problem, r.trial.time)) },
  { label: 'Over default', numeric: true, largeFirst: true, value: (r) => r.gain, show: (r) => times(r.gain) },
  { label: 'Trials', numeric: true, largeFirst: true, value: (r) => r.tried, show: (r) => String(r.tried) },
  { label: 'Failed', numeric: true, largeFirst: true, value: (r) => r.failed, show: (r) => String(r.failed) },
  {
    label: 'Device',
    value: (r) => `${r.problem.deviceOf.arch} ${r.problem.deviceOf.name}`,
    show: (r) => h('span', { title: r.problem.deviceOf.name }, r.problem.deviceOf.arch),
  },
  { label: 'Best at', value: (r) => r.goal, show: (r) => h('span', { class: 'line' }, r.trial || !r.untimed ? r.goal : 'default, not searched') },
  { label: 'Label', value: (r) => r.problem.label, show: (r) => r.problem.label && r.problem.label.split(/(?<=[._])/).flatMap((part) => [part, h('wbr')]) },
  { label: 'Winner', value: (r) => (r.trial ?? r.untimed)?.config, show: (r) => h('code', { class: 'line', title: r.untimed?.reason }, (r.trial ?? r.untimed)?.config ?? '') },
];

const sought = { text: '' };

export function overview(rerender) {
  const roof = h('div');
  const draw = (left) => {
    const device = h('select', { id: 'roof-device', onchange: () => show() });
    for (const number of new Set(left.map((r) => r.problem.device)))
      device.append(h('option', { value: String(number) }, `${devices[number].name} (${devices[number].arch})`));
    const [fields, box] = [h('span', { class: 'controls' }), h('div')];
    const show = () => {
      const number = Number(device.value);
      fields.replaceChildren(...peaks(number, rerender));
      box.replaceChildren(rooflineBox(number, left.filter((r) => r.problem.device === number)));
    };
    roof.replaceChildren(h('p', { class: 'controls' }, h('label', {}, 'Device ', device), fields), box);
    if (left.length > 0) show();
    else box.append(h('p', {}, 'Nothing matches the search.'));
  };
  const list = table({
    id: 'overview',
    caption: 'Problems and their winners',
    search: 'operator, shape, label, device, winner: all words must be there',
    columns,
    rows,
    sought,
    onRows: draw,
  });
  return [
    h('h1', {}, 'Overview'),
    section('Problems', list),
    section('Roofline of every candidate', roof),
    section('Repeat it', code(files.map((f) => `kgen verify ${shellQuoted(f.path)}`).join('\n') + `\nkgen bench ${files.map((f) => shellQuoted(f.path)).join(' ')}`, 'the commands')),
  ];
}

// The reader may know the device's limits better than the files do.
function peaks(device, rerender) {
  const field = (name, label) =>
    h(
      'label',
      {},
      `${label} `,
      h('input', {
        type: 'number',
        min: '0',
        step: 'any',
        id: `peak-${name}`,
        value: String(Number(ceilings[device][name].toPrecision(4))),
        onchange: (event) => {
          const value = Number(event.target.value);
          const ceiling = ceilings[device];
          ceiling[name] = value > 0 ? value : ceiling[name === 'gbps' ? 'seenGbps' : 'seenTflops'];
          rerender();
        },
      }),
    );
  return [field('tflops', 'Roof TFLOP/s'), field('gbps', 'Roof GB/s')];
}

// Work per byte against speed, under the device's ceilings. One dot is one candidate: problems stand side by side, since
// all candidates of a problem do the same work on the same bytes.
import { plot } from './charts.js';
import { ceilings, devices, problems } from './data.js';
import { h, num } from './dom.js';

const dot = (problem, trial) => ({ x: problem.flops / problem.bytes, y: problem.tflops(trial.time), problem, trial });
const shows = (problem) => problem.flops > 0 && problem.bytes > 0;

function about({ problem, trial }) {
  return [
    `${problem.op} ${problem.dims}`,
    trial.config,
    `${num(trial.time, 'µs')}, ${num(problem.tflops(trial.time), 'TFLOP/s')}, ${num(problem.gbps(trial.time), 'GB/s')}`,
  ];
}

function box(device, all, winners, wonLabel) {
  const { tflops, gbps, seenTflops, seenGbps } = ceilings[device];
  const xs = all.concat(winners).map((p) => p.x);
  if (xs.length === 0) return h('p', {}, 'No candidate with both work and bytes was timed.');
  const low = xs.reduce((a, b) => Math.min(a, b), Infinity) / 2;
  const high = xs.reduce((a, b) => Math.max(a, b), 0) * 2;
  const ridge = (tflops * 1e3) / gbps;
  const roof = [low, ...(ridge > low && ridge < high ? [ridge] : []), high].map((x) => ({ x, y: Math.min(tflops, (x * gbps) / 1e3) }));
  const seen = tflops === seenTflops && gbps === seenGbps;
  return h(
    'div',
    {},
    plot({
      tall: true,
      summary: `Roofline of ${devices[device].name}: ${all.length} candidates of ${new Set(all.map((p) => p.problem)).size} problems under ${num(tflops)} TFLOP/s and ${num(gbps)} GB/s`,
      series: [
        { label: wonLabel, points: winners, colour: 'winner', radius: 4 },
        { label: 'candidates', points: all, colour: 'dot', radius: 2 },
        { label: 'roof', points: roof, colour: 'roof', line: true },
      ],
      x: { title: 'FLOP per byte that must move', log: true, min: low, max: high },
      y: { title: 'TFLOP/s', log: true },
      about,
      onPick: ({ problem }) => (location.hash = `#/problem/${problem.number}`),
    }),
    h(
      'p',
      { class: 'note' },
      seen
        ? `The roof is the best that anything in these files reached on ${devices[device].name}: ${num(seenTflops)} TFLOP/s and ${num(seenGbps)} GB/s. Bytes are the fewest that the problem must move, so caches can lift a dot over it.`
        : `The roof is as given: ${num(tflops)} TFLOP/s and ${num(gbps)} GB/s.`,
    ),
  );
}

export function rooflineBox(device, rows) {
  const all = [...new Set(rows.map((r) => r.problem))]
    .filter(shows)
    .flatMap((p) => p.all().filter((t) => t.ok).map((t) => dot(p, t)));
  return box(device, all, rows.filter((r) => r.trial && shows(r.problem)).map((r) => dot(r.problem, r.trial)), 'winners');
}

// Of an operator on the problem's device, with the problem picked out.
export function operatorRoofline(problem) {
  const same = problems.filter((p) => p.op === problem.op && p.device === problem.device && p.file === problem.file && shows(p));
  const of = (list) => list.flatMap((p) => p.all().filter((t) => t.ok).map((t) => dot(p, t)));
  return box(problem.device, of(same.filter((p) => p !== problem)), shows(problem) ? of([problem]) : [], 'this problem');
}

// From where all of it is.
import { devices, files, made, problems, rows } from './data.js';
import { bytes, facts, h, moment, section } from './dom.js';

const count = (values) => {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
};

export function provenance() {
  const trialsOf = (test) => problems.filter(test).flatMap((p) => p.all());
  const bounds = (trials) => {
    const times = trials.map((t) => t.at).filter((at) => at > 0);
    const low = times.reduce((a, b) => Math.min(a, b), Infinity);
    const high = times.reduce((a, b) => Math.max(a, b), 0);
    return high ? `${moment(low)} to ${moment(high)}` : 'not known';
  };
  const sources = count(rows.filter((r) => r.winner).map((r) => (r.winner.source && !r.winner.source_note ? 'made again, same hash' : r.winner.source_note.replace(/[0-9a-f]{16,}/g, '…'))));
  return [
    h('h1', {}, 'Provenance'),
    facts([
      ['page made', moment(made.at)],
      ['by', `kgen ${made.version}`],
    ]),
    files.map((file, number) => {
      const trials = trialsOf((p) => p.file === number);
      return section(
        file.path,
        facts([
          ['schema', file.schema_version],
          ['problems here', problems.filter((p) => p.file === number).length],
          ['trials in the file', file.trials],
          ['winners in the file', file.winners],
          ['code objects', `${file.objects} (${bytes(file.object_bytes)})`],
          ['trials recorded', bounds(trials)],
        ]),
        h('h3', {}, 'Ends of the trials'),
        h('ul', {}, count(trials.map((t) => t.status)).map(([status, n]) => h('li', {}, `${n} ${status.replaceAll('_', ' ')}`))),
        h('h3', {}, 'Compilers'),
        h('ul', {}, count(trials.map((t) => t.compiler)).map(([compiler, n]) => {
          const [version, options, kgen] = compiler.split('\n');
          return h('li', {}, `${n} trials: ${version}`, options && h('code', {}, ` ${options}`), `, kgen ${kgen}`);
        })),
      );
    }),
    section(
      'Devices',
      devices.map((d) => h('div', {}, h('h3', {}, `${d.name} (${d.arch})`), facts([
        ['driver', d.driver],
        ['uuid', d.uuid],
        ['compute units', d.compute_units || ''],
        ['memory', d.memory_bytes ? bytes(d.memory_bytes) : ''],
        ['L2', d.l2_bytes ? bytes(d.l2_bytes) : ''],
        ['clock', d.clock_khz ? `${d.clock_khz / 1000} MHz` : ''],
      ]))),
    ),
    section('Winners’ sources', h('ul', {}, sources.map(([what, n]) => h('li', {}, `${n}: ${what}`)))),
  ];
}

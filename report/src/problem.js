// One problem: its winner and why it won, the search, the candidates.
import { plot } from './charts.js';
import { made, paramsOf, problems, repeatLine, roofShare, rows, ceilings, sourceText } from './data.js';
import { bytes, code, facts, h, moment, num, percent, section, table, times } from './dom.js';
import { operatorRoofline } from './roofline.js';
import { difference, importance, median, pairGrid, points, probabilityBelow, quantile } from './stats.js';

// Parameters of two variants are not comparable.
function changes(from, to) {
  const [[name, a, b], ...others] = difference(from, to);
  if (name === 'variant') return `variant ${b} instead of ${a}`;
  return [[name, a, b], ...others].map(([what, x, y]) => `${what} ${x} → ${y}`).join(', ');
}

// The reasons, in words, each from numbers of this page.
function whyItWon(row, ranked) {
  const { problem, winner, trial } = row;
  const failed = problem.all().filter((t) => !t.ok).length;
  const reasons = [];
  const place = ranked.findIndex((t) => t.config === trial.config);
  const byEnergy = winner.goal.includes('energy');
  const value = (t) => (byEnergy ? t.energy : t.time);
  reasons.push(
    `${ranked.length} different candidates were verified and timed (${problem.count} trials, ${failed} failed).` +
      (byEnergy ? ' The energy of a call counts, not its time.' : ''),
  );
  const others = ranked.filter((t) => t.config !== trial.config && value(t) > 0);
  const runner = byEnergy ? others.sort((a, b) => a.energy - b.energy)[0] : others[0];
  if (runner && value(trial) > 0) {
    const ahead = value(runner) / value(trial) - 1;
    const sure = byEnergy ? null : probabilityBelow(problem.samples(trial), problem.samples(runner));
    reasons.push(
      (ahead >= 0
        ? `It is ${percent(ahead, 1)} ahead of the next one (${changes(trial.config, runner.config)}: ${num(runner.time, 'µs')}).`
        : `Another one has a lower number (${changes(trial.config, runner.config)}: ${num(runner.time, 'µs')}), not by enough, or not from timing in turns: finalists are timed again in turns, and only a significant gain replaces a winner.`) +
        (sure !== null && Number.isFinite(sure) ? ` ${percent(sure)} of the pairs of a sample of each say that it is the faster one (50 % would be no difference).` : ''),
    );
  }
  if (trial.isFinal) reasons.push(`It won the final: ${trial.reason.replace(/^finalist: /, '')}.`);
  const standard = problem.all().find((t) => t.isDefault && t.ok);
  if (trial.isDefault) reasons.push('It is the default candidate: nothing that was tried is better.');
  else if (row.gain && standard)
    reasons.push(`It is ${times(row.gain)} as fast as the default candidate; different are ${changes(standard.config, trial.config)}.`);
  else if (row.gain) reasons.push(`It is ${times(row.gain)} as fast as the default candidate.`);
  const roof = ceilings[problem.device];
  if (problem.flops > 0 && problem.bytes > 0 && roof.tflops > 0 && roof.gbps > 0) {
    const work = problem.flops / roof.tflops / 1e6;
    const moves = problem.bytes / roof.gbps / 1e3;
    const share = roofShare(problem, trial.time);
    reasons.push(
      `${work > moves ? 'Arithmetic' : 'Memory'} bounds this problem: ${num(Math.max(work, moves), 'µs')} at the roof, so it is at ${percent(share)} of it` +
        (share < 0.3 ? '; a short kernel that waits for launches and latency looks like this too.' : '.'),
    );
  }
  if (place > 0 && !byEnergy && !trial.isFinal) reasons.push(`By median alone it is number ${place + 1} of ${ranked.length}.`);
  return h('ul', { class: 'reasons' }, reasons.map((reason) => h('li', {}, reason)));
}

// Candidates that differ from the winner in one parameter: what each choice is worth.
function neighbours(trial, ranked) {
  const near = ranked
    .map((t) => ({ t, diff: difference(trial.config, t.config) }))
    .filter(({ diff }) => diff.length === 1)
    .map(({ t, diff: [[name, mine, other]] }) => ({ t, name, mine, other, cost: t.time / trial.time - 1 }));
  if (near.length === 0) return h('p', {}, 'The search tried no candidate that differs from the winner in one parameter only.');
  return table({
    id: 'neighbours',
    caption: 'Candidates that differ from the winner in one parameter',
    columns: [
      { label: 'Parameter', value: (r) => r.name, show: (r) => r.name },
      { label: 'Winner', value: (r) => r.mine, show: (r) => r.mine },
      { label: 'Instead', value: (r) => r.other, show: (r) => r.other },
      { label: 'Time µs', numeric: true, value: (r) => r.t.time, show: (r) => num(r.t.time) },
      { label: 'Costs', numeric: true, largeFirst: true, value: (r) => r.cost, show: (r) => `${r.cost >= 0 ? '+' : ''}${percent(r.cost, 1)}` },
    ],
    rows: near,
    sort: 4,
    descending: true,
  });
}

function convergence(problem, timing) {
  const trials = problem.all();
  let best = Infinity;
  const searched = [];
  const finals = [];
  const line = [];
  trials.forEach((trial, number) => {
    if (trial.ok && trial.timing === timing) {
      const point = { x: number + 1, y: trial.time, trial };
      (trial.isFinal ? finals : searched).push(point);
      if (!trial.isFinal) best = Math.min(best, trial.time);
    }
    if (Number.isFinite(best)) line.push({ x: number + 1, y: best });
  });
  const failed = trials.filter((t) => !t.ok).map((t) => ({ x: t.number + 1, y: best, trial: t }));
  const last = searched.findIndex((p) => p.y <= best);
  return h(
    'div',
    {},
    plot({
      summary: `Search: ${trials.length} trials; best of ${num(best)} microseconds found at trial ${last < 0 ? 'none' : searched[last].x}`,
      series: [
        { label: 'best so far', points: line, colour: 'roof', line: 'step' },
        { label: 'candidates', points: searched, colour: 'dot' },
        { label: 'finals, in turns', points: finals, colour: 'winner' },
        { label: 'failed', points: failed, colour: 'bad', radius: 2 },
      ],
      x: { title: 'trial', min: 0, max: trials.length, whole: true },
      y: { title: 'time µs', log: true },
      about: ({ trial }) => [trial.config, trial.ok ? num(trial.time, 'µs') : `${trial.status}: ${trial.reason}`],
    }),
    last >= 0 && h('p', { class: 'note' }, `The best time of the search came at trial ${searched[last].x} of ${trials.length}. Failed trials stand at the bottom.`),
  );
}

function importanceBox(problem, row) {
  const timing = row.trial.timing;
  const variant = paramsOf(row.trial.config).get('variant');
  const box = h('div');
  const scope = h(
    'select',
    { id: 'scope', onchange: () => draw() },
    h('option', { value: 'one' }, 'this problem'),
    h('option', { value: 'all' }, `all problems of ${problem.op} on this device, each over its own best`),
  );
  function draw() {
    const pool = scope.value === 'one' ? [problem] : problems.filter((p) => p.op === problem.op && p.side === problem.side);
    const lists = pool.map((p) => p.ranked(timing)).filter((list) => list.length > 0);
    const all = points(lists);
    const variants = importance(all).filter((p) => p.name === 'variant');
    const data = all.filter((d) => d.params.get('variant') === variant);
    const found = [...variants, ...importance(data).filter((p) => p.name !== 'variant')];
    if (data.length < 5 || found.length === 0) {
      box.replaceChildren(h('p', {}, `Too few candidates to say: ${data.length}${variant ? ` of variant ${variant}` : ''}.`));
      return;
    }
    const bars = h(
      'table',
      { class: 'bars' },
      h('caption', {}, `Share of the variance of log time that a parameter explains alone; ${data.length} candidates${variant ? ` of variant ${variant}` : ''}`),
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Parameter'), h('th', { scope: 'col' }, 'Share'), h('th', { scope: 'col' }, 'Values: how far from the best the best of each is'))),
      h(
        'tbody',
        {},
        found.map((p) =>
          h(
            'tr',
            {},
            h('th', { scope: 'row' }, p.name),
            h('td', { class: 'bar' }, h('span', { style: { '--share': String(p.share) } }), percent(p.share)),
            h('td', {}, p.values.map((v) => h('span', { class: 'value', title: `${v.count} candidates` }, `${v.value}: +${percent(v.best - 1)}`))),
          ),
        ),
      ),
    );
    const names = found.filter((p) => p.name !== 'variant').map((p) => p.name);
    const pick = (id, chosen) =>
      h('select', { id, onchange: () => heat() }, names.map((name, number) => h('option', { value: name, selected: number === chosen }, name)));
    const a = pick('pair-rows', 0);
    const b = pick('pair-columns', Math.min(1, names.length - 1));
    const map = h('div');
    const heat = () => map.replaceChildren(heatMap(data, a.value, b.value));
    box.replaceChildren(
      h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Importance of parameters' }, bars),
      h('p', { class: 'note' }, 'The search goes where it is fast, so this is what the tried candidates tell, not the whole space.'),
      names.length > 1 ? h('div', {}, h('h3', {}, 'Pairs'), h('p', { class: 'controls' }, h('label', {}, 'Rows ', a), h('label', {}, 'Columns ', b)), map) : '',
    );
    if (names.length > 1) heat();
  }
  draw();
  return h('div', {}, h('p', { class: 'controls' }, h('label', {}, 'From ', scope)), box);
}

function heatMap(data, a, b) {
  const grid = pairGrid(data, a, b);
  const heatOf = (slow) => Math.min(1, Math.log(slow) / Math.log(4));  // full colour at four times the best
  return h(
    'div',
    { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': `Heat map of ${a} and ${b}` },
    h(
      'table',
      { class: 'heat' },
      h('caption', {}, `How far from the best the best candidate with each pair is, and how many there are`),
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, `${a} ╲ ${b}`), grid.columns.map((column) => h('th', { scope: 'col' }, column)))),
      h(
        'tbody',
        {},
        grid.rows.map((row) =>
          h(
            'tr',
            {},
            h('th', { scope: 'row' }, row),
            grid.columns.map((column) => {
              const cell = grid.at(row, column);
              return cell
                ? h('td', { style: { '--heat': heatOf(cell.best).toFixed(3) }, title: `median +${percent(cell.median - 1)}` }, `+${percent(cell.best - 1)}`, h('small', {}, `${cell.count}`))
                : h('td', { class: 'none' }, '');
            }),
          ),
        ),
      ),
    ),
  );
}

const kStrips = 10;
function distribution(problem, ranked, winner) {
  const shown = [winner, ...ranked.filter((t) => t.config !== winner.config)].slice(0, kStrips);
  const standard = ranked.find((t) => t.isDefault);
  if (standard && !shown.includes(standard) && standard.config !== winner.config) shown.push(standard);
  const strips = shown.map((trial) => ({ trial, samples: problem.samples(trial) })).filter((s) => s.samples.length > 0);
  if (strips.length === 0) return h('p', {}, 'The file has no samples of these candidates.');
  const name = (trial) => (trial === winner ? 'winner' : trial.isDefault ? 'default' : `number ${ranked.indexOf(trial) + 1}`);
  const dots = (at) => strips[at].samples.map((x, i) => ({ x, y: at + 1 + (((i * 7919) % 97) / 97 - 0.5) * 0.5, trial: strips[at].trial }));
  const all = strips.map((_, at) => at);
  const high = quantile(strips.flatMap((s) => s.samples).sort((a, b) => a - b), 0.995);
  return h(
    'div',
    {},
    plot({
      tall: true,
      summary: `Samples of the ${strips.length} fastest candidates, one strip each`,
      series: [
        { label: 'medians', points: strips.map((s, at) => ({ x: median(s.samples), y: at + 1, trial: s.trial })), colour: 'roof', radius: 4 },
        { label: 'samples of the winner', points: dots(0), colour: 'winner', radius: 2 },
        { label: 'of the others', points: all.slice(1).flatMap(dots), colour: 'dot', radius: 2 },
      ],
      x: { title: 'time µs', max: high * 1.01 },
      y: { title: '', min: 0.4, max: strips.length + 0.6, reverse: true, step: 1, tick: (v) => (Number.isInteger(v) && strips[v - 1] ? name(strips[v - 1].trial) : '') },
      about: ({ x, trial }) => [name(trial), trial.config, num(x, 'µs')],
    }),
    h('p', { class: 'note' }, 'Every sample that was taken; the slowest half per cent may lie right of the plot.'),
    histogram(ranked),
  );
}

// How many candidates are how far from the best.
function histogram(ranked) {
  const limits = [1.02, 1.05, 1.1, 1.25, 1.5, 2, 4, Infinity];
  const counts = limits.map((limit, at) => ranked.filter((t) => t.time / ranked[0].time <= limit && (at === 0 || t.time / ranked[0].time > limits[at - 1])).length);
  const most = Math.max(...counts);
  return h(
    'table',
    { class: 'bars' },
    h('caption', {}, 'Candidates by their distance from the best'),
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Slower by'), h('th', { scope: 'col' }, 'Candidates'))),
    h('tbody', {}, limits.map((limit, at) =>
      h('tr', {}, h('th', { scope: 'row' }, Number.isFinite(limit) ? `up to ${percent(limit - 1)}` : 'more'), h('td', { class: 'bar' }, h('span', { style: { '--share': String(counts[at] / most) } }), String(counts[at]))),
    )),
  );
}

function failures(problem) {
  const kinds = new Map();
  for (const trial of problem.all()) {
    if (trial.ok || trial.status === 'compiled') continue;
    // The same rule with other numbers is the same kind.
    const kind = `${trial.status}: ${trial.reason.replace(/\d+(\.\d+)?/g, 'N')}`;
    if (!kinds.has(kind)) kinds.set(kind, []);
    kinds.get(kind).push(trial);
  }
  if (kinds.size === 0) return h('p', {}, 'No candidate failed.');
  return h(
    'div',
    {},
    [...kinds.values()]
      .sort((a, b) => b.length - a.length)
      .map((list) =>
        h(
          'details',
          {},
          h('summary', {}, `${list.length} × ${list[0].status}: ${list[0].reason}${list.length > 1 ? ' …' : ''}`),
          h('ul', {}, list.slice(0, 50).map((t) => h('li', {}, h('code', { class: 'config' }, t.config), ` ${t.reason}`))),
          list.length > 50 && h('p', {}, `and ${list.length - 50} more, in the table of candidates`),
        ),
      ),
  );
}

function candidates(problem) {
  const best = problem.all().filter((t) => t.ok).reduce((least, t) => Math.min(least, t.time), Infinity);
  return table({
    id: 'candidates',
    caption: 'Every trial',
    search: 'parameter=value, status, reason',
    columns: [
      {
        label: 'Candidate',
        value: (t) => t.config,
        text: (t) => `${t.config} ${t.status} ${t.reason}`,
        show: (t) => {
          const details = h('details', {}, h('summary', {}, h('code', { class: 'config' }, t.config)));
          details.addEventListener('toggle', () => details.childElementCount === 1 && details.append(trialDetails(t)));
          return details;
        },
      },
      { label: 'Trial', numeric: true, value: (t) => t.number + 1, show: (t) => String(t.number + 1) },
      { label: 'End', value: (t) => t.status, show: (t) => h('span', { class: t.ok ? '' : 'failed' }, t.status.replaceAll('_', ' ')) },
      { label: 'Time µs', numeric: true, value: (t) => t.time, show: (t) => num(t.time) },
      { label: 'Of best', numeric: true, value: (t) => (t.ok ? best / t.time : null), largeFirst: true, show: (t) => (t.ok ? percent(best / t.time) : '') },
      { label: 'Registers', numeric: true, value: (t) => t.registers, show: (t) => t.registers ?? '' },
      { label: 'LDS', numeric: true, value: (t) => t.lds, show: (t) => bytes(t.lds) },
      { label: 'Waves', numeric: true, value: (t) => t.occupancy, show: (t) => t.occupancy ?? '' },
      { label: 'Spills', numeric: true, value: (t) => t.spills, show: (t) => t.spills ?? '' },
    ],
    rows: problem.all(),
    sort: 3,
  });
}

function trialFacts(t) {
  return facts([
    ['time', t.time ? `${num(t.time)} ± ${num(t.mad)} µs (median, MAD)` : ''],
    ['timing', t.timing],
    ['energy of a call', num(t.energy, 'µJ')],
    ['registers', t.registers],
    ['spills', t.spills],
    ['LDS', bytes(t.lds)],
    ['occupancy', t.occupancy && `${t.occupancy} waves`],
    ['clock', t.clock && `${t.clock} MHz`],
    ['temperature', t.temperature && `${t.temperature} °C`],
    ['held down by', t.throttle],
    ['worst error', t.error === null ? '' : `${num(t.error)} of the allowed`],
    ['same bits each launch', t.deterministic === null ? '' : t.deterministic ? 'yes' : 'no'],
    ['compiling', num(t.compileSeconds, 's')],
    ['verifying', num(t.verifySeconds, 's')],
    ['recorded', moment(t.at)],
    ['compiler', t.compiler.split('\n').filter(Boolean).join(' · ')],
    ['source', h('code', {}, t.sourceHash)],
  ]);
}

function trialDetails(t) {
  const line = repeatLine(t.problem, t.config);
  return h('div', { class: 'details' }, t.reason && h('p', {}, t.reason), trialFacts(t), line && code(line, 'the command'));
}

function winnerBox(row) {
  const { problem, winner, trial } = row;
  const again = repeatLine(problem, trial.config);
  const source = winner.source
    ? (() => {
        const details = h('details', { id: 'source' }, h('summary', {}, `Source (${winner.kernels.length} kernel${winner.kernels.length === 1 ? '' : 's'}: ${winner.kernels.join(', ')})`));
        details.addEventListener('toggle', () => {
          if (details.childElementCount === 1) details.append(code(sourceText(winner), 'the source'));
        });
        return details;
      })()
    : h('p', {}, `Its source is not here: ${winner.source_note}.`);
  return h(
    'div',
    {},
    h('p', { class: 'chips' }, [...paramsOf(trial.config)].map(([name, value]) => h('code', {}, name === 'variant' ? value : `${name}=${value}`))),
    facts([
      ['speed', `${num(problem.tflops(trial.time), 'TFLOP/s')}, ${num(problem.gbps(trial.time), 'GB/s')}`],
      ['of the roof', percent(roofShare(problem, trial.time))],
      ['over the default', times(row.gain)],
      ['serves', winner.serves && `${winner.serves.dim} ${winner.serves.first}…${winner.serves.last}, expected ${percent(winner.serves.loss, 1)} behind the best`],
    ]),
    trialFacts(trial),
    again ? [h('h3', {}, 'Repeat it'), code(again, 'the command')] : '',
    h('h3', {}, 'Source'),
    h('p', { class: 'note' }, !winner.source ? '' : winner.source_note ? `Not what was timed, but what kgen ${made.version} makes now: ${winner.source_note}.` : `Made again by kgen ${made.version}; its hash is that of what was timed.`),
    source,
  );
}

export function problemView(number, winnerNumber) {
  const problem = problems[number];
  if (!problem) return [h('h1', {}, 'No such problem'), h('p', {}, h('a', { href: '#/' }, 'Back to the overview'))];
  const own = rows.filter((row) => row.problem === problem);
  const row = own[winnerNumber] ?? own[0];
  const step = (to, label) => (problems[to] ? h('a', { href: `#/problem/${to}` }, label) : '');
  const head = [
    h('p', { class: 'path' }, h('a', { href: '#/' }, 'Overview'), ' ', step(number - 1, '← previous'), ' ', step(number + 1, 'next →')),
    h('h1', {}, problem.op, h('small', {}, ` ${problem.dims}`)),
    facts([
      ['label', problem.label],
      ['signature', problem.signature],
      ['device', `${problem.deviceOf.name} (${problem.deviceOf.arch}), ${problem.deviceOf.driver}`],
      ['file', problem.fileOf.path],
      ['work', `${num(problem.flops / 1e9, 'GFLOP')}, ${bytes(problem.bytes)} at least`],
    ]),
    own.length > 1 &&
      h('nav', { 'aria-label': 'Winners', class: 'goals' }, own.map((r) => h('a', { href: `#/problem/${number}/${r.number}`, 'aria-current': r === row && 'page' }, r.goal + (r.winner.serves ? ` for ${r.winner.serves.dim} ${r.winner.serves.first}…${r.winner.serves.last}` : '')))),
  ];
  if (!row.trial && row.untimed)
    return [...head, section('Untimed default', h('p', {}, `The default candidate, compiled for ${problem.deviceOf.arch} and run on no card: ${row.untimed.reason}.`)), section('Candidates', candidates(problem))];
  if (!row.trial)
    return [...head, section('Winner', h('p', {}, 'None of its own: no candidate was published for this shape (one that covers a range of sizes stands at the size where it was timed).')), section('Failures', failures(problem)), section('Candidates', candidates(problem))];
  const ranked = problem.ranked(row.trial.timing);
  return [
    ...head,
    section(`Winner: ${num(row.trial.time)} µs`, winnerBox(row)),
    section('Why it won', whyItWon(row, ranked), neighbours(row.trial, ranked)),
    section(`Roofline of ${problem.op}`, operatorRoofline(problem)),
    section('Convergence of the search', convergence(problem, row.trial.timing)),
    section('Parameters', importanceBox(problem, row)),
    section('Distribution of times', distribution(problem, ranked, row.trial)),
    section('Failures', failures(problem)),
    section('Candidates', candidates(problem)),
  ];
}

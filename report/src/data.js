// The document that cli/cmd_report.cpp writes, as objects. Everything in it comes from files: it is only ever shown as text.
const raw = JSON.parse(document.getElementById('data').textContent);

export const made = { version: raw.kgen_version, at: raw.made_at_ms };
export const files = raw.files;
export const devices = raw.devices;

const text = (number) => raw.texts[number];
const verified = new Set(['timed', 'stopped_early']);

const parsed = new Map();
// "matrix tile_m=128" → Map {variant → matrix, tile_m → 128}
export function paramsOf(config) {
  let params = parsed.get(config);
  if (!params) {
    params = new Map();
    for (const word of config.split(' ').filter(Boolean)) {
      const at = word.indexOf('=');
      if (at < 0) params.set('variant', word);
      else params.set(word.slice(0, at), word.slice(at + 1));
    }
    parsed.set(config, params);
  }
  return params;
}

class Problem {
  constructor(item, number) {
    Object.assign(this, item);
    this.number = number;
    this.columns = item.trials;
    this.count = this.columns.status.length;
    this.deviceOf = devices[this.device];
    this.fileOf = files[this.file];
    this.side = `${this.file}/${this.device}`;
    this.key = `${this.signature} | ${this.dims}`;
    this.trials = undefined;
  }
  // Every trial, oldest first.
  all() {
    if (!this.trials) {
      const c = this.columns;
      this.trials = Array.from({ length: this.count }, (_, i) => ({
        number: i,
        problem: this,
        config: text(c.config[i]),
        status: text(c.status[i]),
        reason: text(c.reason[i]),
        timing: text(c.timing[i]),
        throttle: text(c.throttle[i]),
        compiler: text(c.compiler[i]),
        sourceHash: text(c.source_hash[i]),
        isDefault: c.is_default[i] === 1,
        isFinal: text(c.reason[i]).startsWith('finalist'),
        ok: verified.has(text(c.status[i])) && c.time_us[i] > 0,
        time: c.time_us[i],
        mad: c.mad_us[i],
        energy: c.energy_uj[i],
        compileSeconds: c.compile_seconds[i],
        verifySeconds: c.verify_seconds[i],
        error: c.max_error_ratio[i],
        registers: c.registers[i],
        spills: c.spills[i],
        lds: c.lds_bytes[i],
        occupancy: c.occupancy_waves[i],
        clock: c.clock_mhz[i],
        temperature: c.temperature_c[i],
        deterministic: c.deterministic[i],
        at: c.recorded_at_ms[i],
      }));
    }
    return this.trials;
  }
  // Microseconds of a trial, in the order taken.
  samples(trial) {
    return this.columns.samples_ns[trial.number].filter((ns) => ns !== null).map((ns) => ns / 1000);
  }
  // Verified candidates as they were timed for `timing`, each once with its last trial, fastest first.
  ranked(timing) {
    const last = new Map();
    for (const trial of this.all()) if (trial.ok && trial.timing === timing) last.set(trial.config, trial);
    return [...last.values()].sort((a, b) => a.time - b.time);
  }
  tflops(time) {
    return this.flops / time / 1e6;
  }
  gbps(time) {
    return this.bytes / time / 1e3;
  }
}

export const problems = raw.problems.map((item, number) => new Problem(item, number));

// One row a winner; problems without one have a row that says so.
export const rows = problems.flatMap((problem) => {
  const failed = problem.columns.status.filter((s) => !verified.has(text(s)) && text(s) !== 'compiled').length;
  // A default that was compiled and never run here: what is known of it.
  const untimed = problem.all().find((trial) => trial.status === 'compiled');
  const common = { problem, tried: problem.count, failed, untimed };
  if (problem.winners.length === 0) return [{ ...common, winner: null, trial: null, goal: '' }];
  return problem.winners.map((winner, number) => {
    const trial = problem.all()[winner.trial];
    return {
      ...common,
      winner,
      trial,
      number,
      goal: winner.goal,
      gain: winner.default_us && trial.time ? winner.default_us / trial.time : null,
    };
  });
});

export const sourceText = (winner) => winner.source.map((block) => raw.blocks[block]).join('\n\n');

export const shellQuoted = (word) => (/^[\w./=,:+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
// The command that repeats a trial; '' where this kgen does not know the problem.
export function repeatLine(problem, config) {
  const known = problem.winners.find((w) => w.repeat.length === 2);
  return known ? known.repeat.join(shellQuoted(config)) : '';
}

// Sides to compare: each device of each file.
export const sides = [...new Map(problems.map((p) => [p.side, p])).values()].map((p) => ({
  id: p.side,
  name: `${p.deviceOf.name} (${p.deviceOf.arch})${files.length > 1 ? `, ${p.fileOf.path}` : ''}`,
}));

// The ceilings of the roofline by device: the best that anything in the files reached on it, until the reader knows better.
export const ceilings = devices.map((_, device) => {
  let tflops = 0;
  let gbps = 0;
  for (const problem of problems) {
    if (problem.device !== device) continue;
    const times = problem.columns.time_us.filter((time) => time > 0);
    const best = times.reduce((a, b) => Math.min(a, b), Infinity);
    if (!Number.isFinite(best)) continue;
    tflops = Math.max(tflops, problem.tflops(best));
    gbps = Math.max(gbps, problem.gbps(best));
  }
  return { tflops, gbps, seenTflops: tflops, seenGbps: gbps };
});

// Least time that the ceilings allow over the measured one; null where it is not known.
export function roofShare(problem, time) {
  const { tflops, gbps } = ceilings[problem.device];
  if (!(tflops > 0) || !(gbps > 0) || !(time > 0)) return null;
  return Math.max(problem.flops / tflops / 1e6, problem.bytes / gbps / 1e3) / time;
}

// Numbers about candidates. All of them are of what the search tried: it looks where it is fast, so they are no even sample.
import { paramsOf } from './data.js';

export function quantile(sorted, q) {
  if (sorted.length === 0) return NaN;
  const at = (sorted.length - 1) * q;
  const low = Math.floor(at);
  return sorted[low] + (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]) * (at - low);
}
export const median = (values) => quantile([...values].sort((a, b) => a - b), 0.5);
export const geomean = (values) => Math.exp(values.reduce((sum, v) => sum + Math.log(v), 0) / values.length);

// How often a sample of `a` is below one of `b`, ties counted half: 0.5 = no difference (Mann-Whitney U over its maximum).
export function probabilityBelow(a, b) {
  const sorted = [...b].sort((x, y) => x - y);
  const count = (value, orEqual) => {
    let low = 0;
    let high = sorted.length;
    while (low < high) {
      const mid = (low + high) >> 1;
      if (orEqual ? sorted[mid] <= value : sorted[mid] < value) low = mid + 1;
      else high = mid;
    }
    return low;
  };
  let wins = 0;
  for (const value of a) {
    const below = count(value, false);
    const equal = count(value, true) - below;
    wins += sorted.length - below - equal + equal / 2;
  }
  return wins / (a.length * b.length);
}

const byNumber = (a, b) => {
  const [x, y] = [Number(a), Number(b)];
  return Number.isNaN(x) || Number.isNaN(y) ? String(a).localeCompare(String(b)) : x - y;
};

// {params, y} of trials; y is the logarithm of the time over the best of its problem, so that problems can be pooled.
export function points(lists) {
  return lists.flatMap((ranked) =>
    ranked.map((trial) => ({ trial, params: paramsOf(trial.config), y: Math.log(trial.time / ranked[0].time) })),
  );
}

// Share of the variance of log time that each parameter explains alone: epsilon squared of a one-way analysis of variance,
// which does not grow by chance with the number of values as eta squared does.
export function importance(data) {
  const n = data.length;
  if (n < 3) return [];
  const mean = data.reduce((sum, d) => sum + d.y, 0) / n;
  const total = data.reduce((sum, d) => sum + (d.y - mean) ** 2, 0);
  const names = new Set(data.flatMap((d) => [...d.params.keys()]));
  const result = [];
  for (const name of names) {
    const groups = new Map();
    for (const d of data) {
      const value = d.params.get(name) ?? '–';
      if (!groups.has(value)) groups.set(value, []);
      groups.get(value).push(d.y);
    }
    if (groups.size < 2) continue;
    let within = 0;
    for (const ys of groups.values()) {
      const own = ys.reduce((sum, y) => sum + y, 0) / ys.length;
      within += ys.reduce((sum, y) => sum + (y - own) ** 2, 0);
    }
    const freedom = n - groups.size;
    const share =
      total > 0 && freedom > 0 ? Math.max(0, (total - within - ((groups.size - 1) * within) / freedom) / total) : 0;
    const values = [...groups].sort(([a], [b]) => byNumber(a, b));
    result.push({ name, share, values: values.map(([value, ys]) => ({ value, count: ys.length, best: Math.exp(Math.min(...ys)) })) });
  }
  return result.sort((a, b) => b.share - a.share);
}

// Best and median slowdown for each pair of values of two parameters.
export function pairGrid(data, a, b) {
  const cells = new Map();
  const rows = new Set();
  const columns = new Set();
  for (const d of data) {
    const row = d.params.get(a);
    const column = d.params.get(b);
    if (row === undefined || column === undefined) continue;
    rows.add(row);
    columns.add(column);
    const key = `${row}\n${column}`;
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(d.y);
  }
  return {
    rows: [...rows].sort(byNumber),
    columns: [...columns].sort(byNumber),
    at(row, column) {
      const ys = cells.get(`${row}\n${column}`);
      return ys && { best: Math.exp(Math.min(...ys)), median: Math.exp(median(ys)), count: ys.length };
    },
  };
}

// Parameters whose values differ: [name, in a, in b].
export function difference(a, b) {
  const [x, y] = [paramsOf(a), paramsOf(b)];
  return [...new Set([...x.keys(), ...y.keys()])]
    .filter((name) => x.get(name) !== y.get(name))
    .map((name) => [name, x.get(name) ?? '–', y.get(name) ?? '–']);
}

// Elements, number formats, and the one table of the page.
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'class') element.className = value;
    else if (name === 'value') element.value = value;
    else if (name === 'style') Object.entries(value).forEach(([key, v]) => element.style.setProperty(key, v));
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function num(value, unit = '') {
  if (value === null || value === undefined || Number.isNaN(value)) return '';
  const size = Math.abs(value);
  const digits = size === 0 || size >= 1000 ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : 3;
  if (size > 0 && size < 0.01) return value.toPrecision(2) + (unit && ` ${unit}`);
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits }) + (unit && ` ${unit}`);
}
export const percent = (share, digits = 0) => (share === null || share === undefined ? '' : `${(100 * share).toFixed(digits)} %`);
export const times = (factor) => (factor ? `${factor.toFixed(2)}×` : '');
export const bytes = (value) => {
  if (value === null || value === undefined) return '';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    ++at;
  }
  return `${at ? value.toFixed(1) : value} ${units[at]}`;
};
export const moment = (ms) => (ms ? new Date(ms).toISOString().slice(0, 19).replace('T', ' ') + ' UTC' : 'not known');

// Long lists are shown a page at a time, more as the reader comes near the end.
const kPage = 100;

// columns: {label, value(row) for sorting and searching, show(row) → node or text, numeric}. A search field above where
// `search` names it, and `sought.text` keeps what was typed; `onRows(rows)` hears what is left.
export function table({ caption, columns, rows, sort, descending = false, search, sought = { text: '' }, onRows, id }) {
  const body = h('tbody');
  const status = h('p', { class: 'status', role: 'status' });
  const more = h('button', { type: 'button', class: 'more', onclick: () => grow() });
  let by = sort;
  let down = descending;
  let shown = [];
  let end = 0;

  const heads = columns.map((column, number) => {
    const button = h('button', { type: 'button', onclick: () => order(number) }, column.label);
    return h('th', { scope: 'col', class: column.numeric && 'number' }, button);
  });
  function order(number) {
    down = by === number ? !down : Boolean(columns[number].numeric && columns[number].largeFirst);
    by = number;
    update();
  }
  function grow() {
    for (const row of shown.slice(end, end + kPage)) {
      body.append(
        h(
          'tr',
          {},
          columns.map((column, number) =>
            h(
              number === 0 ? 'th' : 'td',
              { class: column.numeric && 'number', 'data-label': column.label, scope: number === 0 && 'row' },
              column.show(row),
            ),
          ),
        ),
      );
    }
    end = Math.min(end + kPage, shown.length);
    more.hidden = end >= shown.length;
    more.textContent = `Show more (${end} of ${shown.length})`;
  }
  const haystack = new Map();
  const textOf = (row) => {
    if (!haystack.has(row)) haystack.set(row, columns.map((c) => String(c.text?.(row) ?? c.value(row) ?? '')).join(' ').toLowerCase());
    return haystack.get(row);
  };
  function update() {
    const wanted = sought.text.toLowerCase().split(/\s+/).filter(Boolean);
    shown = rows.filter((row) => wanted.every((word) => textOf(row).includes(word)));
    if (by !== undefined) {
      const key = columns[by].value;
      const empty = (v) => v === null || v === undefined || v === '' || Number.isNaN(v);
      shown.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (empty(x) || empty(y)) return empty(x) - empty(y);  // what is not known comes last
        const order = typeof x === 'number' ? x - y : String(x).localeCompare(String(y), 'en', { numeric: true });
        return down ? -order : order;
      });
    }
    heads.forEach((head, number) => {
      if (number === by) head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      else head.removeAttribute('aria-sort');
    });
    body.replaceChildren();
    end = 0;
    grow();
    const all = `${rows.length} row${rows.length === 1 ? '' : 's'}`;
    status.textContent = shown.length === rows.length ? all : `${shown.length} of ${all}`;
    onRows?.(shown);
  }
  let timer;
  const field =
    search &&
    h('input', {
      type: 'search',
      id: `${id}-search`,
      placeholder: search,
      value: sought.text,
      autocomplete: 'off',
      spellcheck: 'false',
      oninput: (event) => {
        clearTimeout(timer);
        timer = setTimeout(() => {
          sought.text = event.target.value;
          update();
        }, 80);
      },
    });
  new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && end < shown.length) grow();
  }, { rootMargin: '400px' }).observe(more);
  const element = h(
    'div',
    { class: 'listing', id },
    field && h('label', { class: 'search' }, h('span', {}, 'Search'), field),
    status,
    h(
      'div',
      { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption },
      h('table', {}, h('caption', {}, caption), h('thead', {}, h('tr', {}, heads)), body),
      more,
    ),
  );
  update();
  return element;
}

export function copyButton(text, what) {
  const button = h('button', { type: 'button', 'aria-label': `Copy ${what}` }, 'Copy');
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = 'Copied';
    } catch {  // a page from a file may not be let at the clipboard
      button.textContent = 'Select and copy by hand';
    }
    setTimeout(() => (button.textContent = 'Copy'), 2000);
  });
  return button;
}

export const code = (text, what) => h('div', { class: 'code' }, h('pre', { tabindex: '0' }, text), copyButton(text, what));

export const section = (title, ...children) => h('section', {}, h('h2', {}, title), children);

export const facts = (pairs) =>
  h(
    'dl',
    { class: 'facts' },
    pairs.filter(([, value]) => value !== '' && value !== null && value !== undefined).map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))),
  );

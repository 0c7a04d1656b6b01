// node page_test.mjs NODE_MODULES CHROMIUM PAGE.html [SCREENSHOTS]: real clicks and keys on a page in a headless browser. Prints
// what failed and exits with 1. The page is of tests/cli/report_test.cpp: two files, of which one has hostile texts.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, executablePath, file, pictures] = process.argv.slice(2);
const { chromium } = createRequire(join(resolve(modules), 'x'))('playwright-core');
const address = pathToFileURL(resolve(file)).href;

const args = process.getuid() === 0 ? ['--no-sandbox'] : [];
const browser = await chromium.launch({ executablePath, args });
const failed = [];
let ran = 0;

async function test(name, body, options = {}) {
  const context = await browser.newContext({ offline: true, viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const complaints = [];
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('dialog', (dialog) => (complaints.push(`dialog: ${dialog.message()}`), dialog.dismiss()));
  page.on('request', (request) => {
    const url = request.url().split('#')[0];
    if (url !== address && !url.startsWith('data:')) complaints.push(`asked for ${url}`);
  });
  ++ran;
  try {
    await page.goto(address);
    await page.waitForSelector('h1');
    await body(page);
    assert.deepEqual(complaints, []);
    if (pictures) await page.screenshot({ path: join(pictures, `${name.replaceAll(/\W+/g, '_')}.png`), fullPage: true });
  } catch (error) {
    failed.push(name);
    console.error(`FAILED ${name}: ${error.stack}`);
  }
  await context.close();
}

const go = async (page, hash) => {
  await page.goto(address + hash);
  await page.waitForTimeout(100);
};
const column = (page, label) => page.$$eval(`#overview tbody [data-label="${label}"]`, (cells) => cells.map((c) => Number(c.textContent.replaceAll(',', ''))).filter((n) => n > 0));
// Does a chart show anything but its background?
const drawn = (page) =>
  page.$$eval('canvas', (all) =>
    all.map((canvas) => {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      let points = 0;
      for (let i = 3; i < data.length; i += 4) points += data[i] > 0;
      return points;
    }),
  );

await test('TheOverviewListsEveryProblemAndTheSearchNarrowsIt', async (page) => {
  const rows = page.locator('#overview tbody tr');
  const all = await rows.count();
  assert.ok(all >= 4, `${all} rows`);
  await page.fill('#overview-search', 'gemm M=16');
  await page.waitForFunction((n) => document.querySelectorAll('#overview tbody tr').length < n, all);
  for (const row of await rows.allTextContents()) assert.match(row, /gemm.*m=16/);
  await page.fill('#overview-search', 'no such thing');
  await page.waitForFunction(() => document.querySelectorAll('#overview tbody tr').length === 0);
});

await test('AClickOnAColumnSortsByItAndASecondTurnsItRound', async (page) => {
  const head = page.locator('#overview thead th', { hasText: 'Time' });
  await head.locator('button').click();
  assert.equal(await head.getAttribute('aria-sort'), 'ascending');
  const up = await column(page, 'Time µs');
  assert.ok(up.length >= 2);
  assert.deepEqual(up, [...up].sort((a, b) => a - b));
  await head.locator('button').click();
  assert.equal(await head.getAttribute('aria-sort'), 'descending');
  assert.deepEqual(await column(page, 'Time µs'), up.reverse());
});

await test('AProblemTellsItsWinnerWhyItWonAndShowsTheSourceThatWasTimed', async (page) => {
  await page.click('#overview tbody a:has-text("gemm")');
  await page.waitForSelector('h1:has-text("gemm")');
  for (const title of ['Winner', 'Why it won', 'Roofline', 'Convergence', 'Parameters', 'Distribution', 'Failures', 'Candidates'])
    assert.equal(await page.locator('h2', { hasText: title }).count(), 1, title);
  assert.match(await page.textContent('.reasons'), /verified and timed/);
  assert.match(await page.textContent('main'), /kgen verify <\(echo .*op: gemm.* --config '[^']+' --device host/);
  await page.click('#source summary');
  const source = await page.textContent('#source pre');
  const name = (await page.textContent('#source summary')).match(/: (\w+)/)[1];
  assert.ok(source.includes(name) && source.split('\n').length > 100);
  const points = await drawn(page);
  assert.ok(points.length >= 3 && points.every((n) => n > 500), String(points));
});

await test('ACandidateOpensWithItsRegistersAndTheCommandThatRepeatsIt', async (page) => {
  await page.click('#overview tbody a:has-text("gemm")');
  const first = page.locator('#candidates tbody details').first();
  const config = await first.locator('summary').textContent();
  await first.locator('summary').click();
  assert.ok((await first.locator('pre').textContent()).includes(`--config '${config}'`));
  assert.match(await first.locator('.facts').textContent(), /compiler/);
});

await test('TenThousandCandidatesAreAllThereAndFewOfThemAreRows', async (page) => {
  await page.click('#overview tbody a:has-text("many")');
  await page.waitForSelector('#candidates .status:has-text("10000 rows")');
  assert.ok((await page.locator('#candidates tbody tr').count()) <= 300);
  await page.fill('#candidates-search', 'spills');
  await page.waitForSelector('#candidates .status:has-text("1000 of 10000")');
  assert.match(await page.textContent('main'), /1000 × pruned: spills/);
  assert.ok((await drawn(page)).every((n) => n > 500));
  const started = Date.now();
  const chart = page.locator('section:has(h2:has-text("Convergence")) canvas');
  await chart.scrollIntoViewIfNeeded();
  const box = await chart.boundingBox();
  const tip = page.locator('section:has(h2:has-text("Convergence")) .tip');
  for (let i = 0; i < 100 && !(await tip.isVisible()); ++i) await page.mouse.move(box.x + 100 + 5 * i, box.y + box.height / 2);
  assert.match(await tip.textContent(), /wide a=\d b=\d c=\d+/);
  console.log(`a dot of 10,000 told of itself after ${Date.now() - started} ms`);
});

await test('TextsFromAFileStayTexts', async (page) => {
  await page.click('#overview tbody a:has-text("<img")');
  await page.waitForSelector('h1:has-text("<img")');
  assert.match(await page.textContent('main'), /<\/script><script>alert\(1\)<\/script>/);
  assert.equal(await page.locator('main img').count(), 0);
  await go(page, '#/provenance');
  assert.match(await page.textContent('main'), /<b>Card<\/b>/);
});

await test('TwoDevicesStandSideBySide', async (page) => {
  await page.click('nav a:has-text("Compare")');
  await page.waitForSelector('#summary');
  assert.match(await page.textContent('#summary'), /^1 problem in common; right is 2.00× as fast/);
  const [left, right] = await page.$$eval('#left, #right', (all) => all.map((s) => s.value));
  await page.selectOption('#left', right);
  await page.selectOption('#right', left);
  await page.waitForSelector('#summary:has-text("right is 0.50×")');
});

await test('TheKeyboardAloneReachesAProblem', async (page) => {
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.className), 'skip');
  await page.keyboard.press('Enter');
  for (let i = 0; i < 40 && !(await page.evaluate(() => document.activeElement.closest('#overview tbody'))); ++i) await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await page.waitForSelector('h2:has-text("Candidates")');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
});

const background = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
await test('ItIsDarkWhereTheSystemIsAndLightOnRequest', async (page) => {
  const dark = await background(page);
  await page.click('#theme');
  assert.notEqual(await background(page), dark);
  await page.reload();
  assert.equal(await page.textContent('#theme'), 'Theme: light');
}, { colorScheme: 'dark' });

await test('NothingIsWiderThanAPhone', async (page) => {
  const hashes = ['#/', '#/compare', '#/provenance', ...(await page.$$eval('#overview tbody a', (all) => all.map((a) => a.getAttribute('href'))))];
  for (const hash of hashes) {
    await go(page, hash);
    assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= 390, hash);
  }
}, { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });

await browser.close();
console.log(`${ran - failed.length} of ${ran} passed`);
process.exit(failed.length > 0 ? 1 : 0);

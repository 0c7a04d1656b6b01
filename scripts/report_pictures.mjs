// Pictures of a report for the documentation, by headless Chromium:
//   xz -dk docs/results/spaces_h100.db.xz && kgen db check docs/results/spaces_h100.db && kgen report docs/results/spaces_h100.db -o report.html
//   node scripts/report_pictures.mjs out/build/dev/report/node_modules /usr/bin/chromium report.html docs/pictures
//   pngquant --force --ext .png 64 docs/pictures/report_*.png
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, executablePath, file, folder] = process.argv.slice(2);
const { chromium } = createRequire(join(resolve(modules), 'x'))('playwright-core');
const browser = await chromium.launch({ executablePath, args: process.getuid() === 0 ? ['--no-sandbox'] : [] });
const pictures = [
  ['report_overview', '#/', { viewport: { width: 1280, height: 860 } }],
  ['report_problem', '#/problem/0', { viewport: { width: 1280, height: 1100 } }],
  ['report_dark', '#/problem/0', { viewport: { width: 1200, height: 960 }, colorScheme: 'dark' }, 'Roofline of gemm'],
  ['report_phone', '#/', { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true }],
];
for (const [name, address, options, heading] of pictures) {
  const context = await browser.newContext({ offline: true, ...options });
  const page = await context.newPage();
  await page.goto(pathToFileURL(resolve(file)).href + address);
  await page.waitForSelector('h1');
  if (heading) await page.getByRole('heading', { name: heading }).evaluate((h) => h.parentElement.scrollIntoView());
  await page.waitForTimeout(1000); // the charts' animations
  await page.screenshot({ path: join(folder, `${name}.png`) });
  await context.close();
}
await browser.close();

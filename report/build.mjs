// node build.mjs OUT.cpp [OUT.html]: bundles src/ into one document and writes it as a C++ source. Runs where node_modules is.
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const packages = createRequire(join(process.cwd(), 'package.json'));
const esbuild = packages('esbuild');
const source = fileURLToPath(new URL('src/', import.meta.url));

async function bundled(entry) {
  const result = await esbuild.build({
    entryPoints: [join(source, entry)],
    bundle: true,
    minify: true,
    write: false,
    charset: 'utf8',
    legalComments: 'inline',
    target: ['chrome100', 'firefox100', 'safari15.4'],
    nodePaths: [join(process.cwd(), 'node_modules')],
  });
  return result.outputFiles[0].text.trim();
}

const script = (await bundled('main.js')).replaceAll('</script', '<\\/script');
const style = await bundled('page.css');
// The page runs this script and no other, and fetches nothing.
const hash = createHash('sha256').update(script, 'utf8').digest('base64');
const page = readFileSync(join(source, 'page.html'), 'utf8')
  .replace('{{script_hash}}', () => `sha256-${hash}`)
  .replace('{{style}}', () => style)
  .replace('{{script}}', () => script);

const [out, html] = process.argv.slice(2);
if (html) writeFileSync(html, page);
// Compilers limit the length of one literal; neighbours are joined.
const pieces = page.match(/[^]{1,8000}/gu).map((piece) => `R"kgen-page(${piece})kgen-page"`);
writeFileSync(out, `#include "report/page.h"

namespace kgen {

const std::string_view kReportPage =
${pieces.join('\n')};

}  // namespace kgen
`);

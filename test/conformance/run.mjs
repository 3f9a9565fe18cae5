// node test/conformance/run.mjs SOURCE MOUNT [--json]
//
// Checks a read-only mount against the folder that it should show: about 130 checks, each by itself. Knows nothing of
// Rozen; needs its build (dist/) for the calls that Node lacks. Exit code 1 when a check fails. A check for which the
// source holds no example is skipped; `make.mjs FOLDER` makes a folder with an example of everything.
import { realpathSync } from 'node:fs';
import attributes from './checks/attributes.mjs';
import content from './checks/content.mjs';
import names from './checks/names.mjs';
import system from './checks/system.mjs';
import xattrs from './checks/xattrs.mjs';
import { Skip, Survey } from './survey.mjs';

const GROUPS = { names, attributes, content, xattrs, system };

const words = process.argv.slice(2).filter((word) => !word.startsWith('--'));
if (words.length !== 2) {
  process.stderr.write('usage: node test/conformance/run.mjs SOURCE MOUNT [--json]\n');
  process.exit(2);
}
const [source, mount] = words.map((word) => realpathSync(word));
const json = process.argv.includes('--json');
const survey = new Survey(source, mount);
const results = [];
for (const [group, checks] of Object.entries(GROUPS)) {
  for (const [title, check] of checks) {
    const result = { group, title, outcome: 'pass', why: '' };
    try {
      await check(survey);
    } catch (error) {
      result.outcome = error instanceof Skip ? 'skip' : 'fail';
      result.why = String(error.message).split('\n').slice(0, 2).join(' ').slice(0, 200);
    }
    results.push(result);
    if (!json && result.outcome !== 'pass')
      process.stdout.write(`${result.outcome}  ${group}: ${title}: ${result.why}\n`);
  }
}
const count = (outcome) => results.filter((result) => result.outcome === outcome).length;
if (json) process.stdout.write(`${JSON.stringify(results)}\n`);
else process.stdout.write(`${count('pass')} passed, ${count('fail')} failed, ${count('skip')} skipped\n`);
process.exit(count('fail') > 0 ? 1 : 0);

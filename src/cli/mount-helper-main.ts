/** Where `mount.rozen` begins: takes mount(8)'s arguments and goes on as `rozen mount`. */
import { RozenError } from '../errors.ts';
import { EXIT } from './exit.ts';
import { helperArguments } from './mount-helper.ts';

function say(text: string): void {
  process.stderr.write(`mount.rozen: ${text}\n`);
}

try {
  const { argv, fake, warnings } = helperArguments(process.argv.slice(2));
  for (const warning of warnings) say(warning);
  if (!fake) {
    process.argv.splice(2, process.argv.length, ...argv);
    await import('./main.ts');
  }
} catch (error) {
  if (!(error instanceof RozenError)) throw error;
  process.stderr.write(`${error.message}${error.hint === undefined ? '' : `; ${error.hint}`}\n`);
  process.exitCode = EXIT.usage;
}

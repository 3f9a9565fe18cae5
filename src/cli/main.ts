/** Where the program begins. What need not wait for the parser of the command line is done before it is loaded. */
import module from 'node:module';
import { COMMANDS, commandWord } from './catalog.ts';
import { version } from './version.ts';

const argv = process.argv.slice(2);

// Node 22 keeps compiled code between runs, for what is loaded from here on.
(module as { enableCompileCache?: () => void }).enableCompileCache?.();

if (argv[0] === '--version' || argv[0] === '-V') {
  process.stdout.write(`rozen ${version()}\n`);
} else {
  const spec = COMMANDS.find(({ name }) => name === commandWord(argv));
  if (spec?.early !== undefined && !argv.some((word) => word === '-h' || word === '--help')) await spec.early(argv);
  const { runProgram } = await import('./program.ts');
  process.exit(await runProgram(argv));
}

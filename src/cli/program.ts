import { Command, type CommanderError, Option } from 'commander';
import { RozenError } from '../errors.ts';
import { COMMANDS, commandWord, GLOBAL_OPTIONS } from './catalog.ts';
import type { CommandSpec, OptionSpec } from './command.ts';
import { EXIT, exitCodeOf } from './exit.ts';
import { nearest } from './values.ts';
import { version } from './version.ts';

function toOption(spec: OptionSpec): Option {
  const option = new Option(
    spec.flags,
    spec.env === undefined ? spec.description : `${spec.description} (${spec.env})`,
  );
  if (spec.choices !== undefined) option.choices(spec.choices);
  if (spec.repeat) option.argParser((value: string, previous: string[] | undefined) => [...(previous ?? []), value]);
  return option;
}

function helpTail(spec: CommandSpec): string {
  const width = Math.max(...spec.examples.map(([line]) => line.length));
  const inline = width <= 60;
  const lines = spec.examples.map(([line, does]) =>
    inline ? `  ${line.padEnd(width)}  # ${does}` : `  # ${does}\n  ${line}`,
  );
  return `${spec.details === undefined ? '' : `\n${spec.details}\n`}\nExamples:\n${lines.join('\n')}`;
}

export type Invocation = { spec: CommandSpec; args: string[]; options: Record<string, unknown> };

/** Help goes to a pipe more often than not, and `head` closes it early. */
function print(text: string): void {
  process.stdout.on('error', () => process.exit(EXIT.closedOutput));
  process.stdout.write(text);
}

/** The commander tree of the whole catalogue. `invoke` is told which command was named. */
function buildProgram(invoke: (invocation: Invocation) => void): Command {
  const program = new Command('rozen');
  program
    .description('Immutable, encrypted archives of folders, mounted read-only in milliseconds')
    .usage('[-r REPO] <command> [options]')
    .exitOverride()
    .configureOutput({ writeOut: print, outputError: () => {} })
    .configureHelp({ showGlobalOptions: true, sortSubcommands: false })
    .addHelpText(
      'after',
      `
Examples:
  rozen init /backup/rozen
  export ROZEN_REPOSITORY=/backup/rozen
  rozen backup ~/Documents --set documents
  rozen mount ~/mnt          # then browse ~/mnt/snapshots
  rozen umount ~/mnt

Exit codes: 0 done; 1 failed; 2 usage; 3 done, but some files could not be read; 4 local files are missing or changed
(verify --against, WORM sets);
5 corruption found; 6 wrong passphrase or no key; 7 cold data must be thawed first; 130 interrupted.`,
    );
  program.option('-V, --version', 'print the version');
  program.on('option:version', () => {
    process.stdout.write(`rozen ${version()}\n`);
    process.exit(EXIT.done);
  });
  for (const spec of GLOBAL_OPTIONS) program.addOption(toOption(spec));
  for (const spec of COMMANDS) addCommand(program, spec, invoke);
  addHelpCommand(program);
  return program;
}

/** `help key add`. commander's own one looks at the first word only, and takes a word that it does not know for no word. */
function addHelpCommand(parent: Command): void {
  const help = parent.helpCommand(false).command('help [command...]').summary('help for a command');
  help.helpOption(false).action((words: string[]) => {
    let command = parent;
    for (const word of words) {
      const inner = command.commands.find((it) => it.name() === word);
      if (inner === undefined) throw unknownCommand(word, command);
      command = inner;
    }
    command.help();
  });
}

function unknownCommand(word: string, parent: Command): RozenError {
  const near = nearest(
    word,
    parent.commands.map((command) => command.name()),
  );
  const names = parent.parent === null ? '' : `${parent.name()} `;
  return new RozenError('usage', `unknown command '${names}${word}'`, {
    hint: near !== undefined ? `did you mean ${names}${near}?` : `see rozen ${names}--help`,
  });
}

function addCommand(parent: Command, spec: CommandSpec, invoke: (invocation: Invocation) => void): void {
  const command = parent.command(spec.name).summary(spec.summary).description(spec.summary);
  command.configureHelp({ showGlobalOptions: true });
  for (const argument of spec.arguments ?? []) {
    const made = command.createArgument(argument.name, argument.description);
    if (argument.choices !== undefined) made.choices(argument.choices);
    command.addArgument(made);
  }
  for (const option of spec.options ?? []) command.addOption(toOption(option));
  command.addHelpText('after', helpTail(spec));
  for (const inner of spec.subcommands ?? []) addCommand(command, inner, invoke);
  if (spec.subcommands !== undefined) addHelpCommand(command);
  else command.action(() => invoke({ spec, args: command.args, options: command.opts() }));
}

/** Two of commander's messages in plainer words. */
function plain(message: string): string {
  return message
    .replace(
      /^too many arguments for '(.*)'\. Expected (\d+) .* got (\d+).*$/,
      "too many arguments for '$1': $3 where $2 fit",
    )
    .replace(
      /^command-argument value (.*) is invalid for argument '(.*)'\. Allowed choices are (.*)$/,
      '$1 is no $2; it is one of $3',
    )
    .replace(/\.$/, '');
}

/** commander's message as one of ours: `error: unknown option '--st'\n(Did you mean --set?)` → one line with a hint. */
function usageError(error: CommanderError, program: Command, word: string | undefined): RozenError {
  const [first = '', ...rest] = error.message.replace(/^error: /, '').split('\n');
  const meant = /\(Did you mean (?:one of )?(.*?)\?\)/.exec(rest.join(' '))?.[1];
  let hint = meant === undefined ? undefined : `did you mean ${meant}?`;
  if (hint === undefined && error.code === 'commander.unknownCommand') {
    const near = nearest(
      /'(.*)'/.exec(first)?.[1] ?? '',
      program.commands.map((c) => c.name()),
    );
    if (near !== undefined) hint = `did you mean ${near}?`;
  }
  const named = program.commands.find((c) => c.name() === word);
  hint ??= `see rozen ${named === undefined ? '' : `${named.name()} `}--help`;
  return new RozenError('usage', plain(first), { hint });
}

/** find(1)'s single-dash words, as people type them. */
const FIND_WORDS: ReadonlyMap<string, readonly string[]> = new Map([
  ['-type', ['--type']],
  ['-size', ['--size']],
  ['-newer', ['--newer']],
  ['-name', ['--name']],
  ['-iname', ['--ignore-case', '--name']],
  ['-older', ['--older']],
]);

function acceptFindWords(argv: readonly string[]): readonly string[] {
  return commandWord(argv) === 'find' ? argv.flatMap((word) => FIND_WORDS.get(word) ?? [word]) : argv;
}

/** `--size -10M`: commander would take the value for an option, so it is joined to its flag. */
function joinNegativeValues(words: readonly string[]): string[] {
  const joined: string[] = [];
  for (let i = 0; i < words.length; i++) {
    const next = words[i + 1];
    if (words[i] === '--size' && next !== undefined && /^-\d/.test(next)) {
      joined.push(`--size=${next}`);
      i++;
    } else {
      joined.push(words[i] as string);
    }
  }
  return joined;
}

/** Parses the words of the command line, runs, prints the error if there is one; answers the exit code. */
export async function runProgram(argv: readonly string[]): Promise<number> {
  let invocation: Invocation | undefined;
  const program = buildProgram((named) => {
    invocation = named;
  });
  try {
    try {
      program.parse(joinNegativeValues(acceptFindWords(argv)), { from: 'user' });
    } catch (error) {
      const code = (error as CommanderError).code;
      if (code === 'commander.helpDisplayed') return EXIT.done;
      if (code === 'commander.help') return argv.includes('help') ? EXIT.done : EXIT.usage;
      if (typeof code === 'string' && code.startsWith('commander.'))
        throw usageError(error as CommanderError, program, commandWord(argv));
      throw error;
    }
    if (invocation === undefined) throw new RozenError('usage', 'no command is named', { hint: 'see rozen --help' });
    const { runCommand } = await import('./run.ts');
    return await runCommand(invocation, program);
  } catch (thrown) {
    const { asRozenError, errorLine, errorStack } = await import('./failure.ts');
    const error = asRozenError(thrown);
    process.stderr.write(`${errorLine(error)}\n`);
    if (argv.includes('--debug')) process.stderr.write(`${errorStack(thrown)}\n`);
    return exitCodeOf(error);
  }
}

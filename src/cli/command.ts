import type { Context } from './context.ts';

/** What a shell offers for a value. */
type Completion = 'file' | 'directory' | 'none';

export interface OptionSpec {
  /** As commander writes it: `-t, --tag <tag>`. */
  flags: string;
  description: string;
  choices?: readonly string[];
  /** May be given several times; the values are collected in an array. */
  repeat?: boolean;
  /** The environment variable that stands in for it; shown in the help. */
  env?: string;
  complete?: Completion;
}

interface ArgumentSpec {
  /** As commander writes it: `<dir>`, `[snapshot...]`. */
  name: string;
  description: string;
  choices?: readonly string[];
  complete?: Completion;
}

/** One example of the help: the command line, and what it does. */
type Example = readonly [line: string, does: string];

export interface CommandSpec {
  name: string;
  summary: string;
  /** More sentences for the help of this command. */
  details?: string;
  arguments?: readonly ArgumentSpec[];
  options?: readonly OptionSpec[];
  examples: readonly Example[];
  subcommands?: readonly CommandSpec[];
  /** Ends by itself on SIGINT and SIGTERM through `context.signal`; others are simply ended. */
  stopsItself?: boolean;
  /** Goes on when the reader of stdout has gone. */
  survivesClosedOutput?: boolean;
  /** Work that may begin before the command line is checked, and costs nothing if it turns out to be wrong. */
  early?: (argv: readonly string[]) => Promise<void>;
  load?: () => Promise<CommandModule>;
}

interface CommandModule {
  /** Answers the exit code; nothing means 0. */
  // biome-ignore lint/suspicious/noExplicitAny: commander's options are checked by the catalogue, each command names its own
  run(context: Context, args: string[], options: any): Promise<number | undefined>;
}

import type { Command } from 'commander';
import { RozenError } from '../errors.ts';
import type { CommandSpec } from './command.ts';
import { Context, type GlobalOptions } from './context.ts';
import { EXIT } from './exit.ts';
import { Output } from './output.ts';
import type { Invocation } from './program.ts';

function endOnSignals(spec: CommandSpec, out: Output): AbortSignal {
  const controller = new AbortController();
  let stopping = false;
  const stop = (signal: NodeJS.Signals): void => {
    if (!spec.stopsItself || stopping) {
      process.exit(EXIT.interrupted);
    }
    stopping = true;
    if (signal === 'SIGINT' && process.stderr.isTTY) out.message('stopping; press Ctrl-C again to stop at once');
    controller.abort(new RozenError('interrupted', `interrupted by ${signal}`));
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, stop);
  return controller.signal;
}

/** Runs the command that was named; answers the exit code, throws what went wrong. */
export async function runCommand({ spec, args, options }: Invocation, program: Command): Promise<number> {
  const global = program.opts<GlobalOptions>();
  const out = new Output({
    json: global.json === true,
    quiet: global.quiet === true,
    survivesClosedOutput: spec.survivesClosedOutput === true,
  });
  const context = new Context(out, global, endOnSignals(spec, out));
  if (spec.load === undefined) {
    const { completionScript } = await import('./completion.ts');
    out.write(completionScript(args[0] as string, program));
    await out.flush();
    return EXIT.done;
  }
  const command = await spec.load();
  try {
    const code = await command.run(context, args, options);
    await out.flush();
    return code || (context.foundDamage ? EXIT.corrupt : EXIT.done);
  } finally {
    await context.close();
  }
}

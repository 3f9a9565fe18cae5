import type { Context } from '../context.ts';
import { formatTable, formatTime, isoTime } from '../display.ts';

export async function run(context: Context): Promise<undefined> {
  const repository = await context.open('none');
  const { keyList } = await import('../../repository/keys.ts');
  const { keys, errors, recipients, writers } = await keyList(repository);
  const { out } = context;
  for (const error of errors) out.warning(error.message);
  if (out.json) {
    out.document({
      location: repository.store.location,
      fingerprint: repository.fingerprint,
      keys: keys.map((key) => ({ ...key, created: isoTime(key.created) })),
      recipients,
      writers: writers.map((writer) => ({ ...writer, enrolled: isoTime(writer.enrolled) })),
    });
    return;
  }
  out.line(`repository  ${repository.store.location}`);
  out.line(`fingerprint ${repository.fingerprint}`);
  out.line('');
  const keyRows = keys.map((key) => [key.id.slice(0, 8), key.kind, formatTime(key.created), key.label ?? '(sealed)']);
  for (const line of formatTable(['KEY', 'KIND', 'MADE', 'LABEL'], keyRows)) out.line(line);
  out.line('');
  for (const recipient of recipients) out.line(`recipient ${shorten(recipient)}`);
  out.line('');
  const writerRows = writers.map((writer) => [
    writer.id.slice(0, 8),
    formatTime(writer.enrolled),
    `${writer.name ?? '(sealed)'}${writer.isThisMachine ? ' (this machine)' : ''}`,
  ]);
  for (const line of formatTable(['WRITER', 'ENROLLED', 'NAME'], writerRows)) out.line(line);
}

/** A hybrid recipient has some 1,900 characters: --json shows all of them. */
function shorten(recipient: string): string {
  return recipient.length <= 100 ? recipient : `${recipient.slice(0, 40)}…${recipient.slice(-8)}`;
}

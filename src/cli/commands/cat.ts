import { RozenError } from '../../errors.ts';
import type { OpenPlace } from '../../snapshot/view/place.ts';
import type { Context } from '../context.ts';
import { printableName } from '../display.ts';
import { requireHot } from '../frozen.ts';
import { Places } from '../places.ts';

export async function run(context: Context, args: string[]): Promise<undefined> {
  const repository = await context.open('read');
  const places = new Places(context, repository);
  const { ContentReader } = await import('../../snapshot/view/content.ts');
  try {
    const files: OpenPlace[] = [];
    for (const arg of args) files.push(await openFile(places, arg));
    await requireHot(context, repository, files);
    for (const { reader, content = reader, attributes } of files)
      for await (const piece of new ContentReader(content).read(attributes)) await context.out.send(piece);
  } finally {
    places.close();
  }
}

async function openFile(places: Places, text: string): Promise<OpenPlace> {
  const { S_IFDIR, S_IFMT, S_IFREG } = await import('../../snapshot/view/attributes.ts');
  const place = await places.openToRead(text);
  const type = place.attributes.mode & S_IFMT;
  if (type === S_IFREG) return place;
  const shown = printableName(place.path.at(-1) ?? Buffer.from('/'));
  throw new RozenError('usage', `${shown} is ${type === S_IFDIR ? 'a folder' : 'no regular file'}`, {
    hint: type === S_IFDIR ? 'see rozen ls, or name a file: SNAPSHOT:PATH' : 'only regular files have content',
  });
}

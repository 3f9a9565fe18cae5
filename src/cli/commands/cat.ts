import { RozenError } from '../../errors.ts';
import type { Context } from '../context.ts';
import { printableName } from '../display.ts';
import { Places } from '../places.ts';

export async function run(context: Context, args: string[]): Promise<undefined> {
  const repository = await context.open('read');
  const places = new Places(context, repository);
  const { ContentReader } = await import('../../snapshot/view/content.ts');
  const { S_IFDIR, S_IFMT, S_IFREG } = await import('../../snapshot/view/attributes.ts');
  for (const arg of args) {
    const { reader, content = reader, attributes, path } = await places.openToRead(arg);
    const type = attributes.mode & S_IFMT;
    if (type !== S_IFREG) {
      const shown = printableName(path.at(-1) ?? Buffer.from('/'));
      throw new RozenError('usage', `${shown} is ${type === S_IFDIR ? 'a folder' : 'no regular file'}`, {
        hint: type === S_IFDIR ? 'see rozen ls, or name a file: SNAPSHOT:PATH' : 'only regular files have content',
      });
    }
    for await (const piece of new ContentReader(content).read(attributes)) await context.out.send(piece);
  }
  places.close();
}

/** Lines of a unified diff between two texts. The only file that imports diff. */
export async function textDiff(archived: string, local: string): Promise<string[]> {
  const { createTwoFilesPatch } = await import('diff');
  const patch = createTwoFilesPatch('archived', 'here', archived, local, '', '', { context: 2 });
  // The first line is a ruler of equal signs.
  return patch.replace(/\n$/, '').split('\n').slice(1);
}

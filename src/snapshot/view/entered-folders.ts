import { corrupt } from '../../errors.ts';
import { InodeSet } from '../backup/inode-set.ts';

/** Each folder has one name: the same one again would lead whoever goes through a damaged tree round in circles. */
export class EnteredFolders {
  readonly #inodes = new InodeSet();

  /** Throws 'corrupt' for a folder that was entered before. */
  enter(inode: number): void {
    if (this.#inodes.has(inode)) throw corrupt(`folder ${inode} has more than one name`);
    this.#inodes.add(inode);
  }
}

/** Something stands where an entry is to be, and restore does not remove it. */
export class Occupied extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'Occupied';
  }
}

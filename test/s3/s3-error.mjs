/** What the server answers instead of a result. */
export class S3Error extends Error {
  constructor(status, code, message = code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

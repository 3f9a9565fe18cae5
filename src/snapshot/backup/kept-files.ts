/** Files that Rozen itself leaves beside those of a WORM set: they belong to this machine and are in no snapshot of the set. */
export const KEPT_NAME = /\.rozen-(diverged|writing)-\d{8}T\d{6}Z(-\d+)?$/;

/** Why a backup skips them. */
export const KEPT_REASON = 'kept by Rozen';

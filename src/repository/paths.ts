import { createHash } from 'node:crypto';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';

/* Where Rozen keeps things on this machine. The XDG specification says: an unset, empty or relative variable does not count. */

/** Pins, writer secrets, spools, local databases: must survive a reboot. `ROZEN_STATE_DIR` overrides. */
export function stateHome(): string {
  return own('ROZEN_STATE_DIR') ?? join(xdg('XDG_STATE_HOME', '.local/state'), 'rozen');
}

/** Sealed blocks and pages: may be deleted at any time. `ROZEN_CACHE_DIR` overrides. */
export function cacheHome(): string {
  return own('ROZEN_CACHE_DIR') ?? join(xdg('XDG_CACHE_HOME', '.cache'), 'rozen');
}

/** `config.toml` lies here. `ROZEN_CONFIG_DIR` overrides. */
export function configHome(): string {
  return own('ROZEN_CONFIG_DIR') ?? join(xdg('XDG_CONFIG_HOME', '.config'), 'rozen');
}

/** Everything that this machine knows about one repository: `pin.cbor`, `writer.cbor`, and what backup and mount keep. */
export function repositoryStateDir(repositoryId: Uint8Array): string {
  return join(stateHome(), 'repositories', Buffer.from(repositoryId).toString('hex'));
}

export function repositoryCacheDir(repositoryId: Uint8Array): string {
  return join(cacheHome(), 'repositories', Buffer.from(repositoryId).toString('hex'));
}

/** Which repository was last seen at a place; the name is a hash because locations hold slashes and are long. */
export function locationPinPath(location: string): string {
  const name = createHash('sha256').update(location).digest('hex').slice(0, 32);
  return join(stateHome(), 'locations', `${name}.cbor`);
}

function own(variable: string): string | undefined {
  const value = process.env[variable];
  return value !== undefined && isAbsolute(value) ? value : undefined;
}

function xdg(variable: string, fallback: string): string {
  return own(variable) ?? join(homedir(), fallback);
}

export declare const CREDENTIALS: { accessKeyId: string; secretAccessKey: string };
export declare const FAULTS: FaultKind[];
export type FaultKind = '403' | '500' | '503' | 'reset' | 'lost' | 'stall' | 'cut' | 'flip';

export interface S3Request {
  method: string;
  headers: Record<string, string>;
  operation: string;
  bucket: string;
  key: string;
  query: URLSearchParams;
}

export interface Fault {
  kind: FaultKind;
  /** How many requests meet it; default 1. */
  times?: number;
  operation?: string;
  match?: (request: S3Request) => boolean;
}

export interface StoredVersion {
  id: string;
  size: number;
  storageClass: string;
  deleted: boolean;
  etag: string;
  lock?: { mode: string; until: string };
}

export interface S3ServerOptions {
  port?: number;
  /** Where objects lie; default a temporary folder that `close` removes. */
  dir?: string;
  /** Made if they are not there. */
  buckets?: string[];
  region?: string;
  keys?: Record<string, string>;
  /** Milliseconds before each request. */
  latency?: number;
  /** How long a RestoreObject takes, milliseconds. */
  restoreMs?: number;
  faultRate?: number;
  faultKinds?: FaultKind[];
  seed?: number;
  clock?: () => number;
  /** File that gets a line of JSON for each request that was answered. */
  log?: string;
}

export interface S3Server {
  readonly endpoint: string;
  readonly port: number;
  latency: number;
  restoreMs: number;
  thawRefusal: string | null;
  skew: number;
  region: string;
  requests: {
    operation: string;
    key: string;
    status: number;
    range: string | undefined;
    bytes: number;
    part?: number;
  }[];
  faults: Fault[];
  chaos: { rate: number; kinds: FaultKind[] };
  readonly objects: {
    /** Objects of cold classes are read at once, as on servers whose classes only bear those names. */
    freezes: boolean;
    put(bucket: string, key: string, object: { body: Uint8Array }): void;
    makeBucket(name: string, options?: { lock?: boolean }): void;
    readonly buckets: Map<string, { lock: boolean; keys: Map<string, { versions: StoredVersion[] }> }>;
    goneUpload: string;
    listsJoined: boolean;
    /** If-None-Match is ignored. */
    overwrites: boolean;
    readonly uploads: Map<string, { id: string; key: string; parts: { number: number; size: number }[] }>;
  };
  count(...operations: string[]): number;
  reset(): void;
  close(): Promise<void>;
}

export declare function startS3(options?: S3ServerOptions): Promise<S3Server>;
